"""What the values in mask files mean. Shape legend: `H W` rows and columns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from segkit.config import IGNORE_INDEX, DataConfig
from segkit.data.classes import Classes
from segkit.data.masks import read_colors, read_values
from segkit.errors import SegkitError

Array = np.ndarray[Any, np.dtype[np.uint8]]
BINARY = {0: 0, 255: 1}
IDS_REMEDY = "give the class of every value in --data.mapping, or 255 to ignore it"
BINARY_REMEDY = "--data.masks binary knows 0 and 255 only: use --data.masks ids, with --data.mapping for values that are no class id"
FIXED_REMEDY = "the file is not as the authors of the data set made it: fetch it again"
COLORS_REMEDY = "give their classes in classes.txt or, as '#rrggbb', in --data.mapping, or 255 there to ignore them"


class UnexpectedLabels(SegkitError):
    """A mask with values that stand for no class.

    Args:
        path: The file.
        counts: Value (or `#rrggbb`) -> pixels.
        remedy: What to do.
    """

    def __init__(self, path: str | Path, counts: Mapping[str, int], remedy: str) -> None:
        self.counts = dict(counts)
        values = ", ".join(list(self.counts)[:8]) + (", ..." if len(self.counts) > 8 else "")
        super().__init__(f"{path}: {values} ({sum(self.counts.values())} pixels) stand for no class; {remedy}")
        self._parts = (str(path), self.counts, remedy)

    def __reduce__(self) -> tuple[type["UnexpectedLabels"], tuple[str, dict[str, int], str]]:
        return UnexpectedLabels, self._parts  # an exception is rebuilt from its message alone, and processes could not send this one


@dataclass(frozen=True)
class Labels:
    """From a mask file to the labels 0..K-1 and 255.

    Args:
        mapping: Value in the file -> label; without it values are labels already, and whether they are is left to the data check. Of a file
            with one bit per pixel, 1 is white: 255 where the mapping has that and not 1.
        colors: The file holds colours, of which `mapping` has the 24-bit number, red first.
        remedy: What to do about other values.
    """

    mapping: Mapping[int, int] = field(default_factory=dict)
    colors: bool = False
    remedy: str = IDS_REMEDY

    @cached_property
    def _table(self) -> np.ndarray[Any, np.dtype[np.uint16]]:
        """Label + 1, and 0 where there is none: zeros take no memory until they are looked up."""
        table = np.zeros(2**24 if self.colors else 2**16, np.uint16)
        table[list(self.mapping)] = np.array(list(self.mapping.values()), np.uint16) + 1
        return table

    def __reduce__(self) -> tuple[type["Labels"], tuple[dict[int, int], bool, str]]:
        return Labels, (dict(self.mapping), self.colors, self.remedy)  # without the table: each process builds its own

    def read(self, path: str | Path) -> Array:
        """Labels uint8 [H, W].

        Raises:
            UnexpectedLabels: Values that are not in the mapping; without one, values above 255.
            SegkitError: The file cannot be read, or is no mask of this kind.
        """
        values: Any = read_colors(path) if self.colors else read_values(path)
        if values.dtype == np.bool_:
            values = values * np.uint8(255 if 255 in self.mapping and 1 not in self.mapping else 1)
        labels: Any = self._table.take(values) - np.uint16(1) if self.mapping or self.colors else values  # 0 wraps to 65535
        if labels.dtype == np.uint16 and labels.max() > IGNORE_INDEX:
            raise self._unexpected(path, values[labels > IGNORE_INDEX])
        return np.asarray(labels, np.uint8)

    def _unexpected(self, path: str | Path, values: Any) -> UnexpectedLabels:
        found, counts = np.unique(values, return_counts=True)
        names = [f"#{value:06x}" if self.colors else str(value) for value in found]
        return UnexpectedLabels(path, dict(zip(names, counts.tolist(), strict=True)), self.remedy)


def labels_of(config: DataConfig, classes: Classes) -> Labels:
    """What `--data.masks` and `--data.mapping` say about the masks of a data set with these classes.

    Raises:
        SegkitError: The mapping does not go with the kind of masks, or names a class that does not exist.
    """
    numbers = {old: new for old, new in config.mapping.items() if not old.startswith("#")}
    colors = {old: new for old, new in config.mapping.items() if old.startswith("#")}
    if config.masks == "binary" and config.mapping:
        raise SegkitError("--data.mapping: --data.masks binary has one already, 0 and 255; use --data.masks ids")
    if wrong := numbers if config.masks == "colors" else colors:
        rule = "has colours: write '#rrggbb'" if config.masks == "colors" else "has ids, not colours; use --data.masks colors"
        raise SegkitError(f"--data.mapping {next(iter(wrong))}: --data.masks {config.masks} {rule}")
    if large := [old for old in numbers if int(old) >= 2**16]:
        raise SegkitError(f"--data.mapping {large[0]}: ids in mask files are 0 to {2**16 - 1}")
    if outside := [f"{old}: {new}" for old, new in config.mapping.items() if len(classes) <= new < IGNORE_INDEX]:
        rule = f"the data set has the classes 0 to {len(classes) - 1}, and {IGNORE_INDEX} means ignore"
        raise SegkitError(f"--data.mapping {outside[0]}: {rule}")
    if config.masks == "binary":
        if len(classes) != 2:
            raise SegkitError(
                f"--data.masks binary: the data set has {len(classes)} classes; binary masks have two: 0, and 1 where it is 255"
            )
        return Labels(BINARY, remedy=BINARY_REMEDY)
    if config.masks == "colors":
        table: dict[int, int] = {}
        for label, (red, green, blue) in enumerate(classes.colors):
            if (color := red << 16 | green << 8 | blue) in table:
                pair = f"{classes.names[table[color]]!r} and {classes.names[label]!r}"
                raise SegkitError(f"--data.masks colors: the classes {pair} have one colour, #{color:06x}; each needs a colour of its own")
            table[color] = label
        return Labels(table | {int(old[1:], 16): new for old, new in colors.items()}, True, COLORS_REMEDY)
    return Labels({int(old): new for old, new in numbers.items()})
