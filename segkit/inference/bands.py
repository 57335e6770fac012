"""Results of an image from top to bottom. numpy only. Shapes: K classes, H W rows and columns of the image, n rows of a band."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, eq=False)
class Band:
    """Finished rows of an image.

    Args:
        top: The first one.
        labels: uint8 [n, W].
        probabilities: In 255ths, uint8 [K, n, W], where they were asked for.
    """

    top: int
    labels: Bytes
    probabilities: Bytes | None = None


def gather(blocks: Iterator[tuple[int, int, Bytes, Bytes | None]], width: int) -> Iterator[Band]:
    """Joins blocks to bands as wide as the image.

    Args:
        blocks: First row, first column, labels [h, w] and probabilities [K, h, w], from left to right, then from top to bottom.
        width: Columns of the image.
    """
    row: list[tuple[Bytes, Bytes | None]] = []
    for top, left, labels, probabilities in blocks:
        row.append((labels, probabilities))
        if left + labels.shape[1] == width:
            parts = [part for _, part in row if part is not None]
            yield Band(top, np.concatenate([part for part, _ in row], axis=1), np.concatenate(parts, axis=2) if parts else None)
            row = []


def whole(bands: Iterable[Band], size: tuple[int, int]) -> Bytes:
    """The labels of all bands of an image of `size` rows and columns, uint8 [H, W]."""
    out = np.empty(size, np.uint8)
    for band in bands:
        out[band.top : band.top + len(band.labels)] = band.labels
    return out
