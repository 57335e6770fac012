"""What `--help` says is what there is: the same options as the parser that reads them has."""

import re
import subprocess
import sys

import pytest

from segkit.cli.help import help_text
from segkit.cli.parsing import Parser
from segkit.cli.typed import TypedParser
from segkit.config import AblateConfig, BenchmarkConfig, CheckConfig, EvalConfig, ExportConfig, ReportConfig, TrainConfig


@pytest.mark.parametrize("config", [TrainConfig, AblateConfig, EvalConfig, ExportConfig, CheckConfig, ReportConfig, BenchmarkConfig])
@pytest.mark.parametrize("file", [True, False])
def test_the_options_and_their_words_are_those_of_the_parser(config, file):
    ours = help_text("train.py", "Trains.", config, file, [("--resume", {"metavar": "RUN", "help": "goes on, 100 %% of it"})])
    theirs = TypedParser("train.py", config, file, lambda line: sys.exit(line))
    theirs.add_argument("--resume")
    named = [set(re.findall(r"^  (?:-h, )?--([\w.]+)", text, re.MULTILINE)) for text in (ours, theirs.format_help())]
    assert named[0] == named[1]
    assert "goes on, 100 % of it" in ours


def test_types_and_defaults_are_said(capsys):
    with pytest.raises(SystemExit) as left:
        Parser(TrainConfig, "Trains.").read(["--lr", "nonsense", "--help"])
    assert left.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "--seed SEED decides every random number of the run (type: int, default: 0)",
        "--norm {batch,group}",
        "data set and augmentation: --data CONFIG",
        "(type: list[str], default: [])",
    ):
        assert words in said


@pytest.mark.parametrize("word", ["--lrr", "--data.cropp=3", "--dta.crop"])
def test_an_option_that_is_none_is_named_before_values_are_read(word, capsys):
    with pytest.raises(SystemExit) as left:
        Parser(TrainConfig, "").read(["--lr", "nonsense", word, "1"])
    assert left.value.code == 2
    assert f"unknown option '{word}'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--trainer.extra.limit_val_batches", "2"], ["--wandb.tags+", "a"], ["--data", "{crop: 64}"]])
def test_words_that_only_the_parser_of_types_knows_are_left_to_it(words):
    assert Parser(TrainConfig, "").read(words)


def test_neither_needs_the_parser_of_types():
    code = "import sys\nfrom segkit.cli.train import main\ntry: main(sys.argv[1:])\nexcept SystemExit: print('jsonargparse' in sys.modules)"
    for word in ("--help", "--lrr"):
        out = subprocess.run([sys.executable, "-c", code, word], capture_output=True, text=True, check=True)
        assert out.stdout.endswith("False\n")
