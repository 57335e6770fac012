"""Peaks of memory, of what is known to take how much."""

import sys

import pytest
import torch

from segkit.benchmark.bench import Bench, in_fresh_process, in_fresh_processes
from segkit.benchmark.memory import PAGE, growth, peaks
from segkit.config import BenchmarkConfig

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a peak is not forgotten")
def test_what_was_there_before_hides_nothing():
    torch.ones(200, 2**18).sum()  # 200 MiB, gone
    assert 90 < growth(lambda: torch.ones(100, 2**18).sum(), CPU) < 120
    assert growth(lambda: None, CPU) < 5


def test_processes_return_values_in_order_and_fail_with_their_name():
    assert in_fresh_process(abs, -3) == 3
    assert in_fresh_processes(max, [(1, 2), (4, 3)]) == [2, 4]
    with pytest.raises(RuntimeError, match=r"json\.loads failed in its process, exit code 1"):
        in_fresh_process(__import__("json").loads, "{")


def test_peaks_are_taken_in_turns_and_never_nothing():
    bench = Bench(BenchmarkConfig(seconds=1), CPU, frozenset())
    assert peaks(bench, abs, {"a": (-5.0,), "b": (0.0,)}, rounds=2) == {"a": [5, 5], "b": [PAGE, PAGE]}
