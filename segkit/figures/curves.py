"""How a time grows: panels with logarithmic axes, the fitted power, and the one that is expected."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segkit.figures.style import ACCENT, GREY, INK, SECOND

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Curve:
    """A time against what it depends on.

    Args:
        name: What is varied.
        unit: Of the times.
        x: Its values, rising, > 0.
        median: Times.
        low: Their lower quartiles.
        high: Their upper quartiles.
        exponent: Of the power of `x` that fits the medians best.
        expected: The exponent of what costs nothing beyond the work itself.
    """

    name: str
    unit: str
    x: Sequence[float]
    median: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    exponent: float
    expected: float


def draw_curves(curves: Sequence[Curve], title: str, about: str) -> "Figure":
    """A panel per curve.

    Args:
        curves: From left to right.
        title: What was measured.
        about: Where.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(len(curves), 3)
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(0.4 + 2.3 * columns, 0.6 + 2.1 * rows), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))
    figure.suptitle(f"{title}\n{about}", x=0.012, ha="left", fontsize=8, color=INK)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, curve in zip(axes, curves, strict=False):
        _draw(ax, curve)
    for ax in axes[len(curves) :]:
        ax.axis("off")
    return figure


def _draw(ax: "Axes", curve: Curve) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    x, y = np.array(curve.x, float), np.array(curve.median, float)
    middle = np.exp(np.log(x).mean()), np.exp(np.log(y).mean())
    for power, style, color, label in ((curve.expected, ":", INK, "expected"), (curve.exponent, "-", SECOND, "fitted")):
        ax.plot(x, middle[1] * (x / middle[0]) ** power, style, color=color, linewidth=1, label=f"{label}: power {power:.2f}")
    spread = [y - np.array(curve.low), np.array(curve.high) - y]
    ax.errorbar(x, y, spread, fmt="o", color=ACCENT, markersize=4, linewidth=1.2, zorder=3)
    ax.set(xscale="log", yscale="log")
    low, high = min(curve.low), max(curve.high)
    centre, half = np.sqrt(low * high), max(np.sqrt(high / low), 2) * 1.3  # what is flat looks flat
    ax.set_ylim(centre / half, centre * half)
    ax.set_xticks(x, [f"{value:,.0f}" for value in x])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.minorticks_off()
    ticks = [value for value in (n * 10.0**e for e in range(-2, 6) for n in (1, 2, 5)) if centre / half <= value <= centre * half]
    ax.set_yticks(ticks[:: max(len(ticks) // 5, 1)])
    ax.set_xlabel(curve.name, fontsize=7, color=INK, labelpad=2)
    ax.set_ylabel(curve.unit, fontsize=7, color=INK, labelpad=2)
    ax.legend(fontsize=6, frameon=False, loc="upper left", handlelength=1.6)
    ax.tick_params(labelsize=6, length=2, width=0.5, color=GREY, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set(linewidth=0.5, color=GREY)
