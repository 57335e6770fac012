"""What the values in mask files mean. Shape legend: `H W` rows and columns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from segkit.config import IGNORE_INDEX, DataConfig
from segkit.data.classes import Classes
from segkit.data.files import read_colors, read_values
from segkit.errors import SegkitError

Array = np.ndarray[Any, np.dtype[np.uint8]]
BINARY = {0: 0, 255: 1}


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


@dataclass(frozen=True)
class Labels:
    """From a mask file to the labels 0..K-1 and 255.

    Args:
        mapping: Value in the file -> label; without it values are labels already, and whether they are is left to the data check.
        colors: The file holds colours, of which `mapping` has the 24-bit number, red first.
    """

    mapping: Mapping[int, int] = field(default_factory=dict)
    colors: bool = False

    @cached_property
    def _table(self) -> np.ndarray[Any, np.dtype[np.uint16]]:
        table = np.full(2**24 if self.colors else 2**16, 2**16 - 1, np.uint16)
        table[list(self.mapping)] = list(self.mapping.values())
        return table

    def read(self, path: str | Path) -> Array:
        """Labels uint8 [H, W].

        Raises:
            UnexpectedLabels: Values that are not in the mapping; without one, values above 255.
            SegkitError: The file cannot be read, or is no mask of this kind.
        """
        values = read_colors(path) if self.colors else read_values(path)
        if not self.mapping and not self.colors:
            if values.dtype == np.uint16 and values.max() > IGNORE_INDEX:
                raise self._unexpected(path, values, values > IGNORE_INDEX)
            return np.asarray(values, np.uint8)
        labels = self._table[values]
        if labels.max() > IGNORE_INDEX:
            raise self._unexpected(path, values, labels > IGNORE_INDEX)
        return np.asarray(labels, np.uint8)

    def _unexpected(self, path: str | Path, values: Any, where: Any) -> UnexpectedLabels:
        found, counts = np.unique(values[where], return_counts=True)
        names = [f"#{value:06x}" if self.colors else str(value) for value in found]
        remedy = "give their classes in --data.mapping, or 255 to ignore them"
        return UnexpectedLabels(path, dict(zip(names, counts.tolist(), strict=True)), remedy)


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
        rule = "has colours: write '#rrggbb'" if numbers else "has ids, not colours; use --data.masks colors"
        raise SegkitError(f"--data.mapping {next(iter(wrong))}: --data.masks {config.masks} {rule}")
    if outside := [f"{old}: {new}" for old, new in config.mapping.items() if len(classes) <= new < IGNORE_INDEX]:
        rule = f"the data set has the classes 0 to {len(classes) - 1}, and {IGNORE_INDEX} means ignore"
        raise SegkitError(f"--data.mapping {outside[0]}: {rule}")
    if config.masks == "binary":
        return Labels(BINARY)
    if config.masks == "colors":
        table = {(r << 16) + (g << 8) + b: label for label, (r, g, b) in enumerate(classes.colors)}
        return Labels(table | {int(old[1:], 16): new for old, new in colors.items()}, colors=True)
    return Labels({int(old): new for old, new in numbers.items()})
