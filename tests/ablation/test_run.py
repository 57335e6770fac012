"""The order of trials, their slots, and what a signal leaves."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from segkit.ablation.run import LocalExecutor, run_all, slot_threads
from segkit.ablation.trial import state
from segkit.errors import RunStopped


@pytest.fixture
def told():
    return []


def run(trials, told, slots=2, retry_failed=False):
    run_all(LocalExecutor([], slots), trials, retry_failed, lambda states: told.append(dict(states)))


def test_every_trial_runs_once_in_order_and_never_more_than_the_slots(make_trial, told):
    trials = [make_trial(f"t{i}", seed=i, pause=0.02) for i in range(5)]
    run(trials, told)
    assert all(state(trial) == "finished" for trial in trials)
    assert max(sum(s == "running" for s in states.values()) for states in told) == 2
    assert set(told[0].values()) == {"waiting"}
    assert set(told[-1].values()) == {"finished"}
    started = [min(i for i, states in enumerate(told) if states[t.folder] != "waiting") for t in trials]
    assert started == sorted(started)


def test_finished_ones_are_not_started_and_failed_ones_only_when_asked(make_trial, told, tmp_path):
    good, bad = make_trial("good"), make_trial("bad", fail=1)
    run([good, bad], told)
    assert (state(good), state(bad)) == ("finished", "failed")
    (tmp_path / "repaired").touch()
    log = Path(bad.folder) / "log.txt"
    before = log.read_bytes()
    run([good, bad], told)
    assert (state(bad), log.read_bytes()) == ("failed", before)
    run([good, bad], told, retry_failed=True)
    assert state(bad) == "finished"


def test_two_arms_may_share_a_run(make_trial, told):
    run([make_trial("same"), make_trial("same")], told)
    assert (Path(make_trial("same").folder) / "log.txt").read_text().count("$ train") == 1


def test_a_run_in_the_hands_of_another_is_waited_for(make_trial, told):
    trial = make_trial(pause=0.1)
    other = threading.Thread(target=run, args=([trial], []))
    other.start()
    while not (Path(trial.folder) / "checkpoints/last.ckpt").exists():
        time.sleep(0.01)
    run([trial], told)
    other.join()
    assert state(trial) == "finished"
    assert "busy" in {states[trial.folder] for states in told}
    assert (Path(trial.folder) / "log.txt").read_text().count("$ train") == 1


def test_what_fails_in_the_hands_of_another_is_not_tried_again(make_trial, told):
    trial = make_trial(pause=0.1, fail=4)
    other = threading.Thread(target=run, args=([trial], []))
    other.start()
    while not (Path(trial.folder) / "checkpoints/last.ckpt").exists():
        time.sleep(0.01)
    run([trial], told)
    other.join()
    assert "busy" in {states[trial.folder] for states in told}
    assert state(trial) == told[-1][trial.folder] == "failed"
    assert (Path(trial.folder) / "log.txt").read_text().count("$ train") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_runs_and_the_next_call_finishes_them(make_trial, told, number):
    trials = [make_trial(f"t{i}", pause=0.2) for i in range(3)]
    before = signal.getsignal(number)

    def stop(states):
        if any((Path(t.folder) / "checkpoints/last.ckpt").exists() for t in trials):
            os.kill(os.getpid(), number)

    with pytest.raises(RunStopped, match="start the same command again") as stopped:
        run_all(LocalExecutor([], 2), trials, False, stop)
    assert stopped.value.signal_number == number
    assert signal.getsignal(number) is before
    assert all(state(t) in ("interrupted", "waiting") for t in trials)
    run(trials, told)
    assert all(state(t) == "finished" for t in trials)


def test_slots_share_the_cores_or_the_cards(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert LocalExecutor([], 4).free == [{"OMP_NUM_THREADS": "2"}] * 4
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert slot_threads(4) == 3
    cards = [slot["CUDA_VISIBLE_DEVICES"] for slot in LocalExecutor(["3", "5"], 4).free]
    assert cards == ["3", "5", "3", "5"]
