"""What a data set is to the rest of segkit: numbered pairs of an image and a mask. Shape legend: `H W` rows and columns, `C` channels."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from segkit.data.classes import Classes
from segkit.data.files import Pixels, read_header, read_image
from segkit.data.labels import Labels

Array = np.ndarray[Any, np.dtype[np.uint8]]


class Source(Protocol):
    """One split of a data set.

    Attributes:
        classes: The classes that the masks are made of.
        problems: What was wrong already when the files were listed, one line each; such images are left out.

    It may also have `blocks`, the numbers of successive images that lie together, as in shards; the order of an epoch then keeps few of
    them in use at a time (`segkit.data.randomness.permutation`).
    """

    classes: Classes
    problems: tuple[str, ...]

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """A name that no other image of the split has."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """Rows and columns of an image, without decoding it."""
        ...

    def paths(self, index: int) -> tuple[str, str] | None:
        """The image's file and the mask's, where each has a file of its own."""
        ...

    def read(self, index: int) -> tuple[Pixels, Array]:
        """Image, uint8 or uint16 [H, W, C], and mask, uint8 [H, W], of any sizes, perhaps read only; a broken file is a SegkitError."""
        ...


@dataclass(frozen=True)
class Reading:
    """How the files of a data set are read.

    Args:
        channels: Channels of the images that come out: 3 for RGB, 1 for grey, else as many as are in the files.
        bits: 8 for uint8 images, 16 for uint16.
        labels: What the values in mask files mean.
    """

    channels: int = 3
    bits: Literal[8, 16] = 8
    labels: Labels = field(default_factory=Labels)


class FilePairs:
    """A split that lies in files.

    The paths are kept as arrays of bytes: a list of strings would be copied into every loader process, reference count by reference count.

    Args:
        classes: The classes of the masks.
        names: One name per image.
        images: Image files.
        masks: Mask files, in the same order.
        reading: How they are read.
        problems: What was wrong when the files were listed.
    """

    def __init__(
        self,
        classes: Classes,
        names: Sequence[str],
        images: Sequence[Path],
        masks: Sequence[Path],
        reading: Reading = Reading(),  # frozen
        problems: Sequence[str] = (),
    ) -> None:
        assert len(names) == len(images) == len(masks)
        self.classes, self.reading, self.problems = classes, reading, tuple(problems)
        self._names = np.array([os.fsencode(n) for n in names], dtype=np.bytes_)
        self._images = np.array([os.fsencode(p) for p in images], dtype=np.bytes_)
        self._masks = np.array([os.fsencode(p) for p in masks], dtype=np.bytes_)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """A name that no other image of the split has."""
        return os.fsdecode(self._names[index])

    def size(self, index: int) -> tuple[int, int]:
        """Rows and columns of an image, from its header."""
        return read_header(os.fsdecode(self._images[index])).size

    def paths(self, index: int) -> tuple[str, str]:
        """The image's file and the mask's."""
        return os.fsdecode(self._images[index]), os.fsdecode(self._masks[index])

    def read(self, index: int) -> tuple[Pixels, Array]:
        """Image, uint8 [H, W, C] (uint16 where files of 16 bits are read), and mask, uint8 [H, W]."""
        image, mask = self.paths(index)
        return read_image(image, self.reading.channels, self.reading.bits), self.reading.labels.read(mask)
