"""Files of runs are held to what a report counts on, whoever wrote them."""

import os

import numpy as np
import pytest

from segkit.ablation.records import BY_RADIUS, COSTS, DONE, FAILED, NUMBERS, PROVENANCE, SCORES, Each, fits, read_array, read_record
from segkit.errors import SegkitError


@pytest.mark.parametrize(
    ("value", "kind", "fit"),
    [
        (1, int | None, True),
        ("1", int | None, False),
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
    with pytest.raises(SegkitError, match=r"done\.json' cannot be read \(\w+\); delete the run's folder to do it again"):
        read_record(tmp_path / "done.json", DONE)


def test_a_pipe_is_not_read_and_what_is_missing_is_empty(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(SegkitError, match="cannot be read"):
        read_record(tmp_path / "pipe.json", DONE)
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(SegkitError, match="cannot be read"):
        read_array(tmp_path / "pipe.npz", "a")
    assert read_record(tmp_path / "none.json", DONE) == {}
    assert read_array(tmp_path / "none.npz", "a") is None


def test_arrays_of_objects_are_not_loaded(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([{"a": 1}], dtype=object), b=np.arange(3))
    assert read_array(tmp_path / "a.npz", "b").tolist() == [0, 1, 2]
    assert read_array(tmp_path / "a.npz", "c") is None
    with pytest.raises(SegkitError, match="cannot be read"):
        read_array(tmp_path / "a.npz", "a")
