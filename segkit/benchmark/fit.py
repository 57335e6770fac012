"""Whole trainings, from image files to updated weights, beside smp's U-Net in a plain LightningModule and beside the bare network."""

import gc
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader

from segkit.benchmark.bench import Bench
from segkit.benchmark.data import Plain
from segkit.benchmark.networks import CLASSES, Training, build, objective
from segkit.benchmark.photographs import write_photographs
from segkit.benchmark.report import Results, Row, milliseconds
from segkit.benchmark.updates import FIRST, time_between_updates, wait
from segkit.config import DataConfig, TrainConfig, TrainerConfig, WandbConfig
from segkit.data.folder import open_folder

BATCH, SIDE, COUNT = 8, 256, 64
ROUNDS = 3
OPERATOR: Literal["transpose"] = "transpose"
ENCODER = "resnet18"
Train = Callable[[TrainConfig], None]


def measure(bench: Bench, train: Train) -> Results:
    """Trains a U-Net resnet18 on a folder of files for some steps, each way in turns, and counts images a second.

    segkit trains by the command's own function, with everything that it logs; the peer reads with Pillow and augments with albumentations,
    logs its loss, and has as many loader processes. The bare network takes steps on one batch that lies on the device.

    Args:
        bench: How to measure.
        train: Trains as a configuration says: `segkit.cli.train.train`.
    """
    batch, side, workers = bench.config.batch or BATCH, bench.config.size or SIDE, bench.config.workers
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder, "data"), max(bench.config.images or COUNT, batch), bench.config.seed)
        data = DataConfig(kind="folder", root=str(Path(folder, "data")), batch_size=batch, crop=side, workers=workers)
        bare = Training(OPERATOR, bench.device, bench.low, batch, side)
        steps = FIRST + max(round(bench.config.seconds / _seconds(bench, bare, 3)), 2)
        ways: dict[str, Callable[[], float]] = {
            "train.py": partial(time_between_updates, bench, partial(train, _config(bench, data, steps, folder)), steps),
            "the bare network": partial(_seconds, bench, bare, steps),
        }
        if "smp" in bench.peers:
            for name, low in (("smp + Lightning, same format", True), ("smp + Lightning as it comes", False)):
                ways[name] = partial(time_between_updates, bench, partial(_fit_peer, bench, data, steps, low), steps)
        times: dict[str, list[float]] = {name: [] for name in ways}
        memory: dict[str, float] = {}
        for _ in range(ROUNDS if bench.config.seconds else 1):
            for name, way in ways.items():
                seconds, memory[name] = _with_peak(bench, way)
                times[name].append(seconds)
    return Results(
        "fit",
        f"a training of {steps} steps, batch {batch}, {side}², {workers} workers, {bench.config.precision}",
        _rows(times, memory, batch),
    )


def _rows(times: dict[str, list[float]], memory: dict[str, float], batch: int) -> list[Row]:
    rates = {name: [batch / value for value in values] for name, values in times.items()}
    peers = [name for name in rates if name.startswith("smp")]
    ours, bare = "train.py", "the bare network"
    rows = [Row(ours, rates[ours], "images/s", rates[peer], peer, better="higher", group="from files to weights") for peer in peers]
    if any(memory.values()):
        rows += [Row(ours, [memory[ours]], "MiB", [memory[peer]], peer, group="peak memory on the card") for peer in peers]
    loop = "a step, with reading, logging and all"
    rows.append(Row(ours, milliseconds(times[ours]), theirs=milliseconds(times[bare]), peer=bare, goal=1.03, group=loop))
    return rows


def _config(bench: Bench, data: DataConfig, steps: int, folder: str) -> TrainConfig:
    precision, accelerator = bench.config.precision, _accelerator(bench)
    return TrainConfig(
        runs=str(Path(folder, "runs")),
        encoder=ENCODER,
        upsample=OPERATOR,
        seed=bench.config.seed,
        data=data,
        trainer=TrainerConfig(max_steps=steps, val_every=steps, precision=precision, accelerator=accelerator, devices=1),
        wandb=WandbConfig(mode="disabled", panels=0),
    )


def _accelerator(bench: Bench) -> Any:
    return "gpu" if bench.device.type == "cuda" else "cpu"


def _with_peak(bench: Bench, way: Callable[[], float]) -> tuple[float, float]:
    """Seconds a step, and MiB that the card has held at most."""
    if bench.device.type != "cuda":
        return way(), 0.0
    gc.collect()  # the trainer before this one, whose parts know each other
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    seconds = way()
    return seconds, (torch.cuda.max_memory_allocated() - before) / 2**20


def _seconds(bench: Bench, step: Callable[[], object], steps: int) -> float:
    """Seconds of a step, on average over steps that follow one another without a pause."""
    step()
    wait(bench)
    start = bench.clock()
    for _ in range(steps):
        step()
    wait(bench)
    return (bench.clock() - start) / steps


class Peer(pl.LightningModule):
    """smp's U-Net as its users train it with Lightning: its Dice loss beside cross-entropy, AdamW, the loss logged.

    Args:
        low: channels_last.
    """

    def __init__(self, low: bool) -> None:
        super().__init__()
        self.layout = torch.channels_last if low else torch.contiguous_format
        self.network = build("smp", ENCODER, CLASSES).to(memory_format=self.layout)
        self.loss = objective("smp", CLASSES)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """The loss of a batch of images float32 `[B, 3, H, W]` and masks int64 `[B, H, W]`."""
        images, masks = batch
        loss: Tensor = self.loss(self.network(images.contiguous(memory_format=self.layout)), masks)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW as it comes."""
        return torch.optim.AdamW(self.parameters(), lr=1e-4)


def _fit_peer(bench: Bench, data: DataConfig, steps: int, low: bool) -> None:
    assert data.root is not None
    source = open_folder(Path(data.root), data)["train"]
    loader = DataLoader(
        Plain([source.paths(index) or ("", "") for index in range(len(source))], data),
        data.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=data.workers,
        persistent_workers=data.workers > 0,
        pin_memory=bench.device.type == "cuda",
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_steps=steps,
            max_epochs=-1,
            precision=bench.config.precision if low else "32-true",
            accelerator=_accelerator(bench),
            devices=1,
            logger=CSVLogger(folder),
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        trainer.fit(Peer(low), loader)
