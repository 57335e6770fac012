"""Command lines as they are typed: one line for a mistake, flags that beat the file in any order."""

import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

from segkit.cli import parsing
from segkit.cli.train import main, plain
from segkit.config import (
    AblateConfig,
    BenchmarkConfig,
    DataConfig,
    EvalConfig,
    FeaturesFigureConfig,
    OperatorFigureConfig,
    OverlapFigureConfig,
    ReportConfig,
    TrainConfig,
    from_dict,
)
from segkit.errors import SegkitError

SCRIPTS = Path(__file__).parents[2] / "scripts"


def read(*args):
    return from_dict(TrainConfig, parsing.Parser(TrainConfig, "").read(args))


def refused(capsys, *args):
    """The one line on stderr of a command line that is refused with exit code 2."""
    with pytest.raises(SystemExit) as left:
        read(*args)
    assert left.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0].split("error: ", 1)[1]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("upsample: nearest\nlr: 0.5\ndata: {crop: 64, hflip: 0.25}\n")
    return str(path)


@pytest.mark.parametrize("order", ["flag first", "file first"])
@pytest.mark.parametrize("spelling", [" ", "="])
def test_flags_beat_the_file_in_any_order_and_spelling(file, order, spelling):
    def word(name, value):
        return [f"{name}={value}"] if spelling == "=" else [name, value]

    flags, config = [*word("--upsample", "bilinear"), *word("--data.crop", "96")], word("--config", file)
    result = read(*flags, *config) if order == "flag first" else read(*config, *flags)
    assert (result.upsample, result.data.crop) == ("bilinear", 96)
    assert (result.lr, result.data.hflip) == (0.5, 0.25)


def test_later_files_beat_earlier_ones(file, tmp_path):
    (tmp_path / "b.yaml").write_text("lr: 0.25\n")
    result = read("--config", file, "--config", str(tmp_path / "b.yaml"))
    assert (result.upsample, result.lr) == ("nearest", 0.25)


def test_no_options_are_the_defaults_of_the_dataclasses():
    assert read() == TrainConfig()


def test_switches_need_no_value():
    assert (read("--compile").compile, read("--compile", "--seed", "3").seed, read("--compile", "false").compile) == (True, 3, False)


def test_an_operator_per_stage():
    assert read("--upsample", "[transpose,bilinear]").upsample == ["transpose", "bilinear"]


LISTS = [
    "--upsample transpose bilinear",
    "--upsample [transpose,bilinear]",
    "--upsample [transpose, bilinear]",
    "--upsample=[transpose,bilinear]",
]


@pytest.mark.parametrize("words", LISTS)
def test_lists_with_and_without_brackets(words):
    result = read(*words.split(), "--decoder_channels", "8", "4", "--data.scale", "0.5", "2", "--wandb.tags", "a", "--seed", "3")
    assert (result.upsample, result.decoder_channels, result.seed) == (["transpose", "bilinear"], [8, 4], 3)
    assert (result.data.scale, result.wandb.tags) == ((0.5, 2), ["a"])


def test_any_other_trainer_argument_goes_through_extra():
    assert read("--trainer.extra.limit_val_batches", "2").trainer.extra == {"limit_val_batches": 2}


@pytest.mark.parametrize(("args", "message"), [
    (["--upsample", "nearst"], "did you mean nearest?"),
    (["--upsample", "[bilinear,nope]"], "--upsample nope: choose from bicubic, bilinear"),
    (["--decoder", "unet2"], "did you mean unet?"),
    (["--crop", "64"], "unknown option '--crop'; did you mean --data.crop?"),
    (["--uspample", "nearest"], "unknown option '--uspample'; did you mean --upsample"),
    (["nearest"], "unknown option 'nearest'"),
    (["--data.crop", "big"], "--data.crop big: expected int"),
    (["--trainer.max_steps", "1.5"], "--trainer.max_steps 1.5: expected int"),
    (["--lr"], "--lr: expected one argument"),
    (["--config", "none.yaml"], "--config: File does not exist:"),
    (["--data.scale", "[1,2,3]"], "--data.scale [1, 2, 3]: expected tuple[float, float]"),
])  # fmt: skip
def test_mistakes_are_one_line_with_the_remedy(capsys, args, message):
    assert message in refused(capsys, *args)


@pytest.mark.parametrize(("text", "message"), [
    ("upsampel: nearest", "unknown option 'upsampel'; did you mean --upsample"),
    ("data: {crp: 3}", "unknown option 'data.crp'; did you mean --data.crop"),
    ("upsample: nearst", "did you mean nearest?"),
    ("a: [", "--config: while parsing"),
    ("data: {crop: {class_path: os.system, init_args: {command: touch canary}}}", "--data.crop"),
    ("encoder: {class_path: os.system, init_args: {command: touch canary}}", "--encoder"),
])  # fmt: skip
def test_mistakes_in_a_file_too_and_no_class_is_ever_built_from_one(capsys, tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text(text)
    assert message in refused(capsys, "--config", "bad.yaml")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(("args", "message"), [
    (["--data.batch_size", "0"], "--data.batch_size 0: give a number from 1 to 1000000"),
    (["--data.hflip", "2"], "--data.hflip 2.0: give a number from 0 to 1"),
    (["--data.scale", "[2,1]"], "--data.scale [2.0, 1.0]: give two zoom factors"),
    (["--lr", "0"], "--lr 0.0: give a learning rate above 0"),
    (["--trainer.max_steps", "0"], "--trainer.max_steps 0: give a number from 1"),
    (["--decoder_channels", "[]"], "give one width of 1 to 16384 per stage"),
    (["--class_weights", "balanced"], "--class_weights balanced: give none, median_frequency"),
    (["--seed", str(2**63)], f"--seed {2**63}: give a number from 0"),
    (["--wandb.panels", "-1"], "--wandb.panels -1: give 0 or more"),
    (["--data.std", "[0.2,0,0.2]"], "--data.std [0.2, 0.0, 0.2]: give one deviation above 0"),
    (["--dropout", "1"], "--dropout 1.0: give a number from 0"),
])  # fmt: skip
def test_numbers_out_of_range_name_the_flag_and_the_rule(args, message):
    with pytest.raises(SegkitError) as error:
        read(*args)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_printed_configuration_can_be_fed_back(capsys, tmp_path):
    with pytest.raises(SystemExit):
        read("--upsample", "pixel_shuffle", "--data.scale", "[0.5,2]", "--print_config")
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    assert read("--config", str(tmp_path / "printed.yaml")) == read("--upsample", "pixel_shuffle", "--data.scale", "[0.5,2]")


def test_a_saved_configuration_can_be_fed_back(tmp_path):
    from dataclasses import asdict

    config = read("--upsample", "[nearest,bilinear]", "--trainer.extra.limit_val_batches", "2", "--wandb.tags", "[a,b]")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain(asdict(config))))
    assert read("--config", str(tmp_path / "config.yaml")) == config


def test_a_file_that_is_not_text_is_one_line(capsys, tmp_path):
    (tmp_path / "a.ckpt").write_bytes(bytes(range(256)))
    assert "the file is not text" in refused(capsys, "--config", str(tmp_path / "a.ckpt"))


def test_a_group_that_is_no_group_is_named(tmp_path):
    (tmp_path / "bad.yaml").write_text("data: 3")
    with pytest.raises(SegkitError, match="data: 3 in the configuration; give its options"):
        read("--config", str(tmp_path / "bad.yaml"))


def test_an_option_of_another_version_is_named():
    with pytest.raises(SegkitError, match="no option 'crops'"):
        from_dict(DataConfig, {"crops": 3})


def test_every_option_has_one_line_of_help():
    figures = (OperatorFigureConfig, FeaturesFigureConfig, OverlapFigureConfig)
    for config in (TrainConfig, EvalConfig, AblateConfig, ReportConfig, BenchmarkConfig, *figures):
        for name, _ in parsing.options(config):
            owner = config
            *groups, leaf = name.split(".")
            for group in groups:
                owner = {"data": DataConfig}.get(group) or get_type_hints(owner)[group]
            documented = "".join(part.__doc__ for part in owner.__mro__[:-1])  # an ablation has the options of training too
            assert f"        {leaf}: " in documented, name


@pytest.mark.parametrize("script", ["train", "eval", "ablate", "visualize", "benchmark"])
def test_help_and_mistakes_need_no_torch(script, tmp_path):
    code = (
        f"import sys, runpy; sys.argv = ['{script}.py', *sys.argv[1:]]\n"
        "left = 0\n"
        f"try: runpy.run_path({str(SCRIPTS / f'{script}.py')!r}, run_name='__main__')\n"
        "except SystemExit as end: left = end.code\n"
        "print('left', left)\n"
        "print([m for m in ('torch', 'numpy', 'pytorch_lightning', 'cv2') if m in sys.modules])"
    )
    for args, status in ((["--help"], 0), (["--nonsense"], 2)):
        out = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, cwd=tmp_path, check=True)
        assert out.stdout.endswith(f"left {status}\n[]\n")


def test_resuming_what_is_no_run_is_one_line(tmp_path):
    with pytest.raises(SegkitError, match="is no run folder"):
        main(["--resume", str(tmp_path)])


@pytest.mark.parametrize(("words", "value"), [
    ([], None),
    (["--resume"], None),
    (["--seed", "1"], None),
    (["--seed", "1", "--resume", "a"], "a"),
    (["--resume=b", "--seed", "1"], "b"),
])  # fmt: skip
def test_what_a_command_line_gives_an_option(words, value):
    assert parsing.given(words, "--resume") == value


def test_a_run_that_lightning_leaves_at_a_sigterm_does_not_count_as_one_that_is_through():
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    def left(words):
        raise SIGTERMException

    with pytest.raises(SystemExit) as stop:
        parsing.run(left)
    assert stop.value.code == 143
