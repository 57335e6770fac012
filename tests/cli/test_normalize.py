"""Whose mean and deviation images are normalised by."""

import numpy as np
import pytest
import yaml

import segkit.cli.train as training
from segkit.checkpoint import load_checkpoint
from segkit.cli.train import build_task
from segkit.config import DataConfig, TrainConfig
from segkit.data.open import open_sources
from segkit.errors import SegkitError
from segkit.runs import newest_run

IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # as torchvision's documentation has them
WORDS = "--decoder_channels [8,4] --data.crop 32 --data.scenes_size 48 --data.scenes_train 4 --data.scenes_val 2 --wandb.mode disabled"


def statistics(measured=None, in_channels=3, encoder="plain", **data):
    config = TrainConfig(in_channels=in_channels, encoder=encoder, decoder_channels=[8, 4], data=DataConfig(**data))
    task = build_task(config, ["a", "b"], [(0, 0, 0), (1, 1, 1)], None, measured)
    return task.hparams["mean"], task.hparams["std"]


def test_an_encoder_may_want_other_numbers_than_imagenets():
    encoder = "tf_efficientnet_lite0"  # whose weights were trained with one half for all
    assert statistics(encoder=encoder) == ([0.5] * 3, [0.5] * 3)
    assert statistics(encoder=encoder, normalize="imagenet") == IMAGENET
    assert statistics() == statistics(normalize="imagenet") == IMAGENET


@pytest.mark.parametrize("channels", [1, 5])
def test_other_channels_take_the_average(channels):
    for normalize in ("encoder", "imagenet"):
        mean, std = statistics(in_channels=channels, normalize=normalize)
        assert mean == pytest.approx([(0.485 + 0.456 + 0.406) / 3] * channels)
        assert std == pytest.approx([(0.229 + 0.224 + 0.225) / 3] * channels)


def test_what_is_given_beats_what_is_measured():
    measured = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    assert statistics(measured, normalize="dataset") == measured
    assert statistics(measured, normalize="dataset", mean=[0.7, 0.8, 0.9]) == ([0.7, 0.8, 0.9], measured[1])
    assert statistics(mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0]) == ([0.0] * 3, [1.0] * 3)
    for name in ("mean", "std"):
        with pytest.raises(SegkitError, match=rf"--data.{name} \[0.5\]: --in_channels 3 wants one number per channel") as caught:
            statistics(**{name: [0.5]})
        assert "\n" not in str(caught.value)


def test_scenes_are_measured_and_a_resumed_run_keeps_what_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training.main([*WORDS.split(), "--data.normalize", "dataset", "--trainer.max_steps", "1", "--trainer.accelerator", "cpu"])
    run = newest_run("runs")
    kept = load_checkpoint(run / "checkpoints/last.ckpt")["hyper_parameters"]
    source = open_sources(DataConfig(scenes_size=48, scenes_train=4))["train"]
    pixels = np.concatenate([source.read(i)[0].reshape(-1, 3) for i in range(4)]).astype(np.float64) / 255
    np.testing.assert_allclose(kept["mean"], pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(kept["std"], pixels.std(0), rtol=1e-12)
    monkeypatch.setattr("segkit.data.statistics.measure_channels", None)
    training.main(["--resume", str(run), "--trainer.max_steps", "2"])
    after = load_checkpoint(run / "checkpoints/last.ckpt")
    assert (after["global_step"], after["hyper_parameters"]["mean"]) == (2, kept["mean"])


def test_a_run_from_before_an_option_existed_goes_on_with_its_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training.main([*WORDS.split(), "--trainer.max_steps", "1", "--trainer.accelerator", "cpu"])
    run = newest_run("runs")
    saved = yaml.safe_load((run / "config.yaml").read_text())
    for name in ("normalize", "bits", "masks", "mapping"):
        del saved["data"][name]
    (run / "config.yaml").write_text(yaml.safe_dump(saved))
    with pytest.raises(SegkitError, match="--data.normalize imagenet: the run was started with encoder"):
        training.main(["--resume", str(run), "--data.normalize", "imagenet"])
    training.main(["--resume", str(run), "--trainer.max_steps", "2"])
    assert load_checkpoint(run / "checkpoints/last.ckpt")["global_step"] == 2
