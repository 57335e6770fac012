"""`ablate.py report`: what an ablation says so far."""

from collections.abc import Sequence
from pathlib import Path

from segkit.cli.parsing import Parser
from segkit.config import ReportConfig, WandbConfig, from_dict
from segkit.errors import RunFailed, SegkitError

DESCRIPTION = "Report an ablation from what is finished so far: report.html, report.md, table.tex, results.csv and figures."


def main(args: Sequence[str]) -> None:
    """Parses `args` and reports."""
    parser = Parser(ReportConfig, DESCRIPTION, file=False)
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="folder of the ablation: runs/ablations/NAME")
    values = parser.read(args)
    folder = values.pop("folder")
    if folder is None:
        raise SegkitError("no ablation named; give its folder: ablate.py report runs/ablations/NAME")
    report(Path(folder), from_dict(ReportConfig, values))


def report(folder: Path, config: ReportConfig) -> None:
    """Writes the report, shows the verdicts and, once nothing is left to run, sends them to W&B.

    Raises:
        RunFailed: The arms of a seed differ in more than the plan says, so that they cannot be compared.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from segkit.ablation.report import headline, headline_table, write_report
    from segkit.ablation.study import load_study
    from segkit.cli.gallery import predictor
    from segkit.tracking import log_ablation

    study = load_study(folder)
    written = write_report(study, folder, predictor(study.plan.split) if config.images else None)
    columns, rows = headline_table(study)
    console, sentences = Console(), headline(study)
    widths = [2 + max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    narrow = sum(widths) > console.width  # then every seed's value is in the report only
    shown = [i for i, column in enumerate(columns) if not (narrow and column.startswith("seed "))]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False, pad_edge=False)
    for i in shown:
        table.add_column(columns[i], justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*(row[i] for i in shown))
    console.print(table)
    for sentence in sentences:
        console.print(sentence, highlight=False)
    console.print(f"report  {written.files[0]}", soft_wrap=True, highlight=False)
    states = [run.state for arm in study.arms for run in arm.runs.values()]
    if "unfinished" not in states:
        figures = {path.stem: path for path in written.files if path.suffix == ".png"}
        wandb = from_dict(WandbConfig, study.plan.arms[0].config["wandb"])
        words = {f"verdict {i}": sentence for i, sentence in enumerate(sentences, start=1)}
        line = log_ablation(wandb, folder, study.plan.name, {"arms": (columns, rows)}, figures, words)
        console.print(f"W&B     {line}", soft_wrap=True, highlight=False)
    if written.problems:
        raise RunFailed(f"the comparison is not fair, and its verdicts are withheld: {written.problems[0]}")
