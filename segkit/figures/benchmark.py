"""A benchmark as dots with whiskers: one panel per group and unit, a line per thing measured, its goal as a tick."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segkit.figures.style import ACCENT, GREY, INK, SECOND

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHAPES = "osD^vP"


@dataclass(frozen=True)
class Mark:
    """One number with its spread.

    Args:
        panel: Panel it is in, and what its axis is called.
        label: Line it is on.
        variant: Which of several on that line; "" where there is one.
        median: Where the mark is.
        low: Lower quartile.
        high: Upper quartile.
        goal: Where the tick of the goal is, if there is one.
        met: Whether the goal is met.
    """

    panel: str
    label: str
    variant: str
    median: float
    low: float
    high: float
    goal: float | None = None
    met: bool | None = None


def draw_benchmark(marks: Sequence[Mark], title: str, about: str) -> "Figure":
    """Draws every mark; filled is a goal met or none, hollow one that is missed, the shape is the variant.

    Args:
        marks: In the order of the lines, from top to bottom.
        title: What is compared.
        about: Where it was measured.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    panels = {panel: [mark for mark in marks if mark.panel == panel] for panel in dict.fromkeys(mark.panel for mark in marks)}
    lines = [len({mark.label for mark in group}) for group in panels.values()]
    variants = list(dict.fromkeys(mark.variant for mark in marks))
    height = 0.9 + sum(0.6 + 0.32 * n for n in lines)
    figure = Figure(figsize=(6.4, height), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))
    figure.suptitle(f"{title}\n{about}", x=0.012, ha="left", fontsize=8, color=INK)
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[0.8 + n for n in lines])[:, 0]
    for ax, (panel, group) in zip(axes, panels.items(), strict=True):
        _draw_panel(ax, panel, group, variants)
    _explain(figure, variants, any(mark.goal is not None for mark in marks), any(mark.met is False for mark in marks))
    return figure


def _draw_panel(ax: "Axes", panel: str, marks: Sequence[Mark], variants: Sequence[str]) -> None:
    labels = list(dict.fromkeys(mark.label for mark in marks))
    step = 0.6 / max(len(variants), 1)
    for mark in marks:
        y = labels.index(mark.label) + step * (variants.index(mark.variant) - (len(variants) - 1) / 2)
        color = ACCENT if mark.met is False else SECOND
        if mark.goal is not None:
            ax.plot([mark.goal], [y], "|", color=INK, markersize=11, markeredgewidth=1.1, zorder=2)
        ax.plot([mark.low, mark.high], [y, y], "-", color=color, linewidth=1.4, zorder=3)
        shape = SHAPES[variants.index(mark.variant) % len(SHAPES)]
        ax.plot([mark.median], [y], shape, color=color, markersize=4.5, markerfacecolor="white" if mark.met is False else color, zorder=4)
    group, _, unit = panel.rpartition("\n")
    ax.set_title(group, fontsize=8, color=INK, loc="left")
    ax.set_xlabel(unit, fontsize=7, color=INK, labelpad=2)
    values = [value for mark in marks for value in (mark.low, mark.high, mark.goal) if value is not None]
    if min(values) > 0 and max(values) / min(values) > 4:
        _logarithmic(ax, min(values), max(values))
    else:
        ax.set_xlim(min(0, *values) * 1.1, max(*values, 1e-9) * 1.12)
    if unit == "segkit / peer":
        ax.axvline(1, color=GREY, linewidth=0.7, zorder=1)
    ax.set(yticks=range(len(labels)), yticklabels=labels, ylim=(len(labels) - 0.4, -0.6))
    ax.tick_params(labelsize=7, length=2, width=0.5, color=GREY, labelcolor=INK)
    ax.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.4)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set(linewidth=0.5, color=GREY)


def _logarithmic(ax: "Axes", least: float, most: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_xscale("log")
    ax.set_xlim(least / 1.25, most * 1.25)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if most / least < 200 else (1,)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _explain(figure: "Figure", variants: Sequence[str], goals: bool, missed: bool) -> None:
    from matplotlib.lines import Line2D

    def entry(label: str, shape: str, color: str, fill: str) -> Line2D:
        return Line2D([], [], marker=shape, linestyle="", color=color, markerfacecolor=fill, markersize=4.5, label=label)

    entries = [entry(variant, SHAPES[i % len(SHAPES)], SECOND, SECOND) for i, variant in enumerate(variants) if variant]
    entries += [Line2D([], [], marker="|", linestyle="", color=INK, markersize=9, label="goal")] if goals else []
    entries += [entry("goal missed", "o", ACCENT, "white")] if missed else []
    if entries:
        figure.legend(handles=entries, loc="outside lower left", ncols=len(entries), fontsize=7, frameon=False, handletextpad=0.1)
