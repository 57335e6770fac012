"""The random streams of training data: one per epoch for the order, one per (epoch, image) for the augmentation."""

from typing import Any

import numpy as np

_ORDER, _AUGMENTATION = 0, 1  # keep the two families of streams apart


def permutation(length: int, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The order of the images in an epoch: int64 [length]."""
    return np.random.default_rng(np.random.SeedSequence((_ORDER, seed, epoch))).permutation(length)


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """The seed, in 0..2^64-1, of one image's augmentation in one epoch."""
    return int(np.random.SeedSequence((_AUGMENTATION, seed, epoch, index)).generate_state(1, np.uint64)[0])
