"""A small experiment, run in this process or as a command, and what must be equal where a run was interrupted."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from segkit.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]
TINY = """--decoder_channels [8,8] --data.batch_size 2 --data.crop 32 --data.scenes_size 48 --data.scenes_train 6 --data.scenes_val 3
--data.scenes_test 2 --trainer.accelerator cpu --trainer.devices 1 --wandb.mode disabled --wandb.panels 0"""
HARD = """--trainer.accumulate 2 --trainer.clip 0.5 --ema 0.9 --dropout 0.3
--decoder_channels [8,8,8] --deep_supervision 0.4"""  # all that a step depends on


def state_hash(checkpoint):
    """sha256 over every tensor of the weights, averages and the optimiser, and the number of steps."""
    state = load_checkpoint(checkpoint)
    digest = hashlib.sha256(str(state["global_step"]).encode())

    def add(name, value):
        if isinstance(value, torch.Tensor):
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                add(f"{name}.{key}", value[key])
        elif isinstance(value, list):
            for i, item in enumerate(value):
                add(f"{name}.{i}", item)

    for key in ("state_dict", "raw_state_dict", "optimizer_states", "SegmentationDataModule"):
        add(key, state.get(key, {}))
    return digest.hexdigest()


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """An empty working folder, with the means to train in it, interrupt, and compare."""
    monkeypatch.chdir(tmp_path)

    def train(*words):
        from segkit.cli import train as command

        command.main([*TINY.split(), *words])

    def resume(run, *words):
        from segkit.cli import train as command

        command.main(["--resume", str(run), *words])

    def run(name):
        (found,) = Path("runs", name).iterdir()
        return found

    def fork(run, name, checkpoint):
        """A copy of a run that stands at an earlier checkpoint."""
        copy = Path("runs", name, "copy")
        copy.parent.mkdir(parents=True)
        shutil.copytree(run, copy)
        for left in (copy / "checkpoints").iterdir():
            left.unlink()
        shutil.copy(checkpoint, copy / "checkpoints" / "last.ckpt")
        return copy

    def script(text, *words, **options):
        """A Python program in which segkit is found, as a process; its output and errors as text."""
        Path("program.py").write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{text}")
        return subprocess.Popen(
            [sys.executable, "program.py", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )

    def hash_of(run):
        return state_hash(run / "checkpoints" / "last.ckpt")

    tools = {"train": train, "resume": resume, "run": run, "fork": fork, "script": script, "hash_of": hash_of}
    return SimpleNamespace(folder=tmp_path, tiny=TINY.split(), hard=HARD.split(), **tools)


class Done(SimpleNamespace):
    """A command that has ended: words, code, out, err, mib (its memory) and seconds."""

    def refused(self, code=2):
        """Its one line, if that is how it ended."""
        assert (self.code, self.err.count("\n"), self.err[-1:]) == (code, 1, "\n"), (self.words, self.code, self.err[-2000:])
        assert "Traceback" not in self.err
        assert "weights_only" not in self.err  # torch's advice to run the code all the same
        assert len(self.err) < 1200, self.err
        return self.err


@pytest.fixture(scope="session")
def serve():
    """Runs a command as a process that imports nothing anew: `serve("eval", "RUN", cwd=folder)` is a `Done`."""
    server = Path(__file__).with_name("command_server.py")
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # of this process, which may be gone
    process = subprocess.Popen([sys.executable, server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def run(*words, cwd, **options):
        process.stdin.write(json.dumps({"words": [*map(str, words)], "cwd": str(cwd), **options}) + "\n")
        process.stdin.flush()
        return Done(**json.loads(process.stdout.readline()))

    yield run
    process.stdin.close()
    process.stdout.close()
    assert process.wait(60) == 0


@pytest.fixture(scope="session")
def lair(tmp_path_factory, serve):
    """A folder with a sound run, `runs/a/b`, and a picture, `a.png`, among what is hostile."""
    folder = tmp_path_factory.mktemp("lair")
    trained = serve("train", *TINY.split(), "--trainer.max_steps", 1, "--data.workers", 0, "--name", "a", "--run_id", "b", cwd=folder)
    assert trained.code == 0, trained.err
    Image.new("RGB", (40, 32)).save(folder / "a.png")
    return folder
