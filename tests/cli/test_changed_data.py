"""A data set that changes after a run was trained on it."""

import numpy as np
import pytest
from PIL import Image

import segkit.cli.eval as evaluation
import segkit.cli.train as training
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
