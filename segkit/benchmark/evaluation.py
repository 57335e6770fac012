"""Scoring, beside torchmetrics, and how much of an evaluation is not the network.

Shapes: B batch, K classes, H W rows/columns.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segkit.benchmark.bench import Bench
from segkit.benchmark.networks import build
from segkit.benchmark.photographs import write_photographs
from segkit.benchmark.report import Results, Row, milliseconds
from segkit.config import IGNORE_INDEX, DataConfig, TrainerConfig
from segkit.data.module import SegmentationDataModule
from segkit.measures import Clock, Extremes
from segkit.metrics import confusion_matrices
from segkit.task import SegmentationTask
from segkit.trainer import build_trainer

BATCH, CLASSES, SIDE, IMAGES = 8, 19, 512, 24
PEER = "MulticlassJaccardIndex"


def measure(bench: Bench) -> Results:
    """Times the counting of a batch of label maps, and a validation by the real Trainer."""
    rows, notes = _update(bench) if "torchmetrics" in bench.peers else ([], [])
    return Results("eval", "scoring", [*rows, _share(bench)], notes)


def _update(bench: Bench) -> tuple[list[Row], list[str]]:
    from torchmetrics.classification import MulticlassJaccardIndex

    side, batch = bench.config.size or SIDE, bench.config.batch or BATCH
    generator = torch.Generator().manual_seed(bench.config.seed)
    truth = torch.randint(CLASSES, (batch, side, side), generator=generator)
    wrong = torch.rand(truth.shape, generator=generator) < 0.3
    prediction = torch.where(wrong, torch.randint(CLASSES, truth.shape, generator=generator), truth)
    truth[torch.rand(truth.shape, generator=generator) < 0.05] = IGNORE_INDEX
    prediction, truth = prediction.to(bench.device), truth.to(bench.device)
    small = prediction.to(torch.uint8), truth.to(torch.uint8)  # as `labels` and the loader give them
    metric = MulticlassJaccardIndex(CLASSES, average=None, ignore_index=IGNORE_INDEX).to(bench.device)

    def ours() -> Tensor:
        return confusion_matrices(*small, CLASSES, IGNORE_INDEX)

    def theirs() -> None:
        metric.update(prediction, truth)

    theirs()
    assert torch.equal(ours().sum(0).cpu(), metric.confmat.cpu().long())
    metric.reset()
    times = {name: milliseconds(values) for name, values in bench.time({"ours": ours, PEER: theirs}).items()}
    about = f"{batch} x {CLASSES} classes x {side}²"
    row = Row(f"counts of {about}", times["ours"], theirs=times[PEER], peer=PEER, goal=0.07, group="update of a metric")
    return [row], [f"the counts of both are identical ({int(ours().sum()):,} pixels)"]


def _share(bench: Bench) -> Row:
    """How much of a validation is not the network: reading files, labels, counts, kept images, Lightning."""
    count = bench.config.images or IMAGES
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder), 1, bench.config.seed, val=count)
        data = SegmentationDataModule(DataConfig(kind="folder", root=folder), bench.config.seed)
        return _validated(bench, data, count)


def _validated(bench: Bench, data: SegmentationDataModule, count: int) -> Row:
    classes = data.classes
    network = build("transpose", classes=len(classes))
    task = SegmentationTask(classes.names, classes.colors, [0.5] * 3, [0.25] * 3, model=network)
    task.validation_loss = False  # as in eval.py
    inside: list[float] = []
    network.register_forward_pre_hook(lambda *_: inside.append(-_now(bench)))
    network.register_forward_hook(lambda *_: inside.append(_now(bench)))
    options: dict[str, Any] = {"accelerator": "gpu" if bench.device.type == "cuda" else "cpu", "devices": 1}
    shares = []
    for _ in range(4 if bench.config.seconds else 1):
        inside.clear()
        trainer, clock = build_trainer(TrainerConfig(**options, precision=bench.config.precision)), Clock()
        trainer.callbacks += [Extremes(8), clock]  # type: ignore[attr-defined]  # what eval.py listens with unless it is told otherwise
        trainer.validate(task, data.eval_dataloader("val", 0, 1), verbose=False)
        shares.append(100 * (1 - sum(inside) / clock.seconds))
    shares = shares[1:] or shares  # the first one is slower
    name = f"share that is not the U-Net resnet18, {count} images of 480 x 360, {bench.config.precision}"
    return Row(name, shares, "%", measure="value", goal=5.0, group="an evaluation by the Trainer")


def _now(bench: Bench) -> float:
    if bench.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
