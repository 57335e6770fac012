"""The images on which arms differ most, with the place where they do enlarged and the true boundaries drawn over every prediction.

H W rows, columns, K classes. Images are uint8 `[H, W, 3]`, masks and predictions uint8 `[H, W]`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segkit.figures.style import ACCENT, GREY, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 1.15  # inches of one picture
LEAST = 24  # pixels of the side of an enlarged window
NEAR = 4  # pixels


@dataclass(frozen=True)
class Example:
    """One image as several arms see it.

    Args:
        title: Its name and why it is shown.
        image: uint8 `[H, W, 3]`.
        mask: The truth.
        predictions: By arm; the baseline's is the first.
        scores: What is said above each prediction, by arm.
    """

    title: str
    image: np.ndarray
    mask: np.ndarray
    predictions: Mapping[str, np.ndarray]
    scores: Mapping[str, str]


def window(example: Example, ignore_index: int) -> tuple[int, int, int]:
    """Top, left and side of the square in which most scored pixels are labelled differently by some arm and the baseline.

    Pixels within `NEAR` of a true boundary count; where arms differ at none, all do.
    """
    first, *others = example.predictions.values()
    apart = np.logical_or.reduce([first != other for other in others]) if others else first != example.mask
    apart = apart & (example.mask != ignore_index)
    near = apart & near_boundary(example.mask, ignore_index)
    apart = near if near.any() else apart
    height, width = apart.shape
    side = min(height, width, max(LEAST, min(height, width) // 4))
    total = np.zeros((height + 1, width + 1), np.int64)
    total[1:, 1:] = apart.cumsum(0).cumsum(1)
    inside = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    top, left = np.unravel_index(inside.argmax(), inside.shape)
    return int(top), int(left), side


def near_boundary(mask: np.ndarray, ignore_index: int) -> np.ndarray:
    """The pixels with two scored labels within `NEAR` pixels, along rows, columns and diagonals: bool `[H, W]`."""
    from scipy.ndimage import maximum_filter, minimum_filter

    ignored, size = mask == ignore_index, 2 * NEAR + 1
    near: np.ndarray = maximum_filter(np.where(ignored, 0, mask), size) > minimum_filter(np.where(ignored, 255, mask), size)
    return near


def boundaries(mask: np.ndarray) -> np.ndarray:
    """The edges between pixels of different labels as line segments `[N, 2, 2]` of (x, y), a pixel's centre being at whole numbers."""
    rows, columns = np.nonzero(mask[:, 1:] != mask[:, :-1])
    upright = np.stack([np.stack([columns + 0.5, rows - 0.5], 1), np.stack([columns + 0.5, rows + 0.5], 1)], 1)
    rows, columns = np.nonzero(mask[1:] != mask[:-1])
    level = np.stack([np.stack([columns - 0.5, rows + 0.5], 1), np.stack([columns + 0.5, rows + 0.5], 1)], 1)
    return np.concatenate([upright, level])


def draw_examples(examples: Sequence[Example], classes: Sequence[str], colors: Sequence[Sequence[int]], ignore_index: int) -> "Figure":
    """A row per example: the image with the window marked, the window, its truth, and its labels by every arm.

    Args:
        examples: With the same arms in the same order.
        classes: K names.
        colors: K triples in [0, 255].
        ignore_index: The mask value that is not scored; drawn grey.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.patches import Patch, Rectangle

    palette = np.full((256, 3), 128, np.uint8)
    palette[: len(colors)] = np.asarray(colors, np.uint8)
    arms = list(examples[0].predictions)
    size = SIDE * (3 + len(arms)), (SIDE + 0.28) * len(examples) + 0.45
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.03, wspace=0.02))
    axes = figure.subplots(len(examples), 3 + len(arms), squeeze=False)
    for example, (whole, near, truth, *predicted) in zip(examples, axes, strict=True):
        top, left, side = window(example, ignore_index)
        cut = (slice(top, top + side), slice(left, left + side))
        lines = boundaries(example.mask[cut])
        _show(whole, example.image, example.title)
        whole.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor="white", linewidth=2))
        whole.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor=ACCENT, linewidth=1.2))
        _show(near, example.image[cut], "enlarged")
        _show(truth, palette[example.mask[cut]], "truth", lines)
        for ax, (arm, labels) in zip(predicted, example.predictions.items(), strict=True):
            _show(ax, palette[labels[cut]], f"{arm} {example.scores[arm]}", lines)
    seen = np.unique(np.concatenate([labels.ravel() for e in examples for labels in (e.mask, *e.predictions.values())]))
    patches = [Patch(color=palette[k] / 255, label=classes[k]) for k in seen if k < len(classes)]
    if ignore_index in seen:
        patches.append(Patch(color=palette[ignore_index] / 255, label="ignored"))
    columns = min(len(patches), 2 + 2 * len(arms))
    figure.legend(handles=patches, loc="outside lower left", ncols=columns, fontsize=7, labelcolor=INK, frameon=False, handlelength=1)
    return figure


def _show(ax: "Axes", picture: np.ndarray, title: str, lines: np.ndarray | None = None) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    ax.imshow(picture, interpolation="none")
    for color, width in (("black", 1.6), ("white", 0.7)) if lines is not None and len(lines) else ():
        assert lines is not None
        path = Path(lines.reshape(-1, 2), np.tile([Path.MOVETO, Path.LINETO], len(lines)))
        ax.add_patch(PathPatch(path, fill=False, edgecolor=color, linewidth=width, capstyle="projecting"))
    ax.set(xticks=[], yticks=[], xlim=(-0.5, picture.shape[1] - 0.5), ylim=(picture.shape[0] - 0.5, -0.5))
    ax.set_title(title, fontsize=6.5, color=INK, pad=3)
    ax.spines[:].set(linewidth=0.5, color=GREY)
