"""Rows, their verdicts, the table, the JSON file and the figures."""

import json

import pytest
import torch
from PIL import Image
from rich.console import Console

from segkit.benchmark.bench import Bench
from segkit.benchmark.report import Results, Row, as_json, number, table, write
from segkit.config import BenchmarkConfig
from segkit.figures import Curve, Mark, draw_benchmark

FASTER = {"name": "step", "ours": [1.0, 2.0, 3.0], "theirs": [4.0, 4.0, 4.0], "peer": "smp"}


@pytest.mark.parametrize(("options", "median", "verdict"), [
    ({"goal": 0.5}, 0.5, "met"),
    ({"goal": 0.49}, 0.5, "missed"),
    ({"goal": 0.5, "better": "higher"}, 0.5, "met"),
    ({"goal": 0.51, "better": "higher"}, 0.5, "missed"),
    ({"measure": "difference", "goal": -2.0}, -2, "met"),
    ({"measure": "difference", "goal": -2.5}, -2, "missed"),
    ({"measure": "value", "goal": 2.0}, 2, "met"),
    ({"measure": "value", "goal": 1.9}, 2, "missed"),
    ({}, 0.5, ""),
])  # fmt: skip
def test_a_goal_is_met_or_missed(options, median, verdict):
    row = Row(**FASTER, **options)
    assert row.result.median == median
    assert row.verdict == verdict
    assert row.met is {"met": True, "missed": False, "": None}[verdict]


def test_the_spread_is_that_of_paired_ratios():
    found = Row("x", ours=[1.0, 10.0, 100.0], theirs=[2.0, 20.0, 200.0]).result
    assert (found.low, found.median, found.high) == (0.5, 0.5, 0.5)


@pytest.fixture
def bench(tmp_path):
    config = BenchmarkConfig(out=str(tmp_path / "deep" / "out"), root="/a/place/of/mine", seconds=0.5)
    return Bench(config, torch.device("cpu"), frozenset({"smp"}))


@pytest.fixture
def results():
    rows = [
        Row(**FASTER, goal=0.4, group="bf16", variant="16²", about={"params": 12345}),
        Row(**FASTER, goal=0.6, group="bf16", variant="64²", about={"params": 12345}),
        Row("overhead", [2.0], "ms", [1.5], "bare loop", "difference", goal=1.0),
        Row("help", [0.1], "s", measure="value"),
    ]
    return Results("train", "steps", rows, ["a note"])


def test_the_file_has_all_that_decides_the_numbers(bench, results, tmp_path):
    picture = write(results, bench)
    assert picture == tmp_path / "deep/out/benchmark-train.png"
    text = picture.with_suffix(".json").read_text()
    found = json.loads(text)
    assert found == json.loads(json.dumps(as_json(results, bench)))
    assert found["subject"] == "train"
    assert found["notes"] == ["a note"]
    assert found["threads"] == torch.get_num_threads()
    assert found["dtype"] == "bfloat16"
    assert found["versions"]["torch"] == torch.__version__.split("+")[0]
    assert found["device"]
    assert found["options"]["seconds"] == 0.5
    assert "/a/place/of/mine" not in text
    first = found["rows"][0]
    assert (first["ours"], first["theirs"], first["goal"], first["met"]) == ([1, 2, 3], [4, 4, 4], 0.4, False)
    assert first["result"] == {"median": 0.5, "low": 0.375, "high": 0.625}
    assert first["about"] == {"params": 12345}
    assert [row["met"] for row in found["rows"]] == [False, True, True, None]


def test_the_table(results):
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(results))
    console.file.close()
    lines = console.export_text().splitlines()
    first = next(line for line in lines if "step, 16²" in line)
    for words in ("2 ms", "smp", "4 ms", "0.5", "[0.375, 0.625]", "<= 0.4", "missed", "12,345"):
        assert words in first
    assert "met" in next(line for line in lines if "step, 64²" in line)
    assert "0.5 ms" in next(line for line in lines if line.startswith("overhead"))
    assert any(line.startswith("bf16") for line in lines)


@pytest.mark.parametrize(("value", "text"), [
    (1234567, "1,234,567"), (0.12345, "0.123"), (1234.5, "1,234"), (0.0, "0"), (3e-5, "3.0e-05"), ("yes", "yes"), (float("nan"), "nan"),
])  # fmt: skip
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_a_mark_stands_where_its_number_is_and_a_missed_one_is_hollow():
    panel = "bf16\nsegkit / peer"
    marks = [Mark(panel, "step", "", 0.5, 0.4, 0.6, 0.3, False), Mark(panel, "other", "", 0.2, 0.1, 0.3, 0.3, True)]
    (ax,) = draw_benchmark(marks, "title", "about").axes
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [(dot.get_xdata()[0], dot.get_ydata()[0]) for dot in dots] == [(0.5, 0), (0.2, 1)]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [True, False]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["step", "other"]
    assert ax.get_xlabel() == "segkit / peer"


def test_curves_take_the_place_of_rows(bench, results, tmp_path):
    curve = Curve("pixels", "ms", [1, 4], [2.0, 8.0], [1.0, 7.0], [3.0, 9.0], 1.0, 1.0)
    picture = write(Results("scaling", "growth", results.rows, (), [curve]), bench)
    with Image.open(picture) as drawn:
        assert drawn.width > 500
    assert json.loads(picture.with_suffix(".json").read_text())["curves"][0]["exponent"] == 1.0
