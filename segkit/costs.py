"""What a network costs: parameters, multiply-adds, time and memory, all of it and its upsampling operators.

Shapes: B batch, C channels, H W rows/columns.
"""

import contextlib
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from segkit.errors import SegkitError
from segkit.models.fingerprint import operators
from segkit.upsampling import rewriting

TOLERANCE = 0.02  # how far apart budgets that count as equal may lie


@torch.no_grad()
def count(model: nn.Module, size: tuple[int, int], in_channels: int = 3) -> dict[str, dict[str, int]]:
    """Parameters and multiply-adds of every operator and, under "", of the whole network.

    Args:
        model: Maps images `[B, C, H, W]` to logits.
        size: H, W of the one image that the multiply-adds are counted for.
        in_channels: C.

    Returns:
        `{name: {"params": ..., "macs": ...}}`. Multiply-adds are those of convolutions and matrix products; interpolation's (4 s² C per
        input pixel for bilinear, under 1 % of the convolution that follows it) are left out.
    """
    modules = {"": model, **operators(model)}
    training = model.training
    counter = FlopCounterMode(display=False)
    weight = next(model.parameters())
    with counter, rewriting("off"):  # a cost of the operator, not of the machine
        model.eval()(torch.zeros(1, in_channels, *size, dtype=weight.dtype, device=weight.device))
    model.train(training)
    flops = counter.get_flop_counts()
    root = type(model).__name__
    return {
        name: {
            "params": sum(p.numel() for p in module.parameters()),
            "macs": sum(flops.get(f"{root}.{name}" if name else "Global", {}).values()) // 2,
        }
        for name, module in modules.items()
    }


def match_widths(
    build: Callable[[Sequence[int] | None], nn.Module], native: nn.Module, what: str, size: tuple[int, int], in_channels: int = 3
) -> list[int]:
    """Widths of the 1x1 convolutions with which the operators of one network cost what those of another cost natively.

    Args:
        build: The network with a width per operator (`upsample_width`).
        native: The network whose operators set the budget, stage by stage.
        what: `params` or `macs`.
        size: H, W of the image that multiply-adds are counted for.
        in_channels: Channels of the image.

    Returns:
        One width per operator; the operators' sum is within 2 % of the budget.

    Raises:
        SegkitError: No widths reach the budget.
    """
    budget = [values[what] for name, values in count(native, size, in_channels).items() if name]
    grain, one, slope = _linear_cost(build, what, size, in_channels, len(budget))
    steps = [max(1, round(1 + (goal - a) / step)) for goal, a, step in zip(budget, one, slope, strict=True)]

    def excess() -> int:
        return sum(a + (n - 1) * step for a, n, step in zip(one, steps, slope, strict=True)) - sum(budget)

    for i in sorted(range(len(budget)), key=lambda i: -slope[i]):  # what rounding left over, from coarse to fine
        steps[i] = max(1, steps[i] - round(excess() / slope[i]))
    widths = [grain * n for n in steps]
    if abs(excess()) > TOLERANCE * sum(budget):
        raise SegkitError(
            f"--match {what}: the operators cannot cost {sum(budget):,} within 2 %, widths {widths} come to {sum(budget) + excess():,}; "
            "widths are whole numbers, so more channels come nearer; or use --match native"
        )
    return widths


def _linear_cost(
    build: Callable[[Sequence[int] | None], nn.Module], what: str, size: tuple[int, int], in_channels: int, stages: int
) -> tuple[int, list[int], list[int]]:
    """A step between widths in which costs are linear, what operators of one step cost, and what each further step adds."""
    problem = SegkitError(f"--match {what}: the cost of the operators is not linear in their width; use --match native")
    for grain in (1, 4, 64, 256):  # four channels share the points of dysample; s² are summed by bilinear_additive
        try:
            one, two, three = (
                [values[what] for name, values in count(build([grain * n] * stages), size, in_channels).items() if name] for n in (1, 2, 3)
            )
        except SegkitError as error:
            problem = SegkitError(f"--match {what}: {str(error).split(' (with ')[0]}; use --match native")
            continue
        slope = [b - a for a, b in zip(one, two, strict=True)]
        if slope == [c - b for b, c in zip(two, three, strict=True)]:
            return grain, one, slope
    raise problem


def latency(call: Callable[[], object], seconds: float = 3.0) -> tuple[float, float, float]:
    """Median and quartiles of the time that `call` takes, in milliseconds, over at least 5 calls after 2 that do not count."""

    def timed() -> float:
        start = time.perf_counter()
        call()
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        return (time.perf_counter() - start) * 1000

    timed(), timed()
    start, times = time.perf_counter(), [timed() for _ in range(5)]
    while time.perf_counter() - start < seconds and len(times) < 200:
        times.append(timed())
    low, median, high = statistics.quantiles(times, n=4)
    return median, low, high


def peak_memory(call: Callable[[], object], device: torch.device) -> float:
    """MiB that `call` needs at most beyond what is there: of a graphics card's allocations, or of this process's memory.

    Where the operating system cannot forget its record of a process's memory (all but Linux), that is how far `call` exceeds the record.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return float(torch.cuda.max_memory_allocated(device) - before) / 2**20
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the record becomes what is in use now
    before = _record()
    call()
    return max(0.0, float(_record() - before) / 2**20)  # what the kernel counts of a process lags by some pages


def _record() -> int:
    """The most memory that this process has had, in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measure(
    model: Callable[[Tensor], Tensor],
    network: nn.Module,
    step: Callable[[], object],
    image: Tensor,
    device: torch.device,
) -> dict[str, Any]:
    """Costs of one network, measured here and now.

    Args:
        model: Images to logits, as an evaluation calls it.
        network: The `nn.Module` behind it.
        step: One training step, with batch and crop as in training.
        image: The image of an evaluation, `[1, C, H, W]`.
        device: Where they are.
    """
    counts = count(network, (int(image.shape[-2]), int(image.shape[-1])), int(image.shape[1]))
    inner = [values for name, values in counts.items() if name]
    memory = peak_memory(step, device)
    step_ms, *_ = latency(step, seconds=2.0)
    with torch.inference_mode():
        network.eval()
        median, low, high = latency(lambda: model(image))
    return {
        "parameters": counts[""]["params"],
        "operator_parameters": sum(values["params"] for values in inner),
        "macs": counts[""]["macs"],
        "operator_macs": sum(values["macs"] for values in inner),
        "latency_ms": median,
        "latency_iqr_ms": [low, high],
        "step_ms": step_ms,
        "memory_mib": memory,
        "image": list(image.shape[-2:]),
        "threads": torch.get_num_threads(),
    }
