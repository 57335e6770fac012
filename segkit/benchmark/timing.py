"""Times that can be compared: all candidates take turns in one process, and what is compared is what lies side by side.

Two medians of a busy machine differ by what else ran meanwhile. In one round every candidate runs once, so that a ratio within a round
has the same weather above and below; the quartiles of these ratios over the rounds say how far to trust their median.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

LEAST, MOST = 5, 400  # rounds


@dataclass(frozen=True)
class Spread:
    """The middle half of some values.

    Args:
        median: Their median.
        low: Lower quartile.
        high: Upper quartile.
    """

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles, the ends included, as numpy's default takes them; of one value that value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """What we take of what they take, round by round."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def differences(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """What we take more than they take, round by round."""
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def order(count: int, turn: int) -> list[int]:
    """Who comes when in a round: each candidate is first as often as any other, and follows each other one as often.

    Even rounds go forwards, odd ones backwards, and each pair of rounds begins one further on.
    """
    turned = [(i + turn // 2) % count for i in range(count)]
    return turned[::-1] if turn % 2 else turned


def interleave(
    calls: Mapping[str, Callable[[], object]],
    seconds: float,
    *,
    warm: int = 1,
    least: int = LEAST,
    clock: Callable[[], float] = time.perf_counter,
    synchronize: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds that each of some calls takes, round by round.

    Args:
        calls: By name.
        seconds: About how long to measure each of them.
        warm: Rounds before, which do not count.
        least: Rounds at least, however long they take.
        clock: Seconds.
        synchronize: Waits until a device has done what it was given.

    Returns:
        As many numbers for every name.
    """
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in calls}

    def once(name: str) -> float:
        synchronize()
        start = clock()
        calls[name]()
        synchronize()
        return clock() - start

    for _ in range(warm):
        for name in names:
            once(name)
    collecting = gc.isenabled()
    gc.disable()  # or one pays for another's waste
    try:
        spent, turn = 0.0, 0
        while turn < least or (spent < seconds * len(names) and turn < MOST):
            for place in order(len(names), turn):
                taken = once(names[place])
                times[names[place]].append(taken)
                spent += taken
            turn += 1
            gc.collect(0)  # what this round has left; older objects are not looked at
    finally:
        if collecting:
            gc.enable()
    return times
