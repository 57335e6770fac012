"""Tiled predictions by a network that is not torch's: the same tiles, weights and flips over numpy arrays.

Shapes: B batch, C channels, K classes, H W rows and columns of the image, h w those of a tile.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any

import numpy as np

from segkit.errors import RunFailed
from segkit.inference.bands import Band, Bytes, gather
from segkit.inference.grid import Span, blend, spans

Floats = np.ndarray[Any, np.dtype[np.float32]]
Network = Callable[[np.ndarray], Floats]
AXES = {"hflip": -1, "vflip": -2}


def bands(
    network: Network,
    read: Callable[[int, int], np.ndarray],
    size: tuple[int, int],
    *,
    tile: int,
    overlap: float,
    tta: Sequence[str] = (),
    batch_size: int = 1,
    probabilities: bool = False,
) -> Iterator[Band]:
    """Labels of an image of any size, band by band: what `segkit.inference.tiles` does with tensors.

    Args:
        network: uint8 or uint16 [B, C, h, w] -> scores float32 [B, K, h, w], whose softmax are the probabilities.
        read: First row and one behind the last -> those rows of the image [n, W, C].
        size: Rows and columns of the image.
        tile: Longest side of a tile.
        overlap: Least share of a tile that the next one covers again, in [0, 1).
        tta: Flips, of `hflip` and `vflip`, whose probabilities are averaged with the tile's own.
        batch_size: Tiles that go through the network together.
        probabilities: Hand out probabilities too.

    Raises:
        RunFailed: A score is not finite.
    """
    rows, columns = spans(size[0], tile, overlap), spans(size[1], tile, overlap)
    tiles = _weighed_tiles(flipped(network, tta), read, rows, columns, batch_size)
    blocks = ((top, left, *_finish(scores, probabilities)) for top, left, scores in blend(rows, columns, tiles, np.copy))
    yield from gather(blocks, size[1])


def flipped(network: Network, tta: Sequence[str]) -> Network:
    """A network whose output is the log of the mean probability over all combinations of flips; without any, the network itself."""
    choices: list[tuple[int, ...]] = [()]
    for name in dict.fromkeys(tta):
        choices += [(*axes, AXES[name]) for axes in choices]
    if len(choices) == 1:
        return network

    def mean(images: np.ndarray) -> Floats:
        parts = [np.flip(softmax(network(np.ascontiguousarray(np.flip(images, axes)))), axes) for axes in choices]
        average = np.maximum(sum(parts) / np.float32(len(choices)), np.finfo(np.float32).tiny)
        return np.asarray(np.log(average), np.float32)

    return mean


def softmax(scores: Floats) -> Floats:
    """Probabilities over the classes, the third axis from the end."""
    powers = np.exp(scores - scores.max(-3, keepdims=True))
    return np.asarray(powers / powers.sum(-3, keepdims=True), np.float32)


def _weighed_tiles(
    network: Network, read: Callable[[int, int], np.ndarray], rows: Sequence[Span], columns: Sequence[Span], batch_size: int
) -> Iterator[Floats]:
    for row in rows:
        band = read(row.start, row.stop).transpose(2, 0, 1)
        for _, alike in groupby(columns, len):
            while batch := list(islice(alike, batch_size)):
                scores = network(np.stack([band[..., column.start : column.stop] for column in batch]))
                for column, tile in zip(batch, scores, strict=True):
                    yield tile * (row.weights[:, None] * column.weights)


def _finish(scores: Floats, probabilities: bool) -> tuple[Bytes, Bytes | None]:
    if not np.isfinite(scores.sum()) and not np.isfinite(scores).all():
        raise RunFailed("the scores contain NaN or infinity: the network's weights have diverged; export an earlier checkpoint")
    labels = scores.argmax(0).astype(np.uint8)
    return labels, np.rint(255 * softmax(scores)).astype(np.uint8) if probabilities else None
