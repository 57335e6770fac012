"""The page of one operator: what it computes, worked out in numbers, and what its weights make of a pixel, an edge and a constant.

Shapes: C/D channels in/out, s scale.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from segkit.figures.operators import MARKS, plot_phases
from segkit.figures.responses import Responses
from segkit.figures.style import ACCENT, GREY, INK, SIGNED, picture
from segkit.figures.worked import WorkedExample, can_be_worked, draw_example, work_example
from segkit.upsampling import operator_class

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


@dataclass(frozen=True)
class ResponseRow:
    """Variants of one operator, side by side: other initial weights, or before and after training.

    Args:
        label: What the row is, a line each; the first line is its name.
        scale: s.
        variants: What the weights do.
    """

    label: str
    scale: int
    variants: Mapping[str, Responses]


def draw_page(name: str | None, rows: Sequence[ResponseRow], about: str) -> "Figure":
    """The worked example of the operator `name` at the scale of the first row, where one is named and has one, and the rows of responses.

    Args:
        name: The operator.
        rows: All with the same variants.
        about: Where the weights of the rows are from.

    Returns:
        The figure; the pictures of responses run from -1 (dark) over 0 (grey) to 1 (bright).
    """
    from matplotlib.figure import Figure

    examples = [] if name is None else _examples(name, rows[0].scale)
    heights = [*([1.75 * len(examples) + 0.3] if examples else []), 0.75 + 1.25 * len(rows)]
    figure = Figure(figsize=(10, sum(heights)), layout="constrained")
    *top, bottom = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part in top:
        assert name is not None
        definition = " ".join((operator_class(name).__doc__ or "").split("\n\n")[0].replace("`", "").split())
        _heading(part, f"{name}, scale {rows[0].scale}: {definition}")
        _draw_examples(part, examples)
    _heading(bottom, f"{about}: a typical kernel, each response scaled to a largest magnitude of 1; dark -1, grey 0, bright 1")
    _draw_rows(bottom, rows)
    return figure


def _examples(name: str, scale: int) -> list[WorkedExample]:
    """That of the operator; to a transposed convolution also k = s + 1, p = 1, o = 1: the same output size, a checkerboard built in.

    Empty where the operator is more than one convolution.
    """
    if not can_be_worked(operator_class(name), scale):
        return []
    examples = [work_example(operator_class(name)(1, 1, scale))]
    if examples[0].transposed:
        examples.append(work_example(nn.ConvTranspose2d(1, 1, scale + 1, stride=scale, padding=1, output_padding=1)))
    return examples


def _draw_examples(figure: "SubFigure", examples: Sequence[WorkedExample]) -> None:
    kernel, side = len(examples[0].kernel), len(examples[0].output)
    widths = [max(3, 0.4 * side), min(kernel, side), side, side, 2.5 * side]  # pixels of one size where the page allows it
    axes = figure.subplots(len(examples), 5, squeeze=False, width_ratios=widths)
    for line, example in zip(axes, examples, strict=True):
        draw_example(line, example)
    if len(examples) > 1:
        axes[1, 0].set_xlabel("the same, but\ns does not\ndivide k", fontsize=7, color=INK)


def _draw_rows(figure: "SubFigure", rows: Sequence[ResponseRow]) -> None:
    count = len(rows[0].variants)
    variants = list(rows[0].variants)
    titles = [f"one pixel,\n{v}" for v in variants] + ["an edge"] + [f"a constant,\n{v}" for v in variants]
    titles += ["a constant:\ngain of each phase", "its spectrum,\nall kernels"]
    axes = figure.subplots(len(rows), 1 + len(titles), squeeze=False, width_ratios=[1.1, *[1] * count, 1.3, *[1] * count, 1.3, 1.3])
    for ax, title in zip(axes[0, 1:], titles, strict=True):
        ax.set_title(title, fontsize=8, color=INK)
    for line, row in zip(axes, rows, strict=True):
        _draw_row(line, row)
    handles, names = axes[-1, -2].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower right", ncols=count, fontsize=7, frameon=False, handletextpad=0.1)


def _heading(figure: "SubFigure", text: str) -> None:
    figure.suptitle(text, x=0.008, ha="left", fontsize=9, color=INK)


def _draw_row(axes: Sequence["Axes"], row: ResponseRow) -> None:
    from matplotlib.patches import Rectangle

    s, count = row.scale, len(row.variants)
    label, pixels, edge, flats, phases, spectrum = axes[0], axes[1 : 1 + count], axes[1 + count], axes[2 + count : -2], axes[-2], axes[-1]
    label.axis("off")
    first, *others = row.label.split("\n")
    label.text(0, 0.7, first, fontsize=9, weight="bold", color=INK, va="center")
    label.text(0, 0.38, "\n".join(others), fontsize=7, color=INK, va="center")
    for pixel, flat, responses in zip(pixels, flats, row.variants.values(), strict=True):
        picture(pixel, responses.impulse, SIGNED, -1, 1)
        pixel.add_patch(Rectangle((2 * s - 0.5, 2 * s - 0.5), s, s, fill=False, edgecolor=ACCENT, linewidth=1.2))
        picture(flat, responses.flat, SIGNED, -1, 1)
        flat.set_xlabel(f"CI {responses.index:.2f}", fontsize=8, color=INK, labelpad=2)
    _plot_step(edge, {name: responses.step for name, responses in row.variants.items()}, s)
    plot_phases(phases, {name: responses.gains for name, responses in row.variants.items()}, s)
    _plot_spectrum(spectrum, {name: responses.spectrum for name, responses in row.variants.items()}, s)


def _plot_step(ax: "Axes", steps: Mapping[str, np.ndarray], scale: int) -> None:
    """One line per row phase and variant over the columns, in input pixels; of many phases the first."""
    place = (np.arange(6 * scale) + 0.5) / scale - 3
    ax.plot([-3, 0, 0, 3], [0, 0, 1, 1], color=GREY, linewidth=0.6)
    for (name, lines), style in zip(steps.items(), ("-", ":", "--"), strict=False):
        ax.plot(place, lines[: 3 if scale < 4 else 1].T, style, drawstyle="steps-mid", color=MARKS[name][1], linewidth=1)
    ax.set(xlim=(-3, 3), ylim=(-1.1, 1.1), xticks=(-2, 0, 2), yticks=(-1, 0, 1))
    _quiet(ax)


def _plot_spectrum(ax: "Axes", spectra: Mapping[str, np.ndarray], scale: int) -> None:
    """Share of the energy on each multiple of 2π/s; all but the first are checkerboard. Where s = 2 they are 0 and π."""
    for name, shares in spectra.items():
        mark, color, fill = MARKS[name]
        ax.vlines(np.arange(scale**2), 0, shares.ravel(), color=color, linewidth=0.6)
        ax.plot(shares.ravel(), mark, color=color, fillstyle=fill, markersize=4.5 if scale < 4 else 2.5, clip_on=False)
    names = ["0,0", "0,π", "π,0", "π,π"] if scale == 2 else ["0,0", f"{scale - 1},{scale - 1}"]
    ax.set_xticks(range(4) if scale == 2 else (0, scale**2 - 1), names)
    ax.set(xlim=(-0.5, scale**2 - 0.5), ylim=(0, 1.05), yticks=(0, 0.5, 1))
    _quiet(ax)


def _quiet(ax: "Axes") -> None:
    ax.tick_params(labelsize=6, length=2, width=0.5, color=GREY, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set(linewidth=0.5, color=GREY)
