"""A worked example of an operator: 3 x 3 numbers, all weights one, and every number of the output by way of one matrix.

Shapes: H W rows/columns, s scale, k kernel size, p padding, o output padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from segkit.errors import SegkitError
from segkit.figures.style import ACCENT, INK, MAGNITUDE, SECOND, frame, picture, write_values
from segkit.metrics import operator_index
from segkit.upsampling import is_guided

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INPUT = np.arange(1.0, 10.0).reshape(3, 3)
WRITTEN = 9  # rows and columns up to which numbers are legible


@dataclass(frozen=True)
class WorkedExample:
    """An operator with weights of one and no bias, on `INPUT`. It is linear, so its responses to single pixels are a matrix.

    Args:
        layer: The convolution in words.
        size: How the height of the output follows from that of the input, in numbers.
        kernel: One of its kernels, `[k, k]`.
        transposed: Whether the layer is a transposed convolution.
        matrix: `A`, `[s·3 · s·3, 9]`: the output, row by row, is `A` times the input, row by row.
        index: Operator index CI_op, by the responses far from the border.
    """

    layer: str
    size: str
    kernel: np.ndarray
    transposed: bool
    matrix: np.ndarray
    index: float

    @property
    def counts(self) -> np.ndarray:
        """The response to ones: how many products each output pixel adds up, `[s·3, s·3]`."""
        return self._square(self.matrix.sum(1))

    @property
    def output(self) -> np.ndarray:
        """The response to `INPUT`, `[s·3, s·3]`."""
        return self._square(self.matrix @ INPUT.ravel())

    def _square(self, values: np.ndarray) -> np.ndarray:
        side = round(len(values) ** 0.5)
        return values.reshape(side, side)


def can_be_worked(operator: type[nn.Module], scale: int) -> bool:
    """Whether an operator computes one convolution of one channel and nothing that depends on its input otherwise."""
    try:
        built = operator(1, 1, scale)
    except SegkitError:  # of more channels only
        return False
    return not is_guided(operator) and sum(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in built.modules()) == 1


@torch.no_grad()
def work_example(operator: nn.Module) -> WorkedExample:
    """Sets every weight of a one-channel operator to one and every bias to zero, in place, and reads off what it computes.

    Args:
        operator: `[B, 1, H, W] -> [B, 1, s·H, s·W]`, linear, with one convolution in it.
    """
    for name, parameter in operator.named_parameters():
        parameter.fill_(0 if name.endswith("bias") else 1)
    conv = next(m for m in operator.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d))
    matrix = operator(torch.eye(9).view(9, 1, 3, 3)).flatten(1).T
    side, k = round(len(matrix) ** 0.5), conv.kernel_size[0]
    if isinstance(conv, nn.ConvTranspose2d):
        s, p, o = conv.stride[0], int(conv.padding[0]), conv.output_padding[0]
        layer = f"k = {k}, s = {s},\np = {p}, o = {o}"
        size = f"(3 - 1)·{s} - 2·{p} + {k} + {o} = {side}"
    else:
        kernels = conv.out_channels
        layer = f"{kernels} of {k} x {k},\np = {conv.padding[0]}" if kernels > 1 else f"{k} x {k},\np = {conv.padding[0]}"
        size = f"{side // 3}·3 = {side}"
    ones, index = np.ones((k, k)), operator_index(operator, 1)
    return WorkedExample(layer, size, ones, isinstance(conv, nn.ConvTranspose2d), np.asarray(matrix), index)


def draw_example(axes: Sequence["Axes"], example: WorkedExample) -> None:
    """Input, kernel, counts, output and matrix, on five axes.

    One input pixel is followed forwards (what it is written to: a row of the matrix as drawn), one output pixel backwards.
    """
    source, kernel, counts, output, matrix = axes
    side, drawn = len(example.output), example.matrix.T
    stamp = (drawn[4] != 0).reshape(side, side)
    sources = (example.matrix != 0).sum(1)
    pixel = int(sources.argmax())
    chosen = np.arange(side**2) == pixel
    dashes = (0, (2, 1))

    titles = {source: "input", kernel: "kernel", counts: "overlap counts" if example.transposed else "response to ones", output: "output"}
    for ax, values in ((source, INPUT), (kernel, example.kernel), (counts, example.counts), (output, example.output)):
        top = max(values.max(), 2) * 1.3
        picture(ax, values, MAGNITUDE, 0, top)
        if len(values) <= WRITTEN:
            whole = (values == values.round()).all()
            write_values(ax, values, 0, top, 7.5 if len(values) < 7 and whole else 5)
        ax.set_title(titles[ax], fontsize=8, color=INK)
    picture(matrix, drawn, MAGNITUDE, 0, max(drawn.max(), 1) * 1.1)
    matrix.set_aspect("auto")
    name, of = ("C", "C of the convolution back") if example.transposed else ("A", "A, transposed")
    product = "Cᵀ · input" if example.transposed else "A · input"
    matrix.set_title(f"matrix {of} [9 x {side**2}]: output = {product}", fontsize=8, color=INK)

    grid = np.arange(9).reshape(3, 3)
    frame(source, grid == 4, ACCENT)
    frame(output, stamp, ACCENT)
    frame(matrix, (np.arange(9) == 4)[:, None] & np.ones(side**2, bool), ACCENT)
    frame(source, (example.matrix[pixel] != 0).reshape(3, 3), SECOND, linestyle=dashes)
    frame(output, chosen.reshape(side, side), SECOND, linestyle=dashes)
    frame(matrix, np.ones((9, 1), bool) & chosen, SECOND, linestyle=dashes)
    kernel.set_xlabel(f"ones, {example.layer}", fontsize=7, color=INK)
    counts.set_xlabel(f"CI {example.index:.2f}", fontsize=7, color=INK)
    output.set_xlabel(f"side {example.size}", fontsize=7, color=INK)
    forwards = f"solid: what input pixel 5 is added to, its row of {name}"
    matrix.set_xlabel(f"{forwards}\ndashed: what one output pixel adds up, its column of {name}", fontsize=7, color=INK)
