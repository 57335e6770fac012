"""The exported sweep, read by wandb's own tools and run as an agent would."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from segkit.ablation.plan import Plan, build_arms
from segkit.ablation.sweep import export_sweep
from segkit.errors import SegkitError
from segkit.runs import newest_run

TRAIN = Path(__file__).parents[2] / "scripts" / "train.py"


@pytest.fixture
def make_plan(make_trials):
    def make(settings, **changes):
        base = make_trials(1)[0].config
        arms, baseline = build_arms(base, settings, [3, 4], ["x"] * len(settings), None, aa=True)
        about = {"axes": {}, "margin": None, "match": "native", "split": "test", "checkpoint": "last", "aa": True, "trials": "../../trials"}
        return Plan(name="operators", segkit="1", commit=None, baseline=baseline, seeds=[3, 4], data={}, arms=arms, **about)

    return make


def test_an_agents_command_line_trains_the_arm(tmp_path, monkeypatch, make_plan):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    monkeypatch.chdir(tmp_path)
    plan = make_plan([{"upsample": "bilinear", "lr": 0.01}, {"upsample": ["nearest", "bilinear"], "lr": 0.01}])
    commands = export_sweep(plan, Path("sweeps/operators"), TRAIN)
    assert commands.splitlines()[0] == "wandb sweep sweeps/operators/sweep.yaml"
    sweep = yaml.safe_load(Path("sweeps/operators/sweep.yaml").read_text())
    assert (sweep["method"], sweep["project"], sweep["parameters"]["seed"]) == ("grid", "segkit", {"values": [3, 4]})
    files = sweep["parameters"]["config"]["values"]
    assert files == ["sweeps/operators/bilinear_lr=0.01.yaml", "sweeps/operators/nearest+bilinear_lr=0.01.yaml"]  # and no A/A arm
    args = create_sweep_command_args({"args": {"config": {"value": files[1]}, "seed": {"value": 4}}})
    agent = {"${env}": ["/usr/bin/env"], "${interpreter}": [sys.executable], "${program}": [sweep["program"]], "${args}": args["args"]}
    words = [word for part in create_sweep_command(sweep["command"]) for word in agent[part]]
    assert words[-2:] == ["--config=sweeps/operators/nearest+bilinear_lr=0.01.yaml", "--seed=4"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((newest_run("runs") / "config.yaml").read_text())
    assert (config["seed"], config["upsample"], config["lr"]) == (4, ["nearest", "bilinear"], 0.01)


def test_arms_that_would_share_a_file_are_refused(tmp_path, make_plan):
    plan = make_plan([{"encoder": "a b"}, {"encoder": "a,b"}])
    with pytest.raises(SegkitError, match="their files would have one name"):
        export_sweep(plan, tmp_path / "sweep", TRAIN)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, make_plan):
    (tmp_path / "file").write_text("")
    with pytest.raises(SegkitError, match="cannot write to the folder"):
        export_sweep(make_plan([{"lr": 1.0}]), tmp_path / "file" / "sweep", TRAIN)
