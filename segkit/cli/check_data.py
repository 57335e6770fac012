"""`check_data.py`: says what is wrong with a data set, what to do about it, and how to train on it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segkit.cli.parsing import Parser
from segkit.config import CheckConfig, from_dict
from segkit.errors import RunFailed, SegkitError, printable
from segkit.runs import make_folder, write_whole

if TYPE_CHECKING:
    from rich.console import Console

    from segkit.doctor.report import Report

DESCRIPTION = (
    "Look at every image and mask of a data set: say what is wrong, with a remedy for each finding, and how to train on it. "
    "The exit code is 1 where training would fail or scores would lie."
)
SHOWN = 5  # findings of a kind in the terminal; the reports have all


def main(args: Sequence[str]) -> None:
    """Parses `args` and checks."""
    check(from_dict(CheckConfig, Parser(CheckConfig, DESCRIPTION).read(args)))


def check(config: CheckConfig) -> None:
    """Examines the data, writes `report.json` and `report.html`, and prints a summary.

    Raises:
        SegkitError: The data set cannot be opened, or a file cannot be written.
        RunFailed: There are errors among the findings.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from segkit.data.open import open_sources
    from segkit.doctor.advice import command, for_shards
    from segkit.doctor.page import page
    from segkit.doctor.report import as_json, diagnose

    console, out = Console(), Path(config.out)
    sources = open_sources(config.data, config.in_channels)
    if config.to_shards:
        from segkit.data.shards import hold_empty

        hold_empty(Path(config.to_shards))
    for folder in (out, *([Path(config.write_config).parent] if config.write_config else [])):
        make_folder(folder)
    with Progress(
        TextColumn("[bold]check"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("check", total=sum(map(len, sources.values())))
        report = diagnose(config, sources, lambda: bar.advance(task))
    write_whole(out / "report.json", json.dumps(as_json(report, sources), indent=1) + "\n")
    write_whole(out / "report.html", page(report, sources, config.data.root))
    _show(console, report)
    console.print(f"report  {out / 'report.html'}", soft_wrap=True, highlight=False, markup=False)
    if config.write_config:
        write_whole(Path(config.write_config), report.configuration)
        console.print(f"config  {config.write_config}", soft_wrap=True, highlight=False, markup=False)
    if errors := report.count("error"):
        left = "; no shards were written" if config.to_shards else ""
        raise RunFailed(f"{errors} error{'s' * (errors != 1)} in the data{left}; {out / 'report.html'} shows each with its remedy")
    if config.to_shards:
        from segkit.data.shards import write_shards

        folder = Path(config.to_shards)
        with Progress(
            TextColumn("[bold]shards"), BarColumn(), MofNCompleteColumn(), console=console, transient=True, disable=not console.is_terminal
        ) as bar:
            task = bar.add_task("shards", total=sum(map(len, sources.values())))
            try:
                write_shards(sources, folder, config.shard_size * 2**20, lambda images: bar.advance(task, images))
            except OSError as error:
                raise SegkitError(
                    f"--to_shards {folder}: {error.strerror or error}; choose a place with room that you may write to"
                ) from None
        console.print(
            f"shards  {folder}; train on them with\n{command(*for_shards(report.advice, config, folder))}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )


def _show(console: "Console", report: "Report") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from segkit.data.findings import KINDS
    from segkit.doctor.classes import shares

    looks = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}
    console.print(f"{printable(report.about)}; {report.rate:.0f} images/s", soft_wrap=True, highlight=False, markup=False)
    for kind, group in report.groups():
        about = KINDS[kind]
        console.print(
            Text.assemble((f"{about.severity:7}", looks[about.severity]), f"  {about.title} ({len(group)}): {about.why}"), soft_wrap=True
        )
        for finding in group[:SHOWN]:
            console.print(Text(f"           {printable(finding.what)}", style="dim"), soft_wrap=True)
        if len(group) > SHOWN:
            console.print(Text(f"           and {len(group) - SHOWN} more", style="dim"))
        console.print(Text(f"         remedy: {about.remedy}"), soft_wrap=True)
        for value in report.values[:SHOWN] if kind == "labels" else ():
            held = f"{value.pixels} pixels in {value.files} mask{'s' * (value.files != 1)}"
            console.print(Text(f"         value {value.value}: {held}"), soft_wrap=True)
        if kind == "labels" and report.mapping:
            console.print(Text(f"         all of them ignored, for their classes to be filled in: {report.mapping}"), soft_wrap=True)
    if not report.findings:
        console.print("nothing is wrong")
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False, pad_edge=False)
    table.add_column("class")
    used = {split: facts for split, facts in report.splits.items() if facts.usable.any()}
    for split in used:
        table.add_column(f"{split}, % of pixels", justify="right")
    parts = {split: shares(facts.pixels[facts.usable]) for split, facts in used.items()}
    for k, name in enumerate(report.classes.names):
        table.add_row(Text(name), *(f"{100 * part[k]:.2f}" for part in parts.values()))
    if used:
        console.print(table)
    if report.advice:
        console.print(printable(report.command), soft_wrap=True, highlight=False, markup=False)
