"""Histograms of the splits above one another, as inline SVG."""

from collections.abc import Mapping
from html import escape

import numpy as np

WIDTH, HEIGHT, LEFT, FOOT = 360, 56, 44, 16
COLORS = ("#0b5c94", "#b5541c", "#00694d")


def histogram(title: str, values: Mapping[str, np.ndarray], ends: tuple[float, float] | None = None, bins: int = 24) -> str:
    """A `<figure>` with a histogram for each split, all over the same bins, each as high as its fullest bin.

    Args:
        title: What is counted.
        values: Split -> numbers, one per image.
        ends: First and last edge; default: the smallest and largest number.
        bins: How many.
    """
    everything = np.concatenate(list(values.values()))
    low, high = ends or (float(everything.min()), float(everything.max()))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges, step, drawn = np.linspace(low, high, bins + 1), (WIDTH - LEFT) / bins, []
    for place, (split, numbers) in enumerate(values.items()):
        counts = np.histogram(numbers, edges)[0]
        foot = place * (HEIGHT + FOOT) + HEIGHT
        color = COLORS[place % len(COLORS)]
        for i, count in enumerate(counts):
            if count:
                tall = max(1.0, (HEIGHT - 10) * count / counts.max())
                tip = f"<title>{edges[i]:.4g} to {edges[i + 1]:.4g}: {count} images</title>"
                box = f'x="{LEFT + i * step:.1f}" y="{foot - tall:.1f}" width="{step - 1:.1f}" height="{tall:.1f}"'
                drawn.append(f'<rect {box} fill="{color}">{tip}</rect>')
        drawn.append(f'<line x1="{LEFT}" x2="{WIDTH}" y1="{foot}" y2="{foot}" stroke="#d9dce1"/>')
        drawn.append(f'<text x="0" y="{foot - 4}" fill="{color}">{escape(split)}</text>')
    bottom = len(values) * (HEIGHT + FOOT)
    ticks = ((LEFT, low, "start"), (WIDTH, high, "end"))
    drawn += [f'<text x="{x}" y="{bottom}" text-anchor="{anchor}" class="tick">{_short(value)}</text>' for x, value, anchor in ticks]
    label = escape(title)
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {bottom + 4}" role="img" aria-label="{label}">{"".join(drawn)}</svg>'
        f"<figcaption>{label}</figcaption></figure>"
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"
