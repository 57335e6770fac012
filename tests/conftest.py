"""What several rooms of the tests need: real data, made-up data, and a stand-in for the segmentation task with a trainer around it."""

import multiprocessing
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from segkit import step_values
from segkit.checkpoint import AtomicCheckpointIO


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and weights that lies beside the repository; the test is skipped where there is none."""
    folder = Path(os.environ.get("SEGKIT_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("no shared data here")
    return folder


@pytest.fixture(autouse=True)
def no_loader_process_stays():
    """Loader processes that an error has left, which live as long as its traceback, end with their test: they hold its open files."""
    yield
    if left := [child for child in multiprocessing.active_children() if child.daemon]:
        handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's raises an error for each
        for child in left:
            child.kill()
            child.join()
        signal.signal(signal.SIGCHLD, handler)


@pytest.fixture
def make_folder(tmp_path):
    """Write a data set of the folder layout: made-up images and masks with labels 0..classes-1; returns its root."""

    def make(train=4, val=2, test=0, size=(40, 48), classes=3):
        rng = np.random.default_rng(7)
        (tmp_path / "classes.txt").write_text("".join(f"{k} class{k} #{k:02x}{k:02x}ff\n" for k in range(classes)))
        for split, count in (("train", train), ("val", val), ("test", test)):
            for kind in ("images", "masks") if count else ():
                (tmp_path / kind / split).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / f"images/{split}/{split}{i}.png")
                Image.fromarray(rng.integers(0, classes, size, np.uint8)).save(tmp_path / f"masks/{split}/{split}{i}.png")
        return tmp_path

    return make


CLASSES = ["sky", "road", "pole"]
SIZE = 8


class Images(Dataset):
    """Image i is a function of i alone: where each colour channel is brightest decides the class; the first row is ignored."""

    def __len__(self):
        return 24

    def __getitem__(self, index):
        image = torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))
        mask = (image[0] > 128).to(torch.uint8)
        mask[0] = 255
        return {"image": image, "mask": mask, "index": torch.tensor(index)}


class Stream:
    """Batches of the whole run as one stream that starts where the trainer's global step says."""

    def __init__(self, steps, accumulate, start):
        self.batches, self.accumulate, self.start = steps * accumulate, accumulate, start

    def __len__(self):
        return self.batches

    def __iter__(self):
        for batch in range(self.start() * self.accumulate, self.batches):
            yield [(7 * batch + i) % 24 for i in range(2)]


class Task(pl.LightningModule):
    """The smallest module with the logged keys, batches and outputs of segkit's task."""

    def __init__(self, steps=12, accumulate=1):
        super().__init__()
        self.class_names, self.colors, self.ignore_index = CLASSES, [[70, 130, 180], [128, 64, 128], [220, 220, 0]], 255
        self.validation_scores = None
        self.steps, self.accumulate = steps, accumulate
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(4, 3, 1))
        self.seen, self.validated = [], []

    def on_train_batch_start(self, batch, batch_idx):
        torch.manual_seed(1000 * self.global_step + batch_idx % self.accumulate)

    def training_step(self, batch, batch_idx):
        self.seen.append((self.global_step, batch["index"].tolist()))
        loss = nn.functional.cross_entropy(self.net(batch["image"] / 255.0), batch["mask"].long(), ignore_index=255)
        step_values.note(self.trainer, {"train/loss": loss.detach(), "train/lr": self.optimizers().param_groups[0]["lr"]})
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if (batch_idx + 1) % self.accumulate == 0 and step_values.written(self.trainer, self.global_step):
            step_values.write(self.trainer)

    def on_validation_epoch_start(self):
        self.correct = self.total = 0

    def validation_step(self, batch, batch_idx):
        logits = self.net(batch["image"] / 255.0)
        prediction = logits.argmax(1).to(torch.uint8)
        valid = batch["mask"] != 255
        self.correct += int((prediction == batch["mask"])[valid].sum())
        self.total += int(valid.sum())
        return {"prediction": prediction}

    def on_validation_epoch_end(self):
        accuracy = self.correct / self.total
        iou = (accuracy, accuracy / 2, float("nan"))
        self.validation_scores = SimpleNamespace(miou=0.75 * accuracy, iou=iou, accuracy=accuracy, mean_dice=0.8, absent=("pole",))
        self.validated.append(self.global_step)
        self.log_dict({"val/loss": 1 - accuracy, "val/miou": 0.75 * accuracy, "val/accuracy": accuracy, "val/mean_dice": 0.8})
        self.log_dict({f"val/iou/{name}": value for name, value in zip(CLASSES, iou, strict=True)})

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 - step / (self.steps + 1)) ** 0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self):
        return DataLoader(Images(), batch_sampler=Stream(self.steps, self.accumulate, lambda: self.global_step))

    def val_dataloader(self):
        return DataLoader(Images(), sampler=range(3))


@pytest.fixture
def make_task():
    def make(steps=12, accumulate=1):
        torch.manual_seed(0)
        return Task(steps, accumulate)

    return make


@pytest.fixture
def make_trainer(tmp_path):
    """The trainer that segkit builds, with validation every `val_every` optimiser steps."""

    def make(callbacks, steps=12, accumulate=1, val_every=4, **options):
        return pl.Trainer(
            max_steps=steps,
            max_epochs=-1,
            accumulate_grad_batches=accumulate,
            val_check_interval=val_every * accumulate,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            accelerator="cpu",
            devices=1,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            **{
                "default_root_dir": tmp_path,
                "log_every_n_steps": 2,
                "logger": [],
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
            }
            | options,
        )

    return make
