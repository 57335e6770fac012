"""Plans: which arms there are, what they are called, and what decides a run's folder."""

from dataclasses import asdict, fields

import pytest

from segkit.ablation.plan import APART, APART_DATA, Plan, arm_name, build_arms, combinations, trial_name, with_settings
from segkit.cli.parsing import options
from segkit.config import DataConfig, TrainConfig, TrainerConfig
from segkit.errors import SegkitError

BASE = asdict(TrainConfig())


def plan(**changes):
    arms, baseline = build_arms(BASE, combinations({"upsample": ["bilinear", "nearest"]}), [3, 4], ["f", "f"], None, False)
    values = {
        "name": "n",
        "segkit": "1",
        "commit": None,
        "axes": {"upsample": ["bilinear", "nearest"]},
        "baseline": baseline,
        "margin": 0.01,
        "match": "native",
        "split": "test",
        "checkpoint": "last",
        "seeds": [3, 4],
        "aa": False,
        "trials": "../../trials",
        "data": {"fingerprint": "f", "description": "d"},
        "arms": arms,
    }
    return Plan(**{**values, **changes})


def test_arms_are_all_combinations_but_the_excluded():
    axes = {"upsample": ["a", "b"], "lr": [1, 2]}
    assert combinations(axes) == [
        {"upsample": "a", "lr": 1},
        {"upsample": "a", "lr": 2},
        {"upsample": "b", "lr": 1},
        {"upsample": "b", "lr": 2},
    ]
    assert combinations(axes, [{"upsample": "a", "lr": 2}, {"lr": 1, "upsample": "b"}]) == [
        {"upsample": "a", "lr": 1},
        {"upsample": "b", "lr": 2},
    ]
    assert combinations(axes, [{"lr": 1}]) == [{"upsample": "a", "lr": 2}, {"upsample": "b", "lr": 2}]


@pytest.mark.parametrize(
    ("axes", "exclude", "message"),
    [
        ({}, [], "no axis: give several values"),
        ({"lr": []}, [], "axis lr"),
        ({"lr": [1, 1]}, [], "each once"),
        ({"lr": [1]}, [{"lr": 2}], "no combination"),
        ({"lr": [1]}, [{"rl": 1}], "unknown axis in exclude 'rl'; choose from lr"),
        ({"lr": [1]}, [{"lr": 1}], "leave no arm"),
    ],
)
def test_a_plan_without_sense_is_refused(axes, exclude, message):
    with pytest.raises(SegkitError, match=message):
        combinations(axes, exclude)


def test_arms_are_named_by_what_they_are():
    assert arm_name({"upsample": "bilinear"}) == "bilinear"
    assert arm_name({"lr": 0.1}) == "0.1"
    assert arm_name({"upsample": "bilinear", "decoder": "unet", "data.crop": 64}) == "bilinear, unet, crop=64"
    assert arm_name({"upsample": ["bilinear", "nearest"]}) == "bilinear+nearest"
    assert arm_name({"encoder_weights": "/home/someone/w.pt"}) == "w.pt"


def other(value):
    """A value that differs from a default."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return "other" if value is None or isinstance(value, str) else ["other"]


@pytest.mark.parametrize("name", [name for name, _ in options(TrainConfig) if not name.startswith("wandb.")])
def test_a_run_is_named_by_every_option_but_those_that_decide_nothing(name):
    value = BASE
    for part in name.split("."):
        value = value[part]
    changed = trial_name(with_settings(BASE, {name: other(value)}), 0, "f") != trial_name(BASE, 0, "f")
    apart = name in APART - {"encoder_weights"} or name in {f"data.{n}" for n in APART_DATA}
    assert changed is not apart


def test_a_run_is_named_by_seed_and_files_too_and_not_by_where_the_files_lie(tmp_path):
    assert len({trial_name(BASE, 0, "f"), trial_name(BASE, 1, "f"), trial_name(BASE, 0, "g")}) == 3
    (tmp_path / "a.pt").touch()
    (tmp_path / "b.pt").touch()
    here, there = (trial_name({**BASE, "encoder_weights": str(tmp_path / f"{n}.pt")}, 0, "f") for n in "ab")
    assert here == there != trial_name({**BASE, "encoder_weights": "imagenet"}, 0, "f")


def test_what_decides_nothing_are_options_that_exist():
    assert {f.name for f in fields(TrainConfig)} >= APART
    assert {f.name for f in fields(DataConfig)} >= APART_DATA
    assert {f.name for f in fields(TrainerConfig)}  # all of which are in a run's name


def test_every_arm_has_every_seed_and_the_baseline_meets_itself_under_others():
    arms, baseline = build_arms(BASE, combinations({"upsample": ["bilinear", "nearest"]}), [3, 4], ["f", "f"], "nearest", True)
    assert (baseline, [arm.name for arm in arms]) == ("nearest", ["bilinear", "nearest", "nearest (A/A)"])
    assert [arm.config["upsample"] for arm in arms] == ["bilinear", "nearest", "nearest"]
    assert len({name for arm in arms for name in arm.trials.values()}) == 6
    assert arms[2].trials == {s: trial_name(arms[1].config, s + 2, "f") for s in (3, 4)}
    with pytest.raises(SegkitError, match="unknown baseline 'nearst'; did you mean 'nearest'"):
        build_arms(BASE, combinations({"upsample": ["bilinear", "nearest"]}), [3], ["f", "f"], "nearst", False)


def test_an_operator_that_the_decoder_decides_has_its_name_and_no_arm_stands_twice():
    network = {**BASE, "encoder": "resnet18"}
    axes = {"decoder": ["unet", "smp:FPN"], "upsample": [None]}
    arms, _ = build_arms(network, combinations(axes), [3], ["f", "f"], None, False)
    assert [arm.name for arm in arms] == ["unet, transpose", "smp:FPN, own"]
    with pytest.raises(SegkitError, match="arms 'transpose' and 'transpose' are the same runs: leave one of them out"):
        build_arms(BASE, combinations({"upsample": [None, "transpose"]}), [3], ["f", "f"], None, False)


def test_seeds_come_one_after_the_other_and_are_shifted_where_the_baseline_meets_itself():
    one = plan()
    assert [(seed, arm.name) for seed, arm in one.pairs()] == [(3, "bilinear"), (3, "nearest"), (4, "bilinear"), (4, "nearest")]
    arms, _ = build_arms(BASE, combinations({"upsample": ["bilinear"]}), [3, 4], ["f"], None, True)
    assert [plan(arms=arms).seed(arm, 4) for arm in arms] == [4, 6]


def test_a_plan_comes_back_from_its_file(tmp_path):
    plan().write(tmp_path)
    assert Plan.read(tmp_path) == plan()
    assert [p.name for p in tmp_path.iterdir()] == ["plan.yaml"]


@pytest.mark.parametrize("text", [None, "[1, 2]", "name: x", "{"])
def test_a_plan_that_cannot_be_read_says_so(tmp_path, text):
    if text is not None:
        (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(SegkitError, match=r"plan\.yaml"):
        Plan.read(tmp_path)
