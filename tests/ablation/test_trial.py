"""One run of an ablation: whole or not at all, never twice, and on from where it was killed."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from segkit.ablation.trial import STOPPED, run_trial, state

ROOT = Path(__file__).parents[2]
STEPS = {"steps": "1 2 3 4 5 "}


def results(trial):
    return json.loads((Path(trial.folder) / "eval" / f"{trial.split}-last" / "metrics.json").read_text())


def test_a_trial_trains_evaluates_and_is_not_repeated(make_trial):
    trial = make_trial()
    assert state(trial) == "waiting"
    assert run_trial(trial) == state(trial) == "finished"
    assert results(trial) == STEPS
    folder = Path(trial.folder)
    done = json.loads((folder / "done.json").read_text())
    assert done["seconds"] > 0 < done["evaluation_seconds"]
    assert (folder / "log.txt").read_text().count("$ ") == 2
    before = (folder / "log.txt").read_bytes()
    assert run_trial(trial) == "finished"
    assert (folder / "log.txt").read_bytes() == before


def test_another_split_is_scored_without_training_again(make_trial):
    trial = make_trial()
    run_trial(trial)
    other = replace(trial, split="val")
    assert state(other) == "waiting" or state(other) == "interrupted"
    assert run_trial(other) == "finished"
    assert results(other) == STEPS
    assert state(trial) == "finished"


def test_a_failure_keeps_its_log_and_goes_on_once_it_is_tried_again(make_trial, tmp_path):
    trial = make_trial(fail=3)
    assert run_trial(trial) == state(trial) == "failed"
    failed = json.loads((Path(trial.folder) / "failed.json").read_text())
    assert (failed["code"], failed["stage"], failed["message"]) == (1, "training", "train.py: error: no luck")
    assert "training 0 from 0" in failed["log"]
    (tmp_path / "repaired").touch()
    assert run_trial(trial) == state(trial) == "finished"
    assert not (Path(trial.folder) / "failed.json").exists()
    assert results(trial) == STEPS
    assert "training 0 from 2" in (Path(trial.folder) / "log.txt").read_text()  # nothing of the first attempt is lost


def test_a_command_that_a_signal_ends_is_interrupted_not_failed(make_trial):
    trial = make_trial(pause=0.2)
    assert run_trial(trial, started=lambda process: process.terminate()) == "interrupted"
    assert state(trial) in ("interrupted", "waiting")
    assert run_trial(replace(trial, config={**trial.config, "pause": 0})) == "finished"


@pytest.mark.parametrize(("number", "outcome"), [(signal.SIGSEGV, "failed"), (signal.SIGABRT, "failed"), (signal.SIGKILL, "interrupted")])
def test_a_program_that_crashes_has_failed(make_trial, number, outcome):
    assert run_trial(make_trial(pause=0.2), started=lambda process: process.send_signal(number)) == outcome


def test_a_training_that_leaves_no_result_is_not_evaluated(make_trial, monkeypatch):
    trial = make_trial()
    with monkeypatch.context() as context:  # Lightning's end where SIGTERM comes before the first step: exit code 0 and nothing done
        context.setattr("segkit.ablation.trial.COMMAND", [sys.executable, "-c", ""])
        assert run_trial(trial) == "interrupted"
    assert "$ eval" not in (Path(trial.folder) / "log.txt").read_text()
    assert not (Path(trial.folder) / "done.json").exists()
    assert run_trial(trial) == "finished"
    assert results(trial) == STEPS


def test_a_training_that_was_killed_after_its_last_step_is_evaluated(make_trial, stub, monkeypatch):
    trial = make_trial()
    run_trial(trial)
    folder = Path(trial.folder)
    (folder / "metrics.json").unlink()  # what is written after the last checkpoint
    (folder / "done.json").unlink()
    (folder / "eval/test-last/metrics.json").unlink()
    (folder / "eval/test-last").rmdir()
    code = f"import runpy, sys; sys.argv[1] == 'train' or runpy.run_path({str(stub)!r})"  # such a run has nothing left to do
    monkeypatch.setattr("segkit.ablation.trial.COMMAND", [sys.executable, "-c", code])
    assert run_trial(trial) == state(trial) == "finished"
    assert results(trial) == STEPS


def start(trial, stub):
    """The trial in a process of its own, as an executor has it."""
    code = (
        f"import pickle, sys; from segkit.ablation import trial as t; t.COMMAND = [sys.executable, {str(stub)!r}];"
        f"print(t.run_trial(pickle.loads({pickle.dumps(trial)!r})))"
    )
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "too slow"
        time.sleep(0.02)


def test_a_run_whose_ablation_was_killed_is_not_touched_while_it_lives_and_counts_when_it_is_done(make_trial, stub):
    trial = make_trial(pause=0.3)
    checkpoint = Path(trial.folder) / "checkpoints/last.ckpt"
    parent = start(trial, stub)
    until(checkpoint.exists)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert run_trial(trial) == "busy"  # the orphan has the lock
    until(lambda: (Path(trial.folder) / "metrics.json").exists())
    until(lambda: run_trial(trial) != "busy")
    assert state(trial) == "finished"
    assert results(trial) == STEPS


@pytest.mark.parametrize("when", ["before the first checkpoint", "between two"])
def test_all_killed_at_once_goes_on_and_no_step_counts_twice(make_trial, stub, when):
    trial = make_trial(pause=0.3)
    folder = Path(trial.folder)
    parent = start(trial, stub)
    until((folder / "config.yaml" if when.startswith("before") else folder / "checkpoints/last.ckpt").exists)
    for child in children(parent.pid):
        os.kill(child, signal.SIGKILL)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: run_trial(trial) != "busy")
    assert state(trial) == "finished"
    assert results(trial) == STEPS


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_run_that_any_signal_has_stopped_is_no_failed_one():
    assert {128 + number for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)} == STOPPED
