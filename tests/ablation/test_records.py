"""Files of runs are held to what a report counts on, whoever wrote them."""

import os

import numpy as np
import pytest

from segkit.ablation.records import BY_RADIUS, COSTS, DONE, FAILED, NUMBERS, PROVENANCE, SCORES, Each, fits, read_columns, read_record
from segkit.errors import SegkitError


@pytest.mark.parametrize(
    ("value", "kind", "fit"),
    [
        (1, int | None, True),
        ("1", int | None, False),
        (float("nan"), float, False),
        ({"seconds": float("inf")}, DONE, False),
        ({"a": 1, "b": None}, NUMBERS, True),
        ({"a": 1, "b": []}, NUMBERS, False),
        ({"3": 1.5}, BY_RADIUS, True),
        ({"x": 1.5}, BY_RADIUS, False),
        ({"\n": "a"}, Each(str), True),
        ([1, 2.5], [int | float], True),
        ([1, "2"], [int | float], False),
        ({"1": 2}, [int], False),
        ({}, DONE, True),
        ({"seconds": "3"}, DONE, False),
        ({"log": "a", "code": 1}, FAILED, False),
        ({"software": {"torch": 2}}, PROVENANCE, False),
        ({"more": {"software": 3}, "software": {"torch": "2"}}, PROVENANCE, True),
        ({"boundary": {"trimap": {"1": 0.5}}}, SCORES, True),
        ({"boundary": {"trimap": [0.5]}}, SCORES, False),
        ({"a": {"latency_iqr_ms": [1, 2]}}, COSTS, True),
        ({"a": 3}, COSTS, False),
    ],
)
def test_what_fits(value, kind, fit):
    assert fits(value, kind) is fit


@pytest.mark.parametrize("text", ["", "{", "[]", '{"seconds": []}', "[" * 10**5])
def test_what_does_not_fit_names_the_file_and_the_remedy(tmp_path, text):
    (tmp_path / "done.json").write_text(text)
    with pytest.raises(SegkitError, match=r"done\.json' cannot be read \(.+\); delete the run's folder to do it again"):
        read_record(tmp_path / "done.json", DONE)


def test_a_pipe_is_not_read_and_what_is_missing_is_empty(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(SegkitError, match="cannot be read"):
        read_record(tmp_path / "pipe.json", DONE)
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(SegkitError, match="cannot be read"):
        read_columns(tmp_path / "pipe.npz", "index")
    assert read_record(tmp_path / "none.json", DONE) == {}
    assert read_columns(tmp_path / "none.npz", "index") == {}


SOUND = {
    "index": np.arange(3),
    "name": np.array(["a", "b", "c"]),
    "classes": np.array(["x", "y"]),
    "matrix": np.ones((3, 2, 2), np.int64),
    "boundary_union": np.ones((3, 2), np.int64),
    "other": np.zeros(7),
}


def test_columns_that_fit_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", **SOUND)
    found = read_columns(tmp_path / "a.npz", "matrix", "boundary_intersection", "name")
    assert set(found) == {"matrix", "name"}
    assert (found["matrix"] == 1).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("matrix", np.ones((3, 2, 3), np.int64)),
        ("matrix", np.ones((3, 2, 2))),
        ("matrix", np.array([{"a": 1}], dtype=object)),
        ("index", np.arange(4)),
        ("index", np.array(3)),
        ("matrix", np.full((3, 2, 2), -1)),
        ("classes", np.array(["x"])),
        ("boundary_union", np.array(["a", "b", "c"])),
    ],
)
def test_columns_that_do_not_fit_together_are_one_line(tmp_path, name, value):
    np.savez(tmp_path / "a.npz", **SOUND | {name: value})
    with pytest.raises(SegkitError, match=r"a\.npz' cannot be read \([^\n]+\); do this$"):
        read_columns(tmp_path / "a.npz", "index", "matrix", "boundary_union", remedy="do this")
