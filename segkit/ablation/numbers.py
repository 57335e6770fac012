"""Numbers as a report writes them: scores in per cent, differences in points, everything that is not known as a dash."""

import math
from collections.abc import Sequence

MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"


def percent(value: float | None) -> str:
    """A score in [0, 1] as `63.42`."""
    return NONE if value is None or math.isnan(value) else f"{100 * value:.2f}"


def points(value: float | None) -> str:
    """A difference of scores as `+1.20` or `−0.40`."""
    return NONE if value is None or math.isnan(value) else f"{100 * value:+.2f}".replace("-", MINUS)


def interval(ends: Sequence[float]) -> str:
    """An interval of differences as `[−0.31, +1.02]`."""
    return NONE if any(math.isnan(end) for end in ends) else f"[{', '.join(map(points, ends))}]"


def probability(p: float) -> str:
    """A p-value as `0.031` or `< 0.001`."""
    return NONE if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def amount(value: float | None) -> str:
    """A large number as `1.94 M`."""
    if value is None:
        return NONE
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:g}"


def plain(value: float | None, digits: int) -> str:
    """A number with so many digits after the point."""
    return NONE if value is None or math.isnan(value) else f"{value:.{digits}f}".replace("-", MINUS)


def seconds(value: float) -> str:
    """A duration as `2 h 05 min` or `61 s`."""
    minutes = round(value / 60)
    return f"{value:.0f} s" if value < 120 else f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def several(number: int, thing: str, things: str | None = None) -> str:
    """`1 seed`, `6 seeds`."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"
