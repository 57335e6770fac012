import shlex

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

from segkit.cli.check_data import main
from segkit.cli.parsing import Parser
from segkit.config import CheckConfig, DataConfig, TrainConfig, from_dict
from segkit.data.classes import PixelCounts, median_frequency_weights
from segkit.data.findings import Finding
from segkit.data.module import SegmentationDataModule
from segkit.data.open import open_sources
from segkit.doctor.advice import BYTES, Advice, advise, command, configuration
from segkit.doctor.examine import examine
from segkit.errors import RunFailed


def advised(root, findings=(), memory=2**40, **data):
    config = CheckConfig(data=DataConfig(root=str(root), **data))
    splits = examine(open_sources(config.data)).splits
    return {one.option: one.value for one in advise(splits, findings, config, memory=memory)}


def test_crop_and_batch_follow_from_size_and_memory(make_folder):
    root = make_folder(train=10, val=1, size=(150, 200))
    Image.fromarray(np.zeros((70, 90), np.uint8)).save(root / "masks/train/train3.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)).save(root / "images/train/train3.png")
    advice = advised(root)
    assert advice["data.crop"] == 128  # nine of ten are 150 pixels high
    assert advice["data.batch_size"] == 8  # not more than there are images; by pixels it would be 2^20 / 128^2 = 64, and 32 the most
    assert advised(root, memory=4 * BYTES * 3 * 128**2)["data.batch_size"] == 2
    assert advised(root, memory=0)["data.batch_size"] == 1
    assert "class_weights" not in advice  # uniform labels
    assert "data.normalize" not in advice


def test_rare_classes_dark_images_and_grey_ones(make_folder):
    root = make_folder(train=3, val=1, size=(64, 64))
    labels = np.zeros((64, 64), np.uint8)
    labels[:4, :4], labels[:16, 8:24] = 2, 1
    for file in root.glob("*/*/*.png"):
        Image.fromarray(labels if "masks" in file.parts else np.stack([labels * 7] * 3, axis=2)).save(file)
    advice = advised(root)
    pixels = np.array([4096 - 256 - 16, 256, 16])
    weights = np.sqrt(median_frequency_weights(PixelCounts(pixels, np.full(3, 4096))))
    assert advice["class_weights"] == [round(float(w), 2) for w in weights] == [0.26, 1.0, 4.0]
    assert advice["data.normalize"] == "dataset"
    assert advice["in_channels"] == 1


def test_what_reading_refused_is_asked_for(make_folder):
    root = make_folder(train=1, val=1)
    deep, colors = ([Finding(kind, "train", "")] * 2 for kind in ("deep_image", "color_mask"))
    advice = advised(root, [*deep, *colors])
    assert (advice["data.bits"], advice["data.masks"]) == (16, "colors")
    assert not {"data.bits", "data.masks"} & advised(root, [*deep[:1], *colors[:1]]).keys()  # one file of two is damage
    advice = advised(root, [*colors, Finding("binary", "", "")])
    assert advice["data.masks"] == "binary"
    assert "class_weights" not in advice


def test_files_of_many_bands_lead_to_a_file_that_trains_on_them(clean_set, tmp_path, capsys):
    root, out = clean_set(lengths=(8, 4, 2)), tmp_path / "out"
    rng = np.random.default_rng(0)
    for file in root.glob("images/*/*.jpg"):
        file.unlink()
        tifffile.imwrite(
            file.with_suffix(".tif"), rng.integers(0, 4096, (96, 128, 5), np.uint16), photometric="minisblack", planarconfig="contig"
        )
    options = ["--data.root", str(root), "--data.crop", "64", "--out", str(out), "--write_config", str(out / "c.yaml")]
    for more, asked in (([], "bits: 16"), (["--data.bits", "16"], "in_channels: 5")):
        with pytest.raises(RunFailed):
            main([*options, *more])
        assert asked in (out / "c.yaml").read_text()
    main([*options, "--data.bits", "16", "--in_channels", "5"])
    assert "bits 0 to 11 of 0 to 15 are used" in capsys.readouterr().out
    config = read(["--config", str(out / "c.yaml")])
    assert (config.in_channels, config.data.bits, config.data.normalize) == (5, 16, "dataset")
    SegmentationDataModule(config.data, config.seed, config.in_channels).prepare()


def read(words):
    return from_dict(TrainConfig, Parser(TrainConfig, "").read(words))


ADVICE = [Advice("data.crop", 96, "why: not # this"), Advice("class_weights", [0.5, 1.25], "rare"), Advice("data.masks", "colors", "x")]


def test_command_and_file_mean_the_same_to_the_train_command(tmp_path):
    data = DataConfig(root=str(tmp_path / "my data"), mapping={"#0a0B0c": 1}, masks="colors", scale=(0.5, 1.0), group="[^_]*", crop=32)
    config = CheckConfig(data=data, in_channels=1)
    file = tmp_path / "c.yaml"
    file.write_text(configuration(ADVICE, config, "folder in x\n: y"))
    first = read(["--config", str(file)])
    second = read(shlex.split(command(ADVICE, config))[2:])
    assert first == second
    assert (first.in_channels, first.class_weights, first.data.crop) == (1, [0.5, 1.25], 96)
    assert first.data.root == data.root
    assert (first.data.mapping, first.data.scale, first.data.group) == (data.mapping, (0.5, 1.0), "[^_]*")
    assert yaml.safe_load(file.read_text())["data"]["masks"] == "colors"


@pytest.mark.parametrize("kind", ["folder", "scenes"])
def test_the_written_file_is_taken_by_the_train_command_as_it_is(clean_set, tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    where = ["--data.scenes_train", "9", "--data.scenes_val", "4", "--data.scenes_test", "0"]
    if kind == "folder":
        clean_set()
        where = ["--data.root", "data", "--data.crop", "64"]  # relative: the file holds the whole path
    main([*where, "--out", "out", "--write_config", "configs/mine.yaml"])
    monkeypatch.chdir("/")
    config = read(["--config", str(tmp_path / "configs/mine.yaml")])
    assert config.data.kind == kind
    data = SegmentationDataModule(config.data, config.seed, config.in_channels)
    data.prepare()
    assert len(data.sources["train"]) == (24 if kind == "folder" else 9)
    data.class_weights(config.class_weights)
