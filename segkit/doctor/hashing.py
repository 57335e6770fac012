"""A number that images which look alike share, and the search for those that nearly do."""

from typing import Any

import numpy as np
from scipy.fft import dctn

SIDE = 32  # of the grid of grey averages that a hash is made of
KEPT = 8  # lowest frequencies in each direction
TOGETHER = 1024  # pictures: 8 MiB of numbers
BLOCK = 2**22  # distances at a time: 32 MiB of differences

Hashes = np.ndarray[Any, np.dtype[np.uint64]]


def perceptual_hashes(grey: np.ndarray[Any, np.dtype[np.uint8]]) -> Hashes:
    """The 64 lowest frequencies of each picture, each one bit: above their median or not (as `phash` of the imagehash library).

    Scaling, recompression and small changes of brightness leave almost all of the bits as they are.

    Args:
        grey: The pictures, each reduced to SIDE x SIDE: uint8 [N, SIDE, SIDE].

    Returns:
        uint64 [N].
    """
    hashes = np.zeros(len(grey), np.uint64)
    for first in range(0, len(grey), TOGETHER):
        part = grey[first : first + TOGETHER].astype(np.float64)
        low = dctn(part, axes=(1, 2))[:, :KEPT, :KEPT].reshape(len(part), -1)
        bits = np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1)
        hashes[first : first + len(part)] = bits.view(">u8")[:, 0]
    return hashes


def near_pairs(hashes: Hashes, most: int) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.uint8]]]:
    """All pairs i < j of hashes that differ in `most` bits or fewer, by comparing each with each: 20,000 in about a second.

    Args:
        hashes: uint64 [N].
        most: 0 to 64.

    Returns:
        The pairs, int64 [P, 2], and the number of bits, uint8 [P].
    """
    pairs, distances = [np.empty((0, 2), np.int64)], [np.empty(0, np.uint8)]
    first = 0
    while first < len(hashes) - 1:
        rows = max(1, BLOCK // (len(hashes) - first))
        differing = np.bitwise_count(hashes[first : first + rows, None] ^ hashes[None, first:])
        i, j = np.nonzero(differing <= most)
        upper = i < j
        i, j = i[upper], j[upper]
        pairs.append(np.stack([i, j], axis=1) + first)
        distances.append(differing[i, j])
        first += rows
    return np.concatenate(pairs), np.concatenate(distances)
