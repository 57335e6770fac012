"""What upsampling operators do to one pixel, to an edge and to a constant.

Shapes: C/D channels in/out, H W rows/columns, s scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from segkit.config import OperatorFigureConfig
from segkit.figures.style import ACCENT, GREY, INK, MAGNITUDE, SIGNED, picture
from segkit.metrics import checkerboard_index, phase_gains
from segkit.upsampling import Upsampler, build_upsampler, operator_class

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHANNELS = 64  # before and after each operator
MARKS = {"smooth": ("o", "#00204c", "full"), "standard": ("s", "#b8860b", "none"), "bilinear": ("^", "#777777", "full")}


@dataclass(frozen=True)
class OperatorResponses:
    """What a row of the operator figure shows.

    Args:
        name: The operator.
        parameters: Number of its parameters.
        reach: Root mean square over all C·D kernels of the response to one pixel, `[7s, 7s]`, the pixel at row and column 3.
        edge: Response of one kernel to a slanted edge from 0 to 1, `[12s, 12s]`.
        flat: Response of one kernel of each initialisation to a constant, `[6s, 6s]`; largest magnitude 1, mean not below 0.
        gains: The means of `flat` over its pixels of each phase, `[s, s]`.
        index: Operator index CI_op of each initialisation, over all kernels.
    """

    name: str
    parameters: int
    reach: np.ndarray
    edge: np.ndarray
    flat: dict[str, np.ndarray]
    gains: dict[str, np.ndarray]
    index: dict[str, float]


def measure_operator(name: str, config: OperatorFigureConfig, channels: int = CHANNELS) -> OperatorResponses:
    """Builds an operator of C = D = `channels` with each initialisation and records its responses.

    The one kernel that is shown of each initialisation is typical: of those whose own index is close to that of all kernels together, the
    one that answers most strongly to a constant.
    """
    flat: dict[str, np.ndarray] = {}
    gains: dict[str, np.ndarray] = {}
    index: dict[str, float] = {}
    for init in dict.fromkeys(("smooth", "standard", config.init)):
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(config.seed)
            operator = build_upsampler(operator_class(name), channels, channels, config.scale, init)
        assert isinstance(operator, Upsampler)
        every = phase_gains(operator)
        index[init] = checkerboard_index(every)
        pair = _typical(every, index[init])
        flat[init], factor = _normalized(_respond(operator, pair, torch.ones(14, 14), crop=4))
        gains[init] = np.asarray(every[pair] * factor)
        if init == config.init:
            edge, _ = _normalized(_respond(operator, pair, _slanted_edge(20), crop=4))
            reach, parameters = _reach(operator), sum(p.numel() for p in operator.parameters())
    return OperatorResponses(name, parameters, reach, edge, flat, gains, index)


def _typical(gains: Tensor, index: float) -> tuple[int, int]:
    """The pair (c, d) to show, of `gains` `[C, D, s, s]`."""
    energy = gains.square().sum((-2, -1))
    own = (gains - gains.mean((-2, -1), keepdim=True)).square().sum((-2, -1)) / energy
    distance = (own - index).abs().nan_to_num(1)  # 0 / 0 where a kernel is empty
    energy[distance > torch.clamp(distance.min(), min=0.02)] = 0
    c, d = divmod(int(energy.argmax()), gains.shape[1])
    return c, d


@torch.no_grad()
def _respond(operator: Upsampler, pair: tuple[int, int], image: Tensor, crop: int) -> Tensor:
    """What output channel d makes of `image` `[H, W]` in input channel c, without the bias and without `crop` input pixels a side."""
    c, d = pair
    x = torch.zeros(2, operator.in_channels, *image.shape)
    x[0, c] = image
    responses: Tensor = operator(x)
    response, still = responses[:, d]
    inside = slice(crop * operator.scale, -crop * operator.scale)
    inner: Tensor = (response - still)[inside, inside]
    return inner


@torch.no_grad()
def _reach(operator: Upsampler, size: int = 7) -> np.ndarray:
    x = torch.zeros(operator.in_channels + 1, operator.in_channels, size, size)
    x[range(operator.in_channels), range(operator.in_channels), size // 2, size // 2] = 1
    responses: Tensor = operator(x)
    return np.asarray((responses[:-1] - responses[-1]).square().mean((0, 1)).sqrt())


def _slanted_edge(size: int) -> Tensor:
    """0 on the left, 1 on the right, the border leaning by one pixel in three, as a camera would see it: each pixel its covered share."""
    fine = torch.arange(8 * size) / 8
    left = size / 2 + (size / 2 - fine[:, None]) / 3
    return (fine[None] >= left).float().view(size, 8, size, 8).mean((1, 3))


def _normalized(response: Tensor) -> tuple[np.ndarray, float]:
    """Scaled to a largest magnitude of 1 and a mean not below 0, and the factor that did it."""
    factor = (-1 if response.mean() < 0 else 1) / max(response.abs().max().item(), 1e-12)
    return np.asarray(response * factor), factor


def draw_operators(rows: Sequence[OperatorResponses], config: OperatorFigureConfig) -> "Figure":
    """A row per operator: one pixel's reach, a slanted edge, a constant under each initialisation, and the gain of each phase."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.patches import Rectangle

    inits, s = list(rows[0].flat), config.scale
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
        picture(edge, row.edge, SIGNED, min(0, row.edge.min()), 1)
        for ax, init in zip(flats, inits, strict=True):
            picture(ax, row.flat[init], SIGNED, -1, 1)
            ax.set_xlabel(f"CI {row.index[init]:.2f}", fontsize=8, color=INK, labelpad=2)
        _phases(phases, row.gains, s)
    axes[-1, -1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=len(inits), fontsize=7, frameon=False, handletextpad=0.1)
    return figure


def _phases(ax: "Axes", gains: dict[str, np.ndarray], scale: int) -> None:
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
