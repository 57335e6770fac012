"""SIGKILL, which no handler sees: the run goes on from its last checkpoint and ends as if nothing had been."""

import json
import os
import time
from pathlib import Path

import pytest

# One process imports everything once and forks the commands, so that each does what follows its imports. A command kills itself.
PROGRAM = """
import json, os, signal
from pathlib import Path
from segkit import checkpoint, trainer
from segkit.callbacks import EMA
from segkit.cli.train import main
from segkit.task import SegmentationTask

def kill_before(owner, name, when):
    method = getattr(owner, name)
    def killed(*args, **kwargs):
        if when(*args):
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*args, **kwargs)
    setattr(owner, name, killed)

def command(words, step=None, place=None):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.dup2(os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    if place == "before a step":
        kill_before(SegmentationTask, "training_step", lambda task, *_: task.global_step == step)
    elif place == "after a step":
        kill_before(EMA, "on_train_batch_end", lambda ema, trainer, *_: trainer.global_step == step)
    elif place == "in a validation":
        kill_before(SegmentationTask, "validation_step", lambda task, *_: task.global_step >= step)
    elif place == "before a checkpoint has its name":
        kill_before(os, "replace", lambda old, new: str(new).endswith("last.ckpt") and step <= kept())
    elif place == "after a checkpoint has its name":
        kill_before(SegmentationTask, "on_train_batch_start", lambda task, *_: task.global_step == step)
    try:
        main(words)
        os._exit(0)
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)

saved = 0
def kept():
    global saved
    saved += 1
    return 2 * saved

train, moments = json.loads(sys.argv[1]), json.loads(sys.argv[2])
assert command([*train, "--name", "whole"]) == 0
for number, (place, step) in enumerate(moments):
    killed = command([*train, "--name", f"run{number}"], step, place)
    (run,) = Path("runs", f"run{number}").iterdir()
    had = (run / "checkpoints" / "last.ckpt").exists()
    print(json.dumps({"number": number, "killed": killed, "had": had, "resumed": command(["--resume", str(run)])}), flush=True)
"""
PLACES = ["before a step", "after a step", "in a validation", "before a checkpoint has its name", "after a checkpoint has its name"]


def kill(lab, moments, workers):
    words = [*lab.tiny, *lab.hard, "--trainer.max_steps", "12", "--trainer.val_every", "6", "--trainer.save_every", "2"]
    process = lab.script(PROGRAM, json.dumps([*words, "--data.workers", str(workers)]), json.dumps(moments))
    out, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors + Path("log.txt").read_text()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["killed"] for row in rows] == [-9] * len(moments)
    assert [row["resumed"] for row in rows] == [0] * len(moments), Path("log.txt").read_text()
    whole = lab.hash_of(lab.run("whole"))
    equal = sum(lab.hash_of(lab.run(f"run{row['number']}")) == whole for row in rows)
    print(f"{equal} of {len(moments)} kills: resumed and bit-identical; {sum(row['had'] for row in rows)} of them from a checkpoint")
    assert equal == len(moments)
    for row in rows:
        left = {path.name for path in (lab.run(f"run{row['number']}") / "checkpoints").iterdir()}
        assert left == {"last.ckpt", "previous.ckpt", "best.ckpt"}


def test_killed_at_a_few_moments(lab):
    kill(lab, [("after a step", 5), ("in a validation", 6), ("before a checkpoint has its name", 4)], workers=0)


@pytest.mark.slow
def test_killed_at_twenty_moments_with_two_workers(lab):
    moments = [(place, step) for step in (1, 4, 7, 10) for place in PLACES]
    moments = [(place, {1: 6, 4: 6, 7: 12, 10: 12}[step] if place == "in a validation" else step) for place, step in moments]
    moments = [(place, step - step % 2 if place.endswith("name") and step > 1 else step) for place, step in moments]
    kill(lab, moments, workers=2)
    deadline = time.monotonic() + 30  # a loader process looks every 5 s whether it has lost the one that it loads for
    while (left := orphans(lab.folder)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left == []


def orphans(folder):
    """The numbers of the other processes that work in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if int(entry.name) != os.getpid() and (entry / "cwd").resolve() == folder.resolve():
                found.append(int(entry.name))
        except OSError:  # gone meanwhile
            continue
    return found
