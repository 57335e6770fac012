"""Axes on the command line and in files."""

from pathlib import Path

import pytest

from segkit.cli.ablate import read
from segkit.cli.axes import parse_values, split_axes
from segkit.errors import SegkitError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "rest", "axes"),
    [
        ("--upsample a b --seeds 3", "--seeds 3", {"upsample": ["a", "b"]}),
        ("--upsample a --lr 1 2 --compile", "--upsample a --compile", {"lr": ["1", "2"]}),
        ("--data.scale 0.5 2.0", "--data.scale 0.5 2.0", {}),  # one range
        ("--data.scale [0.5,2] [1,1]", "", {"data.scale": ["[0.5,2]", "[1,1]"]}),
        (
            "--decoder_channels 8 8 --class_weights none median_frequency",
            "--decoder_channels 8 8",
            {"class_weights": ["none", "median_frequency"]},
        ),
        ("--data.mean 0.4 0.5 0.6 --upsample_width 8 8", "--data.mean 0.4 0.5 0.6 --upsample_width 8 8", {}),
        ("--compile true false", "", {"compile": ["true", "false"]}),
        ("--upsample=a --lr -1", "--upsample=a --lr -1", {}),
    ],
)
def test_an_option_with_several_values_is_an_axis(words, rest, axes):
    assert split_axes(words.split()) == (rest.split(), axes)


def test_values_are_read_as_the_train_command_reads_them():
    assert parse_values("lr", ["1e-3", 0.5]) == [1e-3, 0.5]
    assert parse_values("data.crop", ["64"]) == [64]
    assert parse_values("upsample", ["bilinear", ["bilinear", "nearest"]]) == ["bilinear", ["bilinear", "nearest"]]
    assert parse_values("encoder_weights", [None, "imagenet"]) == [None, "imagenet"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--upsample bilinear nearst", "--upsample nearst: choose from .*did you mean nearest"),
        ("--data.crop 64 big", "--data.crop big: expected int"),
        ("--upsampel a b", "unknown option '--upsampel'"),
        ("--seeds many", "--seeds many: expected int"),
    ],
)
def test_a_wrong_word_is_one_line(words, message, capsys):
    import re

    with pytest.raises(SystemExit) as stop:
        read(words.split())
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seed 1 2", "--seed cannot be an axis"),
        ("--data.root a b", "--data.root cannot be an axis"),
        ("--wandb.project a b", "--wandb.project cannot be an axis"),
        ("--seeds 0", "--seeds 0"),
        ("--margin 2", "--margin 2"),
    ],
)
def test_what_arms_cannot_differ_in_is_refused(words, message):
    with pytest.raises(SegkitError, match=message):
        read(words.split())


def test_flags_beat_the_file(tmp_path):
    file = tmp_path / "grid.yaml"
    file.write_text("axes: {upsample: [bilinear, nearest], lr: [0.1, 0.2]}\nexclude: [{upsample: bilinear, lr: 0.1}]\nseeds: 4\nlr: 0.5\n")
    config = read(["--config", str(file)])
    assert config.axes == {"upsample": ["bilinear", "nearest"], "lr": [0.1, 0.2]}
    assert (config.seeds, config.exclude) == (4, [{"upsample": "bilinear", "lr": 0.1}])
    config = read(["--lr", "0.3", "--upsample", "transpose", "bilinear", "--config", str(file), "--seeds", "2"])
    assert (config.axes, config.lr, config.seeds) == ({"upsample": ["transpose", "bilinear"]}, 0.3, 2)


def test_the_options_of_a_training_file_are_understood_too():
    config = read(["--config", str(ROOT / "configs/camvid_unet.yaml"), "--upsample", "bilinear", "nearest"])
    assert (config.decoder, config.trainer.max_steps, config.axes) == ("unet", 600, {"upsample": ["bilinear", "nearest"]})
