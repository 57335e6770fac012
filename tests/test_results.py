"""What is said of single images: their scores by hand, and the table."""

import csv

import numpy as np
import pytest

from segkit.measures import choose
from segkit.results import image_scores, write_table

PERFECT, HALF, WRONG, NOTHING = np.diag([5, 5]), np.array([[5, 5], [0, 0]]), np.array([[0, 5], [5, 0]]), np.zeros((2, 2), int)


def test_scores_of_images_by_hand():
    found = image_scores(np.stack([HALF, PERFECT, WRONG, NOTHING, np.array([[3, 0], [0, 0]])]))
    assert found.miou.tolist()[:3] + found.miou.tolist()[4:] == [0.25, 1, 0, 1]  # (5/10 + 0/5) / 2; one class only
    assert found.accuracy.tolist()[:3] == [0.5, 1, 0]
    assert found.iou[0].tolist() == [0.5, 0]
    assert found.wrong.tolist() == [[5, 5], [0, 0], [10, 10], [0, 0], [0, 0]]
    assert np.isnan([found.miou[3], found.accuracy[3], *found.iou[3], found.iou[4, 1]]).all()


def test_worst_and_best_images_by_hand():
    found = image_scores(np.stack([HALF, PERFECT, WRONG, NOTHING]))
    assert choose(found.miou, found.wrong, 2) == ([2, 0], [1, 0], {0: 2, 1: 2})
    assert choose(found.miou, found.wrong, 8) == ([2, 0, 1], [1, 0, 2], {0: 2, 1: 2})  # three images that can be ranked
    assert choose(found.miou, found.wrong, 0) == ([], [], {})
    right = image_scores(np.stack([PERFECT, PERFECT]))
    assert choose(right.miou, right.wrong, 1) == ([0], [0], {})  # of equals the first, and no class that fails nowhere


def test_the_table_is_the_csv_that_others_read(tmp_path):
    names = ["plain", 'a,b "c"', "two\nlines", b"\xff.png".decode(errors="surrogateescape")]
    columns = {"name": names, "iou/a,b": np.array([0.5, np.nan, 1 / 3, 0.0]), "n": np.arange(4), "file": [None, None, "x", "y"]}
    write_table(tmp_path / "table.csv", columns)
    raw = (tmp_path / "table.csv").read_bytes()
    assert raw.startswith(b'name,"iou/a,b",n,file\r\nplain,0.5,0,\r\n"a,b ""c""",,1,\r\n')
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == names
    assert float(rows[2]["iou/a,b"]) == 1 / 3  # to the last digit
    with pytest.raises(ValueError, match="shorter"):
        write_table(tmp_path / "table.csv", {"a": [1, 2], "b": [1]})
