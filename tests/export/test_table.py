"""The table of docs/export.md: complete, within the tolerance, and made by the command beside it."""

import re
from pathlib import Path

import pytest

from segkit.errors import SegkitError
from segkit.export.parity import TOLERANCE
from segkit.export.table import END, PAIRS, START, insert, table
from segkit.task import SegmentationTask

PAGE = (Path(__file__).parents[2] / "docs/export.md").read_text(encoding="utf-8")


def rows(text):
    """Cells of a table's rows, the header left out."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")][2:]


def check(found, pairs):
    assert [tuple(row[:2]) for row in found] == pairs
    for row in found:
        assert row[-1] == "equal"  # weights are what they were
        for cell in row[2:-1]:
            if row[1] == "unpool":  # rounding decides between equal maxima, so that no two programs need agree
                assert cell == "refused"
                continue
            difference, labels = re.fullmatch(r"(\S+), (\S+) %", cell).groups()
            assert float(difference) < TOLERANCE / 10
            assert float(labels) < 0.01


def test_the_page_has_a_row_for_every_network():
    check(rows(PAGE.split(START)[1].split(END)[0]), PAIRS)


def test_the_command_makes_these_rows(monkeypatch):
    def tiny(decoder, upsample):
        return SegmentationTask(["a", "b"], [[0, 0, 0]] * 2, [0.5] * 3, [0.2] * 3, decoder_channels=[4], upsample=upsample).eval()

    monkeypatch.setattr("segkit.export.table.small_task", tiny)
    said = []
    text = table(said.append, [("fcn32s", "transpose_k2")])
    check(rows(text), [("fcn32s", "transpose_k2")])
    assert said == [text.splitlines()[2]]
    assert "20 sizes, batches of one and of two images" in text


@pytest.mark.slow
def test_the_whole_table():
    check(rows(table(print)), PAIRS)


def test_the_table_goes_between_the_markers():
    page = f"before\n{START}\nold\n{END}\nafter\n"
    assert insert(page, "| new |") == f"before\n{START}\n| new |\n{END}\nafter\n"
    for bad in ("no markers", f"{END}\n{START}", page + page):
        with pytest.raises(SegkitError, match="the table goes between them"):
            insert(bad, "| new |")
