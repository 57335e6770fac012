"""Images of any size through a network, in overlapping tiles, with memory for a band of rows.

Shapes: B batch, C channels, K classes, H W rows and columns, h w those of a tile.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice

import torch
from torch import Tensor

from segkit.inference.augment import Network, augmented
from segkit.inference.grid import Span, blend, spans


@torch.no_grad()
def infer(
    network: Network,
    images: Tensor,
    *,
    tile: int | None = None,
    overlap: float = 0.25,
    tta: Iterable[str] = (),
    scales: Sequence[float] = (1.0,),
    batch_size: int = 1,
) -> Tensor:
    """Scores of images of any size, whose softmax over the classes are the probabilities.

    Without tiles, flips and sizes the scores are the network's logits. With flips or sizes they are the log of the mean probability
    (`segkit.inference.augment.augmented`). With tiles they are the mean of the tiles' scores, weighed by a Gaussian about the middle of
    each tile (`segkit.inference.grid.spans`); flips and sizes are then those of the tiles.

    What tiles change: a pixel that lies further from the border of every tile that covers it than the network sees (its receptive radius;
    a border of the image does not count) has the score of the untiled image, to rounding. That holds for networks that reduce their input
    by a power of two up to 32 and pad sizes that do not divide on the right and at the bottom, as all of segkit's, since tiles start at
    multiples of 32. Elsewhere scores are means in which the pixels at the border of a tile, whose surroundings it does not see, weigh
    least: under 1 % at an overlap of 0.25.

    Args:
        network: uint8 or uint16 `[B, C, H, W]` -> logits `[B, K, H, W]`; a SegmentationTask, or any function.
        images: uint8 or uint16 `[B, C, H, W]`.
        tile: Longest side of a tile in pixels; default: whole images.
        overlap: Least share of a tile that the next one covers again, in [0, 1).
        tta: Flips, of `hflip` and `vflip`.
        scales: Sizes, relative to the image's own.
        batch_size: Tiles of each image that go through the network together.

    Returns:
        float32 `[B, K, H, W]`.
    """
    network = augmented(network, tta, scales)
    size = (images.shape[-2], images.shape[-1])
    if tile is None or max(size) <= tile:
        return network(images).float()
    scores: Tensor | None = None
    for top, left, block in score_blocks(
        network, lambda a, b: images[..., a:b, :], size, tile=tile, overlap=overlap, batch_size=batch_size
    ):
        if scores is None:
            scores = torch.empty((*block.shape[:2], *size), device=block.device, memory_format=_layout(block))
        scores[..., top : top + block.shape[-2], left : left + block.shape[-1]] = block
    assert scores is not None
    return scores


@torch.no_grad()
def score_blocks(
    network: Network, read: Callable[[int, int], Tensor], size: tuple[int, int], *, tile: int, overlap: float, batch_size: int
) -> Iterator[tuple[int, int, Tensor]]:
    """The scores of an image of any size, block by block, from left to right and from top to bottom.

    Beside a batch of tiles and a band of the image, memory holds `overlap * tile` rows of scores: 4 * K * W bytes for each row.

    Args:
        network: Images `[B, C, h, w]` -> scores `[B, K, h, w]`.
        read: First row and one behind the last -> those rows of the image `[B, C, h, W]`; called from top to bottom.
        size: Rows and columns of the image.
        tile: Longest side of a tile.
        overlap: Least share of a tile that the next one covers again, in [0, 1).
        batch_size: Tiles that go through the network together.

    Yields:
        First row and column, and scores float32 `[B, K, h, w]` that are final.
    """
    rows, columns = spans(size[0], tile, overlap), spans(size[1], tile, overlap)
    yield from blend(rows, columns, _weighed_tiles(network, read, rows, columns, batch_size), Tensor.clone)


def _weighed_tiles(
    network: Network, read: Callable[[int, int], Tensor], rows: Sequence[Span], columns: Sequence[Span], batch_size: int
) -> Iterator[Tensor]:
    for row in rows:
        band = read(row.start, row.stop)
        down = torch.from_numpy(row.weights)[:, None]
        for _, alike in groupby(columns, len):  # tiles of one width go together
            while batch := list(islice(alike, batch_size)):
                tiles = torch.cat([band[..., column.start : column.stop] for column in batch])
                scores = network(tiles).chunk(len(batch))
                del tiles
                while batch:  # a tile's scores go when it is weighed
                    weights = (down * torch.from_numpy(batch.pop(0).weights)).to(scores[0].device)
                    weighed = torch.empty_like(scores[0], dtype=torch.float32)  # in the layout of the scores, which a plain product loses
                    torch.mul(scores[0], weights, out=weighed)
                    scores = scores[1:]
                    yield weighed


def _layout(scores: Tensor) -> torch.memory_format:
    return torch.channels_last if scores.stride(1) == 1 and scores.shape[1] > 1 else torch.contiguous_format
