"""The table of operators in a Markdown file."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import grid_sample

from segkit.benchmark import operator_table
from segkit.benchmark.calls import build, cost, inputs
from segkit.benchmark.operator_table import (
    COLUMNS,
    exports,
    initial_index,
    markdown,
    repeats,
    replaced,
    trained_index,
)
from segkit.cli.benchmark import main
from segkit.errors import SegkitError
from segkit.upsampling import UPSAMPLERS, Nearest

TEXT = "before\n\n<!-- operators -->\nold\n<!-- /operators -->\nafter\n"


class Guided(nn.Module):
    """Nearest neighbour and a 1x1 convolution, plus what it takes from a guide. Someone & Other (2020), after Third et al. 2019."""

    guided = True

    def __init__(self, in_channels, out_channels, scale=2, guide_channels=3):
        super().__init__()
        self.conv, self.guide = nn.Conv2d(in_channels, out_channels, 1), nn.Conv2d(guide_channels, out_channels, 1)
        self.scale, self.guide_channels = scale, guide_channels

    def forward(self, x, guide):
        return self.conv(x).repeat_interleave(2, 2).repeat_interleave(2, 3) + self.guide(guide)


def test_what_is_between_the_marks_is_replaced_and_nothing_else():
    once = replaced(TEXT, "new", "F")
    assert once == "before\n\n<!-- operators -->\nnew\n<!-- /operators -->\nafter\n"
    assert replaced(once, "new", "F") == once


@pytest.mark.parametrize("text", ["", "<!-- operators -->", "<!-- /operators --> <!-- operators -->"])
def test_a_file_without_marks_is_refused(text):
    with pytest.raises(SegkitError, match=r"--table F: the file has no lines <!-- operators --> and <!-- /operators -->"):
        replaced(text, "new", "F")


def test_the_table_of_all_operators(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(operator_table, "exports", lambda operator: "yes")  # tested by itself below
    some = {name: UPSAMPLERS[name] for name in ("nearest", "transpose", "fade")}
    monkeypatch.setattr(operator_table, "UPSAMPLERS", some)
    (tmp_path / "page.md").write_text(TEXT)
    words = "operators --seconds 0 --upsample nearest --size 8 --batch 1 --table page.md --table_steps 1"
    main(words.split())
    first = (tmp_path / "page.md").read_text()
    main(words.split())
    second = (tmp_path / "page.md").read_text()
    rows = [dict(zip(COLUMNS, cells(line), strict=True)) for line in first.splitlines() if line.startswith("| `")][1:]
    assert [row["`--upsample`"] for row in rows] == [f"`{name}`" for name in some]
    nearest = rows[0]
    assert nearest["MACs, 64²"] == f"{36 * 64 * 32 * 64**2 / 1e6:.1f} M"
    assert nearest["parameters, 64 to 32"] == f"{9 * 64 * 32 + 32:,}"
    assert nearest["CI before"] == "0.00"
    assert nearest["deterministic"] == "yes"
    assert first.startswith("before\n\n<!-- operators -->\n| `--upsample`")
    assert first.endswith("|\n<!-- /operators -->\nafter\n")
    for one, two in zip(first.splitlines(), second.splitlines(), strict=True):  # all but the measured time comes out the same
        assert [a for a, b in zip(cells(one), cells(two), strict=True) if a != b] in (
            [],
            [cells(one)[COLUMNS.index("time") % len(cells(one))]],
        )


def cells(line):
    return line.removeprefix("| ").removesuffix(" |").split(" | ")


def test_a_table_is_markdown():
    rule, row = markdown([["a"] * len(COLUMNS)]).splitlines()[1:]
    assert rule == "| " + " | ".join(["---"] * 8) + " |"
    assert row == "| " + " | ".join("a" * 8) + " |"


def test_operators_with_a_guide_are_built_counted_and_timed_like_others():
    operator = build(Guided, 8, 4)
    given = inputs(operator, torch.randn(1, 8, 5, 6), 4)
    assert [tuple(tensor.shape) for tensor in given] == [(1, 8, 5, 6), (1, 4, 10, 12)]
    assert cost(operator, given) == {"params": 8 * 4 + 4 + 4 * 4 + 4, "MACs": 8 * 4 * 5 * 6 + 4 * 4 * 10 * 12}
    assert initial_index(Guided, 0) == pytest.approx(0, abs=1e-10)
    assert repeats(build(Guided, 64, 32), torch.device("cpu"))


class Unstable(nn.Module):
    """Computes something else each time."""

    def forward(self, x):
        return torch.rand(()) * x


def test_what_does_not_repeat_is_found():
    assert not repeats(Unstable(), torch.device("cpu"))


class Unexportable(nn.Module):
    """Depends on values in a way that no graph holds."""

    def forward(self, x):
        return x * float(x.sum().item() > 0) if x.sum().item() > 0 else grid_sample(x, x[:, :2].permute(0, 2, 3, 1))


def test_the_export_is_tried_and_compared():
    pytest.importorskip("onnxruntime")
    assert exports(build(Nearest, 64, 32)) == "yes"
    assert exports(Unexportable()) == "no"
    assert exports(Unstable()) == "no"


def test_training_changes_the_index_of_what_can_have_one():
    assert trained_index("nearest", 2, 0) == pytest.approx(0, abs=1e-9)
    after = trained_index("transpose", 6, 0)
    assert 1e-9 < after < 0.5
    assert not math.isnan(after)
