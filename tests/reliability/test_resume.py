"""A run that goes on from any step ends as if it had never stopped, to the bit."""

import os
import random
import shutil
import signal
from pathlib import Path

import pytest
import yaml

from segkit.callbacks import Checkpoints
from segkit.checkpoint import load_checkpoint
from segkit.cli import train as command
from segkit.errors import RunStopped, SegkitError
from segkit.task import SegmentationTask

STEPS = 24  # 6 images, 2 x 2 a step: an epoch ends amid every third step
BUDGET = ["--trainer.max_steps", str(STEPS), "--trainer.val_every", "5", "--trainer.log_every", "1"]


@pytest.fixture
def whole(lab, monkeypatch):
    """The uninterrupted run, with the checkpoint of each of its steps."""
    save = Checkpoints._save_last

    def keep(callback, trainer):
        save(callback, trainer)
        Path("steps").mkdir(exist_ok=True)
        shutil.copy(callback.folder / "last.ckpt", f"steps/{trainer.global_step}.ckpt")

    def make(workers):
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "_save_last", keep)
            lab.train(*lab.hard, *BUDGET, "--trainer.save_every", "1", "--data.workers", str(workers), "--name", "whole")
        return lab.run("whole")

    return make


def scores(run):
    """The record of the run by step, but for the speed."""
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    return [[value for name, value in zip(rows[0], row, strict=True) if name != "train/images_per_s"] for row in rows]


@pytest.mark.parametrize(
    ("workers", "steps"),
    [
        (0, (3, 10, 23)),
        pytest.param(0, range(1, STEPS), marks=pytest.mark.slow),
        pytest.param(2, range(1, STEPS), marks=pytest.mark.slow),
    ],
    ids=["some", "all-0-workers", "all-2-workers"],
)
def test_resuming_from_a_step_ends_bit_identical(lab, whole, workers, steps):
    run = whole(workers)
    equal = 0
    for step in steps:
        copy = lab.fork(run, f"from{step}", f"steps/{step}.ckpt")
        lab.resume(copy)
        assert lab.hash_of(copy) == lab.hash_of(run), step
        assert scores(copy) == scores(run), step
        equal += 1
    print(f"resumed from {equal} of {len(steps)} steps with {workers} workers: bit-identical")


@pytest.mark.slow
def test_a_chain_of_resumed_parts_ends_bit_identical(lab, whole, monkeypatch):
    """40 pairs of steps: the run stops at the first, goes on and stops at the second by a signal, and goes on to its end."""
    run = whole(0)
    numbers, training_step = random.Random(0), SegmentationTask.training_step
    pairs = [tuple(sorted(numbers.sample(range(1, STEPS), 2))) for _ in range(40)]
    pairs[:4] = [(3, 6), (6, 9), (5, 10), (22, 23)]  # ends of epochs, validations, the last steps
    for first, second in pairs:
        copy = lab.fork(run, f"pair{first}-{second}-{numbers.random()}", f"steps/{first}.ckpt")

        def stop(task, batch, batch_idx, second=second):
            if task.global_step == second - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return training_step(task, batch, batch_idx)

        monkeypatch.setattr(SegmentationTask, "training_step", stop)
        with pytest.raises(RunStopped):
            lab.resume(copy)
        monkeypatch.setattr(SegmentationTask, "training_step", training_step)
        assert load_checkpoint(copy / "checkpoints" / "last.ckpt")["global_step"] == second
        lab.resume(copy)
        assert lab.hash_of(copy) == lab.hash_of(run), (first, second)
        assert scores(copy) == scores(run)
    print(f"{len(pairs)} of 40 chains: bit-identical, {STEPS} steps each")


@pytest.mark.parametrize("at", [5, 24], ids=["amid", "last"])
def test_a_validation_that_a_signal_cut_short_is_done_again(lab, whole, monkeypatch, at):
    run = whole(0)
    copy = lab.fork(run, "part", "steps/4.ckpt")
    shutil.copy(run / "checkpoints" / "best.ckpt", copy / "checkpoints")
    validation_step = SegmentationTask.validation_step

    def stop(task, batch, batch_idx):
        if task.global_step == at and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return validation_step(task, batch, batch_idx)

    monkeypatch.setattr(SegmentationTask, "validation_step", stop)
    with pytest.raises(RunStopped, match=f"SIGINT at step {at}") as stopped:
        lab.resume(copy)
    monkeypatch.setattr(SegmentationTask, "validation_step", validation_step)
    assert stopped.value.signal_number == signal.SIGINT
    state = load_checkpoint(copy / "checkpoints" / "last.ckpt")
    assert (state["global_step"], state["callbacks"]["Validations"]["due"]) == (at, True)
    lab.resume(copy)
    assert lab.hash_of(copy) == lab.hash_of(run)
    assert scores(copy) == scores(run)
    for name in ("last", "best"):
        states = [load_checkpoint(folder / "checkpoints" / f"{name}.ckpt") for folder in (run, copy)]
        assert states[0]["callbacks"] == states[1]["callbacks"], name
        assert states[0]["global_step"] == states[1]["global_step"]


@pytest.fixture
def stopped(lab, monkeypatch):
    """A whole run of six steps, and the folder of its like that SIGTERM has stopped after four, with every kind of checkpoint in it."""

    def make(*words):
        words = [*words, "--trainer.max_steps", "6", "--trainer.val_every", "2", "--trainer.log_every", "1", "--run_id", "r"]
        training_step = SegmentationTask.training_step

        def stop(task, batch, batch_idx):
            if task.global_step == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return training_step(task, batch, batch_idx)

        lab.train(*words, "--name", "whole")
        with monkeypatch.context() as patch:
            patch.setattr(SegmentationTask, "training_step", stop)
            with pytest.raises(RunStopped, match="at step 5"):
                lab.train(*words, "--name", "part")
        return lab.run("whole"), lab.run("part"), [*words, "--name", "part", "--resume", "auto"]

    return make


def test_a_run_in_double_precision_ends_bit_identical(lab, stopped):
    """Its weights are not cut to the float32 in which a network is built."""
    run, part, _ = stopped("--trainer.precision", "64-true", "--ema", "0.9")
    lab.resume(part)
    assert lab.hash_of(part) == lab.hash_of(run)
    assert scores(part) == scores(run)


def test_a_configuration_that_is_lost_is_written_again_from_the_checkpoint(lab, stopped, capsys):
    run, part, words = stopped()
    config = (part / "config.yaml").read_text()
    copy = lab.fork(part, "copy", part / "checkpoints" / "last.ckpt")
    (copy / "config.yaml").write_text("name: [")  # what somebody has written is left to them
    with pytest.raises(SegkitError, match="config.yaml cannot be read"):
        lab.resume(copy)
    (copy / "config.yaml").write_text("")
    lab.resume(copy)
    assert "config.yaml was lost; it is written again from last.ckpt" in capsys.readouterr().err
    assert yaml.safe_load((copy / "config.yaml").read_text()) == yaml.safe_load(config)
    assert lab.hash_of(copy) == lab.hash_of(run)
    (part / "config.yaml").unlink()
    with pytest.raises(SegkitError, match="--run_id r: 'runs/part/r' holds a run"):
        lab.train(*words[:-2])
    lab.train(*words)  # goes on, and does not begin in the same folder
    assert "written again" in capsys.readouterr().err
    assert scores(part) == scores(run)
    assert lab.hash_of(part) == lab.hash_of(run)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\nseed: 0", "\nseed: 5", "--seed 5, and runs/part/r/checkpoints/last.ckpt was trained with 0"),
        ("batch_size: 2", "batch_size: 4", "--data.batch_size 4, and .* was trained with 2"),
        ("data:", "data: {kind: scenes}\n#", "--data.batch_size 8, and .* was trained with 2"),
    ],
    ids=["seed", "batch size", "cut"],
)
def test_a_configuration_of_another_experiment_than_its_checkpoint_is_refused_by_name(lab, stopped, old, new, message):
    _, part, _ = stopped()
    config = (part / "config.yaml").read_text()
    before = lab.hash_of(part)
    end = config.index(old) + len(old) if old == "data:" else None  # what follows is lost
    (part / "config.yaml").write_text(config[:end].replace(old, new, 1))
    with pytest.raises(SegkitError, match=f"config.yaml says {message}; put back the files of one run, or delete config.yaml"):
        lab.resume(part)
    assert lab.hash_of(part) == before


@pytest.mark.parametrize("damage", [None, b"", b"nothing"], ids=["missing", "empty", "damaged"])
def test_where_only_the_best_checkpoint_is_left_the_run_goes_on_from_there(lab, stopped, capsys, damage):
    run, part, _ = stopped("--ema", "0.9")
    for name in ("last", "previous"):
        (part / "checkpoints" / f"{name}.ckpt").unlink()
        if damage is not None:
            (part / "checkpoints" / f"{name}.ckpt").write_bytes(damage)
    step = load_checkpoint(part / "checkpoints" / "best.ckpt")["global_step"]
    capsys.readouterr()
    lab.resume(part)
    said = capsys.readouterr()
    assert "going on with best.ckpt, an earlier one" in said.err
    assert f"validation at step {step}" not in said.out
    assert lab.hash_of(part) == lab.hash_of(run)
    assert scores(part) == scores(run)


def test_a_new_budget_is_said_and_replaces_one_in_epochs(lab, capsys):
    """The learning rate follows the budget, so that a longer run is not what it would have been from its start."""
    lab.train("--trainer.max_epochs", "1", "--name", "x")  # 3 steps
    capsys.readouterr()
    lab.resume(lab.run("x"))
    assert "until now" not in capsys.readouterr().out
    lab.resume(lab.run("x"), "--trainer.max_steps", "5")
    said = " ".join(capsys.readouterr().out.split())
    assert "5 steps of 2 images; 3 until now: from here on the learning rate is that of a run of 5" in said
    assert load_checkpoint(lab.run("x") / "checkpoints" / "last.ckpt")["global_step"] == 5
    lab.resume(lab.run("x"))
    assert "the run is at step 5 of 5" in " ".join(capsys.readouterr().out.split())


def test_results_that_a_finished_run_could_not_write_any_more_are_written_when_it_is_resumed(lab, capsys):
    """A kill or a full disk after the last checkpoint: nothing is left to train, but to score."""
    lab.train("--trainer.max_steps", "3", "--trainer.val_every", "2", "--name", "x")
    run = lab.run("x")
    before, results = lab.hash_of(run), {name: (run / name).read_bytes() for name in ("metrics.json",)}
    (run / "metrics.json").unlink()
    (run / "per_image.npz").unlink()
    lab.resume(run)
    assert "validation after 3 steps" in capsys.readouterr().out
    assert (run / "per_image.npz").is_file()
    assert (run / "metrics.json").read_bytes() == results["metrics.json"]
    assert lab.hash_of(run) == before
    lab.resume(run)
    assert "nothing left to do" in capsys.readouterr().out


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_from_its_beginning(lab, capsys):
    lab.train("--trainer.max_steps", "2", "--name", "whole")
    copy = lab.fork(lab.run("whole"), "part", lab.run("whole") / "checkpoints/last.ckpt")
    (copy / "checkpoints/last.ckpt").unlink()
    capsys.readouterr()
    lab.resume(copy)
    assert "stopped before its first checkpoint, so it starts from its beginning" in " ".join(capsys.readouterr().out.split())
    assert lab.hash_of(copy) == lab.hash_of(lab.run("whole"))
    assert scores(copy) == scores(lab.run("whole"))


def test_one_command_starts_a_run_and_goes_on_with_it(lab, capsys):
    """What a cluster starts again is the same line, word for word."""
    words = ["--run_id", "job7", "--name", "x", "--resume", "auto"]
    lab.train(*words, "--trainer.max_steps", "2")
    first = load_checkpoint("runs/x/job7/checkpoints/last.ckpt")["global_step"]
    lab.train("--resume=auto", *words[:4], "--trainer.max_steps", "3")
    assert (first, load_checkpoint("runs/x/job7/checkpoints/last.ckpt")["global_step"]) == (2, 3)
    capsys.readouterr()
    lab.train(*words, "--trainer.max_steps", "3")
    assert "nothing left to do" in capsys.readouterr().out
    with pytest.raises(SegkitError, match="say which run it is with --run_id"):
        lab.train("--resume", "auto")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--upsample", "nearest"], "--upsample nearest: the run was started with transpose"),
        (["--decoder", "fcn8s"], "--decoder fcn8s: the run was started with unet"),
        (["--encoder", "resnet18"], "--encoder resnet18: the run was started with plain"),
        (["--data.kind", "pets"], "--data.kind pets: the run was started with scenes"),
        (["--data.scenes_seed", "1"], "--data.scenes_seed 1: the run was started with 0"),
        (["--data.batch_size", "4"], "--data.batch_size 4: the run was started with 2"),
        (["--trainer.accumulate", "2"], "--trainer.accumulate 2: the run was started with 1"),
        (["--seed", "1"], "--seed 1: the run was started with 0"),
        (["--compile", "true"], "--compile True: the run was started with False"),
        (["--trainer.precision", "bf16-mixed"], "--trainer.precision bf16-mixed: the run was started with 32-true"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_another_experiment_is_refused_by_name(lab, words, message):
    config = dict(zip(lab.tiny[::2], lab.tiny[1::2], strict=True))
    folder = Path("runs/a/b")
    (folder / "checkpoints").mkdir(parents=True)
    values = {}
    for name, value in config.items():
        *path, last = name.removeprefix("--").split(".")
        at = values
        for word in path:
            at = at.setdefault(word, {})
        at[last] = yaml.safe_load(value)
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(SegkitError, match=message):
        command.main(["--resume", str(folder), *words])
