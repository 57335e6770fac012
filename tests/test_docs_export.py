"""The code of `docs/export.md` runs, and its commands parse."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.cli.parsing import Parser
from segkit.config import ExportConfig
from segkit.export import export
from segkit.models import UNet
from segkit.task import SegmentationTask

PAGE = (Path(__file__).parents[1] / "docs/export.md").read_text(encoding="utf-8")


def test_the_code_of_the_page(tmp_path, monkeypatch, capsys):
    task = SegmentationTask(["a", "b"], [[0, 0, 0], [1, 1, 1]], [0.5] * 3, [0.2] * 3, decoder_channels=[4]).eval()
    for format, suffix in (("onnx", "onnx"), ("torch_export", "pt2"), ("safetensors", "safetensors")):
        export(task, tmp_path / f"model.{suffix}", format, check=False)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (33, 50, 3), np.uint8)).save(tmp_path / "image.jpg")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    found = []
    for block in blocks:
        names = {}
        exec(compile(block, "export.md", "exec"), names)
        found.append(names)
    ours, bare, programs = found
    assert ours["mask"].shape == (33, 50)
    assert ours["shares"].shape == (2, 33, 50)
    assert (ours["mask"] == bare["mask"]).all()
    assert bare["names"] == ["a", "b"]
    assert programs["logits"].shape == (1, 2, 97, 131)
    assert isinstance(programs["task"].model, UNet)


@pytest.mark.parametrize("words", re.findall(r"scripts/export\.py RUN *(.*?)  +#", PAGE))
def test_its_commands_parse(words):
    found = Parser(ExportConfig, "", file=False).read(words.split())
    assert found["format"] == (words.split() or ["onnx"])[-1]


def test_every_format_is_described():
    from segkit.export.write import SUFFIXES

    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == list(SUFFIXES)
    assert all(f"last{suffix}" in PAGE for suffix in SUFFIXES.values())
