"""Peaks of memory, of what is known to take how much."""

import pytest
import torch

from segkit.benchmark.bench import Bench, in_fresh_process, in_fresh_processes
from segkit.benchmark.memory import PAGE, peaks
from segkit.config import BenchmarkConfig

CPU = torch.device("cpu")


def test_processes_return_values_in_order_and_fail_with_their_name():
    assert in_fresh_process(abs, -3) == 3
    assert in_fresh_processes(max, [(1, 2), (4, 3)]) == [2, 4]
    with pytest.raises(RuntimeError, match=r"json\.loads failed in its process, exit code 1"):
        in_fresh_process(__import__("json").loads, "{")


def test_peaks_are_taken_in_turns_and_never_nothing():
    bench = Bench(BenchmarkConfig(seconds=1), CPU, frozenset())
    assert peaks(bench, abs, {"a": (-5.0,), "b": (0.0,)}, rounds=2) == {"a": [5, 5], "b": [PAGE, PAGE]}
