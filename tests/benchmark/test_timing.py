"""The arithmetic of comparisons, by hand, under a clock that is set."""

import itertools
import math

import numpy as np
import pytest

from segkit.benchmark.scaling import fit, judge
from segkit.benchmark.timing import LEAST, MOST, Spread, differences, interleave, order, ratios, spread


class Clock:
    """Stands still but where a call says how long it took."""

    def __init__(self):
        self.now, self.said = 0.0, []

    def __call__(self):
        return self.now

    def call(self, name, *seconds):
        taken = itertools.cycle(seconds)

        def run():
            self.said.append(name)
            self.now += next(taken)

        return run


def test_quartiles_are_those_of_numpy():
    values = [5.0, 1.0, 4.0, 2.0, 8.0, 7.0]
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    assert spread(values) == Spread(pytest.approx(median), pytest.approx(low), pytest.approx(high))
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == Spread(3, 2, 4)
    assert spread([7.0]) == Spread(7, 7, 7)


def test_what_is_compared_lies_in_one_round():
    ours, theirs = [1.0, 20.0, 3.0], [2.0, 40.0, 6.0]  # the second round was ten times as slow for both
    assert ratios(ours, theirs) == [0.5, 0.5, 0.5]
    assert differences(ours, theirs) == [-1, -20, -3]
    with pytest.raises(ValueError, match="zip"):
        ratios(ours, theirs[:2])


def test_everyone_is_first_as_often_and_behind_each_other_as_often():
    count = 4
    rounds = [order(count, turn) for turn in range(2 * count)]
    assert rounds[:4] == [[0, 1, 2, 3], [3, 2, 1, 0], [1, 2, 3, 0], [0, 3, 2, 1]]
    firsts = [turn[0] for turn in rounds]
    assert sorted(firsts) == sorted([*range(count)] * 2)
    for a, b in itertools.permutations(range(count), 2):
        assert sum(turn.index(a) < turn.index(b) for turn in rounds) == count


def test_calls_take_turns_and_the_warm_rounds_do_not_count():
    clock = Clock()
    calls = {"a": clock.call("a", 9.0, 1.0, 1.5), "b": clock.call("b", 9.0, 2.0, 3.0)}
    times = interleave(calls, 0.0, warm=1, least=2, clock=clock)
    assert times == {"a": [1.0, 1.5], "b": [2.0, 3.0]}
    assert "".join(clock.said) == "ab" + "ab" + "ba"


def test_time_and_rounds_say_when_it_is_over():
    clock = Clock()
    calls = {"a": clock.call("a", 1.0), "b": clock.call("b", 3.0)}
    assert len(interleave(calls, 10.0, warm=0, clock=clock)["a"]) == 5  # 20 seconds for both, 4 a round
    assert len(interleave(calls, 0.5, warm=0, clock=clock)["b"]) == LEAST
    assert len(interleave({"a": clock.call("a", 1e-9)}, 1.0, warm=0, clock=clock)["a"]) == MOST


def test_a_device_is_waited_for_before_and_after():
    clock = Clock()
    waits = []

    def wait():
        waits.append(len(clock.said))
        clock.now += 0.25  # what the device still had to do

    times = interleave({"a": clock.call("a", 1.0)}, 0.0, warm=0, least=2, clock=clock, synchronize=wait)
    assert times["a"] == [1.25, 1.25]
    assert waits == [0, 1, 1, 2]


def test_the_fitted_power():
    curve = fit("pixels", {x: [3 * x**1.5] * 3 for x in (4, 16, 64)}, 1.0)
    assert curve.exponent == pytest.approx(1.5)
    assert curve.median == pytest.approx([24, 192, 1536])
    assert judge(curve).startswith("pixels: power 1.50, expected 1; NOT as expected: steepest from ")


@pytest.mark.parametrize(("times", "expected", "words"), [
    ({1: 2.0, 2: 4.0, 4: 8.0}, 1, "power 1.00, expected 1; as expected"),
    ({1: 2.0, 2: 2.0, 4: 2.0}, 0, "power 0.00, expected 0; as expected"),
    ({1: 2.0, 2: 2.0, 4: 2.0}, 1, "power 0.00, expected 1; less, as if 2 ms of the step did not depend on it"),
    ({1: 4.0, 2: 5.0, 10: 13.0}, 1, "less, as if 3 ms of the step"),
    ({1: 2.0, 2: 2.0, 4: 6.0}, 1, "steepest from 2 to 4, power 1.58"),
])  # fmt: skip
def test_what_is_said_of_a_growth(times, expected, words):
    assert words in judge(fit("x", {x: [value] for x, value in times.items()}, expected))


def test_the_fit_is_that_of_least_squares():
    x, y = [1, 2, 5, 9], [2.0, 3.5, 4.0, 11.0]
    slope = np.polyfit(np.log(x), np.log(y), 1)[0]
    assert math.isclose(fit("x", {a: [b] for a, b in zip(x, y, strict=True)}, 1).exponent, slope)
