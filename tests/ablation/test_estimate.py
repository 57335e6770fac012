"""Estimates, worked out by hand."""

import pytest
from rich.console import Console

from segkit.ablation.estimate import run_bytes, run_seconds, time_left, words
from segkit.ablation.outline import outline
from segkit.ablation.plan import Arm, Plan

COSTS = {
    "steps": 100,
    "step_ms": 200.0,
    "augment_ms": 25.0,
    "latency_ms": 30.0,
    "read_ms": 10.0,
    "start_s": 5.0,
    "images": {"train": 50, "val": 10, "test": 20},
    "parameters": 1_000_000,
    "operator_parameters": 250_000,
    "macs": 2_500_000_000,
}


def config(workers=0, accumulate=1, val_every=None, optimizer="adamw", ema=0.0):
    trainer = {"val_every": val_every, "accumulate": accumulate}
    return {"trainer": trainer, "data": {"batch_size": 8, "workers": workers}, "optimizer": optimizer, "ema": ema}


@pytest.mark.parametrize(
    ("given", "training"),
    [
        ({}, 5 + 100 * (0.2 + 8 * 0.025) + 10 * 10 * 0.04),  # ten validations of ten images; loading and computing take turns
        ({"workers": 2}, 5 + 100 * 0.2 + 4),  # loading, 100 ms a batch, is hidden behind the step
        ({"workers": 2, "accumulate": 3}, 5 + 300 * 0.2 + 4),
        ({"val_every": 30}, 5 + 40 + 4 * 10 * 0.04),  # at 30, 60, 90 and at the end
    ],
)
def test_seconds_of_a_run(given, training):
    assert run_seconds(config(**given), COSTS, "test") == pytest.approx((training, 5 + 20 * 0.04 * 1.5))


def test_loading_that_takes_longer_than_the_step_decides():
    assert run_seconds(config(workers=1), {**COSTS, "augment_ms": 50.0}, "val")[0] == pytest.approx(5 + 100 * 0.4 + 4)


@pytest.mark.parametrize(("given", "copies"), [({}, 3), ({"optimizer": "sgd"}, 2), ({"ema": 0.99}, 4)])
def test_bytes_of_a_run(given, copies):
    assert run_bytes(config(**given), COSTS) == 2 * 4 * 1_000_000 * copies


def test_time_until_all_is_through():
    assert time_left([], 2) == 0
    assert time_left([10, 10, 10], 2) == 15
    assert time_left([30, 1, 1], 2) == 30
    assert time_left([30, 1, 1], 10**9) == 30


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (80, "1 min 20 s"),
        (1860, "31 min"),
        (3599, "1 h"),
        (18_600, "5 h 10 min"),
        (273_600, "3 days 4 h"),
    ],
)
def test_durations_in_words(seconds, text):
    assert words(seconds) == text


def test_the_outline_names_runs_time_and_disk(tmp_path):
    arms = [Arm(name, {}, config(), {0: f"{name}0", 1: f"{name}1"}) for name in ("transpose", "bilinear")]
    about = {"axes": {}, "margin": None, "match": "native", "split": "test", "checkpoint": "last", "aa": False, "trials": "../../trials"}
    plan = Plan(name="x", segkit="1", commit=None, baseline="bilinear", seeds=[0, 1], data={"description": "the data"}, arms=arms, **about)
    done = tmp_path / "trials" / "transpose0"
    (done / "eval/test-last").mkdir(parents=True)
    (done / "done.json").write_text("{}")
    (done / "eval/test-last/metrics.json").write_text("{}")
    console = Console(width=100, record=True)
    console.print(outline(plan, tmp_path / "ablations" / "x", dict.fromkeys(("transpose", "bilinear"), COSTS), 2))
    out = console.export_text()
    assert "bilinear *" in out
    assert "1,000,000" in out
    assert "2.5 G" in out
    assert "4, 1 of them finished" in out
    one = 5 + 40 + 4 + 5 + 1.2  # a run, by hand
    assert f"about {words(3 * one / 2)}, 2 at a time; {words(3 * one)} of computing" in out
    assert "about 0.07 GB of checkpoints" in out  # 3 runs of 24 MB
