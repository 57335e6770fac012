"""Images of five bands and 16 bits, from files through training and evaluation, in this process."""

import json

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch.utils.data import DataLoader

import segkit.cli.eval as evaluation
import segkit.cli.train as training
from segkit.checkpoint import load_checkpoint
from segkit.cli.train import build_task
from segkit.config import DataConfig, TrainConfig, TrainerConfig
from segkit.data.dataset import EvalDataset
from segkit.data.folder import open_folder
from segkit.data.statistics import measure_channels
from segkit.errors import SegkitError
from segkit.runs import newest_run
from segkit.task import SegmentationTask
from segkit.trainer import build_trainer

WORDS = (
    "--data.kind folder --data.root data --in_channels 5 --data.bits 16 --data.crop 32 --data.batch_size 2 --decoder_channels [8,4] "
    "--wandb.mode disabled"
)
LAYOUTS = {"contig": lambda a: a, "separate": lambda a: a.transpose(2, 0, 1), "pages": lambda a: a.transpose(2, 0, 1)}


@pytest.fixture(scope="module")
def bands():
    """The training images, all of them in shares of white: dark, and no two bands alike."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 1000 * (1 + np.arange(5)), (40, 48, 5)).astype(np.uint16) for _ in range(4)]


@pytest.fixture
def folder(tmp_path, monkeypatch, bands):
    """A data set of such images, bands last, first and in pages by turns; the current folder."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/classes.txt").write_text("0 a\n1 b\n")
    for split, images in (("train", bands), ("val", bands[:1]), ("test", bands[:2])):
        for kind in ("images", "masks"):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
        for i, (image, layout) in enumerate(zip(images, [*LAYOUTS, "contig"], strict=False)):
            how = {} if layout == "pages" else {"planarconfig": layout}
            path = tmp_path / f"data/images/{split}/{i}.tif"
            tifffile.imwrite(path, LAYOUTS[layout](image), photometric="minisblack", metadata=None, compression="zlib", **how)
            mask = (image[..., 4] > 2500).astype(np.uint8)
            Image.fromarray(mask).save(tmp_path / f"data/masks/{split}/{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*words):
    training.main([*WORDS.split(), "--trainer.max_steps", "2", "--trainer.accelerator", "cpu", *words])
    return newest_run("runs")


def test_open_folder_and_a_task_of_ones_own(folder, bands):
    config = TrainConfig(in_channels=5, decoder_channels=[8, 4], data=DataConfig(kind="folder", root="data", bits=16, normalize="dataset"))
    source = open_folder(folder / "data", config.data, 5)["train"]
    for index, image in enumerate(bands):
        assert np.array_equal(source.read(index)[0], image)
        assert source.size(index) == (40, 48)
    task = build_task(config, source.classes.names, source.classes.colors, None, measure_channels(source, 65535))
    loader = DataLoader(EvalDataset(source), batch_size=2)
    normalised = torch.cat([task.normalize(batch["image"]) for batch in loader]).double()
    torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(5).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.std((0, 2, 3), correction=0), torch.ones(5).double(), atol=1e-5, rtol=0)
    trainer = build_trainer(TrainerConfig(accelerator="cpu", devices=1), max_steps=2)
    trainer.fit(task, loader, loader)
    assert trainer.global_step == 2
    assert task.predict(bands[0]).shape == (40, 48)


def test_training_and_evaluation_by_the_data_sets_own_statistics(folder, bands):
    run = train("--data.normalize", "dataset", "--ema", "0.9")
    kept = load_checkpoint(run / "checkpoints/last.ckpt")["hyper_parameters"]
    pixels = np.concatenate([image.reshape(-1, 5) for image in bands]) / 65535
    np.testing.assert_allclose(kept["mean"], pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(kept["std"], pixels.std(0), rtol=1e-12)
    assert kept["white"] == 65535
    (folder / "data/images/train").rename(folder / "gone")  # evaluation needs no training images
    (folder / "data/masks/train").rename(folder / "gone-masks")
    evaluation.main([str(run), "--images", "2"])
    results = json.loads((run / "eval/test-last/metrics.json").read_text())
    task = SegmentationTask.load(run / "checkpoints/last.ckpt")
    labels = [task.predict(image) for image in bands[:2]]
    right = sum(int((found == (image[..., 4] > 2500)).sum()) for found, image in zip(labels, bands[:2], strict=True))
    assert results["accuracy"] == pytest.approx(right / (2 * 40 * 48), abs=2 / (40 * 48))
    panel = np.asarray(Image.open(run / "eval/test-last/panel.png"))
    assert panel.ndim == 3
    assert list((run / "panels").glob("*.png"))


def test_a_resumed_run_keeps_its_statistics(folder):
    run = train("--data.normalize", "dataset")
    before = load_checkpoint(run / "checkpoints/last.ckpt")["hyper_parameters"]
    tifffile.imwrite("data/images/train/0.tif", np.zeros((40, 48, 5), np.uint16), photometric="minisblack", planarconfig="contig")
    training.main(["--resume", str(run), "--trainer.max_steps", "3"])
    after = load_checkpoint(run / "checkpoints/last.ckpt")
    assert after["global_step"] == 3
    assert (after["hyper_parameters"]["mean"], after["hyper_parameters"]["std"]) == (before["mean"], before["std"])


def test_what_is_wrong_is_one_line(folder):
    for words, match in (
        (["--in_channels", "3"], r"5 bands \(uint16\), but --in_channels 3; give --in_channels 5"),
        (["--data.bits", "8"], "16 bits per channel; read them with --data.bits 16"),
        (["--data.mean", "[0.5,0.5,0.5]"], r"--data.mean \[0.5, 0.5, 0.5\]: --in_channels 5 wants one number per channel"),
        (["--data.std", "[0.5,0.5,0.5]"], r"--data.std \[0.5, 0.5, 0.5\]: --in_channels 5 wants one number per channel"),
    ):
        with pytest.raises(SegkitError, match=match):
            train(*words)
    assert not (folder / "runs").exists()
