"""What is not finite ends a run before the update, names the files that it was seen on, and leaves the checkpoints as they are."""

import copy
import hashlib
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from segkit.callbacks import EMA, Checkpoints
from segkit.config import DataConfig, TrainerConfig
from segkit.data.module import SegmentationDataModule
from segkit.errors import RunFailed
from segkit.models.finite import nonfinite
from segkit.task import SegmentationTask
from segkit.trainer import build_trainer

ROOT = Path(__file__).parents[2]
NORM = "encoder.levels.0.0.1"  # in front of a ReLU, which hides a bias of minus infinity


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*"))}


class Sabotage(pl.Callback):
    """Breaks something in one step, and remembers what weights, optimiser and files were before."""

    def __init__(self, folder, what, value, place=1, step=3):
        self.folder, self.what, self.value, self.place, self.step = folder, what, value, place, step
        self.weights, self.batches, self.failing = None, [], False

    def on_fit_start(self, trainer, task):
        task.model.classifier.register_forward_hook(self.logits)
        task.loss.register_forward_hook(lambda module, inputs, loss: loss * self.value if self.what == "loss" and self.failing else loss)

    def logits(self, module, inputs, out):
        if self.failing and self.what == "logits":
            out = out.clone()
            out[self.place, 1, 3, 3] = self.value
        if self.failing and self.what == "gradient" and out.requires_grad:
            out.register_hook(lambda gradient: gradient * self.value)
        return out

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        self.failing = trainer.global_step == self.step and trainer.training
        if self.failing:
            if self.what in ("weight", "buffer"):
                name = f"{NORM}.bias" if self.what == "weight" else f"{NORM}.running_var"
                task.model.state_dict()[name][0] = self.value
            self.batches.append([task.names["train"](index) for index in batch["index"].tolist()])
            self.remember(trainer, task)

    def remember(self, trainer, task):
        if self.weights is None:
            self.weights = [p.detach().clone() for p in task.parameters()]
            self.optimizer = copy.deepcopy(trainer.optimizers[0].state_dict()["state"])
            self.files = hashes(self.folder)

    def nothing_changed(self, trainer, task):
        state = trainer.optimizers[0].state_dict()["state"]
        same = [torch.equal(before, now) for before, now in zip(self.weights, task.parameters(), strict=True)]
        same += [torch.equal(value, state[number][name]) for number, values in self.optimizer.items() for name, value in values.items()]
        assert all(same)
        assert len(same) > 2 * len(self.weights)
        assert hashes(self.folder) == self.files
        return self.files


class SabotagedValidation(Sabotage):
    """Breaks the logits of the first image and the third in the second validation."""

    def on_validation_start(self, trainer, task):
        if trainer.global_step == 4:
            self.remember(trainer, task)

    def on_validation_batch_start(self, trainer, task, batch, batch_idx, dataloader_idx=0):
        self.failing = trainer.global_step == 4 and int(batch["index"]) in (0, 2)

    def on_validation_end(self, trainer, task):
        self.failing = False

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        pass


@pytest.fixture
def fit(make_folder):
    root = make_folder(train=8, val=3)
    folder = root / "checkpoints"

    def run(*callbacks, accumulate=1, **options):
        data = SegmentationDataModule(DataConfig(kind="folder", root=str(root), crop=24, batch_size=3, check=False), seed=1)
        torch.manual_seed(0)
        task = SegmentationTask(data.classes.names, data.classes.colors, [0.5] * 3, [0.5] * 3, **{"decoder_channels": [4, 4], **options})
        task.names = {split: source.name for split, source in data.sources.items()}
        trainer = build_trainer(TrainerConfig(accelerator="cpu", devices=1, val_every=2, accumulate=accumulate), max_steps=6)
        trainer.callbacks += [*callbacks, Checkpoints(folder)]
        with pytest.raises(RunFailed) as error:
            trainer.fit(task, data)
        assert "\n" not in str(error.value)
        return task, trainer, str(error.value)

    return folder, run


@pytest.mark.parametrize(("what", "value", "said"), [
    ("logits", math.nan, "the logits are not finite"),
    ("logits", math.inf, "the logits are not finite"),
    ("logits", -math.inf, "the logits are not finite"),  # of one class: it costs nothing, and the loss alone would be finite
    ("loss", math.nan, "the loss is nan"),
    ("loss", math.inf, "the loss is inf"),
    ("gradient", math.nan, "the gradient norm is nan"),
    ("gradient", math.inf, "the gradient norm is (nan|inf)"),
    ("weight", -math.inf, rf"{NORM}\.bias is not finite since the last update"),
    ("buffer", math.inf, rf"{NORM}\.running_var is not finite since the last update"),
])  # fmt: skip
@pytest.mark.parametrize("accumulate", [1, 2])
def test_nothing_is_updated_and_the_files_are_named(fit, what, value, said, accumulate):
    folder, run = fit
    sabotage = Sabotage(folder, what, value)
    task, trainer, line = run(EMA(0.9), sabotage, accumulate=accumulate)
    assert list(sabotage.nothing_changed(trainer, task)) == ["best.ckpt", "last.ckpt"]
    assert len(sabotage.batches) == (accumulate if what in ("gradient", "weight", "buffer") else 1)
    named = sabotage.batches[0][1:2] if what == "logits" else [name for batch in sabotage.batches for name in batch]
    assert all(name.startswith("train") for name in named)
    assert re.match(rf"{said} at step 3 on {re.escape(', '.join(named))}; the weights were not updated\. Lower --lr, ", line), line


def test_a_validation_that_is_not_finite_names_the_files_and_saves_nothing(fit):
    folder, run = fit
    sabotage = SabotagedValidation(folder, "logits", math.nan, place=0)
    task, trainer, line = run(EMA(0.9), sabotage)
    assert list(sabotage.nothing_changed(trainer, task)) == ["best.ckpt", "last.ckpt"]
    assert line.startswith("the logits contain NaN or infinity on val0, val2: the weights have diverged or the input has; ")


@pytest.mark.parametrize("lr", [1e30, 1e38])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_update_that_overflows_is_never_saved(fit, lr, optimizer):
    folder, run = fit
    _, trainer, line = run(lr=lr, optimizer=optimizer, schedule="constant", warmup=0.0, weight_decay=0.0)
    assert trainer.global_step == 1
    assert re.match(r"the logits are not finite at step 1 on train\d, train\d, train\d; the weights were not updated", line)
    assert hashes(folder) == {}


@pytest.mark.parametrize("name", [f"{NORM}.bias", f"{NORM}.running_var", "classifiers.0.bias"])
def test_weights_that_are_not_finite_are_never_saved(fit, name):
    """A validation need not see them, and a signal saves between two steps."""
    folder, run = fit

    class Ruin(pl.Callback):
        def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
            if trainer.global_step == 4:  # the update before the second validation
                weights = {**task.model.state_dict(), **task.deep_supervision.state_dict()}
                weights[name][0] = -math.inf if name.endswith("bias") else math.inf
                ruin.files = hashes(folder)

    ruin = Ruin()
    _, _, line = run(ruin, decoder_channels=[4, 4, 4], deep_supervision=0.4)
    assert line == f"{name} is not finite at step 4; the weights were not saved. Go on from the last checkpoint"
    assert list(ruin.files) == ["best.ckpt", "last.ckpt"]
    assert hashes(folder) == ruin.files


def test_the_first_name_that_is_not_finite_is_told_and_huge_weights_are_finite():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Unflatten(1, (4,)))
    network.register_buffer("nothing", torch.zeros(0))
    assert nonfinite(network) is None
    network[0].weight.data[0] = 3e38  # whose norm is not
    assert nonfinite(network) is None
    for value in (math.nan, math.inf, -math.inf):
        for name in ("0.bias", "1.running_mean", "1.weight"):
            broken = copy.deepcopy(network)
            broken.state_dict()[name][1] = value
            assert nonfinite(broken) == name
    assert nonfinite(nn.ReLU()) is None


SHARED = """
import os, sys
import pytorch_lightning as pl
from segkit.cli.parsing import run
from segkit.cli.train import main
from segkit.errors import RunFailed
from segkit.task import SegmentationTask

forward = SegmentationTask.forward

def broken(task, images):  # one process's logits alone
    logits = forward(task, images)
    now = {"training": task.training, "validation": not task.training}.get(when, False)
    failing = os.environ.get("LOCAL_RANK") == "1" and task.global_step == 2 and now
    return logits * float("nan") if failing else logits

def overflow(task, batch, batch_idx):  # a running statistic of one process alone
    begin(task, batch, batch_idx)
    if os.environ.get("LOCAL_RANK") == "1" and task.global_step == 3 and when == "statistics":
        task.model.encoder.levels[0][0][1].running_var[0] = float("inf")

begin, SegmentationTask.on_train_batch_start = SegmentationTask.on_train_batch_start, overflow
SegmentationTask.forward = broken
command = sys.argv[1:]
for when in ("validation", "statistics", "training"):
    if when == "training":
        run(main)  # which ends the program
    try:
        main([*command, "--name", when])
    except RunFailed as error:
        with open(f"said-{when}-{os.environ.get('LOCAL_RANK', '0')}", "w") as file:
            file.write(str(error))
"""


def test_what_is_not_finite_in_one_process_stops_all_with_one_line(tmp_path):
    (tmp_path / "script.py").write_text(SHARED)
    words = "--decoder_channels [8,8] --data.batch_size 2 --data.crop 32 --data.scenes_size 48 --data.scenes_train 8 --data.scenes_val 4"
    words += " --trainer.accelerator cpu --trainer.devices 2 --trainer.max_steps 6 --trainer.val_every 2 --wandb.mode disabled --ema 0.9"
    words += " --trainer.timeout 30"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "script.py", *words.split()]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=240, check=False)
    assert done.returncode == 1, done.stderr
    said, nothing = ((tmp_path / f"said-validation-{rank}").read_text() for rank in (0, 1))
    assert said.startswith("the logits contain NaN or infinity on val_0001, val_0003: the weights have diverged")
    assert nothing == ""
    line = r"script\.py: error: the logits are not finite at step 2 on train_000\d, train_000\d; the weights .*\n"
    assert re.fullmatch(line, done.stderr), done.stderr
    assert not list(tmp_path.glob("runs/validation/*/checkpoints/*"))
    said, nothing = ((tmp_path / f"said-statistics-{rank}").read_text() for rank in (0, 1))
    assert re.match(rf"{NORM}\.running_var is not finite since the last update at step 3 on (train_000\d, ){{3}}train_000\d; the w", said)
    assert nothing == ""
    assert {path.name for path in tmp_path.glob("runs/scenes-*/*/checkpoints/*")} == {"best.ckpt", "last.ckpt"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: a CPU has no such arithmetic")
def test_the_loss_scaler_skips_a_step_that_overflows_and_logits_that_do_end_the_run(make_folder):
    root = make_folder(train=8, val=3)
    for what in ("gradient", "logits"):
        data = SegmentationDataModule(DataConfig(kind="folder", root=str(root), crop=24, batch_size=3, check=False), seed=1)
        torch.manual_seed(0)
        options = {"decoder_channels": [4, 4], "fused": False}
        task = SegmentationTask(data.classes.names, data.classes.colors, [0.5] * 3, [0.5] * 3, **options)
        task.names = {split: source.name for split, source in data.sources.items()}
        trainer = build_trainer(TrainerConfig(accelerator="cuda", devices=1, val_every=6, precision="16-mixed"), max_steps=6)
        sabotage = Sabotage(root / "nowhere", what, math.inf)
        trainer.callbacks.append(sabotage)
        if what == "logits":
            with pytest.raises(RunFailed, match="the logits are not finite at step 3 on train"):
                trainer.fit(task, data)
            sabotage.nothing_changed(trainer, task)
        else:
            trainer.fit(task, data)
            assert trainer.global_step == 6
            assert nonfinite(task) is None
