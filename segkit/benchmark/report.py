"""What a benchmark found: rows with all their samples, as a table, as JSON and as a figure."""

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from segkit import __version__
from segkit.benchmark.bench import Bench
from segkit.benchmark.timing import Spread, differences, ratios, spread
from segkit.provenance import LIBRARIES, device_name
from segkit.runs import write_whole

if TYPE_CHECKING:
    from rich.table import Table

    from segkit.figures import Curve

PEERS = ("monai", "torchmetrics", "onnxruntime")
Measure = Literal["ratio", "difference", "value"]


@dataclass(frozen=True)
class Row:
    """One comparison, or one number.

    Args:
        name: What is measured.
        ours: segkit's samples, one a round.
        unit: Of the samples, such as ms or images/s.
        theirs: The peer's samples of the same rounds; none of a `value`.
        peer: Whose they are.
        measure: What is held against the goal: ours / theirs, ours - theirs, or ours.
        goal: The largest value that meets it, or the smallest where `better` is higher; None: there is no goal.
        better: Which direction is good.
        group: Rows of one group stand together: a format, say.
        variant: The row among those of one name and group: a size, say.
        about: Further numbers or words, shown in the table and kept in the JSON file.
    """

    name: str
    ours: Sequence[float]
    unit: str = "ms"
    theirs: Sequence[float] = ()
    peer: str = ""
    measure: Measure = "ratio"
    goal: float | None = None
    better: Literal["lower", "higher"] = "lower"
    group: str = ""
    variant: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def result(self) -> Spread:
        """What is held against the goal, over the rounds."""
        if self.measure == "value":
            return spread(self.ours)
        return spread((ratios if self.measure == "ratio" else differences)(self.ours, self.theirs))

    @property
    def met(self) -> bool | None:
        """Whether the median meets the goal; None where there is none."""
        if self.goal is None:
            return None
        return self.result.median <= self.goal if self.better == "lower" else self.result.median >= self.goal

    @property
    def verdict(self) -> str:
        """`met`, `missed`, or nothing."""
        return {None: "", True: "met", False: "missed"}[self.met]


@dataclass(frozen=True)
class Results:
    """Those of one subject.

    Args:
        subject: Its name.
        title: What is compared with what, in one line.
        rows: In the order of the table.
        notes: What is to be said besides, one line each.
        curves: What the figure shows in place of the rows.
    """

    subject: str
    title: str
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    curves: Sequence["Curve"] = ()


def milliseconds(seconds: Sequence[float]) -> list[float]:
    """Seconds in milliseconds."""
    return [1000 * value for value in seconds]


def surroundings(bench: Bench) -> dict[str, Any]:
    """Versions, device, threads, arithmetic and options: what the numbers depend on."""
    versions = {"segkit": __version__, "python": platform.python_version()}
    for name in (*LIBRARIES, *PEERS):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    hidden = ("out", "root", "table")  # places on this machine
    return {
        "versions": versions,
        "device": device_name(bench.device.type),
        "threads": torch.get_num_threads(),
        "dtype": str(bench.low).removeprefix("torch."),
        "options": {name: value for name, value in asdict(bench.config).items() if name not in hidden},
    }


def as_json(results: Results, bench: Bench) -> dict[str, Any]:
    """Everything: all samples, what was made of them, and where they were taken."""
    rows = []
    for row in results.rows:
        entry = {name: getattr(row, name) for name in ("group", "name", "variant", "peer", "unit", "measure", "goal", "better", "met")}
        entry |= {"result": asdict(row.result), "ours": list(row.ours), "theirs": list(row.theirs), "about": dict(row.about)}
        rows.append(entry)
    return {
        "subject": results.subject, "title": results.title, "notes": list(results.notes), **surroundings(bench), "rows": rows,
        "curves": [asdict(curve) for curve in results.curves],
    }  # fmt: skip


def write(results: Results, bench: Bench) -> Path:
    """Writes `benchmark-SUBJECT.json` and `.png` and returns the path of the figure.

    Raises:
        SegkitError: The folder cannot be written to.
    """
    from segkit.figures import Mark, draw_benchmark, draw_curves, save

    picture = Path(bench.config.out) / f"benchmark-{results.subject}.png"
    where = surroundings(bench)
    threads = "" if bench.device.type == "cuda" else f", {where['threads']} thread{'s' * (where['threads'] > 1)}"
    about = f"{where['device']}{threads}"
    if results.curves:
        figure = draw_curves(results.curves, results.title, about)
    else:
        figure = draw_benchmark([Mark(**_mark(row)) for row in results.rows], results.title, about)
    save(figure, picture)
    write_whole(picture.with_suffix(".json"), json.dumps(as_json(results, bench), indent=1, allow_nan=False) + "\n")
    return picture


def _mark(row: Row) -> dict[str, Any]:
    what = {"ratio": "segkit / peer", "difference": f"segkit - peer, {row.unit}", "value": row.unit}[row.measure]
    group = f"{row.group}\n" if row.group else ""
    label = row.name if not row.peer or row.peer in row.name else f"{row.name}\n/ {row.peer}"
    found = asdict(row.result)
    return {"panel": f"{group}{what}", "label": label, "variant": row.variant, "goal": row.goal, "met": row.met, **found}


def table(results: Results) -> "Table":
    """The rows with medians, what is compared with its quartiles, the goal and whether it is met."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    extra = list(dict.fromkeys(name for row in results.rows for name in row.about))
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False, pad_edge=False, title=results.title, title_justify="left")
    for name in ("what", "segkit", "peer", "", "compared", "\\[quartiles]", "goal", ""):
        left = name in ("what", "peer")
        shown.add_column(name, justify="left" if left else "right", overflow="fold", no_wrap=not left)
    for name in extra:
        shown.add_column(name, justify="right")
    group = ""
    for row in results.rows:
        if row.group != group:
            group = row.group
            shown.add_row(f"[bold]{group}[/bold]")
        shown.add_row(*_cells(row), *(number(row.about.get(name, "")) for name in extra))
    return shown


def _cells(row: Row) -> list[str]:
    found, unit = row.result, "" if row.measure == "ratio" else f" {row.unit}"
    sign = "<=" if row.better == "lower" else ">="
    colour = {None: "", True: "green", False: "red"}[row.met]
    return [
        f"{row.name}{f', {row.variant}' if row.variant else ''}",
        f"{number(spread(row.ours).median)} {row.unit}",
        row.peer,
        f"{number(spread(row.theirs).median)} {row.unit}" if row.theirs else "",
        f"{number(found.median)}{unit}",
        f"\\[{number(found.low)}, {number(found.high)}]",
        "" if row.goal is None else f"{sign} {number(row.goal)}{unit}",
        f"[{colour}]{row.verdict}[/{colour}]" if colour else "",
    ]


def number(value: Any) -> str:
    """A number to three digits, whole numbers with their thousands apart; words as they are."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value) or value == 0 or abs(value) >= 1e-3:
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:.1e}"
