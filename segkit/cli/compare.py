"""Several checkpoints side by side: each is scored as if alone, then the differences to the first are resampled over the images.

R runs, N images, K classes, V scores.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.cli.scoring import Evaluation, open_evaluation, score
from segkit.config import EvalConfig
from segkit.errors import SegkitError
from segkit.runs import cannot_write, write_whole

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table
    from rich.text import Text

LEVEL = 0.05  # what an interval leaves out


@dataclass(frozen=True)
class Compared:
    """The scores of several runs on the same images.

    Args:
        names: Of the V scores: `miou`, `accuracy`, `iou/CLASS` for every class, and, where all runs have it, `boundary_miou`.
        values: float64 `[R, V]` in [0, 1]; NaN for a class that is nowhere.
        intervals: Of the differences to the first run, float64 `[R, V, 2]`.
        images: N.
    """

    names: list[str]
    values: "np.ndarray"
    intervals: "np.ndarray"
    images: int


@dataclass(frozen=True)
class Scored:
    """One of the runs.

    Args:
        name: Of the run.
        folder: Of its results.
        about: What decided its scores.
        again: Whether the results were there already.
    """

    name: str
    folder: Path
    about: Mapping[str, Any]
    again: bool


def compare(config: EvalConfig, checkpoints: Sequence[Path]) -> None:
    """Scores what is not scored yet, prints the table, and writes `comparison.json` and `comparison.csv`.

    They go to `config.out`, by default into the first run's folder of results.

    Raises:
        SegkitError: A checkpoint is given twice, or classes, images or masks of the runs differ.
    """
    runs: list[Scored] = []
    leader = True
    look_ahead(config, checkpoints)
    for checkpoint in checkpoints:
        evaluation = open_evaluation(config, checkpoint)
        if any(evaluation.folder.resolve() == run.folder.resolve() for run in runs):
            raise SegkitError(f"{checkpoint} is given twice; give each run once")
        again = up_to_date(evaluation, config)
        if not again:
            leader = score(evaluation, config)
        runs.append(Scored(evaluation.run, evaluation.folder, evaluation.about, again))
    if not leader:  # of several processes one goes on
        return
    from rich.console import Console

    from segkit.console import header

    found = compare_results([run.folder for run in runs], config.resamples)
    folder = Path(config.out) if config.out else runs[0].folder
    write(folder, found, runs, config.resamples)
    console = Console()
    told = (f"{run.about['checkpoint']}, step {run.about['step']}{', scored before' if run.again else ''}" for run in runs)
    console.print(header({str(n): line for n, line in enumerate(told, start=1)}), soft_wrap=True, highlight=False)
    for drawn in tables(found, console.width):
        console.print(drawn)
    console.print(note(found, config.resamples), highlight=False)
    console.print(f"comparison  {folder / 'comparison.csv'}", soft_wrap=True, highlight=False)


def look_ahead(config: EvalConfig, checkpoints: Sequence[Path]) -> None:
    """Refuses runs of other classes or images before the first one is scored, not after the last one."""
    first: tuple[list[str], list[str]] | None = None
    for checkpoint in checkpoints:
        evaluation = open_evaluation(config, checkpoint)
        source = evaluation.data.sources[evaluation.split]
        found = evaluation.task.class_names, [source.name(index) for index in range(len(source))]
        first = first or found
        for what, here, there in zip(("classes", "images"), first, found, strict=True):
            if here != there:
                raise SegkitError(
                    f"{checkpoints[0]} and {checkpoint} have different {what}: compare runs on the same data, or give --data_root"
                )


def up_to_date(evaluation: Evaluation, config: EvalConfig) -> bool:
    """Whether the folder holds the results that scoring again would give: same weights, images, options and code, nothing missing."""
    try:
        path = evaluation.folder / "metrics.json"
        values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(values, dict):
        return False
    same = all(values.get(name) == value for name, value in evaluation.about.items() if name != "checkpoint")
    if not same or not all(name in values for name in ("boundary", "artefacts", "calibration") if getattr(config, name)):
        return False
    try:
        read_counts(evaluation.folder)
    except SegkitError:
        return False
    return True


def compare_results(folders: Sequence[Path], resamples: int) -> Compared:
    """Reads the results of evaluations and resamples their differences.

    Args:
        folders: With `per_image.npz`.
        resamples: Of the paired bootstrap over images; the same images are drawn for all runs and scores.

    Raises:
        SegkitError: Classes, images or masks differ.
    """
    import numpy as np

    from segkit.ablation.counts import Counts, iou, miou
    from segkit.ablation.resampling import bootstrap_images

    def regions(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
        pixels = (intersection.sum(-1) + union.sum(-1)) / 2  # wrong ones are in the unions of two classes
        return np.concatenate([np.stack([miou(intersection, union), iou(intersection.sum(-1), pixels)], -1), iou(intersection, union)], -1)

    def boundaries(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
        return miou(intersection, union)[..., None]

    columns = []
    for folder in folders:
        columns.append(read_counts(folder))
        refuse_differences(columns[0], columns[-1], folders[0], folder)
    parts = [(Counts.from_matrices(c["matrix"] for c in columns), regions)]
    if all("boundary_union" in c for c in columns):
        shared, covered = (np.stack([c[f"boundary_{part}"] for c in columns]) for part in ("intersection", "union"))
        parts.append((Counts(shared, covered), boundaries))
    names = ["miou", "accuracy", *(f"iou/{name}" for name in columns[0]["classes"]), *(["boundary_miou"] * (len(parts) > 1))]
    values = np.concatenate([score(*counts.summed()) for counts, score in parts], 1)
    intervals = [bootstrap_images(counts, score, resamples=resamples, seed=0, level=LEVEL) for counts, score in parts]
    return Compared(names, values, np.concatenate(intervals, 1), len(columns[0]["name"]))


def read_counts(folder: Path) -> dict[str, "np.ndarray"]:
    """What an evaluation has counted in each image.

    Raises:
        SegkitError: The file is missing or damaged, or what it holds does not fit together.
    """
    from segkit.ablation.records import read_columns

    path, needed = folder / "per_image.npz", ("index", "name", "classes", "matrix")
    remedy = "remove it, and the run is scored again"
    columns = read_columns(path, *needed, "boundary_intersection", "boundary_union", remedy=remedy)
    if missing := [name for name in needed if name not in columns]:
        raise SegkitError(f"{str(path)!r} has no {missing[0]!r}; {remedy}")
    return columns


def refuse_differences(first: Mapping[str, "np.ndarray"], other: Mapping[str, "np.ndarray"], here: Path, there: Path) -> None:
    """Only what was scored on the same pixels of the same classes can be compared."""
    truths = [columns["matrix"].sum(2) for columns in (first, other)]
    for what, same in (
        ("classes", first["classes"].tolist() == other["classes"].tolist()),
        ("images", first["name"].tolist() == other["name"].tolist()),
        ("masks", truths[0].tolist() == truths[1].tolist()),
    ):
        if not same:
            raise SegkitError(f"{here} and {there} were scored on different {what}: compare runs on the same data, or give --data_root")


def write(folder: Path, found: Compared, runs: Sequence[Scored], resamples: int) -> None:
    """Writes `comparison.csv`, a line per run and score, and `comparison.json` with the same; NaN is empty there and null here."""
    from segkit.results import write_table

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from None
    columns = ("run", "checkpoint", "score", "value", "difference", "low", "high")
    lines, told = [], []
    for place, run in enumerate(runs):
        scores = {}
        for name, value, first, (low, high) in zip(found.names, found.values[place], found.values[0], found.intervals[place], strict=True):
            numbers = [float(x) if x == x else None for x in (value, value - first, low, high)][: 4 if place else 1]
            scores[name] = dict(zip(columns[3:], numbers, strict=False))
            lines.append([run.name, run.about["checkpoint"], name, *numbers, *([None] * (4 - len(numbers)))])
        told.append({"run": run.name, "results": str(run.folder), **run.about, "scores": scores})
    write_table(folder / "comparison.csv", dict(zip(columns, zip(*lines, strict=True), strict=True)))
    about = {"images": found.images, "resamples": resamples, "level": 1 - LEVEL, "note": note(found, resamples)}
    write_whole(folder / "comparison.json", json.dumps({**about, "runs": told}, indent=2) + "\n")


def tables(found: Compared, width: int) -> "Iterator[Table]":
    """A row per score: the value of every run in per cent, and the difference to the first with its interval in points.

    Args:
        found: The scores.
        width: Of the terminal: what does not fit beside the first run goes into a further table.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    words = {"miou": "mIoU", "boundary_miou": "boundary mIoU"}
    names = [words.get(name, name.removeprefix("iou/")) for name in found.names]
    beside = max(1, (width - max(map(len, names)) - 8) // 32)
    for start in range(1, len(found.values), beside):
        runs = range(start, min(start + beside, len(found.values)))
        drawn = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False, pad_edge=False)
        drawn.add_column("%", no_wrap=True)
        for title in ("1", *(title for run in runs for title in (f"{run + 1}", f"{run + 1} - 1"))):
            drawn.add_column(title, justify="right", no_wrap=True)
        for place, name in enumerate(names):
            first, cells = found.values[0, place], [Text(name), _percent(found.values[0, place])]
            for run in runs:
                value, (low, high) = found.values[run, place], found.intervals[run, place]
                apart = f"{100 * (value - first):+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]" if value == value and first == first else ""
                cells += [_percent(value), Text(apart, style="bold" if low > 0 or high < 0 else "")]
            drawn.add_row(*cells)
        yield drawn


def _percent(value: float) -> "Text":
    from rich.text import Text

    return Text("absent", style="dim") if value != value else Text(f"{100 * value:.2f}")


def note(found: Compared, resamples: int) -> str:
    """What the intervals say and what they do not."""
    return (
        f"In brackets: 95 % intervals of the difference, each by itself, from resampling the {found.images} images {resamples:,} times, "
        "alike for all runs. They say what other images of this kind would change, not what training again would: for that, train several "
        "seeds with ablate.py."
    )
