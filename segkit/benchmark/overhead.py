"""What a run with all that it leaves behind adds to a training step, beside the same steps in a bare loop of torch."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from segkit.benchmark.bench import Bench
from segkit.benchmark.report import Results, Row
from segkit.benchmark.timing import LEAST
from segkit.benchmark.updates import FIRST, time_between_updates
from segkit.config import DataConfig, TrainConfig, TrainerConfig, WandbConfig
from segkit.data.module import SegmentationDataModule
from segkit.task import SegmentationTask

RATE = 150  # steps per second of `--seconds`, roughly
MODES = ("disabled", "offline")  # of W&B


def measure(bench: Bench, train: Callable[[TrainConfig], None]) -> Results:
    """Trains a small network for a few hundred steps, by the command's own function and by a bare loop, in turns.

    Both read the same batches from the same loader, and both normalise, clip and step the schedule; what remains is Lightning, the
    checks for finite values, the logged values, metrics.csv, the digest of the batches, throughput, progress and W&B. The time is the
    mean over the steps between two validations, so that what happens every few steps is in it.

    Args:
        bench: How to measure.
        train: Trains as a configuration says: `segkit.cli.train.train`.
    """
    steps = FIRST + max(int(RATE * bench.config.seconds), 2)
    found: dict[str, list[float]] = {name: [] for name in ("bare", *MODES)}
    for _ in range(LEAST if bench.config.seconds else 1):
        for mode in MODES:
            with tempfile.TemporaryDirectory() as folder:
                config = _config(bench, steps, folder, mode)
                found[mode].append(1000 * time_between_updates(bench, partial(train, config), steps))
        bare = partial(_bare, _config(bench, steps, "", "disabled"), bench.device)
        found["bare"].append(1000 * time_between_updates(bench, bare, steps))
    rows = [
        Row(f"train.py, W&B {mode}", found[mode], "ms", found["bare"], "bare loop", "difference", goal=1.0, group="a training step")
        for mode in MODES
    ]
    return Results("overhead", f"a run of train.py beside a bare loop, {steps} steps of a small network", rows)


def _config(bench: Bench, steps: int, folder: str, mode: Any) -> TrainConfig:
    return TrainConfig(
        runs=str(Path(folder, "runs")),
        decoder_channels=[8, 8],
        seed=bench.config.seed,
        data=DataConfig(batch_size=2, crop=32, scenes_size=64, scenes_train=32, scenes_val=2, scenes_test=0, cache="ram"),
        trainer=TrainerConfig(max_steps=steps, val_every=steps, accelerator="gpu" if bench.device.type == "cuda" else "cpu", devices=1),
        wandb=WandbConfig(mode=mode, panels=0),
    )


def _bare(config: TrainConfig, device: torch.device) -> None:
    data = SegmentationDataModule(config.data, config.seed)
    steps = config.trainer.max_steps
    data.trainer = SimpleNamespace(max_steps=steps, accumulate_grad_batches=1, global_rank=0, world_size=1, global_step=0)  # type: ignore[assignment]
    names, colors = data.classes.names, data.classes.colors
    task = SegmentationTask(names, colors, [0.5] * 3, [0.25] * 3, decoder_channels=config.decoder_channels).to(device)
    task.trainer = SimpleNamespace(max_steps=steps)  # type: ignore[assignment]  # what the schedule asks for
    made = task.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    for batch in data.train_dataloader():
        images, masks = batch["image"].to(device), batch["mask"].to(device)
        loss = task.loss(task(images), masks)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(task.parameters(), config.trainer.clip)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
