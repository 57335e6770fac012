"""The reliability diagram: accuracy over confidence, with the histogram of confidence below (Guo et al. 2017). Shape legend: M bins."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from segkit.figures.style import ACCENT, GREY, INK, SECOND

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 3.4  # inches, a column of a paper
SEEN = 1e-3  # per cent at which the histogram starts


def draw_reliability(bins: Mapping[str, np.ndarray], about: str) -> "Figure":
    """Bars are the accuracy of each bin at its mean confidence, the gap to the diagonal is hatched; ECE and MCE are written in it.

    Args:
        bins: `edges` `[M + 1]`, `count`, `confidence` and `accuracy` `[M]`, NaN where a bin is empty.
        about: What was scored, for the title.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    edges, count = bins["edges"], bins["count"]
    filled = count > 0
    confidence, accuracy = bins["confidence"][filled], bins["accuracy"][filled]
    share = count[filled] / max(1, count.sum())
    figure = Figure(figsize=(WIDTH, 4.6), layout=ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.04))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.15])

    left, width = edges[:-1][filled], np.diff(edges)[filled]
    upper.bar(left, accuracy, width, align="edge", color=SECOND, alpha=0.55, edgecolor="white", linewidth=0.5, label="accuracy")
    bottom, height = np.minimum(accuracy, confidence), np.abs(accuracy - confidence)
    gap = {"color": "none", "edgecolor": ACCENT, "hatch": "//////", "linewidth": 0.6, "label": "gap to the confidence"}
    upper.bar(left, height, width, bottom, align="edge", **gap)
    upper.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
    upper.set(ylim=(0, 1), yticks=np.linspace(0, 1, 6), ylabel="accuracy of the bin")
    numbers = f"ECE {100 * (share * height).sum():.2f} %\nMCE {100 * height.max():.2f} %" if filled.any() else "no pixel to score"
    upper.text(0.97, 0.05, numbers, transform=upper.transAxes, fontsize=8, color=INK, ha="right", va="bottom", bbox=BOX)
    upper.legend(loc="upper left", fontsize=7, labelcolor=INK, framealpha=0.85, edgecolor="none", handlelength=1.3)
    upper.set_title(about.replace(": ", "\n"), fontsize=7, color=INK, loc="left")  # the name of a run is as long as the figure is wide

    lower.bar(left, 100 * share, width, align="edge", color=GREY, alpha=0.6, edgecolor="white", linewidth=0.5)
    means = {"mean confidence": ((share * confidence).sum(), ACCENT, "-"), "accuracy": ((share * accuracy).sum(), SECOND, (0, (4, 1.5)))}
    for name, (mean, color, dash) in means.items():
        lower.axvline(mean, color=color, linewidth=1.3, linestyle=dash, label=f"{name} {100 * mean:.1f} %" if filled.any() else "none")
    lower.set(yscale="log", ylim=(SEEN, 300), yticks=[0.01, 1, 100], ylabel="pixels (%)", xlabel="confidence", xlim=(0, 1))
    lower.set_yticklabels(["0.01", "1", "100"])
    lower.tick_params(which="minor", left=False)
    lower.legend(loc="upper left", fontsize=7, labelcolor=INK, framealpha=0.85, edgecolor="none", handlelength=1.6)
    for ax in (upper, lower):
        _quiet(ax)
    return figure


BOX = {"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}


def _quiet(ax: "Axes") -> None:
    ax.tick_params(labelsize=7.5, length=2.5, width=0.5, color=GREY, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set(linewidth=0.5, color=GREY)
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set(fontsize=8, color=INK)
