"""What all figures share. They are drawn on `Figure` objects: no window, no global state; legible in grey and to the colour-blind."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segkit.errors import SegkitError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of a name in letters that the font lacks: boxes, and no lines beside
SIGNED, MAGNITUDE = "cividis", "Greys"  # colour maps, both with steadily rising lightness
INK, GREY, ACCENT, SECOND = "#222222", "#777777", "#d55e00", "#0072b2"


def picture(ax: "Axes", values: np.ndarray, colors: str, least: float, most: float) -> None:
    """Shows `values` `[H, W]` pixel by pixel, `least` and `most` at the ends of the colour map."""
    ax.imshow(values, cmap=colors, vmin=least, vmax=most, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(linewidth=0.5, color=GREY)


def write_values(ax: "Axes", values: np.ndarray, least: float, most: float, size: float) -> None:
    """Writes every value of a picture with `least` and `most` as in `picture` and colours `MAGNITUDE` into its pixel, to three digits."""
    for (row, column), value in np.ndenumerate(values):
        dark = value - least > 0.55 * (most - least)
        ax.text(column, row, f"{value:.3g}", fontsize=size, color="white" if dark else INK, ha="center", va="center_baseline")


def frame(ax: "Axes", places: np.ndarray, color: str, **style: Any) -> None:
    """Draws a box around the non-zero entries of `places` `[H, W]`."""
    from matplotlib.patches import Rectangle

    rows, columns = places.nonzero()
    (top, left), (bottom, right) = (rows.min(), columns.min()), (rows.max() + 1, columns.max() + 1)
    box = (left - 0.5, top - 0.5), int(right - left), int(bottom - top)
    ax.add_patch(Rectangle(*box, fill=False, edgecolor=color, linewidth=1.4, clip_on=False, zorder=3, **style))


def save(figure: "Figure", path: str | Path) -> None:
    """Writes a figure as the suffix says, .png at 200 dots per inch or .pdf with its letters as text.

    Raises:
        SegkitError: The file cannot be written.
    """
    from matplotlib import rc_context

    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with rc_context({"pdf.fonttype": 42}):
            figure.savefig(path, dpi=200)
    except OSError as error:
        raise SegkitError(f"cannot write {str(path)!r} ({error.strerror}); give another --out") from error
