"""`benchmark.py`: segkit side by side with its peers."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from segkit.cli.parsing import Parser
from segkit.config import BenchmarkConfig, from_dict
from segkit.errors import SegkitError, unknown

if TYPE_CHECKING:
    from segkit.benchmark.bench import Bench
    from segkit.benchmark.report import Results

USAGE = """usage: benchmark.py [SUBJECT] [options]

Measure segkit side by side with its peers, in turns on this machine. SUBJECT is one of
  operators   forward and backward of every upsampling operator; with --table FILE the table of operators in FILE is written anew
  train       training steps, and their memory
  fit         whole trainings from files, in images a second, and their memory on a graphics card
  infer       inference
  data        reading and augmenting images
  eval        scoring
  tile        an image larger than a network takes, in tiles
  startup     how long a command and an import take
  overhead    what logging, tracking and progress add to a training step
  scaling     a training step against image size, batch, classes, images and processes
Without one, all are measured one after another.
"""
DESCRIPTION = "Every number is a median over rounds in which all candidates take turns; ratios have their quartiles over the rounds."
SUBJECTS = {  # the file of each in segkit/benchmark/
    "operators": "operators", "train": "train", "fit": "fit", "infer": "infer", "data": "data", "eval": "evaluation", "tile": "tile",
    "startup": "startup", "overhead": "overhead", "scaling": "scaling",
}  # fmt: skip
WIDTH = 180  # of a table that goes to a file
OWN = {  # options of some subjects only
    "upsample": ("operators", "train"),
    "clock": ("operators", "train", "infer", "eval", "tile", "startup", "overhead", "scaling"),
    "size": ("operators", "train", "fit", "infer", "eval", "tile", "scaling"),
    "batch": ("operators", "train", "fit", "infer", "eval", "scaling"),
    "images": ("fit", "data", "eval"),
    "precision": ("operators", "train", "fit", "infer", "eval", "tile", "scaling"),
    "workers": ("fit", "data"),
    "root": ("data",),
    "window": ("tile",),
    "compile": ("operators", "train", "infer"),
    "table": ("operators",),
    "table_steps": ("operators",),
}


def main(args: Sequence[str]) -> None:
    """Parses `args`, measures, and says what was found."""
    named = [args[0]] if args and not args[0].startswith("-") else []
    for name in named:
        if name not in SUBJECTS:
            raise unknown("subject", name, SUBJECTS)
    rest = args[len(named) :]
    if "-h" in rest or "--help" in rest:
        print(USAGE)
    refuse_options_of_others(named, rest)
    parser = Parser(BenchmarkConfig, DESCRIPTION, file=False)
    config = from_dict(BenchmarkConfig, parser.read(rest))
    measure(config, named or list(SUBJECTS))


def refuse_options_of_others(named: Sequence[str], words: Sequence[str]) -> None:
    """Says which subjects have an option that the one named does not have."""
    for word in (word.split("=")[0].removeprefix("--") for word in words if word.startswith("--")):
        if named and named[0] not in OWN.get(word, named):
            raise SegkitError(f"--{word} is an option of {', '.join(OWN[word])}, not of {named[0]}; leave it out")


def measure(config: BenchmarkConfig, subjects: Sequence[str]) -> None:
    """Measures the subjects one after another; each has said and written what it found before the next begins."""
    from rich.console import Console

    from segkit.benchmark.bench import open_bench
    from segkit.benchmark.report import number, table, write

    console = Console()
    if not console.is_terminal:
        console.width = WIDTH

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False, markup=False)

    bench = open_bench(config, say)
    for subject in subjects:
        results = measured(subject, bench)
        console.print(table(results))
        for note in results.notes:
            say(note)
        judged = [row for row in results.rows if row.met is not None]
        if judged:
            say(f"goals  {sum(bool(row.met) for row in judged)} of {number(len(judged))} met")
        say(f"figure  {write(results, bench)}, all samples beside it as .json\n")


def measured(subject: str, bench: "Bench") -> "Results":
    """What one subject finds."""
    function: Callable[..., Results] = import_module(f"segkit.benchmark.{SUBJECTS[subject]}").measure
    if subject in ("fit", "overhead"):  # of this command
        from segkit.cli.train import train

        return function(bench, train)
    return function(bench)
