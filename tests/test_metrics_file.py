import os
import resource
import signal

import pytest

from segkit.metrics_file import FolderLogger


def text(folder):
    return (folder / "metrics.csv").read_text(encoding="utf-8")


def test_a_row_per_step_and_a_column_per_key(tmp_path):
    logger = FolderLogger(tmp_path)
    logger.log_metrics({"train/loss": 1.5}, 10)
    assert text(tmp_path) == "step,train/loss\n10,1.5\n"
    logger.log_metrics({"train/loss": 1.25}, 20)
    logger.log_metrics({"val/iou/pôle, thin": float("nan")}, 20)
    logger.log_metrics({"train/loss": 0.5}, 30)
    assert text(tmp_path) == 'step,train/loss,"val/iou/pôle, thin"\n10,1.5,\n20,1.25,nan\n30,0.5,\n'


def test_a_row_is_completed_in_place(tmp_path, monkeypatch):
    logger = FolderLogger(tmp_path)
    logger.log_metrics({"a": 1, "b": 2}, 1)
    monkeypatch.setattr(logger, "_rewrite", lambda rows: pytest.fail("a known key needs no new file"))
    logger.log_metrics({"a": 111}, 2)
    logger.log_metrics({"b": 2}, 2)
    logger.log_metrics({"a": 1}, 2)
    assert text(tmp_path) == "step,a,b\n1,1,2\n2,1,2\n"


def test_numbers_survive_to_the_bit(tmp_path):
    FolderLogger(tmp_path).log_metrics({"a": 0.1 + 0.2}, 1)
    assert float(text(tmp_path).split()[1].split(",")[1]) == 0.1 + 0.2


@pytest.mark.parametrize(
    ("step", "left"), [(15, "step,a\n10,1\n"), (20, "step,a\n10,1\n20,2\n"), (5, "step,a\n"), (99, "step,a\n10,1\n20,2\n30,3\n")]
)
def test_a_resumed_run_drops_what_came_after_its_step(tmp_path, step, left):
    first = FolderLogger(tmp_path)
    for i in (1, 2, 3):
        first.log_metrics({"a": i}, 10 * i)
    second = FolderLogger(tmp_path)
    second.rewind(step)
    assert text(tmp_path) == left
    second.log_metrics({"b": 7}, step + 1)
    kept = [f"{line},\n" for line in left.splitlines()[1:]]
    assert text(tmp_path) == "".join(["step,a,b\n", *kept, f"{step + 1},,7\n"])


def test_rewinding_without_a_file_makes_none(tmp_path):
    FolderLogger(tmp_path).rewind(10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damaged", "left"),
    [
        (b"step,a\n10,\xff\n2\x000,2\n30,3,4,5\n40,4\n", "step,a\n10,\ufffd\n40,4\n50,7\n"),
        (b"\xff\xfe\0[\n1\n", "step,a\n50,7\n"),
        (b"step,a\n10," + b"x" * 200_000 + b"\n", "step,a\n50,7\n"),
    ],
)
def test_what_a_disk_has_damaged_is_set_aside_and_the_run_goes_on(tmp_path, damaged, left):
    (tmp_path / "metrics.csv").write_bytes(damaged)
    logger = FolderLogger(tmp_path)
    logger.rewind(45)
    logger.log_metrics({"a": 7}, 50)
    assert text(tmp_path) == left
    assert (tmp_path / "metrics.damaged.csv").read_bytes() == damaged


@pytest.mark.parametrize("cut", [1, 2, 4, 6])
def test_a_last_line_cut_short_by_a_crash_is_dropped(tmp_path, cut):
    FolderLogger(tmp_path).log_metrics({"a": 1}, 10)
    FolderLogger(tmp_path).log_metrics({"a": 22}, 20)
    (tmp_path / "metrics.csv").write_text(text(tmp_path)[:-cut])
    logger = FolderLogger(tmp_path)
    logger.log_metrics({"a": 3}, 20)
    logger.log_metrics({"a": 4}, 30)
    assert text(tmp_path) == "step,a\n10,1\n20,3\n30,4\n"


def test_a_rewrite_is_atomic(tmp_path, monkeypatch):
    logger = FolderLogger(tmp_path)
    logger.log_metrics({"a": 1}, 1)

    def fail(*args):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        logger.log_metrics({"b": 1}, 2)
    assert text(tmp_path) == "step,a\n1,1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
    monkeypatch.undo()
    logger.log_metrics({"a": 3}, 3)
    assert text(tmp_path) == "step,a,b\n1,1,\n2,,1\n3,3,\n"


def test_rows_for_which_the_disk_had_no_room_come_with_the_next_one(tmp_path):
    """The limit of the process for the size of a file lets half a row through, as a full disk may."""
    logger = FolderLogger(tmp_path)
    logger.log_metrics({"a": 1}, 1)
    logger.log_metrics({"a": 2}, 2)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(text(tmp_path)) + 5, limits[1]))
    try:
        for step in (3, 4):
            with pytest.raises(OSError, match="File too large"):
                logger.log_metrics({"a": 0.123456789}, step)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert text(tmp_path) == "step,a\n1,1\n2,2\n3,0.1"
    logger.log_metrics({"a": 5}, 5)
    assert text(tmp_path) == "step,a\n1,1\n2,2\n3,0.123456789\n4,0.123456789\n5,5\n"


@pytest.mark.parametrize("damage", ["2,0.34,0.5,0.1", "\0\0\0\0", "2", "x,1,1"])
def test_a_damaged_row_costs_no_other(tmp_path, damage):
    (tmp_path / "metrics.csv").write_text(f"step,a,b\n1,1,1\n{damage}\n3,3,3\n4,4,4\n")
    logger = FolderLogger(tmp_path)
    logger.rewind(3)
    logger.log_metrics({"a": 5, "b": 5}, 5)
    assert text(tmp_path) == "step,a,b\n1,1,1\n3,3,3\n5,5,5\n"
