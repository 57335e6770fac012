"""The ablation command, killed with all its processes again and again: nothing is lost, nothing counts twice, the result is the same."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from segkit.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]
WORDS = "--upsample bilinear transpose_k2 --seeds 2 --slots 2 --name kills --trainer.max_steps 300 --trainer.val_every 10"
WORDS += " --decoder_channels [8,8] --data.batch_size 2 --data.crop 32 --data.scenes_size 48 --data.scenes_train 6 --data.scenes_val 3"
WORDS += " --data.scenes_test 4 --trainer.accelerator cpu --wandb.mode disabled --wandb.panels 0"


def ablate(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder / "out.txt").open("a") as out:
        command = [sys.executable, "-m", "segkit.cli", "ablate", *WORDS.split()]
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out)


def kill_tree(pid):
    """SIGKILL to a process and all that it has started, from the root down, so that nobody is left to note it."""
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for path in Path(f"/proc/{pid}/task").iterdir():
        children += [int(word) for word in (path / "children").read_text().split()]
    os.kill(pid, signal.SIGKILL)
    for child in set(children):
        try:
            kill_tree(child)
        except (ProcessLookupError, FileNotFoundError):
            continue


def wait(process, folder, after_checkpoint, seconds):
    """Waits for the end of a process (True), or for the moment of its death (False): so many seconds after a run has saved its first
    checkpoint and has not ended, or so many after the start."""
    begin, seen = time.monotonic(), None
    while process.poll() is None:
        now = time.monotonic()
        if seen is None and any(not (c.parents[1] / "metrics.json").exists() for c in folder.rglob("last.ckpt")):
            seen = now
        if seconds is not None and after_checkpoint is not None and seen is not None and now - seen > after_checkpoint:
            return False
        if seconds is not None and after_checkpoint is None and now - begin > seconds:
            return False
        time.sleep(0.05)
    return True


def results(folder):
    """Weights, per-image counts and proofs of every run."""
    found = {}
    for run in sorted((folder / "runs/trials").iterdir()):
        scored = run / "eval/test-last"
        provenance = json.loads((run / "provenance.json").read_text())
        found[run.name] = (
            {name: value.numpy() for name, value in load_checkpoint(run / "checkpoints/last.ckpt")["state_dict"].items()},
            dict(np.load(scored / "per_image.npz")),
            {name: provenance[name] for name in ("order", "batches", "initial", "schedule", "step")},
        )
    return found


@pytest.mark.slow
def test_an_ablation_that_is_killed_at_random_moments_ends_like_one_that_is_not(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    assert ablate(whole).wait() == 0
    chance, kills = random.Random(0), 0
    while True:
        process = ablate(killed)
        if wait(process, killed, chance.uniform(0, 2) if kills % 2 else None, chance.uniform(3, 30) if kills < 20 else None):
            break
        kill_tree(process.pid)
        process.wait()
        kills += 1
    assert process.returncode == 0
    commands = [line for log in killed.rglob("log.txt") for line in log.read_text().splitlines() if line.startswith("$ ")]
    resumed = sum("--resume" in line for line in commands)
    print(f"{kills} kills, {len(commands)} commands, {resumed} of them went on from a checkpoint")
    assert kills >= 10
    assert resumed >= 4
    expected, found = results(whole), results(killed)
    assert list(found) == list(expected)
    assert len(found) == 4
    for run, (weights, counts, proof) in expected.items():
        assert all(np.array_equal(value, found[run][0][name]) for name, value in weights.items())
        assert all(np.array_equal(value, found[run][1][name]) for name, value in counts.items())
        assert found[run][2] == proof
    assert not list(killed.rglob("*.tmp"))


def test_the_tree_that_is_killed_is_all_of_it():
    code = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    kill_tree(parent.pid)
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("a child lives on")
