"""Look at every image and mask, and say in one report what is wrong. Shape legend: `H W` rows and columns, `C` channels.

Training asks for what it cannot do without; the data doctor (`segkit.doctor`) looks at the same pairs through the same `look`, and further.
"""

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from segkit.config import IGNORE_INDEX
from segkit.data.classes import Counts, PixelCounts, count_pixels
from segkit.data.damage import damage
from segkit.data.files import Pixels
from segkit.data.findings import KINDS, Finding, listed
from segkit.data.labels import UnexpectedLabels
from segkit.data.source import Array, Source
from segkit.data.threads import each
from segkit.errors import SegkitError

SHOWN = 20  # findings in a report; the rest are counted
Pair = tuple[int, int]
EXACT = 2**24  # up to here float32 counts one by one


@dataclass(frozen=True)
class SplitSummary:
    """What one pass over a split finds out.

    Args:
        counts: Pixels of every class.
        sizes: Rows and columns of every image, int32 [N, 2].
        labels: sha256 over the checksums of all masks.
        pixels: The same of the images.
    """

    counts: PixelCounts
    sizes: np.ndarray[Any, np.dtype[np.int32]]
    labels: str
    pixels: str


@dataclass(frozen=True)
class Look:
    """What one look at a pair finds.

    Args:
        finding: What keeps it from being used; None where nothing does.
        image: uint8 or uint16 [H, W, C]; None where a file cannot be read.
        mask: uint8 [H, W]; None where a file cannot be read.
        histogram: Pixels of each label 0..255, int64 [256]; zeros where the pair cannot be used.
    """

    finding: Finding | None
    image: Pixels | None
    mask: Array | None
    histogram: Counts


def look(split: str, source: Source, index: int) -> Look:
    """Read a pair and check that it can be trained on and scored."""
    nothing = np.zeros(256, np.int64)
    name, place, classes = f"{split}/{source.name(index)}", ((split, index),), len(source.classes)
    try:
        image, mask = source.read(index)
    except UnexpectedLabels as error:
        return Look(Finding("labels", split, f"{name}: {_values(error.counts)}", place, error.counts), None, None, nothing)
    except SegkitError as error:
        return Look(Finding(_damage(source, index, error), split, str(error), place), None, None, nothing)
    if mask.shape != image.shape[:2]:
        what = f"{name}: image {image.shape[1]} x {image.shape[0]}, mask {mask.shape[1]} x {mask.shape[0]}"
        return Look(Finding("size", split, what, place), image, mask, nothing)
    histogram = count_labels(mask)
    outside = {str(value): int(histogram[value]) for value in np.flatnonzero(histogram) if classes <= value < IGNORE_INDEX}
    if outside:
        what = f"{name}: {_values(outside)}; there are 0 to {classes - 1}, and {IGNORE_INDEX} for ignored"
        return Look(Finding("labels", split, what, place, outside), image, mask, nothing)
    return Look(None, image, mask, histogram)


def check_sources(sources: Mapping[str, Source]) -> dict[str, SplitSummary]:
    """Read every image and mask of every split.

    Args:
        sources: The splits by name.

    Returns:
        What the pass found out, for every split.

    Raises:
        SegkitError: One report: a summary line, then at most 20 findings, grouped by kind: partners that are missing, files that cannot be
            read, masks of another size than their image, labels that are no class (with file and values), splits without an image.
    """
    findings = listing(sources)
    summaries: dict[str, SplitSummary] = {}
    for split, source in sources.items():

        def plain(index: int, split: str = split, source: Source = source) -> tuple[Finding | None, Counts, Pair, Pair]:
            seen = look(split, source, index)
            size = (seen.image.shape[0], seen.image.shape[1]) if seen.image is not None else (0, 0)
            return seen.finding, seen.histogram, size, (_checksum(seen.mask), _checksum(seen.image))

        found = list(each(plain, len(source)))
        findings += [finding for finding, *_ in found if finding]
        sizes = np.array([size for _, _, size, _ in found], np.int32).reshape(-1, 2)
        sums = np.array([pair for *_, pair in found], np.uint32).reshape(-1, 2)
        labels, pixels = (hashlib.sha256(sums[:, column].tobytes()).hexdigest() for column in (0, 1))
        counts = count_pixels((histogram for _, histogram, *_ in found), len(source.classes))
        summaries[split] = SplitSummary(counts, sizes, labels, pixels)
    _report(findings, sources)
    return summaries


def check_listing(sources: Mapping[str, Source]) -> None:
    """Without reading a file: raise the same report for missing partners and for splits without an image."""
    _report(listing(sources), sources)


def listing(sources: Mapping[str, Source]) -> list[Finding]:
    """What can be said without reading a file: missing partners, splits without an image."""
    findings = []
    for split, source in sources.items():
        findings += [listed(split, problem) for problem in source.problems]
        findings += [] if len(source) else [Finding("empty_split", split, split)]
    return findings


def count_classes(source: Source) -> PixelCounts:
    """Count the pixels of every class in a split's masks; a file that cannot be read is a SegkitError."""
    return count_pixels(each(lambda index: count_labels(source.read(index)[1]), len(source)), len(source.classes))


def count_labels(mask: Array) -> Counts:
    """Pixels of each label, int64 [256], of a mask uint8 [H, W]; three times as fast as `numpy.bincount`, which widens its input."""
    rows = max(1, EXACT // max(1, mask.shape[1]))
    bands = (np.ascontiguousarray(mask[top : top + rows]) for top in range(0, mask.shape[0], rows))
    counts = np.zeros(256, np.int64)
    for band in bands:
        counts += cv2.calcHist([band], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    return counts


def _checksum(values: Pixels | None) -> int:
    return 0 if values is None else zlib.crc32(np.ascontiguousarray(values).data)


def _values(counts: Mapping[str, int]) -> str:
    return f"{', '.join(list(counts)[:8])}{', ...' if len(counts) > 8 else ''} ({sum(counts.values())} pixels)"


def _damage(source: Source, index: int, error: SegkitError) -> str:
    """The kind of what `read` refused; errors name the file."""
    files = source.paths(index)
    if files is None:
        return "damaged"
    mask = files[1] in str(error) and not (files[0] in str(error) and len(files[0]) > len(files[1]))
    return damage(files[mask], mask, error)


def _report(findings: list[Finding], sources: Mapping[str, Source]) -> None:
    if not findings:
        return
    splits = ", ".join(f"{split} {len(source)}" for split, source in sources.items())
    lines = [f"{len(findings)} problem{'s' * (len(findings) != 1)} in the data ({splits} images); mend the files, or take them out"]
    left = SHOWN
    for kind in dict.fromkeys(finding.kind for finding in findings):
        group = [finding.what for finding in findings if finding.kind == kind]
        shown = group[: max(left, 1)]
        left -= len(shown)
        lines.append(f"  {KINDS[kind].title} ({len(group)}):")
        lines += [f"    {what}" for what in shown]
        if len(group) > len(shown):
            lines.append(f"    and {len(group) - len(shown)} more")
        lines.append(f"    remedy: {KINDS[kind].remedy}")
    raise SegkitError("\n".join(lines))
