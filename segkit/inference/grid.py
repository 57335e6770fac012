"""Where tiles lie on an image, how they are weighed, and how they are added up. numpy only, and not even that for the sum.

Shapes: ... batch and classes, h w rows and columns of a tile, H W of the image.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# what U-Nets and FCNs reduce images by: a tile that starts at a multiple of it meets their strides as the whole image does
ALIGN = 32


@dataclass(frozen=True, eq=False)
class Span:
    """Rows, or columns, of a tile.

    Args:
        start: The first one.
        stop: One behind the last one.
        weights: Their share in the result, float32 [stop - start], in (0, 1]; those of all spans add up to 1 everywhere.
    """

    start: int
    stop: int
    weights: np.ndarray[Any, np.dtype[np.float32]]

    def __len__(self) -> int:
        return self.stop - self.start


def spans(length: int, tile: int, overlap: float) -> list[Span]:
    """Cuts rows, or columns, into overlapping spans, as few as possible, and then as short as that number allows.

    Every span but the last has the same length, at most `tile`. Each starts at a multiple of 32 (where `tile` and `overlap` leave room for
    that), so that a network that reduces its input up to 32 times computes in a tile exactly what it computes in the whole image, but for
    what lies beyond the tile. The last one ends with the image and may be up to 31 shorter than the others. An image slightly larger than
    a tile thus becomes two tiles of about 60 % instead of two whole ones.

    A span is weighed by a Gaussian of an eighth of its length about its middle (Isensee et al., nnU-Net, 2021), divided by the sum over
    all spans: where one span lies alone its weight is exactly 1, and what is added up needs no division.

    Args:
        length: Rows or columns of the image, >= 1.
        tile: Longest span, >= 1.
        overlap: Least share of a span that the next one covers again, in [0, 1).
    """
    assert min(length, tile) >= 1, (length, tile)
    assert 0 <= overlap < 1, overlap
    starts, stops = _cut(length, tile, overlap)
    total = np.zeros(length)
    for start, stop in zip(starts, stops, strict=True):
        total[start:stop] += _gaussian(stop - start)
    shares = [_gaussian(stop - start) / total[start:stop] for start, stop in zip(starts, stops, strict=True)]
    return [Span(start, stop, share.astype(np.float32)) for start, stop, share in zip(starts, stops, shares, strict=True)]


def _cut(length: int, tile: int, overlap: float) -> tuple[list[int], list[int]]:
    if length <= tile:
        return [0], [length]
    room = tile * (1 - overlap) + 1e-6  # 320 * (1 - 0.9) is 31.99...
    align = ALIGN if room >= ALIGN else 1

    def step(size: int) -> int:
        return max(int(size * (1 - overlap) + 1e-6) // align * align, 1)

    def count(size: int) -> int:
        return math.ceil((length - size) / step(size)) + 1

    least = math.ceil(align / (1 - overlap) - 1e-6)  # shorter ones would not move on by a whole multiple
    shorter = range(math.ceil(least / align) * align, tile, align)
    size = next((size for size in shorter if count(size) <= count(tile)), tile)
    starts = [i * step(size) for i in range(count(size) - 1)]
    starts.append(math.ceil((length - size) / align) * align)
    return starts, [*(start + size for start in starts[:-1]), length]


def _gaussian(length: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    offset = (np.arange(length) - (length - 1) / 2) / (length / 8)
    return np.asarray(np.exp(-0.5 * offset**2))


def blend(
    rows: Sequence[Span], columns: Sequence[Span], tiles: Iterator[Any], copy: Callable[[Any], Any]
) -> Iterator[tuple[int, int, Any]]:
    """Adds up overlapping tiles and hands out every block of the image as soon as no further tile touches it.

    What is kept is the part of a tile that the next one beside it covers again, and of a row of tiles the part that the next row covers
    again: `overlap * tile` rows of the image's width, whatever its height. All arithmetic is slices and `+=`, for arrays of any library.

    Args:
        rows: The rows of the tiles.
        columns: Their columns.
        tiles: The tiles, [..., h, w], row by row, each multiplied by its weights already; they are written to.
        copy: Copies an array, so that a small part does not keep the whole in memory.

    Yields:
        First row and first column of a block, and the block [..., h, w]; from left to right, then from top to bottom, without gaps.
    """
    below: list[Any] = [None] * len(columns)  # what the tiles above left, by column
    for row, following_row in zip(rows, [*rows[1:], None], strict=True):
        beside: Any = None  # what the tiles to the left left
        for c, (column, following) in enumerate(zip(columns, [*columns[1:], None], strict=True)):
            tile = next(tiles)
            assert tile.shape[-2:] == (len(row), len(column)), (tile.shape, row, column)
            if beside is not None:
                tile[..., : beside.shape[-1]] += beside
            width = following.start - column.start if following else len(column)
            beside = copy(tile[..., width:])
            done = tile[..., :width]
            if below[c] is not None:
                done[..., : below[c].shape[-2], :] += below[c]
            height = following_row.start - row.start if following_row else len(row)
            below[c] = copy(done[..., height:, :])
            yield row.start, column.start, done[..., :height, :]
