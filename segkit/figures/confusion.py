"""The confusion matrix as a figure: what every class is taken for. Shape legend: K classes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segkit.figures.style import GREY, INK, MAGNITUDE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COUNTED, WRITTEN, SEPARATE = 12, 40, 60  # most classes whose cells have room for pixels, for per cent, and for a rule between any two
NAME = 22  # letters of a class name


def draw_confusion(matrix: np.ndarray, class_names: Sequence[str], about: str) -> "Figure":
    """Rows are the truth and add up to 100 %, columns the prediction; a row of a class without pixels is crossed out.

    Cells hold the percentage, of few classes the pixels too; below 0.5 % they stay empty where there are many. To the right of the
    matrix: the share of each class in all pixels, and its IoU.

    Args:
        matrix: Integer `[K, K]`, rows truth, columns prediction, of all pixels that are not ignored.
        class_names: K names.
        about: What was scored, for the title.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    classes, pixels = len(matrix), matrix.sum(1)
    rows = np.divide(matrix, pixels[:, None], out=np.zeros(matrix.shape), where=pixels[:, None] > 0)
    cell = float(np.interp(classes, (2, COUNTED, WRITTEN, 200), (1.0, 0.5, 0.27, 0.105)))  # inches
    letters = float(np.interp(classes, (2, COUNTED, WRITTEN, 200), (9, 8, 6.5, 4.8)))
    side = classes * cell
    size = (max(3.8, side + 1.6 + 0.085 * letters / 7 * longest(class_names)), side + 1.0 + 0.085 * letters / 7 * longest(class_names))
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04))
    ax = figure.subplots()
    # where no number says how much, a few per cent are to be seen too
    ax.imshow(rows if classes <= WRITTEN else np.sqrt(rows), cmap=MAGNITUDE, vmin=0, vmax=1, interpolation="nearest")
    if classes <= WRITTEN:
        _write(ax, rows, matrix, letters)
    for k in np.flatnonzero(pixels == 0):
        ax.plot([-0.5, classes - 0.5], [k, k], color=GREY, linewidth=0.6, linestyle=(0, (1, 3)))
    _name_axes(ax, class_names, letters)
    rules = np.arange(0, classes, 1 if classes <= SEPARATE else 10)[1:] - 0.5
    ax.set_xticks(rules, minor=True)
    ax.set_yticks(rules, minor=True)
    ax.grid(which="minor", color=GREY, linewidth=0.3, alpha=0.4)
    ax.tick_params(which="minor", length=0)
    _margin(ax, matrix, letters, letters / 7 * 0.42 / (size[0] - 1))
    ax.set_title(about, fontsize=8, color=INK, loc="left")
    figure.supxlabel(absent(matrix, class_names), fontsize=7, color=INK, x=0.01, ha="left", wrap=True)
    return figure


def absent(matrix: np.ndarray, class_names: Sequence[str]) -> str:
    """Which classes have no pixel in the truth or in the prediction, in words; empty where all have."""
    nowhere = {"without a true pixel": matrix.sum(1) == 0, "never predicted": matrix.sum(0) == 0}
    told = {what: ", ".join(name for name, missing in zip(class_names, places, strict=True) if missing) for what, places in nowhere.items()}
    return "\n".join(f"{what}: {names}" for what, names in told.items() if names)


def longest(class_names: Sequence[str]) -> int:
    """Letters of the longest name as it is shown."""
    return min(NAME, max(map(len, class_names)))


def short(name: str) -> str:
    """A name that fits beside a row."""
    return name if len(name) <= NAME else name[: NAME - 1] + "…"


def amount(pixels: float) -> str:
    """A number of pixels in three digits: 12.3k, 4.56M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if pixels >= size * 0.9995:
            return f"{pixels / size:#.3g}".rstrip(".") + unit
    return f"{pixels:.0f}"


def _write(ax: "Axes", rows: np.ndarray, matrix: np.ndarray, size: float) -> None:
    counted = len(rows) <= COUNTED
    for (row, column), share in np.ndenumerate(rows):
        if not matrix[row, column] or (share < 0.005 and not counted):
            continue
        percent = f"{100 * share:.1f}" if counted else f"{100 * share:.0f}"
        style: dict[str, Any] = {"color": "white" if share > 0.55 else INK, "ha": "center"}
        if counted:
            ax.text(column, row - 0.02, percent, fontsize=size, va="bottom", **style)
            ax.text(column, row + 0.08, amount(int(matrix[row, column])), fontsize=0.72 * size, va="top", **style)
        else:
            ax.text(column, row, percent, fontsize=size, va="center_baseline", **style)


def _name_axes(ax: "Axes", class_names: Sequence[str], size: float) -> None:
    places, names = range(len(class_names)), [short(name) for name in class_names]
    flat = len(names) * longest(names) < 40  # few short names stand side by side
    ax.set_xticks(places, names, rotation=0 if flat else 90, fontsize=size)
    ax.set_yticks(places, names, fontsize=size)
    ax.tick_params(length=0, labelcolor=INK)
    ax.set_xlabel("prediction", fontsize=8, color=INK)
    shades = "" if len(class_names) <= WRITTEN else "; shades are square roots"
    ax.set_ylabel(f"truth: every row adds up to 100 %{shades}", fontsize=8, color=INK)
    ax.spines[:].set(linewidth=0.5, color=GREY)


def _margin(ax: "Axes", matrix: np.ndarray, size: float, gap: float) -> None:
    """Share of the pixels and IoU of each class, as two columns of text beside the matrix, `gap` wide as a share of the axes."""
    hit, both = np.diagonal(matrix), matrix.sum(0) + matrix.sum(1)
    transform = ax.get_yaxis_transform()
    texts = [("pixels\n(%)", [f"{100 * n / max(1, matrix.sum()):.2g}" if n else "none" for n in matrix.sum(1)])]
    texts.append(("IoU\n(%)", [f"{100 * h / (b - h):.1f}" if b else "none" for h, b in zip(hit, both, strict=True)]))
    for column, (title, values) in enumerate(texts, start=1):
        x = 1 + gap * (0.2 + column)
        ax.text(x, -0.6, title, transform=transform, fontsize=size, color=INK, ha="right", va="bottom")
        for row, value in enumerate(values):
            ax.text(x, row, value, transform=transform, fontsize=size, color=INK, ha="right", va="center_baseline")
