"""Pairs as tensors, of the image's own type until they are on the device. Shape legend: `H W` rows and columns, `C` channels."""

from typing import TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset

from segkit.data.files import Pixels
from segkit.data.randomness import sample_seed
from segkit.data.source import Array, Source
from segkit.data.transforms import TrainTransform
from segkit.errors import SegkitError


class Sample(TypedDict):
    """One item, or, with a leading batch dimension, one batch.

    Attributes:
        image: uint8 or uint16 [C, H, W].
        mask: uint8 [H, W].
        index: Which image of the split.
    """

    image: torch.Tensor
    mask: torch.Tensor
    index: int


class LoadingError(SegkitError):
    """A file that could not be loaded.

    Of an error in a loader process PyTorch hands on the type, and as message the whole traceback; here it is one line again.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f"{__name__}.{type(self).__name__}: ")[2].rstrip())


class TrainDataset(Dataset[Sample]):
    """Augmented crops, asked for by (epoch, index); equal questions have equal answers in any process.

    Args:
        source: The training split.
        transform: The augmentation.
        seed: Decides, with epoch and index, everything random.
    """

    def __init__(self, source: Source, transform: TrainTransform, seed: int) -> None:
        self.source, self.transform, self.seed = source, transform, seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, place: tuple[int, int]) -> Sample:
        epoch, index = place
        image, mask = self.transform(*_read(self.source, index), sample_seed(self.seed, epoch, index))
        return _sample(image, mask, index)


class EvalDataset(Dataset[Sample]):
    """Whole images at their own size.

    Args:
        source: The split.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        return _sample(*_read(self.source, index), index)


def _read(source: Source, index: int) -> tuple[Pixels, Array]:
    try:
        return source.read(index)
    except SegkitError as error:
        raise LoadingError(str(error)) from None


def _sample(image: Pixels, mask: Array, index: int) -> Sample:
    planes, labels = (np.require(array, requirements=["C", "W"]) for array in (image.transpose(2, 0, 1), mask))  # a cache is read only
    return {"image": torch.from_numpy(planes), "mask": torch.from_numpy(labels), "index": index}
