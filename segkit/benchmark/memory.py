"""Peaks of memory: of a CPU's, each in a process of its own; of a graphics card's, which counts its allocations, right here."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from segkit.benchmark.bench import Bench, in_fresh_process
from segkit.costs import peak_memory

PAGE = 2**-8  # MiB; nothing at all would have no ratio


def peaks(bench: Bench, function: Callable[..., float], calls: Mapping[str, tuple[Any, ...]], rounds: int = 3) -> dict[str, list[float]]:
    """MiB that a function of a module returns, on a CPU called in a fresh process each time, in turns.

    Args:
        bench: Says whether once is enough.
        function: Measures and returns MiB.
        calls: Its arguments, plain values, by name.
        rounds: How often each is measured; once on a graphics card, where allocations repeat.
    """
    if bench.device.type == "cuda":
        return {name: [max(function(*arguments), PAGE)] for name, arguments in calls.items()}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds if bench.config.seconds else 1):
        for name, arguments in calls.items():
            found[name].append(max(in_fresh_process(function, *arguments), PAGE))
    return found


def training_peak(name: str, device: str, low: str | None, batch: int, side: int, threads: int, recompute: bool = False) -> float:
    """MiB that two training steps need beyond network, images and libraries: activations, gradients, the state of the optimiser."""
    from segkit.benchmark.networks import Training

    torch.set_num_threads(threads)
    step = Training(name, torch.device(device), getattr(torch, low) if low else None, batch, side, recompute=recompute)

    def two() -> None:  # in the second one gradients, state and activations are there at once
        step()
        step()

    return peak_memory(two, torch.device(device))
