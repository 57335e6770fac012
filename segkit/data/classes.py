"""The classes of a data set: their names, their colours, and how much weight each one gets in training."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segkit.config import IGNORE_INDEX
from segkit.errors import SegkitError, is_name

Color = tuple[int, int, int]
Counts = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Classes:
    """Names and colours; the position is the label in the masks.

    Args:
        names: K names, all different.
        colors: K colours, RGB in 0..255.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]

    def __post_init__(self) -> None:
        for name in self.names:
            if not is_name(name):
                raise SegkitError(f"class {name!r}: give it a name without control characters")

    def __len__(self) -> int:
        return len(self.names)


def voc_color(label: int) -> Color:
    """The colour that Pascal VOC (2012 development kit) gives a label in 0..255; no two labels share one."""
    bits = [[label >> (3 * place + channel) & 1 for place in range(3)] for channel in range(3)]
    red, green, blue = (sum(bit << (7 - place) for place, bit in enumerate(channel)) for channel in bits)
    return red, green, blue


def read_classes(path: str | Path) -> Classes:
    """Read `classes.txt`: lines `id name #rrggbb`, the colour optional, in any order; empty lines and lines starting with # are skipped.

    Raises:
        SegkitError: A line that cannot be read, or ids that are not 0..K-1 each once, or more than 255 classes; names the line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise SegkitError(f"{path} is missing; write one line per class there: id name #rrggbb, such as 0 background #000000") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise SegkitError(f"cannot read {path}: {reason}; write one line per class there, in UTF-8: id name #rrggbb") from None
    found: dict[int, tuple[str, Color]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = re.fullmatch(r"\s*(\d{1,9})\s+(.+?)(?:\s+#([0-9a-fA-F]{6}))?\s*", line)
        if match is None or "#" in match[2] or not is_name(match[2]):
            raise SegkitError(f"{path}, line {number}: {line.strip()[:80]!r} is not a class; write it as: id name #rrggbb")
        label, name = int(match[1]), match[2]
        if label in found or any(name == other for other, _ in found.values()):
            raise SegkitError(f"{path}, line {number}: {line.strip()!r} repeats an id or a name; each one stands for one class")
        if label >= IGNORE_INDEX:
            raise SegkitError(
                f"{path}, line {number}: id {label} is too large; ids are 0 to {IGNORE_INDEX - 1}, {IGNORE_INDEX} means ignore"
            )
        red, green, blue = bytes.fromhex(match[3]) if match[3] else voc_color(label)
        found[label] = name, (red, green, blue)
    missing = sorted(set(range(max(found, default=0) + 1)) - set(found))
    if missing:
        raise SegkitError(f"{path}: {len(found)} classes but no id {missing[0]}; ids are 0 to K - 1, each once")
    return Classes(tuple(found[k][0] for k in range(len(found))), tuple(found[k][1] for k in range(len(found))))


class PixelCounts(NamedTuple):
    """How often the classes occur in a set of masks; ignored pixels count nowhere.

    Args:
        pixels: Pixels of every class, int64 [K].
        present: Pixels of all the masks in which the class occurs, int64 [K].
    """

    pixels: Counts
    present: Counts


def count_pixels(histograms: Iterable[Counts], num_classes: int) -> PixelCounts:
    """Add up the label histograms (int64 [K] or longer) of single masks."""
    pixels, present = np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64)
    for histogram in histograms:
        counts = histogram[:num_classes]
        pixels += counts
        present += np.where(counts > 0, counts.sum(), 0)
    return PixelCounts(pixels, present)


def median_frequency_weights(counts: PixelCounts) -> list[float]:
    """Class weights that lift rare classes (Eigen and Fergus, ICCV 2015, section 6.3.2).

    The frequency of a class is its share of the pixels of those masks in which it occurs; its weight is the median frequency over its own.
    A class without a pixel is left out of the median and weighs 1.
    """
    seen = counts.pixels > 0
    frequency = counts.pixels[seen] / counts.present[seen]
    weights = np.ones(len(counts.pixels))
    weights[seen] = np.median(frequency) / frequency if seen.any() else 1.0
    return [float(w) for w in weights]
