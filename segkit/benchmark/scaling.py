"""How the time of a training step grows with the size and number of images, with classes, data and processes.

Shapes: B batch, K classes, H W rows/columns.
"""

import itertools
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from segkit.benchmark.bench import Bench, in_fresh_processes
from segkit.benchmark.networks import Training
from segkit.benchmark.report import Results, Row, milliseconds
from segkit.benchmark.timing import spread
from segkit.config import DataConfig
from segkit.data.dataset import TrainDataset
from segkit.data.sampler import StepBatchSampler
from segkit.data.scenes import Scenes
from segkit.data.transforms import TrainTransform
from segkit.figures import Curve

TOLERANCE = 0.15  # of an exponent, under which a growth counts as the expected one
RANK_STEPS = 6
CLASSES = (2, 8, 32, 128)
COUNTS = (100, 1000, 10_000, 100_000)


def measure(bench: Bench) -> Results:
    """Times training steps of a U-Net resnet18 in segkit's own format, one quantity varied at a time."""
    most, batch = bench.config.size or 256, max(bench.config.batch or 4, 2)  # batch norm wants two values per channel
    sides = [side for side in (most // 4, most * 3 // 8, most // 2, most * 3 // 4, most) if side >= 8]
    middle = max(most // 2, 8)
    batches = [count for count in sorted({batch // 4, batch // 2, batch, 2 * batch}) if count > 1]
    step = _training(bench, middle, batch)
    step()  # the state of the optimiser
    timed = {
        "pixels of an image": (1.0, _times(bench, {side**2: _on(step, *step.example(batch, side)) for side in sides})),
        "images of a batch": (1.0, _times(bench, {count: _on(step, *step.example(count, middle)) for count in batches})),
        "classes": (1.0, _times(bench, {classes: _training(bench, middle, batch, classes) for classes in CLASSES})),
        "images of the data set": (0.0, _times(bench, {count: _with_data(step, count, batch, middle) for count in COUNTS})),
    }
    timed["processes, gloo"] = (0.0, _ranks(bench, middle, batch))
    rows, curves, notes = [], [], []
    for name, (expected, times) in timed.items():
        curve = fit(name, times, expected)
        curves.append(curve)
        notes.append(judge(curve))
        rows += [Row(name, values, measure="value", group="a training step", variant=f"{x:,}") for x, values in times.items()]
    title = f"a training step of a U-Net resnet18, {bench.format()}; unless varied {middle}², batch {batch}, 11 classes"
    return Results("scaling", title, rows, notes, curves)


def _times(bench: Bench, calls: Mapping[int, Callable[[], object]]) -> dict[int, list[float]]:
    times = bench.time({str(x): call for x, call in calls.items()})
    return {x: milliseconds(times[str(x)]) for x in calls}


def fit(name: str, times: Mapping[int, Sequence[float]], expected: float) -> Curve:
    """The power of x that fits the medians best, by least squares of the logarithms."""
    spreads = [spread(values) for values in times.values()]
    x, y = ([math.log(value) for value in values] for values in (times, [found.median for found in spreads]))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    below = sum((a - mean_x) ** 2 for a in x)
    exponent = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / below if below else 0.0
    medians, lows, highs = ([getattr(found, part) for found in spreads] for part in ("median", "low", "high"))
    return Curve(name, "ms", list(times), medians, lows, highs, exponent, expected)


def fixed_part(x: Sequence[float], y: Sequence[float]) -> float:
    """The fixed part a of the line a + b x that fits best, by least squares of the relative errors."""
    u, v = [1 / value for value in y], [place / value for place, value in zip(x, y, strict=True)]  # a u + b v = 1
    uu, uv, vv = (sum(p * q for p, q in zip(*pair, strict=True)) for pair in ((u, u), (u, v), (v, v)))
    return (sum(u) * vv - sum(v) * uv) / (uu * vv - uv * uv)


def judge(curve: Curve) -> str:
    """Says whether a time grows as it should, and at which step most beyond it."""
    about = f"{curve.name}: power {curve.exponent:.2f}, expected {curve.expected:.0f}"
    pairs = list(itertools.pairwise(zip(curve.x, curve.median, strict=True)))
    slopes = [(math.log(y2 / y1) / math.log(x2 / x1), x1, x2) for (x1, y1), (x2, y2) in pairs]
    steepest, x1, x2 = max(slopes, default=(curve.exponent, 0, 0))
    if steepest > curve.expected + TOLERANCE:
        return f"{about}; NOT as expected: steepest from {x1:,} to {x2:,}, power {steepest:.2f}"
    if curve.exponent < curve.expected - TOLERANCE:
        return f"{about}; less, as if {fixed_part(curve.x, curve.median):.3g} ms of the step did not depend on it"
    return f"{about}; as expected"


def _training(bench: Bench, side: int, batch: int, classes: int = 11) -> Training:
    return Training("transpose", bench.device, bench.low, batch, side, classes)


def _on(step: Training, images: Tensor, masks: Tensor) -> Callable[[], None]:
    """A step on another batch."""

    def run() -> None:
        step.images, step.masks = images, masks
        step()

    return run


def _with_data(step: Training, count: int, batch: int, size: int) -> Callable[[], None]:
    """A step that draws its batch from so many scenes first, as training does."""
    data = TrainDataset(Scenes("train", count, max(size, 32)), TrainTransform(DataConfig(crop=max(size, 16))), 0)
    batches = itertools.chain.from_iterable(
        DataLoader(data, batch_sampler=StepBatchSampler(count, batch, 10**9, seed)) for seed in itertools.count()
    )

    def run() -> None:
        drawn = next(batches)
        step.images = drawn["image"].to(step.device).float().sub_(127.5).div_(64).contiguous(memory_format=torch.channels_last)
        step.masks = drawn["mask"].to(step.device)
        step()

    return run


def _ranks(bench: Bench, side: int, batch: int) -> dict[int, list[float]]:
    """Steps of one and of two processes on this machine's CPU, each with a batch of its own."""
    low, clock = str(bench.low).removeprefix("torch."), bench.config.clock
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(2 if bench.config.seconds else 1):
        for world, values in found.items():
            with tempfile.TemporaryDirectory() as folder:
                store = str(Path(folder, "store"))
                values += in_fresh_processes(rank_steps, [(rank, world, store, low, batch, side, clock) for rank in range(world)])[0]
    return {world: milliseconds(values) for world, values in found.items()}


def rank_steps(rank: int, world: int, store: str, low: str, batch: int, side: int, clock: str) -> list[float]:
    """Seconds of the training steps of one of several processes that add up their gradients by gloo."""
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    step = Training("transpose", torch.device("cpu"), getattr(torch, low), batch, side)
    warnings.filterwarnings("ignore", message=".*`broadcast_buffers` is deprecated.*")  # as in segkit.trainer
    step.network = DistributedDataParallel(step.network, broadcast_buffers=False)
    now, seconds = time.process_time if clock == "cpu" else time.perf_counter, []
    for _ in range(RANK_STEPS):
        dist.barrier()
        start = now()
        step()
        seconds.append(now() - start)
    dist.barrier()
    dist.destroy_process_group()
    return seconds[2:]
