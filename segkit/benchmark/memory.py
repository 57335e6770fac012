"""Peaks of memory, each taken in a process of its own."""

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from segkit.benchmark.bench import Bench, in_fresh_process
from segkit.costs import peak_memory

PAGE = 2**-8  # MiB; nothing at all would have no ratio


def peaks(bench: Bench, function: Callable[..., float], calls: Mapping[str, tuple[Any, ...]], rounds: int = 3) -> dict[str, list[float]]:
    """MiB that a function of a module returns, called in a fresh process each time, in turns.

    Args:
        bench: Says whether once is enough.
        function: Measures and returns MiB.
        calls: Its arguments, plain values, by name.
        rounds: How often each is measured.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds if bench.config.seconds else 1):
        for name, arguments in calls.items():
            found[name].append(max(in_fresh_process(function, *arguments), PAGE))
    return found


def growth(call: Callable[[], object], device: torch.device) -> float:
    """MiB that `call` needs at most beyond what is there now, as `segkit.costs.peak_memory`.

    On Linux the peak so far is forgotten first: what was there while network and images were made, and is gone, hides nothing.
    """
    forget, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if device.type == "cuda" or not forget.exists():
        return peak_memory(call, device)
    gc.collect()
    try:
        forget.write_text("5")
    except OSError:  # a container may forbid it
        return peak_memory(call, device)
    before = _kib(status.read_text(), "VmRSS")
    call()
    return (_kib(status.read_text(), "VmHWM") - before) / 1024


def _kib(status: str, name: str) -> int:
    return int(next(line for line in status.splitlines() if line.startswith(name)).split()[1])


def training_peak(name: str, device: str, low: str | None, batch: int, side: int, threads: int, recompute: bool = False) -> float:
    """MiB that two training steps need beyond network, images and libraries: activations, gradients, the state of the optimiser."""
    from segkit.benchmark.networks import Training

    torch.set_num_threads(threads)
    step = Training(name, torch.device(device), getattr(torch, low) if low else None, batch, side, recompute=recompute)

    def two() -> None:  # in the second one gradients, state and activations are there at once
        step()
        step()

    return growth(two, torch.device(device))
