"""`export.py` as it is used: from a run to a file that predicts the same."""

import numpy as np
import pytest
import torch

import segkit
from segkit.cli import export as exporting
from segkit.cli import train as training
from segkit.errors import SegkitError
from segkit.onnx_model import OnnxModel
from segkit.runs import newest_run

TINY = "--decoder_channels [8,8] --data.batch_size 2 --data.crop 32 --data.scenes_size 48 --trainer.max_steps 2 --trainer.val_every 2"
TINY += " --data.scenes_train 4 --data.scenes_val 2 --data.scenes_test 0 --trainer.accelerator cpu --wandb.mode disabled --wandb.panels 0"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    training.main([*TINY.split(), "--runs", str(folder / "runs")])
    return newest_run(folder / "runs")


def test_from_a_run_to_a_file_that_predicts_the_same(run, capsys):
    exporting.main([str(run)])
    out = capsys.readouterr().out
    for words in (
        f"{run}/checkpoints/last.ckpt, step 2",
        f"{run}/export/last.onnx, 0.",
        "opset",
        "40 batches of 20 sizes",
        "ms for 480 x 360",
    ):
        assert words in out
    image = np.random.default_rng(0).integers(0, 256, (75, 60, 3), np.uint8)
    expected = segkit.load(run, device="cpu").probabilities(image)
    np.testing.assert_allclose(OnnxModel(run / "export/last.onnx").probabilities(image), expected, atol=1e-5)


def test_other_formats_and_places(run, tmp_path, monkeypatch, capsys):
    exporting.main([str(run), "--format", "safetensors", "--checkpoint", "best"])
    assert {p.name for p in (run / "export").iterdir()} >= {"best.safetensors", "best.json"}
    assert f"card        {run}/export/best.json" in capsys.readouterr().out
    monkeypatch.chdir(run.parents[2])  # with no run named, the newest below runs/
    exporting.main(["--format", "torch_export", "--normalize", "false", "--check", "false", "--out", str(tmp_path / "new/m.pt2")])
    assert "no (--check false)" in capsys.readouterr().out
    logits = torch.export.load(tmp_path / "new/m.pt2").module()(torch.zeros(1, 3, 33, 47))
    assert logits.shape == (1, 6, 33, 47)


def test_mistakes_are_one_line(run, tmp_path, capsys):
    with pytest.raises(SegkitError, match="does not exist; give a run folder"):
        exporting.main(["nowhere"])
    (tmp_path / "m.onnx").touch()
    with pytest.raises(SegkitError, match=r"m\.onnx' is an exported network or bare weights, no checkpoint; give the run"):
        exporting.main([str(tmp_path / "m.onnx")])
    with pytest.raises(SegkitError, match=r"cannot write '.*m\.onnx/x\.onnx' \(.+\); choose a place"):
        exporting.main([str(run), "--check", "false", "--out", str(tmp_path / "m.onnx/x.onnx")])
    with pytest.raises(SegkitError, match=r"ends in \.onnx"):
        exporting.main([str(run), "--out", str(tmp_path / "m.pb")])
    with pytest.raises(SegkitError, match="--opset 17: give a number from 18 to 23"):
        exporting.main([str(run), "--opset", "17"])
    with pytest.raises(SegkitError, match="give the page that holds the table"):
        exporting.main(["parity", "--out", str(tmp_path / "none.md")])
    with pytest.raises(SystemExit):
        exporting.main([str(run), "--format", "onyx"])
    assert "did you mean onnx?" in capsys.readouterr().err
