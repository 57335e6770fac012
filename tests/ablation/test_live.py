"""The table and the lines of a running ablation, over folders as trials leave them."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from segkit.ablation import live
from segkit.ablation.live import LiveTable

COSTS = {"steps": 200, "step_ms": 100.0, "augment_ms": 0.0, "latency_ms": 0.0, "read_ms": 0.0, "start_s": 10.0, "images": {}}  # 30 + 10 s


@pytest.fixture
def trials(make_trials):
    """Two arms of two seeds."""
    pairs = [("transpose", 0), ("[bold]", 0), ("transpose", 1), ("[bold]", 1)]
    return dict(zip(pairs, make_trials(4), strict=True))


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(live, "REFRESH_SECONDS", 0)
    monkeypatch.setattr(live, "READ_SECONDS", 0)


def table(trials, width=100, terminal=True, slots=2):
    console = Console(file=StringIO(), width=width, height=30, force_terminal=terminal, color_system=None)
    return LiveTable(trials, dict.fromkeys(("transpose", "[bold]"), COSTS), slots, console)


def tell(shown, trials, **states):
    shown({trial.folder: states[f"s{i}"] for i, trial in enumerate(trials.values())})


def finish(trial, miou, seconds):
    folder = Path(trial.folder)
    (folder / "eval/test-last").mkdir(parents=True, exist_ok=True)
    (folder / "eval/test-last/metrics.json").write_text(json.dumps({"miou": miou}))
    (folder / "done.json").write_text(json.dumps({"seconds": seconds - 5, "evaluation_seconds": 5}))


def train(trial, rows):
    folder = Path(trial.folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.txt").write_text("")
    (folder / "metrics.csv").write_text("step,train/loss,val/miou\n" + "".join(f"{row}\n" for row in rows) + "60,0.")  # a row half written


def printed(shown):
    return shown.console.file.getvalue()


def view(shown):
    console = Console(file=StringIO(), width=shown.console.width, color_system=None)
    console.print(shown._view())
    return console.file.getvalue()


def test_plain_lines_one_per_event(trials):
    shown = table(trials, terminal=False)
    first, second, *_ = trials.values()
    with shown:
        tell(shown, trials, s0="waiting", s1="waiting", s2="waiting", s3="failed")
        tell(shown, trials, s0="running", s1="running", s2="waiting", s3="failed")
        tell(shown, trials, s0="running", s1="running", s2="waiting", s3="failed")
        finish(first, 0.5124, 80)
        Path(second.folder).mkdir(parents=True)
        (Path(second.folder) / "failed.json").write_text(json.dumps({"stage": "training", "message": "the gradient norm is nan at step 7"}))
        tell(shown, trials, s0="finished", s1="failed", s2="running", s3="failed")
        tell(shown, trials, s0="finished", s1="failed", s2="interrupted", s3="failed")
    lines = [line.split(" ", 1)[1] for line in printed(shown).splitlines()]
    assert lines == [
        "4 runs, 1 failed; about 1 min left",  # three runs of 40 s, two at a time
        "[0/4] transpose seed 0 started",
        "[0/4] [bold] seed 0 started",
        "[1/4] transpose seed 0 finished: mIoU 0.512, 1 min 20 s; about 1 min 20 s left",  # twice the estimate, so the one left too
        f"[1/4] [bold] seed 0 failed in its training: the gradient norm is nan at step 7; log: {second.folder}/log.txt",
        "[1/4] transpose seed 1 started",
        "[1/4] transpose seed 1 interrupted; it goes on at the next start of this ablation",
    ]


def test_a_run_in_other_hands_is_named_once(trials):
    shown = table(trials, terminal=False)
    rest = {"s1": "waiting", "s2": "waiting", "s3": "waiting"}
    for state in ("waiting", "running", "busy", "running", "busy", "running", "busy"):
        tell(shown, trials, s0=state, **rest)
    assert [line.split(" ", 1)[1] for line in printed(shown).splitlines()][2:] == ["[0/4] transpose seed 0 is run by another process"]


def test_the_table_shows_results_progress_and_states(trials):
    shown = table(trials)
    first, second, third, _ = trials.values()
    finish(first, 0.25, 40)
    finish(third, 0.75, 40)
    train(second, ["20,0.9,", "40,0.8,0.125", "50,0.7,"])
    states = {"s0": "finished", "s1": "running", "s2": "finished", "s3": "busy"}
    with shown:
        tell(shown, trials, **states)
        tell(shown, trials, **states)
        lines = [line.split() for line in view(shown).splitlines()]
    assert ["transpose", "0.250", "0.750", "0.500"] in lines
    assert ["[bold]", "25%", "busy"] in lines
    assert "[bold] seed 0: step 50/200, val mIoU 0.125" in view(shown)
    # half a minute of training of which three quarters are left, and two evaluations of ten seconds, beside a whole run
    assert "2 of 4 runs finished, 1 running, 1 busy" in view(shown)
    assert "about 40 s left" in view(shown)
    assert "0.750" in printed(shown)


def test_the_last_validation_is_remembered_when_the_file_has_grown(trials, monkeypatch):
    shown = table(trials)
    (trial,) = [trial for pair, trial in trials.items() if pair == ("transpose", 0)]
    rest = {"s1": "waiting", "s2": "waiting", "s3": "waiting"}
    with shown:
        tell(shown, trials, s0="running", **rest)
        assert "transpose seed 0: queued" in view(shown)
        train(trial, ["1,0.9,0.5"])
        tell(shown, trials, s0="running", **rest)
        monkeypatch.setattr(live, "TAIL", 64)
        train(trial, ["1,0.9,0.5", *(f"{step},0.1," for step in range(2, 100))])
        tell(shown, trials, s0="running", **rest)
        assert "transpose seed 0: step 99/200, val mIoU 0.500" in view(shown)
        (Path(trial.folder) / "metrics.json").write_text("{}")
        assert "transpose seed 0: scoring, val mIoU 0.500" in view(shown)


@pytest.mark.parametrize("width", [20, 30])
def test_a_narrow_terminal_gets_marks(trials, width):
    shown = table(trials, width=width)
    finish(next(iter(trials.values())), 0.25, 40)
    with shown:
        tell(shown, trials, s0="finished", s1="waiting", s2="running", s3="interrupted")
    assert all(len(line) <= width for line in view(shown).splitlines())
    lines = [line.split() for line in view(shown).splitlines()]
    if width >= 30:
        assert ["transpose", "+>", "0.250"] in lines
        assert ["[bold]", ".-"] in lines


def test_a_failure_is_told_above_the_table(trials):
    shown = table(trials)
    with shown:
        tell(shown, trials, s0="running", s1="waiting", s2="waiting", s3="waiting")
        tell(shown, trials, s0="failed", s1="waiting", s2="waiting", s3="waiting")
    assert printed(shown).count("transpose seed 0 failed") == 1
    assert "transpose seed 0 started" not in printed(shown)
