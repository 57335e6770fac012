"""Promise 12: under low limits a run works, or says in one line before it starts what it needs."""

import atexit
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from segkit import preflight
from segkit.cli import running, surroundings
from segkit.config import DataConfig, TrainConfig
from segkit.data.module import SegmentationDataModule
from segkit.errors import SegkitError

ROOT = Path(__file__).parents[2]
TRAIN = """--decoder_channels [8,8] --data.batch_size 2 --data.crop 32 --data.scenes_size 48 --data.scenes_train 6 --data.scenes_val 3
--data.scenes_test 2 --trainer.accelerator cpu --trainer.devices 1 --wandb.panels 1 --trainer.max_steps 4 --trainer.val_every 2"""
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def disk(monkeypatch):
    """Sets the free bytes that every disk seems to have."""
    return lambda free: monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2 * free, free, free))


@pytest.fixture
def allowed(monkeypatch):
    """Sets the limits of open files that this process seems to have; returns what becomes of them, and of torch's way to share."""

    def set_to(soft, hard):
        seen = {"limit": (soft, hard), "sharing": "file_descriptor"}
        monkeypatch.setattr(resource, "getrlimit", lambda kind: seen["limit"])
        monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: seen.update(limit=limits))
        monkeypatch.setattr(torch.multiprocessing, "set_sharing_strategy", lambda name: seen.update(sharing=name))
        return seen

    return set_to


def data(workers, **options):
    return SegmentationDataModule(DataConfig(**{"workers": workers, "crop": 64, "scenes_size": 96, "batch_size": 8, **options}))


def test_a_folder_is_probed_where_it_would_be_made(tmp_path):
    preflight.check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(SegkitError, match=r"cannot be written to '.*file' \(Not a directory\); choose a folder .*--runs DIR"):
        preflight.check_writable(tmp_path / "file" / "runs")


def test_weights_are_asked_for_before_data(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("segkit.models.encoders.check_weights", lambda *given: asked.append(given))
    config = TrainConfig(encoder="resnet18", encoder_weights="imagenet", decoder_channels=(8, 8, 8, 8))
    preflight.before_data(config, tmp_path)
    assert asked == [("resnet18", "imagenet", 4)]


@pytest.mark.parametrize(("moments", "copies"), [(2, 1), (2, 2), (1, 1)])
def test_room_is_wanted_for_every_checkpoint_that_may_lie_there(tmp_path, disk, moments, copies):
    model = torch.nn.Linear(2**16, 16, bias=False)  # 4 MiB
    need = 4 * (copies + moments) * 4 + 8  # last, previous, best, and one that is being written
    disk(need * 2**20)
    preflight.check_room(tmp_path / "runs", model, moments, copies)
    disk(need * 2**20 - 1)
    with pytest.raises(SegkitError, match=rf"has room for {need} MiB, and this run needs about {need} MiB, for up to 4 checkpoints"):
        preflight.check_room(tmp_path / "runs", model, moments, copies)
    (tmp_path / "checkpoints").mkdir()  # a run that is gone on with: what it replaces counts
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"x")
    preflight.check_room(tmp_path, model, moments, copies)


def test_the_estimate_is_not_below_what_a_checkpoint_takes(tmp_path, make_task, make_trainer):
    from segkit.callbacks import EMA, Checkpoints

    task = make_task(2)
    task.net.insert(0, torch.nn.Conv2d(3, 3, 129, padding=64))  # large enough for numbers to matter more than their names
    make_trainer([EMA(0.9), Checkpoints(tmp_path / "checkpoints")], 2).fit(task)
    size = (tmp_path / "checkpoints" / "last.ckpt").stat().st_size
    state = sum(value.nbytes for value in task.state_dict().values())
    assert 4 * state < size < 4.1 * state  # weights, their average, two moments


def test_shared_memory_holds_what_is_loaded_ahead(disk, allowed):
    allowed(1024, 1024)
    module = data(workers=2)
    need = 2 * 4 * (8 * 64 * 64 + 96 * 96) * 4  # workers, batches ahead; pixels of a training and a validation batch; image and mask
    disk(need)
    preflight.check_workers(module, ("train", "val"))
    disk(need - 1)
    with pytest.raises(SegkitError, match=r"workers 2: /dev/shm has room for 1 MiB, .* need up to 1 MiB; use 1 workers or smaller batches"):
        preflight.check_workers(module, ("train", "val"))
    preflight.check_workers(module, ("val",))
    preflight.check_workers(data(workers=0), ("train", "val"))
    with pytest.raises(SegkitError, match="use 0 workers"):
        preflight.check_workers(module, ("train", "val"), devices=8)


def test_shared_memory_takes_locks(monkeypatch):
    def refuse():
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("multiprocessing.Lock", refuse)
    with pytest.raises(SegkitError, match=r"workers 2: /dev/shm takes no locks \(Read-only file system\); use 0 workers"):
        preflight.check_workers(data(workers=2), ("train", "val"))
    preflight.check_workers(data(workers=0), ("train", "val"))


def test_a_working_folder_that_is_gone_is_one_line(monkeypatch):
    def gone():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", gone)
    with pytest.raises(SegkitError, match=r"the working folder is gone \(No such file or directory\); change to one that exists"):
        surroundings.settle()


def test_open_files_are_raised_or_saved_or_missed(allowed, disk):
    disk(2**40)
    seen = allowed(1024, 4096)
    preflight.check_workers(data(workers=2), ("train", "val"))
    assert seen == {"limit": (1024, 4096), "sharing": "file_descriptor"}
    seen = allowed(128, 4096)
    preflight.check_workers(data(workers=8), ("train", "val"))
    assert 8 * 4 * 3 < seen["limit"][0] < 4096
    assert seen["sharing"] == "file_descriptor"
    seen = allowed(128, 256)
    preflight.check_workers(data(workers=8), ("train", "val"))
    assert seen == {"limit": (256, 256), "sharing": "file_system"}
    allowed(64, 64)
    with pytest.raises(SegkitError, match=r"workers 8: they need about \d+ open files, and `ulimit -n` allows 64; use \d workers, or"):
        preflight.check_workers(data(workers=8), ("train", "val"))


def test_loader_processes_share_as_their_parent_does(monkeypatch):
    monkeypatch.setattr(torch.multiprocessing, "get_sharing_strategy", lambda: "file_system")
    begin = data(workers=1).eval_dataloader("val").worker_init_fn
    monkeypatch.undo()
    context = torch.multiprocessing.get_context("fork")
    told = context.SimpleQueue()

    def work():
        torch.multiprocessing.set_sharing_strategy("file_descriptor")  # as in a process that was not forked
        begin(0)
        told.put(torch.multiprocessing.get_sharing_strategy())

    process = context.Process(target=work)
    process.start()
    process.join(30)
    assert told.get() == "file_system"


@pytest.mark.parametrize("home", ["unset", "gone", "config is a file", "fine"])
def test_libraries_get_a_place_where_there_is_no_home(tmp_path, monkeypatch, home):
    for name in surroundings.KEPT:
        monkeypatch.setenv(name, "")  # told to monkeypatch so that it cleans up
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_DATA_DIR", "chosen")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    registered = []
    monkeypatch.setattr(atexit, "register", lambda *call, **words: registered.append((call, words)))
    if home == "unset":
        monkeypatch.delenv("HOME")
    if home != "gone":
        (tmp_path / "home").mkdir()
    if home == "config is a file":
        (tmp_path / "home" / ".config").touch()
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path).is_dir())  # whatever root may do
    surroundings.settle()
    if home == "fine":
        assert "MPLCONFIGDIR" not in os.environ
        assert registered == []
        return
    ((clean, folder), words) = registered[0]
    assert Path(folder).parent == tmp_path
    assert {name: os.environ[name] for name in surroundings.KEPT} == {
        **dict.fromkeys(surroundings.KEPT, folder),
        "WANDB_DATA_DIR": "chosen",
    }
    clean(folder, **words)
    assert not Path(folder).exists()


def test_without_any_temporary_folder_there_is_one_line(monkeypatch):
    def none():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.setenv("TMPDIR", "/nowhere")
    with pytest.raises(SegkitError, match="no temporary folder can be written to, neither TMPDIR, /nowhere, nor /tmp; set TMPDIR to one"):
        surroundings.settle()


def mounts():
    """Whether this user may mount a file system of its own."""
    return (
        bool(shutil.which("unshare")) and subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
    )


LIMITS = {  # what a shell does first, options, exit code, what the one line says
    "128 open files": ("ulimit -n 128", "--data.workers 2", 0, ""),
    "128 open files, 6 workers": ("ulimit -n 128", "--data.workers 6 --trainer.max_steps 40 --data.scenes_val 40", 0, ""),
    "128 open files, 16 workers": ("ulimit -n 128", "--data.workers 16", 2, "open files, and `ulimit -n` allows 128; use"),
    "16 MB shared": ("mount -t tmpfs -o size=16m none /dev/shm", "--data.workers 2", 0, ""),
    "16 MB shared, too little": (
        "mount -t tmpfs -o size=16m none /dev/shm",
        "--data.workers 2 --data.crop 1024 --data.scenes_size 1024",
        2,
        "/dev/shm has room for 16 MiB, and the batches that they load ahead need up to 96 MiB; use 0 workers or smaller",
    ),
    "read-only shared": (
        "mount -t tmpfs -o ro none /dev/shm",
        "--data.workers 2",
        2,
        "takes no locks (Read-only file system); use 0",
    ),
    "no working folder": ("mkdir gone; cd gone; rmdir ../gone", "", 2, "the working folder is gone (No such file or directory); change to"),
    "read-only output": (
        "mkdir runs; mount -t tmpfs -o ro none runs",
        "",
        2,
        "(Read-only file system); choose a folder that you may write",
    ),
    "1 MB disk": ("mkdir runs; mount -t tmpfs -o size=1m none runs", "", 2, "has room for 1 MiB, and this run needs about"),
    "no HOME": ("unset HOME", "", 0, ""),
    "read-only HOME": ("mount -t tmpfs -o ro none home", "", 0, ""),
    "no TMPDIR": ("export TMPDIR=/nowhere/at/all", "", 0, ""),
    "read-only temporary folders": (
        "for d in /tmp /var/tmp /usr/tmp; do [ ! -d $d ] || mount -t tmpfs -o ro none $d; done",
        "--data.workers 2",
        0,
        "",
    ),
    "read-only working folder": ("mkdir ro; mount -t tmpfs -o ro none ro; cd ro", "--runs ../runs --data.workers 2", 0, ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("limit", LIMITS)
def test_a_run_works_or_says_before_it_starts_what_it_needs(limit, tmp_path):
    if "mount" in LIMITS[limit][0] and not mounts():
        pytest.skip("no file system can be mounted here")
    setup, words, code, says = LIMITS[limit]
    place = tmp_path
    if "/tmp" in setup:  # a folder that does not vanish below the mount
        place = Path(os.environ.get("SEGKIT_SCRATCH", ROOT / ".limits"))
        shutil.rmtree(place, ignore_errors=True)
    (place / "home").mkdir(parents=True)
    set_by_libraries = ("WANDB_", "TORCHINDUCTOR_")  # in this process
    env = {name: value for name, value in os.environ.items() if not name.startswith(set_by_libraries)}
    env |= {"HOME": str(place / "home"), "PYTHONPATH": str(ROOT)}
    command = shlex.join([sys.executable, str(ROOT / "scripts/train.py"), *TRAIN.split(), *words.split()])
    prefix = ["unshare", "--mount"] if "mount" in setup else []
    start = time.monotonic()
    done = subprocess.run(
        [*prefix, "bash", "-ec", f"{setup}\nexec {command}"], cwd=place, env=env, capture_output=True, text=True, check=False
    )
    print(f"{limit}: exit {done.returncode} in {time.monotonic() - start:.1f} s: {done.stderr.strip()}")
    runs = list(place.glob("runs/*/*"))
    if place != tmp_path:
        left = [(run / "metrics.json").exists() for run in runs]
        shutil.rmtree(place)
    else:
        left = [(run / "metrics.json").exists() for run in runs]
    assert done.returncode == code, done.stderr
    noise = [line for line in done.stderr.splitlines() if "max number of worker" not in line and "check_worker_number" not in line]
    assert len(noise) == (1 if code else 0), done.stderr
    assert says in done.stderr
    assert left == ([] if code else [True])


@pytest.mark.parametrize("call", ["print", "Console().print"])
def test_a_reader_of_the_output_that_goes_leaves_one_line(call):
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from segkit.cli.running import run
from rich.console import Console
def main(words):
    for number in range(10**5):
        {call}("x" * 1000)
sys.argv = ["a.py"]
run(main)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.read(1)
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(60) == 1
    assert errors == "a.py: error: the output is read no longer, so the command ends here; what is complete is kept\n"


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_of_somebody_else_is_refused(tmp_path):
    code = f"""
import os
from pathlib import Path
from segkit import preflight
os.chdir({str(tmp_path)!r})
os.chmod(".", 0o755)
os.setgid(65534)
os.setuid(65534)
preflight.check_writable(Path("runs"))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    print(done.stderr.strip().splitlines()[-1])
    assert "(Permission denied); choose a folder that you may write to" in done.stderr


@pytest.mark.parametrize(("error", "says"), [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has"), "(CUDA out of memory. Tried to allocate 20"),
    (MemoryError("Unable to allocate 1.00 GiB for an array with shape (1,)"), "(Unable to allocate 1.00 GiB"),
    (OSError(12, "Cannot allocate memory"), "([Errno 12] Cannot allocate memory)"),
    (MemoryError(), "(Python's own); take smaller"),
])  # fmt: skip
def test_memory_that_runs_out_is_one_line_wherever_it_is(error, says, capsys):
    def main(args):
        raise error

    with pytest.raises(SystemExit) as left:
        running.run(main)
    assert left.value.code == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert says in line


def test_other_errors_keep_their_traceback():
    def main(args):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        running.run(main)
