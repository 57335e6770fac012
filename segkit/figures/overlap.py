"""The checkerboard that a transposed convolution has built in: how often each output pixel is written to.

Shapes: H rows, k kernel size, s stride, p padding, o output padding. A phase is the residue of a row (or column) mod s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segkit.config import OverlapFigureConfig
from segkit.errors import SegkitError
from segkit.figures.style import ACCENT, GREY, INK, MAGNITUDE, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 5  # rows and columns of the input in the pictures
RULE = (
    "The overlap is even where s divides k: each phase then has k/s taps. Elsewhere the taps differ by one, and a constant becomes a grid."
)


@dataclass(frozen=True)
class Geometry:
    """A transposed convolution without its weights, the same along rows and columns.

    Args:
        kernel: k.
        stride: s.
        padding: p.
        output_padding: o.
    """

    kernel: int
    stride: int
    padding: int
    output_padding: int = 0

    @property
    def excess(self) -> int:
        """Rows of the output beyond s·H: the output has (H - 1)·s - 2p + k + o of them."""
        return self.kernel + self.output_padding - 2 * self.padding - self.stride

    @property
    def counts(self) -> list[int]:
        """How many input rows write to an output row of each phase, far from the border, s numbers; over pixels their products count."""
        return [len(range((phase + self.padding) % self.stride, self.kernel, self.stride)) for phase in range(self.stride)]

    @property
    def index(self) -> float:
        """Operator index CI_op of the kernel of ones."""
        counts = np.array(self.counts, np.float64)
        return float(1 - counts.mean() ** 4 / (counts**2).mean() ** 2)

    @property
    def shift(self) -> float:
        """How many output pixels the middle of a stamped kernel lies below and right of that of the s x s pixels it stands for."""
        return (self.kernel - self.stride) / 2 - self.padding

    def overlap(self, size: int) -> np.ndarray:
        """The response of the kernel of ones to `size` x `size` ones, in the rows and columns that the output has."""
        line = np.zeros(size * self.stride + self.excess)
        for i in range(size):
            start = i * self.stride - self.padding
            line[max(start, 0) : max(start + self.kernel, 0)] += 1
        return np.outer(line, line)


def list_geometries(config: OverlapFigureConfig) -> list[Geometry]:
    """Every k with every s and p; where another output padding than 0 makes exactly s·H rows, that one as well.

    Raises:
        SegkitError: A padding crops everything away.
    """
    found = []
    for s in dict.fromkeys(config.stride):
        for k in dict.fromkeys(config.kernel):
            natural = sorted({max((k - s) // 2, 0), max((k - s + 1) // 2, 0)})
            for p in config.padding or natural:
                plain = Geometry(k, s, p)
                if SIDE * s + plain.excess < 1:
                    raise SegkitError(f"--padding {p}: with kernel {k} and stride {s} nothing is left of {SIDE} rows; give a smaller one")
                found += [plain, Geometry(k, s, p, -plain.excess)] if -s < plain.excess < 0 else [plain]
    return found


def draw_overlap(geometries: Sequence[Geometry]) -> "Figure":
    """Two kernels along one axis, and the overlap of every k and s as a picture; a kernel that s divides is named in bold.

    Where several paddings are given for one k and s, the picture is of the last: padding moves and crops the pattern, no more.
    """
    from matplotlib.figure import Figure

    shown = {(g.stride, g.kernel): g for g in geometries}
    kernels, strides = len({g.kernel for g in geometries}), list(dict.fromkeys(g.stride for g in geometries))
    columns = kernels if kernels > 2 else min(len(shown), 6)
    rows = -(-len(shown) // columns)
    heights = [1.9, 1.85 * rows + 0.4]
    figure = Figure(figsize=(max(1.25 * columns, 7.5), sum(heights)), layout="constrained")
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, g in zip(top.subplots(1, 2), (Geometry(strides[0] + 1, strides[0], 0), Geometry(2 * strides[0], strides[0], 0)), strict=True):
        _draw_stamps(ax, g)
    below = f"Below: what {SIDE} x {SIDE} ones become under a kernel of ones. CI: operator index. Bold: s divides k."
    bottom.suptitle(f"{RULE}\n{below}", fontsize=7.5, color=INK)
    axes = bottom.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(shown) :]:
        ax.axis("off")
    for ax, ((s, k), g) in zip(axes, shown.items(), strict=False):
        values = g.overlap(SIDE)
        picture(ax, values, MAGNITUDE, 0, 1.15 * values.max())
        ax.set_title(f"k {k}, s {s}", fontsize=8, color=INK, weight="bold" if k % s == 0 else "normal")
        ax.set_xlabel(f"per axis {' '.join(map(str, g.counts))}\nCI {g.index:.3f}", fontsize=7, color=INK, labelpad=2)
    return figure


def _draw_stamps(ax: "Axes", g: Geometry, size: int = SIDE) -> None:
    """The kernels that input pixels stamp onto a row of the output, one below the other, and how many lie on each output pixel."""
    from matplotlib.patches import Rectangle

    width = (size - 1) * g.stride + g.kernel
    for i in range(size):
        color = "#bbbbbb" if i % 2 else "#888888"
        ax.add_patch(Rectangle((i * g.stride, -i), g.kernel, 0.75, facecolor=color, edgecolor=INK, linewidth=0.5, clip_on=False))
    counts = [sum(i * g.stride <= m < i * g.stride + g.kernel for i in range(size)) for m in range(width)]
    for m, count in enumerate(counts):
        inside = g.kernel - g.stride <= m < width - g.kernel + g.stride
        uneven = inside and count != max(g.counts)
        ax.text(m + 0.5, -size + 0.1, str(count), fontsize=8, ha="center", color=ACCENT if uneven else INK if inside else GREY)
    ax.set(xlim=(0, width), ylim=(-size - 0.2, 1))
    ax.axis("off")
    verdict = "even" if g.kernel % g.stride == 0 else "uneven"
    ax.set_title(f"k {g.kernel}, s {g.stride} along one axis: {verdict}", fontsize=8, color=INK)
