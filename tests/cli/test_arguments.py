from dataclasses import dataclass, field
from typing import Literal

import pytest

from segkit.cli.arguments import Arguments, descriptions
from segkit.cli.options import options
from segkit.cli.parsing import Parser
from segkit.config import EvalConfig, PredictConfig, from_dict


@dataclass(kw_only=True)
class Options:
    """Some options.

    Args:
        kind: which kind: a or
            b
        many: many 100 % of them
        number: how many
        share: what share
        flag: whether
        place: where
    """

    kind: Literal["alpha", "beta"] = "alpha"
    many: list[Literal["one", "two"]] = field(default_factory=list)
    number: int | None = None
    share: float = 0.5
    flag: bool = False
    place: str | None = None


def parser():
    made = Arguments(Options, "Does things.", "RUN IMAGES ... [options]")
    made.add_word("run", "the run")
    made.add_word("images", "the images", several=True)
    return made


def read(*words):
    return parser().read(words)


def test_every_spelling():
    expected = Options(kind="beta", many=["one", "two"], number=3, share=0.25, flag=True, place="x=y")
    for line in (
        "r a b --kind beta --many one two --number 3 --share .25 --flag --place x=y",
        "r a b --kind=beta --many=[one,two] --number=3 --share=0.25 --flag=true --place=x=y",
        "--flag r --kind beta a b --many [one, two] --number 3 --share 2.5e-1 --place x=y",
        "--flag true r a b --many one,two --kind beta --number 3 --share .25 --place x=y",
    ):
        assert read(*line.split()) == (expected, {"run": "r", "images": ["a", "b"]})
    assert read("r") == (Options(), {"run": "r", "images": []})
    assert read("r", "--flag", "False")[0].flag is False
    assert read("r", "--many", "[]")[0].many == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("r --knid alpha", "unknown option '--knid'; did you mean --kind?"),
        ("r --zzz 1", "unknown option '--zzz'; --help lists them"),
        ("r --kind bta", "--kind bta: choose from alpha, beta; did you mean beta?"),
        ("r --many one tow", "--many tow: choose from one, two; did you mean two?"),
        ("r --number 3.5", "--number 3.5: expected int"),
        ("r --share x", "--share x: expected float"),
        ("r --flag=maybe", "--flag maybe: expected bool"),
        ("r --number", "--number: expected one argument"),
        ("", "no RUN; call it as "),
    ],
)
def test_a_mistake_is_one_line_with_the_nearest_choice(words, line, capsys):
    with pytest.raises(SystemExit) as left:
        read(*words.split())
    assert left.value.code == 2
    (shown,) = capsys.readouterr().err.splitlines()
    assert shown.split("error: ", 1)[1].startswith(line)


def test_help_says_what_the_docstring_says(capsys):
    with pytest.raises(SystemExit) as left:
        read("--help")
    assert left.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for expected in (
        "Does things.",
        "RUN IMAGES ... [options]",
        "which kind: a or b (default: alpha)",
        "many 100 % of them",
        "--number INT how many",
    ):
        assert expected in text


def test_every_option_is_described():
    for config in (PredictConfig, EvalConfig):
        assert descriptions(config).keys() == dict(options(config)).keys()


def test_the_same_words_mean_the_same_to_both_parsers():
    line = "--out o --tta hflip vflip --tta_scales [0.5,1] --overlays --tile 512 --overlap .5 --precision bf16-mixed --images_from x.txt"
    words = line.split()
    ours = Arguments(PredictConfig, "", "").read(words)[0]
    theirs = from_dict(PredictConfig, Parser(PredictConfig, "", file=False).read(words))
    assert ours == theirs
