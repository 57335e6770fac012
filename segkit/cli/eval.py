"""`eval.py`: scores checkpoints at native resolution; everything it needs is in them. Several are compared."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segkit.cli.parsing import Parser
from segkit.config import EvalConfig, from_dict
from segkit.runs import find_checkpoint, newest_run

DESCRIPTION = (
    "Evaluate runs. With no options: the last checkpoint of the newest run below runs/, on its test split. "
    "Several runs are compared with the first, image by image."
)


def main(args: Sequence[str]) -> None:
    """Parses `args` and evaluates."""
    parser = Parser(EvalConfig, DESCRIPTION, file=False)
    parser.add_argument("run", nargs="*", metavar="RUN", help="run folders or .ckpt files; default: the newest run")
    values = parser.read(args)
    runs = values.pop("run")
    config = from_dict(EvalConfig, values)
    checkpoints = [find_checkpoint(run, config.checkpoint) for run in runs or [newest_run("runs")]]
    if len(checkpoints) == 1:
        evaluate(config, checkpoints[0])
    else:
        from segkit.cli.compare import compare

        compare(config, checkpoints)


def evaluate(config: EvalConfig, checkpoint: Path) -> None:
    """Evaluates `checkpoint` as `config` says and writes the results to `config.out` or, by default, into the folder of its run."""
    from segkit.cli.scoring import open_evaluation, score

    evaluation = open_evaluation(config, checkpoint)
    score(evaluation if config.out is None else replace(evaluation, folder=Path(config.out)), config)
