"""Look at every image and mask before training starts, and say in one report what is wrong."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from segkit.config import IGNORE_INDEX
from segkit.data.classes import Counts, PixelCounts, count_pixels
from segkit.data.source import Source
from segkit.errors import SegkitError

SHOWN = 20  # findings in a report; the rest are counted


@dataclass(frozen=True)
class SplitSummary:
    """What one pass over a split finds out.

    Args:
        counts: Pixels of every class.
        sizes: Rows and columns of every image, int32 [N, 2].
    """

    counts: PixelCounts
    sizes: np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True)
class _Look:
    problem: tuple[str, str] | None  # kind, what exactly
    pixels: Counts  # of every class
    size: tuple[int, int]


def check_sources(sources: Mapping[str, Source]) -> dict[str, SplitSummary]:
    """Read every image and mask of every split.

    Args:
        sources: The splits by name.

    Returns:
        What the pass found out, for every split.

    Raises:
        SegkitError: One report: a summary line, then at most 20 findings, grouped: partners that are missing, files that cannot be read,
            masks of another size than their image, labels that are no class (with file and values), splits without an image.
    """
    findings: list[tuple[str, str]] = []
    summaries: dict[str, SplitSummary] = {}
    for split, source in sources.items():
        findings += _listed(split, source)
        looks = list(_each(source, partial(_look, split, source)))
        findings += [look.problem for look in looks if look.problem]
        sizes = np.array([look.size for look in looks], np.int32).reshape(-1, 2)
        summaries[split] = SplitSummary(count_pixels((look.pixels for look in looks), len(source.classes)), sizes)
    _report(findings, sources)
    return summaries


def check_listing(sources: Mapping[str, Source]) -> None:
    """Without reading a file: raise the same report for missing partners and for splits without an image."""
    _report([finding for split, source in sources.items() for finding in _listed(split, source)], sources)


def _listed(split: str, source: Source) -> list[tuple[str, str]]:
    findings = [(kind, what) for kind, _, what in (problem.partition(": ") for problem in source.problems)]
    return findings if len(source) else [*findings, ("split without an image that has a mask", split)]


def _report(findings: list[tuple[str, str]], sources: Mapping[str, Source]) -> None:
    if not findings:
        return
    splits = ", ".join(f"{split} {len(source)}" for split, source in sources.items())
    lines = [f"{len(findings)} problem{'s' * (len(findings) != 1)} in the data ({splits} images); mend the files, or take them out"]
    left = SHOWN
    for kind in dict.fromkeys(kind for kind, _ in findings):
        group = [what for other, what in findings if other == kind]
        shown = group[: max(left, 1)]
        left -= len(shown)
        lines.append(f"  {kind} ({len(group)}):")
        lines += [f"    {what}" for what in shown]
        if len(group) > len(shown):
            lines.append(f"    and {len(group) - len(shown)} more")
    raise SegkitError("\n".join(lines))


def count_classes(source: Source) -> PixelCounts:
    """Count the pixels of every class in a split's masks; a file that cannot be read is a SegkitError."""
    return count_pixels((_histogram(mask) for mask in _each(source, partial(_mask, source))), len(source.classes))


def _each(source: Source, function: Any) -> Iterator[Any]:
    """The function of every index, by as many threads as there are processors: decoders work outside the interpreter lock."""
    with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)) as pool:
        yield from pool.map(function, range(len(source)))


def _mask(source: Source, index: int) -> Any:
    return source.read(index)[1]


def _histogram(mask: Any) -> Counts:
    return np.bincount(mask.ravel(), minlength=256).astype(np.int64, copy=False)


def _look(split: str, source: Source, index: int) -> _Look:
    nothing = np.zeros(len(source.classes), np.int64)
    try:
        image, mask = source.read(index)
    except SegkitError as error:
        return _Look(("file that cannot be used", str(error)), nothing, (0, 0))
    size, name, classes = (image.shape[0], image.shape[1]), f"{split}/{source.name(index)}", len(source.classes)
    if mask.shape != size:
        what = f"{name}: image {size[1]} x {size[0]}, mask {mask.shape[1]} x {mask.shape[0]}"
        return _Look(("mask of another size than its image", what), nothing, size)
    histogram = _histogram(mask)
    outside = [int(v) for v in np.flatnonzero(histogram) if v >= classes and v != IGNORE_INDEX]
    if outside:
        values = ", ".join(map(str, outside[:8])) + (", ..." if len(outside) > 8 else "")
        what = f"{name}: {values} ({sum(int(histogram[v]) for v in outside)} pixels)"
        return _Look((f"label that is neither 0 to {classes - 1} nor {IGNORE_INDEX}", what), nothing, size)
    return _Look(None, histogram[:classes].copy(), size)
