import os
import re
import signal
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from segkit.errors import SegkitError
from segkit.runs import RunLock, find_checkpoint, make_folder, new_run_folder, newest_run, write_whole


def save(run, name="last.ckpt", time=0):
    path = run / "checkpoints" / name
    with zipfile.ZipFile(path, "w"):
        pass  # what a checkpoint is, with nothing in it
    os.utime(path, (time, time))
    return path


def test_a_new_run_folder(tmp_path):
    run = new_run_folder(tmp_path / "runs", "camvid-unet-transpose")
    assert run.parent == tmp_path / "runs" / "camvid-unet-transpose"
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{6}", run.name)
    assert {path.name for path in run.iterdir()} == {"checkpoints", "panels"}


def test_runs_that_start_together_get_folders_of_their_own(tmp_path, monkeypatch):
    draws = iter(["aaaaaa"] * 4 + ["bbbbbb"] * 4 + ["cccccc"] * 40)
    monkeypatch.setattr("secrets.token_hex", lambda n: next(draws))
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda _: new_run_folder(tmp_path, "x"), range(3)))
    assert len(set(runs)) == 3


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\nb", "a\x1b[31m"])
def test_a_name_is_one_folder(tmp_path, name):
    with pytest.raises(SegkitError, match="name"):
        new_run_folder(tmp_path, name)


def test_a_name_that_no_file_system_takes_is_one_line(tmp_path):
    with pytest.raises(SegkitError, match="File name too long"):
        new_run_folder(tmp_path, "a" * 300, "b")


def test_a_folder_of_results_that_takes_no_file_is_one_line(tmp_path, monkeypatch):
    def refuse(dir):
        raise OSError(30, "Read-only file system")

    make_folder(tmp_path / "a" / "b")
    assert list(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a" / "b"]
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(SegkitError, match=r"\(Read-only file system\); choose a place that you may write to"):
        make_folder(tmp_path / "a" / "b")


def test_the_newest_run_is_the_one_that_saved_last(tmp_path):
    runs = [new_run_folder(tmp_path, name) for name in "bca"]
    for run, time in zip(runs, (20, 30, 10), strict=True):
        save(run, time=time)
    unsaved = new_run_folder(tmp_path, "d")
    save(unsaved, "best.ckpt", 99)
    assert newest_run(tmp_path) == runs[1]


def test_no_run_says_what_to_do(tmp_path):
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(SegkitError, match=r"train one first: python scripts/train\.py"):
            newest_run(root)


def test_a_checkpoint_is_found_from_a_run_or_a_file(tmp_path):
    run = new_run_folder(tmp_path, "x")
    last, best = save(run), save(run, "best.ckpt")
    assert find_checkpoint(run) == last
    assert find_checkpoint(str(run), "best") == best
    assert find_checkpoint(best) == best


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "'nowhere' does not exist"),
        (".", r"no checkpoints/last\.ckpt in"),
        ("https://example.org/a.ckpt", "is a URL; download it"),
    ],
)
def test_no_checkpoint_is_one_line(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SegkitError, match=message):
        find_checkpoint(path)


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SegkitError, match="cannot write to the folder .*choose a place") as error:
        new_run_folder(tmp_path / "file", "a")
    assert "\n" not in str(error.value)


def test_a_file_is_written_whole(tmp_path):
    (tmp_path / "a.json").write_text("old")
    write_whole(tmp_path / "a.json", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "new")]


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    write_whole(tmp_path / "a", "old")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/a'"):
        write_whole(tmp_path / "a", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}


def test_one_process_trains_in_a_run_folder(tmp_path):
    """The lock ends with the process that has it, even where its loader processes live on."""
    program = """if True:
        import os, sys, time
        from pathlib import Path
        from segkit.runs import RunLock
        lock = RunLock(Path(sys.argv[1]))
        if os.fork() == 0:
            os.close(1)
            time.sleep(60)
            os._exit(0)
        print("held", flush=True)
        time.sleep(60)
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(
                SegkitError, match=r"is being trained by another process; wait for its end or stop it .*delete .*train\.lock"
            ):
                RunLock(tmp_path)
            process.kill()
            process.wait()
            lock = RunLock(tmp_path)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    again = RunLock(tmp_path)  # no process is in its own way
    assert lock is not again


def test_a_run_id_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/y").write_text("")
    with pytest.raises(SegkitError, match=r"cannot write to the folder .*x/y' \(File exists\); choose a place"):
        new_run_folder(tmp_path, "x", "y")


@pytest.mark.parametrize("word", ["a\nb", "a\tb", "a\x1b[31m", "..", "a/b", ""])
def test_what_cannot_be_the_name_of_a_folder(tmp_path, word):
    with pytest.raises(SegkitError, match="is no name of one folder"):
        new_run_folder(tmp_path, word)


def test_names_in_any_script_are_names(tmp_path):
    assert new_run_folder(tmp_path, "\u5b9f\u9a13\u3000\u4e00", "\U0001f469\u200d\U0001f52c").is_dir()


def test_evaluation_takes_no_best_checkpoint_for_the_last(tmp_path):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    save(tmp_path / "run", "best.ckpt")
    with pytest.raises(SegkitError, match=r"checkpoints/last\.ckpt"):
        find_checkpoint(tmp_path / "run")
    assert find_checkpoint(tmp_path / "run", resuming=True).name == "best.ckpt"
