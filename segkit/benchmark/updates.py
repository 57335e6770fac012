"""The time of a training step, seen from outside: from one update to the next."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from segkit.benchmark.bench import Bench

FIRST = 10  # steps that do not count: caches, allocators, the progress line and the loader's processes start


def wait(bench: Bench) -> None:
    """Until the device has done what it was given."""
    if bench.device.type == "cuda":
        torch.cuda.synchronize()


def time_between_updates(bench: Bench, run: Callable[[], object], steps: int) -> float:
    """Seconds from one update of a training of so many steps to the next, on average, after the first few; what it prints is lost."""
    moments: list[float] = []

    def note(*_: object) -> None:
        if len(moments) in (FIRST - 1, steps - 1):
            wait(bench)
        moments.append(bench.clock())

    hook = register_optimizer_step_post_hook(note)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            run()
    finally:
        hook.remove()
    assert len(moments) == steps, (len(moments), steps)
    counted = moments[FIRST - 1 :]
    return (counted[-1] - counted[0]) / (len(counted) - 1)
