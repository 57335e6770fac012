"""The random streams of training data: one per epoch for the order, one per (epoch, image) for the augmentation."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_ORDER, _AUGMENTATION = 0, 1  # keep the two families of streams apart
TOGETHER = 4  # blocks that are shuffled into one another


def permutation(length: int, seed: int, epoch: int, blocks: Sequence[int] = ()) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The order of the images in an epoch: int64 [length].

    Args:
        length: Number of images.
        seed: Decides the order, with the epoch.
        epoch: Number of the epoch.
        blocks: Numbers of successive images that lie together, such as those of a shard. The blocks come in random order; the images of
            four successive ones are shuffled among themselves, so that no more than four are in use at a time. None: any image, any time.
    """
    numbers = np.random.default_rng(np.random.SeedSequence((_ORDER, seed, epoch)))
    if not blocks:
        return numbers.permutation(length)
    assert sum(blocks) == length
    parts = np.split(np.arange(length), np.cumsum(blocks)[:-1])
    order = numbers.permutation(len(parts))
    groups = [np.concatenate([parts[b] for b in order[first : first + TOGETHER]]) for first in range(0, len(parts), TOGETHER)]
    return np.concatenate([numbers.permutation(group) for group in groups])


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """The seed, in 0..2^64-1, of one image's augmentation in one epoch."""
    return int(np.random.SeedSequence((_AUGMENTATION, seed, epoch, index)).generate_state(1, np.uint64)[0])
