"""Checkpoint files on a disk that is full, after damage, and after a kill in the middle of being written."""

import os
import random
import resource
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from segkit.checkpoint import load_checkpoint, save_checkpoint
from segkit.errors import RunFailed, SegkitError
from segkit.runs import damage, find_checkpoint, newest_run, resumable


def weights(step, size=20_000):
    numbers = torch.Generator().manual_seed(step)
    return {"state_dict": {"model.weight": torch.randn(size, generator=numbers)}, "global_step": step}


@pytest.fixture
def run(tmp_path):
    """A run folder whose last checkpoint is of step 2 and the one before of step 1."""
    folder = tmp_path / "runs" / "a" / "b"
    for step in (1, 2):
        save_checkpoint(weights(step), folder / "checkpoints" / "last.ckpt")
    return folder


def test_the_checkpoint_before_the_last_is_kept(run):
    steps = {path.name: load_checkpoint(path)["global_step"] for path in (run / "checkpoints").iterdir()}
    assert steps == {"last.ckpt": 2, "previous.ckpt": 1}


def test_a_file_system_without_hard_links_keeps_it_too(run, monkeypatch):
    def refuse(*args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    save_checkpoint(weights(3), run / "checkpoints" / "last.ckpt")
    steps = {path.name: load_checkpoint(path)["global_step"] for path in (run / "checkpoints").iterdir()}
    assert steps == {"last.ckpt": 3, "previous.ckpt": 2}


def test_fifty_damaged_files_are_never_taken_for_sound_ones(run, capsys):
    """Each is cut off, or has a bit, a byte or a block changed; what is loaded is then the one before, or all of what was saved."""
    last, numbers = run / "checkpoints" / "last.ckpt", random.Random(0)
    content, harmless, fallen_back = last.read_bytes(), 0, 0
    for attempt in range(50):
        at = numbers.randrange(len(content))
        damaged = bytearray(content)
        if attempt % 4 == 0:
            del damaged[at:]
        elif attempt % 4 == 1:
            damaged[at] ^= 1 << numbers.randrange(8)
        elif attempt % 4 == 2:
            damaged[at : at + 512] = bytes(len(damaged[at : at + 512]))
        else:
            damaged[at] = (damaged[at] + numbers.randrange(1, 256)) % 256
        last.write_bytes(damaged)
        found = find_checkpoint(run)
        state = load_checkpoint(found)
        assert torch.equal(state["state_dict"]["model.weight"], weights(state["global_step"])["state_dict"]["model.weight"])
        if found == last:  # a byte that nothing depends on, such as one of padding
            assert state["global_step"] == 2
            harmless += 1
            continue
        fallen_back += 1
        assert state["global_step"] == 1
        assert f"checkpoint {str(last)!r} is damaged" in capsys.readouterr().err
        with pytest.raises(SegkitError, match=r"last.ckpt' is damaged or not a segkit checkpoint"):
            load_checkpoint(last)
    print(f"{fallen_back} of 50 damaged files fell back to the one before, {harmless} were damaged where nothing is stored")
    assert fallen_back + harmless == 50
    assert harmless < 10


def test_two_damaged_files_are_named(run):
    for name in ("last", "previous"):
        (run / "checkpoints" / f"{name}.ckpt").write_bytes(b"nothing")
    with pytest.raises(SegkitError, match=r"last.ckpt' is damaged \(File is not a zip file\), and there is no sound one before it"):
        find_checkpoint(run)


def test_a_run_that_goes_on_from_the_one_before_does_not_lose_it(run):
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    assert resumable(run) == last.with_name("previous.ckpt")
    assert newest_run(run.parents[1]) == run
    save_checkpoint(weights(2), last)
    assert load_checkpoint(last)["global_step"] == 2
    assert load_checkpoint(last.with_name("previous.ckpt"))["global_step"] == 1
    assert damage(last.with_name("damaged.ckpt"))


def test_a_run_without_a_checkpoint_has_none_to_go_on_from(tmp_path):
    assert resumable(tmp_path) is None


@pytest.mark.filterwarnings("ignore")
def test_a_file_that_cannot_be_written_is_one_line_and_leaves_the_others(run):
    """The limit of the process for the size of a file, which is an error of the system as a full disk is."""
    last, before = run / "checkpoints" / "last.ckpt", {path: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(RunFailed, match=r"last.ckpt' could not be written \(.+\); the earlier ones are as they were") as error:
            save_checkpoint(weights(3, size=200_000), last)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(str(error.value).splitlines()) == 1
    assert {path: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before


@pytest.fixture
def disk(tmp_path):
    """A file system of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", place], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


FILL = """
from segkit.callbacks import Checkpoints
from segkit.cli.parsing import run
from segkit.cli.train import main
save = Checkpoints._save_last
def fill(callback, trainer):
    if trainer.global_step == 4:  # somebody else's file takes what is left
        with open(callback.folder.parents[3] / "other", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
    save(callback, trainer)
Checkpoints._save_last = fill
run(main)
"""


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_a_line_and_the_run_goes_on_when_there_is_room(lab, disk):
    lab.train("--trainer.max_steps", "6", "--trainer.val_every", "2", "--name", "whole")
    words = [*lab.tiny, "--trainer.max_steps", "6", "--trainer.val_every", "2", "--name", "full", "--runs", str(disk / "runs")]
    process = lab.script(FILL, *words)
    _, errors = process.communicate(timeout=240)
    (run,) = (disk / "runs" / "full").iterdir()
    assert process.returncode == 1, errors
    line = errors.strip().splitlines()[-1]
    assert line.startswith("program.py: error: ")
    assert "No space left on device" in line
    assert "Traceback" not in errors
    assert load_checkpoint(find_checkpoint(run))["global_step"] == 2
    assert {path.name for path in (run / "checkpoints").iterdir()} <= {"last.ckpt", "previous.ckpt", "best.ckpt"}
    (disk / "other").unlink()
    lab.resume(run)
    assert lab.hash_of(run) == lab.hash_of(lab.run("whole"))
    print("disk full while saving: 1 of 1 ended with a line, the old checkpoint intact, resumed bit-identical")


SAVING = """
import os, torch
from pathlib import Path
from segkit.checkpoint import save_checkpoint
state = {"state_dict": {"model.weight": torch.zeros(8_000_000)}}
for step in range(1000):
    state["state_dict"]["model.weight"].fill_(step)
    os.write(1, b"b")
    save_checkpoint({**state, "global_step": step}, "run/checkpoints/last.ckpt")
    os.write(1, b"e")
"""


@pytest.mark.slow
def test_a_kill_while_a_checkpoint_is_saved_leaves_a_loadable_one(lab, monkeypatch):
    """SIGKILL at random moments between the beginning and the end of a save of 32 MB, with TMPDIR on another file system."""
    other = Path("/dev/shm")
    if not other.is_dir() or os.stat(other).st_dev == os.stat(lab.folder).st_dev:
        pytest.skip("no other file system for TMPDIR")
    place = other / f"segkit-test-{os.getpid()}"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    numbers, killed, tries = random.Random(0), 0, 0
    try:
        while killed < 50 and tries < 150:
            tries += 1
            process = lab.script(SAVING)
            descriptor, said = process.stdout.fileno(), b""
            while said.count(b"b") < 3:
                assert select.select([descriptor], [], [], 120)[0]
                said += os.read(descriptor, 1)
            time.sleep(numbers.uniform(0, 0.08))
            process.kill()
            process.wait()
            said += process.stdout.buffer.read()
            process.stdout.close()
            process.stderr.close()
            killed += said.endswith(b"b")
            found = find_checkpoint(Path("run"))
            state = load_checkpoint(found)
            assert state["global_step"] in (said.count(b"b") - 1, said.count(b"b") - 2)
            assert (state["state_dict"]["model.weight"] == state["global_step"]).all()
            assert {path.name for path in Path("run/checkpoints").iterdir()} <= {"last.ckpt", "previous.ckpt", ".last.ckpt.tmp"}
            assert list(place.iterdir()) == []
    finally:
        for left in place.iterdir():
            left.unlink()
        place.rmdir()
    print(f"{killed} of {killed} kills inside a save ({tries} kills in all) left a loadable checkpoint and nothing in TMPDIR")
    assert killed == 50
