"""A stand-in for the commands of a trial, which does in milliseconds what they do in minutes, and leaves the same traces."""

import sys

import pytest

from segkit.ablation import trial as trials
from segkit.ablation.trial import Trial

STUB = """
import json, os, sys, time
from pathlib import Path
import yaml

command, *words = sys.argv[1:]
if command == "train":
    if words[0] == "--config":
        config = yaml.safe_load(Path(words[1]).read_text())
        folder, step = Path(config["runs"]) / config["name"] / config["run_id"], 0
        assert not (folder / "config.yaml").exists()
        (folder / "config.yaml").write_text(Path(words[1]).read_text())
        (folder / "checkpoints").mkdir()
    else:
        folder = Path(words[1])
        config = yaml.safe_load((folder / "config.yaml").read_text())
        step = int((folder / "checkpoints/last.ckpt").read_text())
    print("training", config["seed"], "from", step, flush=True)
    while step < 5:
        step += 1
        time.sleep(config.get("pause", 0))
        if config.get("fail") == step and not Path(config["repaired"]).exists():
            sys.exit("train.py: error: no luck")
        (folder / "checkpoints/.tmp").write_text(str(step))
        os.replace(folder / "checkpoints/.tmp", folder / "checkpoints/last.ckpt")
        with (folder / "steps.txt").open("a") as file:
            file.write(f"{step} ")
    (folder / "metrics.json").write_text("{}")
else:
    folder = Path(words[0])
    assert "--boundary" in words and "--artefacts" in words
    results = folder / "eval" / f"{words[words.index('--split') + 1]}-last"
    results.mkdir(parents=True)
    (results / "metrics.json").write_text(json.dumps({"steps": (folder / "steps.txt").read_text()}))
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """The stand-in's file, in place of the commands."""
    path = tmp_path / "stub.py"
    path.write_text(STUB)
    monkeypatch.setattr(trials, "COMMAND", [sys.executable, str(path)])
    return path


@pytest.fixture
def make_trial(tmp_path, stub):
    """Trials by name; options: `pause` in seconds a step, `fail`, the step that ends in an error until the file `repaired` exists."""

    def make(name="a", seed=0, split="test", **options):
        config = {"seed": seed, "trainer": {"accelerator": "cpu"}, "repaired": str(tmp_path / "repaired"), **options}
        return Trial(str(tmp_path / "runs" / "trials" / name), config, split)

    return make
