"""Networks of smp through the real commands: trained, evaluated, predicted, exported, and compared in an ablation."""

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segkit.ablation.plan import Plan
from segkit.architectures import ARCHITECTURES
from segkit.cli import ablate, export, predict, visualize
from segkit.cli import eval as evaluation
from segkit.cli import train as training
from segkit.cli.parsing import Parser
from segkit.config import TrainConfig
from segkit.errors import SegkitError
from segkit.models.fingerprint import operators
from segkit.runs import newest_run
from segkit.task import SegmentationTask

TINY = "--encoder resnet18 --data.batch_size 2 --data.crop 32 --data.scenes_size 32 --data.scenes_train 4 --data.scenes_val 2"
TINY += " --data.scenes_test 2 --trainer.max_steps 2 --trainer.accelerator cpu --trainer.devices 1 --wandb.mode disabled --wandb.panels 0"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder with an image of odd sizes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (45, 67, 3), np.uint8)).save("image.png")
    return tmp_path


def whole_way(*words, check="true"):
    """Trains, evaluates, predicts, exports and predicts without torch; returns the run."""
    training.main([*TINY.split(), *words])
    run = newest_run("runs")
    evaluation.main([str(run), "--accelerator", "cpu", "--images", "0", "--artefacts"])
    export.main([str(run), f"--check={check}"])
    for model, out in ((run, "ours"), (run / "export/last.onnx", "bare")):
        predict.main([str(model), "image.png", "--out", out])
    masks = [np.asarray(Image.open(f"{out}/image.png")) for out in ("ours", "bare")]
    assert masks[0].shape == (45, 67)
    assert (masks[0] != masks[1]).mean() < 1e-3
    return run


def test_an_fpn_goes_the_whole_way_and_is_rebuilt_from_its_checkpoint(folder, capsys):
    run = whole_way("--decoder", "smp:FPN", check="false")
    assert run.parent.name == "scenes-smp_FPN-own"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert [config[option] for option in ("decoder", "upsample", "dropout", "encoder_weights")] == ["smp:FPN", None, None, None]
    out = capsys.readouterr().out
    assert "the own interpolation of smp:FPN" in out
    assert "no operator" in out
    training.main(["--resume", str(run), "--trainer.max_steps", "3"])
    assert SegmentationTask.load(run / "checkpoints/last.ckpt").step == 3
    for words in (["operator", "--checkpoint", str(run)], ["features", str(run)]):
        with pytest.raises(SegkitError, match="keeps smp's own interpolation"):
            visualize.main(words)


def test_an_operator_in_it_is_saved_and_drawn(folder):
    training.main([*TINY.split(), "--decoder", "smp:DeepLabV3Plus", "--upsample", "bilinear", "transpose", "--dropout", "0.1"])
    run = newest_run("runs")
    assert run.parent.name == "scenes-smp_DeepLabV3Plus-bilinear+transpose"
    task = SegmentationTask.load(run / "checkpoints/last.ckpt")
    assert list(operators(task.model)) == ["decoder.up.upsample", "segmentation_head.upsample"]
    visualize.main(["features", str(run), "--out", "features.png"])
    assert Path("features.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_goes_the_whole_way(folder, name):
    whole_way("--decoder", f"smp:{name}")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, its in ARCHITECTURES.items() if its.operators])
def test_every_architecture_goes_the_whole_way_with_an_operator(folder, name):
    whole_way("--decoder", f"smp:{name}", "--upsample", "nearest")


def test_decoders_are_an_axis_and_each_arm_keeps_what_its_decoder_decides(folder):
    words = [*TINY.split(), "--decoder", "unet", "smp:FPN", "--seeds", "1"]
    plan = ablate.build_plan(ablate.read(words))
    assert plan.name == "scenes-unet-decoder"
    assert [arm.name for arm in plan.arms] == ["unet", "smp:FPN"]
    assert [(arm.config["upsample"], arm.config["dropout"]) for arm in plan.arms] == [("transpose", 0.0), (None, None)]
    said = ablate.build_plan(ablate.read([*words, "--upsample", "null", "nearest"]))
    assert [arm.name for arm in said.arms] == ["unet, transpose", "unet, nearest", "smp:FPN, own", "smp:FPN, nearest"]
    assert said.arms[0].trials == plan.arms[0].trials  # the same run, however it was asked for
    with pytest.raises(SegkitError, match="upsample nearest of decoder 'smp:MAnet'"):
        ablate.build_plan(ablate.read([*TINY.split(), "--decoder", "unet", "smp:MAnet", "--upsample", "nearest", "--seeds", "1"]))


def test_budgets_are_matched_in_it(folder):
    words = [*TINY.split(), "--decoder", "smp:DeepLabV3Plus", "--upsample", "transpose", "bilinear", "--match", "params", "--seeds", "1"]
    plan = ablate.build_plan(ablate.read(words))
    assert plan.name == "scenes-smp_DeepLabV3Plus-upsample-params"
    (a, _), (b, _) = [arm.config["upsample_width"] for arm in plan.arms]
    assert 256 * a * (1 + 64) == pytest.approx(64 * 256 * 256, rel=0.025)  # scale 4: kernels of 8 x 8
    assert 256 * b * (1 + 9) == pytest.approx(64 * 256 * 256, rel=0.025)
    with pytest.raises(SegkitError, match="its own interpolation has no weights"):
        ablate.build_plan(ablate.read([*TINY.split(), "--decoder", "smp:FPN", "smp:PAN", "--match", "params"]))


@pytest.mark.slow
def test_an_ablation_over_decoders_is_run_and_fair(folder, capsys):
    ablate.main([*TINY.split(), "--decoder", "unet", "smp:FPN", "--seeds", "1", "--name", "peers"])
    place = folder / "runs/ablations/peers"
    assert [arm.name for arm in Plan.read(place).arms] == ["unet", "smp:FPN"]
    assert [row["state"] for row in csv.DictReader((place / "results.csv").read_text().splitlines())] == ["finished"] * 2
    assert "not fair" not in capsys.readouterr().out


def test_a_name_that_is_none_is_answered_with_the_nearest_or_the_reason(capsys):
    with pytest.raises(SystemExit):
        Parser(TrainConfig, "").read(["--decoder", "smp:deeplabv3plus"])
    assert "did you mean smp:DeepLabV3Plus?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        Parser(TrainConfig, "").read(["--decoder", "smp:DPT"])
    assert "smp:DPT is left out: it takes a plain vision transformer" in capsys.readouterr().err
