"""What upsampling operators do to one pixel, to an edge and to a constant.

Shapes: C/D channels in/out, H W rows/columns, s scale.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from segkit.config import OperatorFigureConfig
from segkit.figures.responses import Responses, measure_responses, reach
from segkit.figures.style import ACCENT, GREY, INK, MAGNITUDE, SIGNED, picture
from segkit.upsampling import Upsampler, build_upsampler, operator_class

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHANNELS = 64  # before and after each operator
MARKS = {"smooth": ("o", "#00204c", "full"), "standard": ("s", "#b8860b", "none"), "bilinear": ("^", "#777777", "full")}
MARKS |= {"before": MARKS["standard"], "after": MARKS["smooth"]}  # training


@dataclass(frozen=True)
class OperatorResponses:
    """What a row of the operator figure shows.

    Args:
        name: The operator.
        parameters: Number of its parameters.
        reach: Root mean square over all C·D kernels of the response to one pixel, `[7s, 7s]`, the pixel at row and column 3.
        variants: The responses under each initialisation.
    """

    name: str
    parameters: int
    reach: np.ndarray
    variants: dict[str, Responses]


def build_variants(name: str, config: OperatorFigureConfig, channels: int = CHANNELS) -> dict[str, Upsampler]:
    """An operator of C = D = `channels` under each initialisation, from one seed; the global random stream is left alone."""
    operators: dict[str, Upsampler] = {}
    for init in dict.fromkeys(("smooth", "standard", config.init)):
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(config.seed)
            operator = build_upsampler(operator_class(name), channels, channels, config.scale, init, guide_channels=channels)
        assert isinstance(operator, Upsampler)
        operators[init] = operator
    return operators


def measure_operator(name: str, config: OperatorFigureConfig, channels: int = CHANNELS) -> OperatorResponses:
    """Builds an operator under each initialisation and records its responses; the reach is that of `config.init`."""
    operators = build_variants(name, config, channels)
    shown = operators[config.init]
    return OperatorResponses(name, sum(p.numel() for p in shown.parameters()), reach(shown), measure_responses(operators))


def draw_operators(rows: Sequence[OperatorResponses], config: OperatorFigureConfig) -> "Figure":
    """A row per operator: one pixel's reach, a slanted edge, a constant under each initialisation, and the gain of each phase."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.patches import Rectangle

    inits, s = list(rows[0].variants), config.scale
    titles = ["reach of\none pixel", f"edge,\n{config.init}", *(f"constant,\n{init}" for init in inits), "constant:\ngain of each phase"]
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.03, wspace=0.02, hspace=0.02)
    figure = Figure(figsize=(2.8 + 1.15 * (2 + len(inits)), 1 + 1.15 * len(rows)), layout=layout)
    about = f"{CHANNELS} to {CHANNELS} channels, scale {s}, initial weights of seed {config.seed}"
    figure.suptitle(about, x=0.012, ha="left", fontsize=8, color=INK)
    axes = figure.subplots(len(rows), 1 + len(titles), squeeze=False, width_ratios=[1.1, *[1] * (2 + len(inits)), 1.5])
    for ax, title in zip(axes[0, 1:], titles, strict=True):
        ax.set_title(title, fontsize=8, color=INK)
    for (label, pixel, edge, *flats, phases), row in zip(axes, rows, strict=True):
        label.axis("off")
        label.text(0, 0.62, row.name, fontsize=9, weight="bold", color=INK, va="center")
        label.text(0, 0.36, f"{row.parameters:,} parameters\n12 x 12 to {12 * s} x {12 * s}", fontsize=7, color=INK, va="center")
        picture(pixel, row.reach, MAGNITUDE, 0, 1.2 * row.reach.max())
        pixel.add_patch(Rectangle((3 * s - 0.5, 3 * s - 0.5), s, s, fill=False, edgecolor=ACCENT, linewidth=1.2))
        slope = row.variants[config.init].edge
        picture(edge, slope, SIGNED, min(0, slope.min()), 1)
        for ax, init in zip(flats, inits, strict=True):
            picture(ax, row.variants[init].flat, SIGNED, -1, 1)
            ax.set_xlabel(f"CI {row.variants[init].index:.2f}", fontsize=8, color=INK, labelpad=2)
        plot_phases(phases, {init: variant.gains for init, variant in row.variants.items()}, s)
    axes[-1, -1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=len(inits), fontsize=7, frameon=False, handletextpad=0.1)
    return figure


def plot_phases(ax: "Axes", gains: Mapping[str, np.ndarray], scale: int) -> None:
    """Gains over the phases, row by row; what is on one level is flat."""
    ax.axhline(0, color=GREY, linewidth=0.5)
    for init, values in gains.items():
        mark, color, fill = MARKS[init]
        ax.plot(values.ravel(), mark, color=color, fillstyle=fill, markersize=4.5 if scale < 4 else 2.5, label=init, clip_on=False)
    names = [f"{a},{b}" for a in range(scale) for b in range(scale)] if scale == 2 else ["0,0", f"{scale - 1},{scale - 1}"]
    ax.set_xticks(range(4) if scale == 2 else (0, scale**2 - 1), names)
    ax.set(xlim=(-0.5, scale**2 - 0.5), ylim=(-1.1, 1.1), yticks=(-1, 0, 1))
    ax.tick_params(labelsize=6, length=2, width=0.5, color=GREY, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set(linewidth=0.5, color=GREY)
