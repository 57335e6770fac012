"""The figures of an ablation: every run, the differences with their intervals, costs, classes, boundaries and artefacts.

Each is one panel as wide as a column of a paper, and arms keep their colour, mark and dash in all of them. Scores come in [0, 1] and are
drawn in per cent, differences in points of them. F points along an axis, S seeds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from segkit.figures.style import GREY, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.2  # inches
Dash = str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class Look:
    """How an arm is drawn.

    Args:
        mark: Marker.
        color: Of marks and lines.
        dash: Of lines.
    """

    mark: str
    color: str
    dash: Dash


# Okabe & Ito's colours, with marks and dashes that tell them apart in grey; the baseline has the ink's
LOOKS = (
    Look("o", INK, "-"),
    Look("s", "#0072b2", (0, (5, 1.5))),
    Look("^", "#d55e00", (0, (1.5, 1))),
    Look("D", "#009e73", (0, (6, 1.5, 1.5, 1.5))),
    Look("v", "#cc79a7", (0, (3, 1))),
    Look("P", "#e69f00", (0, (8, 2, 1.5, 2, 1.5, 2))),
    Look("X", "#56b4e9", (0, (1, 2))),
)
AGAIN = Look("o", GREY, (0, (1, 1)))  # the baseline under other seeds


class Contrast(Protocol):
    """A difference to the baseline, as far as it is drawn; NaN where an interval cannot be had."""

    @property
    def difference(self) -> float:
        """The mean over the seeds."""

    @property
    def interval(self) -> tuple[float, float]:
        """The headline 95 % interval."""

    @property
    def bootstrap(self) -> tuple[float, float]:
        """The 95 % interval of the two-level bootstrap."""

    @property
    def differences(self) -> Sequence[float]:
        """One difference per seed, where seeds are paired."""


@dataclass(frozen=True)
class Curve:
    """What the runs of one arm have measured along an axis.

    Args:
        x: `[F]`.
        y: `[S, F]`.
    """

    x: np.ndarray
    y: np.ndarray


def looks(baseline: str, others: Iterable[str], again: Iterable[str] = ()) -> dict[str, Look]:
    """The look of every arm, by name.

    Args:
        baseline: The arm that the others are compared with.
        others: Those.
        again: A/A arms.
    """
    named = {name: LOOKS[1 + i % (len(LOOKS) - 1)] for i, name in enumerate(name for name in others if name != baseline)}
    return {baseline: LOOKS[0], **named, **dict.fromkeys(again, AGAIN)}


def draw_runs(scores: Mapping[str, Mapping[int, float]], look: Mapping[str, Look], label: str) -> "Figure":
    """Every run's score: a row per arm, a thin line per seed (A/A arms share none with the others), a bar at each mean."""
    figure, ax = _panel(0.75 + 0.34 * len(scores))
    for seed in sorted({seed for values in scores.values() for seed in values}):
        arms = [(row, values) for row, (name, values) in enumerate(scores.items()) if look[name] is not AGAIN and seed in values]
        ax.plot([100 * values[seed] for _, values in arms], [row for row, _ in arms], color=GREY, linewidth=0.5, alpha=0.5, zorder=1)
    for row, (name, by_seed) in enumerate(scores.items()):
        values = 100 * np.array(list(by_seed.values()))
        ax.plot(values, np.full(len(values), row), look[name].mark, color=look[name].color, markersize=4, markeredgewidth=0, alpha=0.75)
        if len(values) > 1:
            ax.plot([values.mean()] * 2, [row - 0.33, row + 0.33], color=look[name].color, linewidth=2, solid_capstyle="butt")
    _rows(ax, list(scores))
    _name(ax, x=f"{label} of every run (%)")
    return figure


def draw_differences(
    contrasts: Mapping[str, Contrast], words: Mapping[str, str], look: Mapping[str, Look], label: str, margin: float | None = None
) -> "Figure":
    """The forest plot: the mean difference in its headline interval, below it the bootstrap's, below that a tick per seed.

    Args:
        contrasts: By arm.
        words: The verdict beside each row.
        look: By arm.
        label: The score.
        margin: Differences inside ± this count as none; shaded.
    """
    figure, ax = _panel(0.8 + 0.46 * len(contrasts))
    ax.axvline(0, color=INK, linewidth=0.7)
    if margin is not None:
        ax.axvspan(-100 * margin, 100 * margin, color=GREY, alpha=0.15, linewidth=0)
    for row, (name, contrast) in enumerate(contrasts.items()):
        color, seeds = look[name].color, 100 * np.array(contrast.differences)
        ax.plot(np.multiply(100, contrast.interval), [row - 0.12] * 2, color=color, linewidth=2.4, solid_capstyle="butt")
        ax.plot(100 * contrast.difference, row - 0.12, look[name].mark, color=color, markersize=6, markeredgecolor="white")
        ax.plot(np.multiply(100, contrast.bootstrap), [row + 0.14] * 2, color=color, linewidth=0.8, marker="|", markersize=4)
        ax.plot(seeds, np.full(len(seeds), row + 0.34), "|", color=GREY, markersize=4, markeredgewidth=0.8)
        ax.annotate(words[name], (1.02, row), xycoords=("axes fraction", "data"), va="center", fontsize=7.5, color=INK)
    _rows(ax, list(contrasts))
    _name(ax, x=f"difference of {label} to the baseline (points)")
    return figure


def draw_against(
    costs: Mapping[str, float], scores: Mapping[str, Sequence[float]], look: Mapping[str, Look], cost: str, label: str
) -> "Figure":
    """What the score costs: the mean of each arm over its cost, with the range of its runs; arms of one cost side by side."""
    figure, ax = _panel(2.9)
    step, taken = 0.02 * np.ptp(list(costs.values())), list[float]()
    for name, value in costs.items():
        value += step * sum(abs(value - other) < step for other in taken)
        taken.append(costs[name])
        values, style = 100 * np.array(scores[name]), look[name]
        ax.plot([value] * 2, [values.min(), values.max()], color=style.color, linewidth=1)
        ax.plot(value, values.mean(), style.mark, color=style.color, markersize=6, markeredgecolor="white", label=name)
    ax.margins(0.12, 0.1)
    _name(ax, x=cost, y=f"{label} (%)")
    _legend(figure, ax)
    return figure


def draw_classes(contrasts: Mapping[str, Mapping[str, Contrast]], look: Mapping[str, Look], label: str) -> "Figure":
    """The difference of every class, in its headline interval, a mark per arm; below it the bootstrap's.

    Args:
        contrasts: By arm, then class.
        look: By arm.
        label: The score.
    """
    classes = list(dict.fromkeys(name for by_class in contrasts.values() for name in by_class))
    step = 0.8 / max(1, len(contrasts))
    figure, ax = _panel(1.1 + len(classes) * (0.14 + 0.11 * len(contrasts)))
    ax.axvline(0, color=INK, linewidth=0.7)
    for arm, (name, by_class) in enumerate(contrasts.items()):
        style = look[name]
        for row, each in enumerate(classes):
            if each in by_class:
                y, found = row + (arm - (len(contrasts) - 1) / 2) * step, by_class[each]
                ax.plot(np.multiply(100, found.interval), [y] * 2, color=style.color, linewidth=1.3)
                ax.plot(
                    np.multiply(100, found.bootstrap), [y + 0.3 * step] * 2, color=style.color, linewidth=0.5, marker="|", markersize=2.5
                )
                named = name if row == 0 else None
                ax.plot(100 * found.difference, y, style.mark, color=style.color, markersize=4, markeredgewidth=0, label=named)
    for row in range(1, len(classes)):
        ax.axhline(row - 0.5, color=GREY, linewidth=0.3, alpha=0.5)
    _rows(ax, classes)
    _name(ax, x=f"difference of {label} to the baseline (points)")
    _legend(figure, ax)
    return figure


def draw_curves(curves: Mapping[str, Curve], look: Mapping[str, Look], x: str, y: str, zero: bool = False) -> "Figure":
    """A line per arm over steps of equal width, the mean of its runs, with their range as whiskers.

    Args:
        curves: By arm; all have the same x.
        look: By arm.
        x: What is measured along.
        y: The score and its unit.
        zero: Draw a line there.
    """
    figure, ax = _panel(2.9)
    if zero:
        ax.axhline(0, color=INK, linewidth=0.7)
    for place, (name, curve) in enumerate(curves.items()):
        values, style = 100 * curve.y, look[name]
        steps = np.arange(len(curve.x)) + (place - (len(curves) - 1) / 2) * 0.06  # so that whiskers do not hide each other
        ax.vlines(steps, values.min(0), values.max(0), color=style.color, linewidth=0.7)
        ax.plot(steps, values.mean(0), style.mark, linestyle=style.dash, color=style.color, markersize=4, linewidth=1, label=name)
    ticks = next(iter(curves.values())).x
    ax.set_xticks(range(len(ticks)), [f"{value:g}" for value in ticks])
    _name(ax, x=x, y=y)
    _legend(figure, ax)
    return figure


def draw_indices(
    after: Mapping[str, Mapping[str, Sequence[float]]],
    before: Mapping[str, Mapping[str, Sequence[float]]],
    look: Mapping[str, Look],
    x: str,
    y: str,
    apart: int | None = None,
) -> "Figure":
    """Checkerboard indices: before training hollow, after it filled, the mean and range of the runs of each arm.

    Args:
        after: By arm, then place (a stage or a period): a value per run.
        before: The same; may be empty.
        look: By arm.
        x: What the places are.
        y: The index.
        apart: Number of places after which a line parts the rest from them.
    """
    figure, ax = _panel(2.9)
    places = list(dict.fromkeys(place for by_place in (*before.values(), *after.values()) for place in by_place))
    arms = [name for name in look if name in after or name in before]
    for arm, name in enumerate(arms):
        style = look[name]
        for column, place in enumerate(places):
            position = column + (arm - (len(arms) - 1) / 2) * 0.75 / max(1, len(arms))
            start, end = (np.array(values.get(name, {}).get(place, ())) for values in (before, after))
            if len(start) and len(end):
                ax.plot([position] * 2, [start.mean(), end.mean()], color=style.color, linewidth=0.6, alpha=0.6)
            if len(start):
                ax.plot(position, start.mean(), style.mark, color=style.color, fillstyle="none", markersize=4, markeredgewidth=0.8)
            if len(end):
                ax.plot([position] * 2, [end.min(), end.max()], color=style.color, linewidth=1.6)
                named = name if column == 0 else None
                ax.plot(position, end.mean(), style.mark, color=style.color, markersize=4, markeredgewidth=0, label=named)
    if apart is not None and apart < len(places):
        ax.axvline(apart - 0.5, color=GREY, linewidth=0.5)
    ax.set_xticks(range(len(places)), places)
    ax.set_xlim(-0.5, len(places) - 0.5)
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    _name(ax, x=x, y=y)
    _legend(figure, ax)
    return figure


def draw_spectra(curves: Mapping[str, Curve], look: Mapping[str, Look]) -> "Figure":
    """The power spectrum of the logits, a line per arm: the geometric mean of its runs. Dotted where operators of scale 2 leave grids."""
    figure, ax = _panel(2.9)
    for stages in range(1, 6):
        ax.axvline(0.5**stages, color=GREY, linewidth=0.6, linestyle=":")
    for name, curve in curves.items():
        mean = np.exp(np.log(np.maximum(curve.y[:, 1:], 1e-30)).mean(0))
        ax.plot(curve.x[1:], mean, linestyle=look[name].dash, color=look[name].color, linewidth=1.1, label=name)
    ax.set_yscale("log")
    _name(ax, x="frequency (cycles per pixel)", y="density (share of the variance)")
    _legend(figure, ax)
    return figure


def svg(figure: "Figure") -> str:
    """A figure as SVG on no background, its letters as text; the same figure gives the same characters."""
    from matplotlib import rc_context

    file = StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "segkit"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue()


def settle(figure: "Figure") -> "Figure":
    """The figure with its layout found once and for all, which takes longer than writing a file."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def _panel(height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.04))
    ax = figure.subplots()
    ax.tick_params(labelsize=7.5, length=2.5, width=0.5, color=GREY, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set(linewidth=0.5, color=GREY)
    return figure, ax


def _rows(ax: "Axes", names: Sequence[str]) -> None:
    """Rows named from top to bottom."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0, labelsize=8)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", color=GREY, linewidth=0.3, alpha=0.5)
    ax.set_axisbelow(True)


def _name(ax: "Axes", **labels: str) -> None:
    ax.set(**{f"{axis}label": text for axis, text in labels.items()})
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set(fontsize=8, color=INK)


def _legend(figure: "Figure", ax: "Axes") -> None:
    handles, names = ax.get_legend_handles_labels()
    longest = max(map(len, names), default=1)
    columns = max(1, min(len(names), 66 // (longest + 8)))
    options: dict[str, Any] = {"fontsize": 7.5, "labelcolor": INK, "frameon": False, "handlelength": 2.2, "columnspacing": 1.2}
    figure.legend(handles, names, loc="outside lower center", ncols=columns, **options)
