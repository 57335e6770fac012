import csv
import math
import time

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from segkit.callbacks import EMA, Checkpoints, PanelCallback, Throughput
from segkit.checkpoint import load_checkpoint
from segkit.metrics_file import FolderLogger
from segkit.tracking import Guarded


def same(a, b):
    """Two nested states are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


class SaveOnce(pl.Callback):
    """Saves a copy when the run first reaches `step`, from the hook of that name, as a later signal handler might."""

    def __init__(self, hook, step, path):
        def save(trainer, *args):
            if trainer.global_step == step and not path.exists():
                trainer.save_checkpoint(path, weights_only=False)

        setattr(self, hook, save)


@pytest.mark.parametrize(
    ("hook", "step"),
    [
        ("on_validation_end", 4),
        ("on_validation_end", 8),
        ("on_train_batch_start", 4),
        ("on_train_batch_start", 5),
        ("on_train_batch_end", 3),
        ("on_train_batch_end", 7),
    ],
)
@pytest.mark.parametrize("ema", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resume_equals_the_uninterrupted_run_to_the_bit(tmp_path, make_task, make_trainer, accumulate, ema, hook, step):
    def fit(folder, extra=(), ckpt_path=None):
        (tmp_path / folder).mkdir()
        averaging = [EMA(0.9)] if ema else []
        task = make_task(12, accumulate)
        logger = Guarded(FolderLogger(tmp_path / folder), "metrics.csv")
        callbacks = [*averaging, *extra, Checkpoints(tmp_path / folder)]
        trainer = make_trainer(callbacks, 12, accumulate, logger=[logger])
        trainer.fit(task, ckpt_path=ckpt_path)
        return task, trainer, load_checkpoint(tmp_path / folder / "last.ckpt"), (tmp_path / folder / "metrics.csv").read_text()

    kept = tmp_path / "kept.ckpt"
    whole, _, last, record = fit("whole", [SaveOnce(hook, step, kept)])
    assert whole.validated == [4, 8, 12]
    task, trainer, resumed, resumed_record = fit("resumed", ckpt_path=kept)

    assert trainer.global_step == 12
    assert task.seen == whole.seen[step * accumulate :]
    assert task.validated == [s for s in whole.validated if s > step]
    assert same(task.state_dict(), whole.state_dict())
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", *(["raw_state_dict"] if ema else [])):
        assert same(resumed[key], last[key]), key
    rows, resumed_rows = (list(csv.DictReader(text.splitlines())) for text in (record, resumed_record))
    assert resumed_rows == [{key: row[key] for key in resumed_rows[0]} for row in rows if int(row["step"]) > step]


def test_many_interruptions_in_a_row_change_nothing(tmp_path, make_task, make_trainer):
    """Stopped at every validation and resumed from last.ckpt: the way a preempted job lives."""

    class Stop(pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            raise InterruptedError

    def fit(folder, *extra, ckpt_path=None):
        task = make_task(12, 2)
        trainer = make_trainer([EMA(0.9), Checkpoints(tmp_path / folder), *extra], 12, 2, val_every=2)
        trainer.fit(task, ckpt_path=ckpt_path)
        return task

    whole = fit("whole")
    last = None
    for step in range(2, 13, 2):
        with pytest.raises(InterruptedError):
            fit("parts", Stop(), ckpt_path=last)
        last = tmp_path / "parts" / "last.ckpt"
        assert load_checkpoint(last)["global_step"] == step
    a, b = (load_checkpoint(tmp_path / folder / "last.ckpt") for folder in ("whole", "parts"))
    assert same(a["callbacks"], b["callbacks"])
    assert same(
        (a["state_dict"], a["raw_state_dict"], a["optimizer_states"]), (b["state_dict"], b["raw_state_dict"], b["optimizer_states"])
    )
    assert same(whole.state_dict(), a["state_dict"])


@pytest.mark.parametrize("first", [8, 10])
def test_a_finished_run_goes_on_with_a_larger_budget(tmp_path, make_task, make_trainer, first):
    """The schedule is made for 12 steps in both parts, so that the first part is what a run of 12 does in its first steps."""
    whole, part, rest = make_task(), make_task(), make_task()
    make_trainer([EMA(0.9), Checkpoints(tmp_path / "whole")]).fit(whole)
    make_trainer([EMA(0.9), Checkpoints(tmp_path / "part")], steps=first).fit(part)
    trainer = make_trainer([EMA(0.9), Checkpoints(tmp_path / "rest")])
    trainer.fit(rest, ckpt_path=tmp_path / "part" / "last.ckpt")
    assert (trainer.global_step, rest.validated) == (12, [s for s in (4, 8, 12) if s > first])
    assert same(rest.state_dict(), whole.state_dict())


def test_resuming_a_finished_run_trains_nothing_and_keeps_its_average(tmp_path, make_task, make_trainer):
    whole, again = make_task(), make_task()
    make_trainer([EMA(0.9), Checkpoints(tmp_path)]).fit(whole)
    make_trainer([EMA(0.9), Checkpoints(tmp_path)]).fit(again, ckpt_path=tmp_path / "last.ckpt")
    assert again.seen == []
    assert same(again.state_dict(), whole.state_dict())


def test_a_resumed_run_may_validate_at_other_steps_and_accumulate_otherwise(tmp_path, make_task, make_trainer):
    make_trainer([Checkpoints(tmp_path)], steps=8).fit(make_task(12))
    task = make_task(12, 2)
    make_trainer([Checkpoints(tmp_path)], 12, 2, val_every=3).fit(task, ckpt_path=tmp_path / "last.ckpt")
    assert (len(task.seen), task.validated) == (2 * 4, [9, 12])


class Given(pl.LightningModule):
    """Validations that give the mIoU of a list."""

    def __init__(self, values):
        super().__init__()
        self.weight, self.values = nn.Parameter(torch.zeros(())), list(values)

    def training_step(self, batch, batch_idx):
        return self.weight**2

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        self.log("val/miou", self.values.pop(0))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(range(100))

    val_dataloader = train_dataloader


@pytest.mark.parametrize(
    ("values", "best", "step"),
    [([0.1, 0.3, 0.2], 0.3, 2), ([math.nan, 0.1, math.nan], 0.1, 2), ([0.2, 0.2, math.inf], 0.2, 1), ([0.0, math.nan, math.nan], 0.0, 1)],
)
def test_best_is_the_highest_finite_value(tmp_path, make_trainer, values, best, step):
    make_trainer([Checkpoints(tmp_path)], steps=3, val_every=1, limit_val_batches=1).fit(Given(values))
    checkpoint = load_checkpoint(tmp_path / "best.ckpt")
    (state,) = checkpoint["callbacks"].values()
    assert checkpoint["global_step"] == state["best_step"] == step
    assert state["best"] == pytest.approx(best)
    assert load_checkpoint(tmp_path / "last.ckpt")["global_step"] == 3
    assert load_checkpoint(tmp_path / "previous.ckpt")["global_step"] == 2
    assert {path.name for path in tmp_path.iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}


def test_nan_alone_gives_no_best(tmp_path, make_trainer):
    make_trainer([Checkpoints(tmp_path)], steps=2, val_every=1, limit_val_batches=1).fit(Given([math.nan, math.nan]))
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt"}


def test_a_resumed_run_still_knows_the_best_value(tmp_path, make_trainer):
    make_trainer([Checkpoints(tmp_path)], steps=2, val_every=1, limit_val_batches=1).fit(Given([0.1, 0.5]))
    make_trainer([Checkpoints(tmp_path)], steps=4, val_every=1, limit_val_batches=1).fit(
        Given([0.4, 0.3]), ckpt_path=tmp_path / "last.ckpt"
    )
    assert load_checkpoint(tmp_path / "best.ckpt")["global_step"] == 2


def test_the_end_is_saved_without_a_validation(tmp_path, make_task, make_trainer):
    make_trainer([Checkpoints(tmp_path)], steps=5, val_every=100).fit(make_task(5))
    assert load_checkpoint(tmp_path / "last.ckpt")["global_step"] == 5


def test_average_follows_its_definition(tmp_path, make_task, make_trainer):
    """A float64 loop over the weights of every step, with the decay written as (1 + n) / (10 + n), n counting from 0."""

    class Weights(pl.Callback):
        def __init__(self):
            self.history = []

        def on_train_batch_end(self, trainer, pl_module, *args):
            if trainer.global_step > len(self.history) - 1:
                self.on_train_start(trainer, pl_module)

        def on_train_start(self, trainer, pl_module):
            self.history.append({name: weight.clone() for name, weight in pl_module.state_dict().items()})

    task, weights = make_task(12, 2), Weights()
    make_trainer([weights, EMA(0.5)], 12, 2).fit(task)
    assert len(weights.history) == 13
    expected = {name: weight.double() for name, weight in weights.history[0].items()}
    for n, state in enumerate(weights.history[1:]):
        decay = min(0.5, (1 + n) / (10 + n))
        expected = {name: decay * average + (1 - decay) * state[name].double() for name, average in expected.items()}
    got = task.state_dict()
    assert got["net.1.num_batches_tracked"] == 24
    for name, average in expected.items():
        if got[name].is_floating_point():
            torch.testing.assert_close(got[name].double(), average, rtol=1e-5, atol=1e-6)
            assert not torch.equal(got[name], weights.history[-1][name])


def test_average_is_what_is_validated_and_saved(tmp_path, make_task, make_trainer):
    class Look(pl.Callback):
        def on_validation_batch_end(self, trainer, pl_module, *args):
            self.validated = {name: weight.clone() for name, weight in pl_module.state_dict().items()}

        def on_train_batch_end(self, trainer, pl_module, *args):
            self.trained = {name: weight.clone() for name, weight in pl_module.state_dict().items()}

    look, task = Look(), make_task(4)
    make_trainer([look, EMA(0.9), Checkpoints(tmp_path)], steps=4).fit(task)
    checkpoint = load_checkpoint(tmp_path / "best.ckpt")
    assert same(checkpoint["state_dict"], look.validated)
    assert same(checkpoint["raw_state_dict"], look.trained)
    assert not same(look.validated, look.trained)
    assert same(dict(task.state_dict()), look.validated)


def test_panels_are_drawn_at_every_validation(tmp_path, make_task, make_trainer):
    make_trainer([PanelCallback(tmp_path, 2)]).fit(make_task())
    assert {path.name for path in tmp_path.iterdir()} == {"step_000004.png", "step_000008.png", "step_000012.png"}


def test_no_panels_when_none_are_wanted(tmp_path, make_task, make_trainer):
    make_trainer([PanelCallback(tmp_path, 0)]).fit(make_task())
    assert list(tmp_path.iterdir()) == []


def test_throughput_counts_images_over_the_time_outside_validation(tmp_path, make_task, make_trainer, monkeypatch):
    """A clock of our own: 1 s per batch of 2 images, 100 s per validation."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    class Clock(pl.Callback):
        def on_train_batch_start(self, *args):
            now[0] += 1

        def on_validation_batch_start(self, *args):
            now[0] += 100

    logger = FolderLogger(tmp_path)
    make_trainer([Clock(), Throughput()], 12, 2, val_every=3, logger=[Guarded(logger, "metrics.csv")]).fit(make_task(12, 2))
    rows = list(csv.DictReader(logger.path.read_text().splitlines()))
    assert {row["step"]: row["train/images_per_s"] for row in rows if row["train/images_per_s"]} == {str(s): "2.0" for s in range(2, 13, 2)}
