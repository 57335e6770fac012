"""SIGTERM and SIGINT, whatever a run is doing: it saves, says so in a line, and leaves with the signal's exit code."""

import json
import multiprocessing
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segkit import stopping
from segkit.checkpoint import load_checkpoint
from segkit.data.module import begin_worker
from segkit.errors import RunStopped
from segkit.runs import find_checkpoint

ROOT = Path(__file__).parents[2]
# The program sends itself, or its second process, a signal at a given moment, and notes when.
PROGRAM = """
import os, signal, time
from pathlib import Path
from segkit.cli.parsing import run
number, moment, rank = int(os.environ["NUMBER"]), os.environ["MOMENT"], os.environ["STRUCK_RANK"]

def strike():
    if os.environ.get("LOCAL_RANK", "0") == rank and not Path("struck").exists():
        Path("struck").write_text(repr(time.time()))
        os.kill(os.getpid(), number)

def before(owner, name, when=lambda *args: True):
    method = getattr(owner, name)
    def struck(*args, **kwargs):
        if when(*args):
            strike()
        return method(*args, **kwargs)
    setattr(owner, name, struck)

from segkit.cli.train import main
if moment == "start-up":
    from segkit.data import module
    before(module.SegmentationDataModule, "prepare")
elif moment == "saving":
    import torch
    before(torch, "save")
elif moment == "reporting":
    from segkit import results
    before(results, "write_results")
elif moment != "never":
    from segkit.task import SegmentationTask
    if moment == "training":
        before(SegmentationTask, "training_step", lambda task, batch, batch_idx: task.global_step == 3)
    else:
        before(SegmentationTask, "validation_step", lambda task, batch, batch_idx: task.global_step == 2)
run(main)
"""
BUDGET = ["--trainer.max_steps", "6", "--trainer.val_every", "2", "--trainer.log_every", "1", "--ema", "0.9"]


def strike(lab, number, moment, name, rank=0, devices=1, workers=0):
    """What a run leaves that a signal has hit: exit code, errors, seconds from the signal to the end."""
    Path("struck").unlink(missing_ok=True)
    process = program(lab, number, moment, rank, *BUDGET, "--trainer.devices", devices, "--data.workers", workers, "--name", name)
    _, errors = process.communicate(timeout=240)
    return process.returncode, errors, time.time() - float(Path("struck").read_text())


def program(lab, number, moment, rank, *words):
    told = {"NUMBER": str(int(number)), "MOMENT": moment, "STRUCK_RANK": str(rank)}
    return lab.script(PROGRAM, *lab.tiny, *words, env={**os.environ, **told})


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("workers", [0, 2])
def test_one_process(lab, number, workers):
    lab.train(*BUDGET, "--name", "whole")
    for moment, step in (("start-up", None), ("training", 4), ("validation", 2), ("saving", 2)):
        code, errors, seconds = strike(lab, number, moment, moment, workers=workers)
        print(f"{number.name} in {moment}, {workers} workers: exit code {code} after {seconds:.1f} s: {errors.strip()}")
        assert code == 128 + number, errors
        assert seconds < 10
        if step is None:
            assert errors == f"program.py: stopped by {number.name}\n"
            assert not Path("runs", moment).exists()
            continue
        run = lab.run(moment)
        assert errors == f"program.py: stopped by {number.name} at step {step}; go on with --resume {run}\n"
        assert load_checkpoint(find_checkpoint(run))["global_step"] == step
        lab.resume(run)
        assert lab.hash_of(run) == lab.hash_of(lab.run("whole"))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_two_processes_end_together(lab, number, rank):
    """Whichever of them the signal reaches; nothing is left running and nothing is lost."""
    done = program(lab, 0, "never", 0, *BUDGET, "--trainer.devices", 2, "--name", "whole")
    assert done.communicate(timeout=240)[1] == ""
    for moment in ("training", "validation"):
        name = f"{moment}{rank}"
        code, errors, seconds = strike(lab, number, moment, name, rank, devices=2)
        print(f"{number.name} to process {rank} in {moment}: exit code {code} after {seconds:.1f} s: {errors.strip()}")
        assert code == (-number if number == signal.SIGKILL and rank == 0 else 1 if number == signal.SIGKILL else 128 + number), errors
        assert seconds < 30
        assert "Traceback" not in errors
        deadline = time.monotonic() + 30
        while (left := processes_in(lab.folder)) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert left == []
        run = lab.run(name)
        resumed = lab.script(
            "from segkit.cli.parsing import run\nfrom segkit.cli.train import main\nrun(main)", "--resume", run, "--trainer.devices", 2
        )
        assert resumed.communicate(timeout=240)[1] == ""
        assert lab.hash_of(run) == lab.hash_of(lab.run("whole"))


def processes_in(folder):
    """The numbers of the other processes that work in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if (entry / "cwd").resolve() == folder.resolve() and (entry / "stat").read_text().split(")")[1].split()[0] != "Z":
                    found.append(int(entry.name))
            except OSError:  # gone meanwhile
                continue
    return found


@pytest.mark.parametrize(("answer", "line"), [(0, "re-queued as job 17_3"), (1, "job 17_3 could not be re-queued: not allowed")])
def test_a_job_of_slurm_that_is_told_its_time_is_nearly_up_is_queued_again(lab, monkeypatch, answer, line):
    from segkit.task import SegmentationTask

    Path("bin").mkdir()
    Path("bin/scontrol").write_text(f"#!/bin/sh\necho \"$@\" > asked\necho 'not allowed' >&2\nexit {answer}\n")
    Path("bin/scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{lab.folder / 'bin'}:{os.environ['PATH']}")
    for name, value in (("JOB_ID", "20"), ("ARRAY_JOB_ID", "17"), ("ARRAY_TASK_ID", "3")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    training_step = SegmentationTask.training_step

    def warned(task, batch, batch_idx):
        if task.global_step == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return training_step(task, batch, batch_idx)

    before = signal.getsignal(signal.SIGUSR1)
    monkeypatch.setattr(SegmentationTask, "training_step", warned)
    words = ["--trainer.max_steps", "4", "--name", "job", "--run_id", "20", "--resume", "auto"]
    with pytest.raises(RunStopped, match=rf"stopped by SIGUSR1 at step 2; go on with --resume runs/job/20 \({line}\)") as stopped:
        lab.train(*words)
    monkeypatch.setattr(SegmentationTask, "training_step", training_step)
    assert stopped.value.signal_number == signal.SIGUSR1
    assert signal.getsignal(signal.SIGUSR1) == before
    assert Path("asked").read_text() == "requeue 17_3\n"
    lab.train(*words)  # the line that SLURM runs again
    assert load_checkpoint("runs/job/20/checkpoints/last.ckpt")["global_step"] == 4


def test_without_slurms_commands_the_line_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    assert stopping.requeue().startswith("job 5 could not be re-queued: ")


def test_loader_processes_leave_signals_to_the_one_that_trains(lab, monkeypatch):
    """All processes of a job get the signal, as from Ctrl-C in a terminal or from a scheduler; the run is saved all the same."""
    from segkit.task import SegmentationTask

    training_step = SegmentationTask.training_step

    others, workers = set(multiprocessing.active_children()), set()

    def everywhere(task, batch, batch_idx):
        if task.global_step == 1:
            workers.update(set(multiprocessing.active_children()) - others)
            for worker in workers:
                for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                    os.kill(worker.pid, number)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)
            assert all(worker.is_alive() for worker in workers)
        return training_step(task, batch, batch_idx)

    monkeypatch.setattr(SegmentationTask, "training_step", everywhere)
    with pytest.raises(RunStopped, match="at step 2"):
        lab.train("--trainer.max_steps", "50", "--data.workers", "2", "--name", "x")
    assert len(workers) == 2
    for worker in workers:
        worker.join(20)
        assert not worker.is_alive()


@pytest.fixture
def struck(lab, monkeypatch):
    """Trains, with signals that arrive in the second step."""
    from segkit.task import SegmentationTask

    training_step = SegmentationTask.training_step

    def train(*numbers):
        def strike(task, batch, batch_idx):
            if task.global_step == 1:
                for number in numbers:
                    os.kill(os.getpid(), number)
            return training_step(task, batch, batch_idx)

        with monkeypatch.context() as patch:
            patch.setattr(SegmentationTask, "training_step", strike)
            lab.train("--trainer.max_steps", "3", "--name", "x", "--run_id", "y")

    return train


def test_a_closed_terminal_stops_a_run_that_nohup_does_not_hold(struck):
    def ours(number, frame):
        pass

    before = signal.signal(signal.SIGHUP, ours)
    try:
        with pytest.raises(RunStopped, match="stopped by SIGHUP at step 2; go on with --resume runs/x/y") as stopped:
            struck(signal.SIGHUP)
        assert stopped.value.signal_number == signal.SIGHUP
        assert signal.getsignal(signal.SIGHUP) == ours
        shutil.rmtree("runs")
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        struck(signal.SIGHUP)
        assert load_checkpoint("runs/x/y/checkpoints/last.ckpt")["global_step"] == 3
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_after_the_last_step_says_how_to_get_the_results(lab):
    code, errors, _ = strike(lab, signal.SIGTERM, "reporting", "x")
    run = lab.run("x")
    assert (code, errors) == (143, f"program.py: stopped by SIGTERM; go on with --resume {run}\n")
    assert not (run / "metrics.json").exists()
    lab.resume(run)
    assert json.loads((run / "metrics.json").read_text())["step"] == 6


IN_A_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have it ignored
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_command_whose_terminal_is_closed_saves(lab, workers):
    """Its prints and its progress meet a terminal that is gone."""
    ours, theirs = pty.openpty()
    words = [*lab.tiny, "--trainer.max_steps", "100000", "--trainer.log_every", "1", "--data.workers", str(workers), "--name", "x"]
    command = [sys.executable, "-c", IN_A_TERMINAL, ROOT / "scripts" / "train.py", *words]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        try:
            os.close(theirs)
            deadline = time.monotonic() + 120
            while not any(path.read_text().count("\n") > 3 for path in Path().glob("runs/x/*/metrics.csv")):
                assert time.monotonic() < deadline
                if select.select([ours], [], [], 0.1)[0]:
                    os.read(ours, 65536)
            os.close(ours)
            start = time.monotonic()
            assert process.wait(60) == 128 + signal.SIGHUP
            assert time.monotonic() - start < 10
        finally:
            process.kill()  # nothing, where it has ended
    assert load_checkpoint(lab.run("x") / "checkpoints" / "last.ckpt")["global_step"] > 0


def test_a_second_interrupt_ends_the_run_at_once_and_says_so(struck, capsys):
    with pytest.raises(SystemExit) as left:
        struck(signal.SIGINT, signal.SIGINT)
    assert left.value.code == 130
    assert capsys.readouterr().err == "stopped at once by a second SIGINT; go on from the last checkpoint with --resume runs/x/y\n"


def test_an_interrupt_after_a_scheduler_s_signal_is_no_second_one(struck):
    with pytest.raises(RunStopped, match="stopped by SIGTERM at step 2"):
        struck(signal.SIGTERM, signal.SIGINT)


def test_a_loader_process_says_nothing_of_a_connection_that_its_owner_has_left(capfd):
    """multiprocessing hands what goes wrong in the thread that shares tensors to `sys.excepthook`."""

    def work():
        begin_worker(0, "file_descriptor")
        sys.excepthook(ConnectionResetError, ConnectionResetError(104, "Connection reset by peer"), None)
        sys.excepthook(ValueError, ValueError("of our own"), None)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    assert capfd.readouterr().err == "ValueError: of our own\n"


def test_a_reader_that_leaves_does_not_end_the_run(lab, serve, tmp_path):
    """As `| head` does, with all that a run has not saved yet."""
    words = [*lab.tiny, "--trainer.max_steps", "3", "--data.workers", "0", "--name", "x", "--run_id", "y"]
    program = f"import os; r, w = os.pipe(); os.close(r); os.dup2(w, 1); from segkit.cli.train import main; main({words!r})"
    done = serve("python", program, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "runs/x/y/metrics.json").is_file()


@pytest.mark.parametrize(
    ("action", "line"),
    [
        ("raise OSError(5, os.strerror(5), 'a/b')", "the disk fails 'a/b' (Input/output error); see to it, then go on: what is complete"),
        ("raise OSError(28, os.strerror(28), 'a/b')", "cannot write 'a/b' (No space left on device); make room, then go on: what is"),
        ("write_whole(Path('runs/x/y/config.yaml'), '')", "cannot use 'runs/x/y/config.yaml': somebody has removed its folder"),
    ],
    ids=["fails", "full", "removed"],
)
def test_a_disk_that_fails_is_one_line(serve, tmp_path, action, line):
    program = "import os; from pathlib import Path; from segkit.cli.running import run; from segkit.runs import write_whole\n"
    assert line in serve("python", f"{program}def main(words): {action}\nrun(main)", cwd=tmp_path).refused(code=1)


@pytest.mark.parametrize(
    "amid",
    [
        "strike()",
        "with contextlib.redirect_stderr(io.StringIO()): strike()",  # as where a library's chatter is held back
        "try: strike()\n    except BaseException: raise ImportError('half a module')",  # as compiled modules do
        "try: strike()\n    except BaseException: raise SegkitError('install it first')",
    ],
    ids=["plain", "hushed", "import", "mistake"],
)
def test_a_signal_is_one_line_whatever_a_library_makes_of_it(serve, tmp_path, amid):
    program = f"""
import contextlib, io, os, signal
from segkit.cli.running import run
from segkit.errors import SegkitError
def strike():
    os.kill(os.getpid(), signal.SIGINT)
def main(words):
    {amid}
run(main)
"""
    assert serve("python", program, cwd=tmp_path).refused(code=130) == "python.py: stopped by SIGINT\n"
