"""A data set that changes after a run was trained on it."""

import numpy as np
import pytest
import torch
from PIL import Image

import segkit.cli.eval as evaluation
import segkit.cli.train as training
import segkit.trainer
from segkit.checkpoint import load_checkpoint
from segkit.cli.resuming import hold_data
from segkit.config import DataConfig
from segkit.data.module import SegmentationDataModule
from segkit.errors import SegkitError
from segkit.runs import newest_run

WORDS = "--data.root data --data.crop 32 --data.batch_size 2 --decoder_channels [8,4] --trainer.accelerator cpu --wandb.mode disabled"


def test_training_images_that_came_are_told_by_evaluation_and_refused_by_resumption(make_folder, tmp_path, monkeypatch, capsys):
    make_folder(test=2)
    (tmp_path / "data").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    training.main([*WORDS.split(), "--trainer.max_steps", "2"])
    run = str(newest_run("runs"))
    evaluation.main([run, "--images", "0"])
    assert "came or went" not in capsys.readouterr().out
    more = ["--resume", run, "--trainer.max_steps", "3"]
    for kind, pixels in (("images", np.zeros((40, 48, 3), np.uint8)), ("masks", np.zeros((40, 48), np.uint8))):
        Image.fromarray(pixels).save(tmp_path / kind / "train/new.png")
    evaluation.main([run, "--images", "0"])
    assert "training images came or went" in capsys.readouterr().out
    with pytest.raises(SegkitError, match=r"training split has 5 images, which are not those .* put them back, or start a new run"):
        training.main(more)
    for kind in ("images", "masks"):
        (tmp_path / kind / "train/new.png").unlink()
    training.main(more)
    assert "validation after 3 steps" in capsys.readouterr().out


@pytest.fixture
def changed(make_folder, tmp_path, monkeypatch):
    """A run of two steps, `(its folder, the data's)`."""
    make_folder()
    (tmp_path / "data").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    training.main([*WORDS.split(), "--trainer.max_steps", "2"])
    return str(newest_run("runs")), tmp_path


def edited(path):
    """Another picture, of the same size."""
    pixels = np.array(Image.open(path))
    Image.fromarray(pixels[::-1]).save(path)


@pytest.mark.parametrize(("change", "message"), [
    (lambda root: edited(root / "masks/train/train1.png"), "the training split has other labels in its masks than those that the run"),
    (lambda root: edited(root / "masks/val/val0.png"), "the validation split has other labels in its masks than those that the run"),
    (lambda root: [(root / kind / "val/val0.png").unlink() for kind in ("images", "masks")], "the validation split has 1 images, which"),
    (lambda root: (root / "classes.txt").write_text("0 class0\n1 class2\n2 class1\n"),
     r"the data has the classes \['class0', 'class2', 'class1'\], and the run was started with \['class0', 'class1', 'class2'\]"),
    (lambda root: (root / "classes.txt").write_text("0 class0\n1 class1\n2 class2\n3 d\n"), r"the data has the classes .* 'd'\]"),
], ids=["training labels", "validation labels", "validation images", "order of classes", "number of classes"])  # fmt: skip
def test_a_data_set_of_the_same_training_images_that_is_another_is_refused_by_name(changed, monkeypatch, change, message):
    run, root = changed
    change(root)
    monkeypatch.setattr(segkit.trainer, "build_trainer", None)  # before another process is started that would say it too
    with pytest.raises(SegkitError, match=f"^{message}.*; put (them|those) back, or start a new run$"):
        training.main(["--resume", run, "--trainer.max_steps", "3"])


def test_images_with_other_pixels_are_told_since_another_decoder_may_be_why(changed, capsys):
    run, root = changed
    edited(root / "images/train/train1.png")
    capsys.readouterr()
    training.main(["--resume", run, "--trainer.max_steps", "3"])
    assert "goes on under other conditions, so not to the bit: pixels of training images" in " ".join(capsys.readouterr().out.split())
    training.main(["--resume", run, "--trainer.max_steps", "4", "--data.check", "false"])  # which reads nothing
    assert "other conditions" not in " ".join(capsys.readouterr().out.split())
    assert load_checkpoint(newest_run("runs") / "checkpoints/last.ckpt")["global_step"] == 4


def test_another_number_of_processes_is_refused_before_there_are_others_to_say_it_too(changed, monkeypatch):
    run, _ = changed
    monkeypatch.setattr(segkit.trainer, "build_trainer", None)
    with pytest.raises(SegkitError, match="the run was trained by 1 processes; with 2 its batches would change"):
        training.main(["--resume", run, "--trainer.devices", "2"])


@pytest.mark.parametrize("saved", [
    {"processes": torch.arange(2)},
    {"hyper_parameters": {"class_names": [torch.arange(2), "class1", "class2"]}},
    {"SegmentationDataModule": {"images": torch.arange(2)}},
])  # fmt: skip
def test_what_a_stranger_has_written_into_a_checkpoint_is_refused_as_other_data_are(make_folder, tmp_path, saved):
    make_folder()
    data = SegmentationDataModule(DataConfig(root=str(tmp_path)))
    sound = {"processes": 1, "hyper_parameters": {"class_names": ["class0", "class1", "class2"]}, "SegmentationDataModule": data.contents()}
    assert hold_data(data, sound, 1) == []
    with pytest.raises(SegkitError, match="the run was (trained by|started with)"):
        hold_data(data, {**sound, **saved}, 1)


def test_labels_are_remembered_over_a_part_of_the_run_that_has_not_read_them(changed):
    run, root = changed
    training.main(["--resume", run, "--trainer.max_steps", "3", "--data.check", "false"])
    edited(root / "masks/train/train1.png")
    with pytest.raises(SegkitError, match="the training split has other labels"):
        training.main(["--resume", run, "--trainer.max_steps", "4", "--data.check", "true"])
