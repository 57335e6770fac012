"""The examination as one result: findings, tables and advice; and as JSON."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segkit.config import CheckConfig
from segkit.data.classes import Classes
from segkit.data.files import BANDS, read_header
from segkit.data.findings import KINDS, Finding, Severity
from segkit.data.source import Source
from segkit.doctor.advice import Advice, advise, command, configuration, mapping, statistics
from segkit.doctor.classes import Drift, class_findings, drifts, shares
from segkit.doctor.duplicates import duplicates
from segkit.doctor.examine import SplitFacts, examine
from segkit.doctor.images import image_findings

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
FIRST = 5  # files that are named for a value in masks


@dataclass(frozen=True)
class Value:
    """A value in mask files that stands for no class.

    Args:
        value: The number, or `#rrggbb`.
        pixels: How many pixels have it.
        files: How many masks hold it.
        first: The names of the first of them.
    """

    value: str
    pixels: int
    files: int
    first: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """All that the doctor says.

    Args:
        about: One line on the data.
        classes: The data set's classes.
        lengths: Images of every split.
        splits: The facts of every split.
        findings: The worst first, those of one kind together.
        values: Values in masks that stand for no class, the most frequent first.
        mapping: The option that ignores them, for classes to be filled in.
        drifts: How far the classes of every split are from those of train.
        advice: Options to train with.
        command: The same as a command.
        configuration: The same as a file.
        seconds: How long the pass over the files took.
    """

    about: str
    classes: Classes
    lengths: Mapping[str, int]
    splits: Mapping[str, SplitFacts]
    findings: tuple[Finding, ...]
    values: tuple[Value, ...]
    mapping: str
    drifts: tuple[Drift, ...]
    advice: tuple[Advice, ...]
    command: str
    configuration: str
    seconds: float

    @property
    def rate(self) -> float:
        """Images per second."""
        return sum(self.lengths.values()) / max(self.seconds, 1e-9)

    def count(self, severity: Severity) -> int:
        """How many findings weigh so much."""
        return sum(KINDS[finding.kind].severity == severity for finding in self.findings)

    def groups(self) -> list[tuple[str, list[Finding]]]:
        """The findings of each kind, the worst kinds first."""
        kinds = dict.fromkeys(finding.kind for finding in self.findings)
        return [(kind, [finding for finding in self.findings if finding.kind == kind]) for kind in kinds]


def diagnose(config: CheckConfig, sources: Mapping[str, Source], progress: Callable[[], object] = lambda: None) -> Report:
    """Examine a data set and draw all conclusions.

    Args:
        config: What to check.
        sources: Its splits.
        progress: Called after each pair.
    """
    seen = examine(sources, progress, config.workers)
    classes = next(iter(sources.values())).classes
    found = drifts(seen.splits, classes.names)
    findings = [
        *seen.findings,
        *image_findings(seen.splits, sources, config.data),
        *class_findings(seen.splits, classes.names, found, config.data.masks),
        *duplicates(seen.splits, sources, config.near),
    ]
    if config.data.root is not None:
        findings = [replace(finding, what=_short(finding, str(Path(config.data.root).expanduser()))) for finding in findings]
    order = list(KINDS)
    findings.sort(key=lambda finding: (SEVERITIES.index(KINDS[finding.kind].severity), order.index(finding.kind)))
    advice = advise(seen.splits, findings, config, _bands(findings, sources))
    values = _values(findings, sources)
    lengths = {split: len(source) for split, source in sources.items()}
    named = ", ".join(f"{length} {split}" for split, length in lengths.items())
    about = f"{config.data.kind}{f' in {config.data.root}' if config.data.root else ''}: {named} images, {len(classes)} classes"
    return Report(
        about,
        classes,
        lengths,
        seen.splits,
        tuple(findings),
        values,
        mapping([value.value for value in values], config.data, len(classes)),
        tuple(found),
        tuple(advice),
        command(advice, config),
        configuration(advice, config, about),
        seen.seconds,
    )


def _short(finding: Finding, root: str) -> str:
    """Errors of single files without the folder that all share, and without the remedy that the kind has."""
    what = finding.what.removeprefix("cannot read ")
    if not what.startswith(f"{root}{os.sep}"):
        return finding.what
    what = what.removeprefix(f"{root}{os.sep}")
    return what if finding.kind == "refused" else what.partition("; ")[0]


def _bands(findings: Sequence[Finding], sources: Mapping[str, Source]) -> int | None:
    """The channels of the first file that has not the wanted ones; of files of more bits that is not asked when they are read."""
    for finding in findings:
        files = sources[finding.images[0][0]].paths(finding.images[0][1]) if finding.kind in ("channels", "deep_image") else None
        header = read_header(files[0]) if files else None
        if header and (finding.kind == "channels" or header.mode not in BANDS):
            return header.bands
    return None


def _values(findings: Sequence[Finding], sources: Mapping[str, Source]) -> tuple[Value, ...]:
    pixels: dict[str, int] = {}
    files: dict[str, list[str]] = {}
    for finding in findings:
        for value, count in finding.counts.items():
            pixels[value] = pixels.get(value, 0) + count
            files.setdefault(value, []).extend(f"{split}/{sources[split].name(index)}" for split, index in finding.images)
    order = sorted(pixels, key=lambda value: -pixels[value])
    return tuple(Value(value, pixels[value], len(files[value]), tuple(files[value][:FIRST])) for value in order)


def as_json(report: Report, sources: Mapping[str, Source]) -> dict[str, Any]:
    """All of the report as plain values; files are those of the images that a finding is about."""
    findings = []
    for kind, group in report.groups():
        about = asdict(KINDS[kind])
        found = []
        for finding in group:
            files = [source.paths(index) for split, index in finding.images for source in (sources[split],)]
            found.append({"split": finding.split, "what": finding.what, "files": [list(pair) for pair in files if pair]})
        findings.append({"kind": kind, **about, "count": len(group), "found": found})
    return {
        "about": report.about,
        "images": dict(report.lengths),
        "seconds": round(report.seconds, 3),
        "images_per_second": round(report.rate, 1),
        "counts": {severity: report.count(severity) for severity in SEVERITIES},
        "findings": findings,
        "unexpected_values": [asdict(value) for value in report.values],
        "mapping": report.mapping,
        "splits": {split: _split(facts, report.classes.names) for split, facts in report.splits.items()},
        "drift": [asdict(one) for one in report.drifts],
        "advice": {one.option: {"value": one.value, "reason": one.reason} for one in report.advice},
        "command": report.command,
    }


def _split(facts: SplitFacts, names: Sequence[str]) -> dict[str, Any]:
    used = facts.usable
    if not used.any():
        return {"usable": 0}
    pixels = facts.pixels[used]
    sizes, counts = np.unique(facts.sizes[used], axis=0, return_counts=True)
    mean, deviation = statistics(facts)
    area = facts.sizes[used].prod(axis=1)
    part = shares(pixels)
    return {
        "usable": int(used.sum()),
        "classes": {
            name: {"pixels": int(pixels[:, k].sum()), "share": float(part[k]), "images": int((pixels[:, k] > 0).sum())}
            for k, name in enumerate(names)
        },
        "ignored_share": float(facts.ignored[used].sum() / area.sum()),
        "smallest": facts.sizes[used][area.argmin()].tolist(),
        "largest": facts.sizes[used][area.argmax()].tolist(),
        "sizes": [{"rows": int(rows), "columns": int(columns), "images": int(n)} for (rows, columns), n in zip(sizes, counts, strict=True)],
        "mean": mean.tolist(),
        "std": deviation.tolist(),
        "grey_images": int(facts.grey[used].sum()),
    }
