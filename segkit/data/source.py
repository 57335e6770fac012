"""What a data set is to the rest of segkit: numbered pairs of an image and a mask. Shape legend: `H W` rows and columns, `C` channels."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from segkit.data.classes import Classes
from segkit.data.files import read_image, read_mask, read_size
from segkit.errors import SegkitError

Array = np.ndarray[Any, np.dtype[np.uint8]]


class Source(Protocol):
    """One split of a data set.

    Attributes:
        classes: The classes that the masks are made of.
        problems: What was wrong already when the files were listed, one line each; such images are left out.
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

    def read(self, index: int) -> tuple[Array, Array]:
        """Image, uint8 [H, W, C], and mask, uint8 [H, W], of any sizes; a file that cannot be read is a SegkitError."""
        ...


class FilePairs:
    """A split that lies in files.

    The paths are kept as arrays of bytes: a list of strings would be copied into every loader process, reference count by reference count.

    Args:
        classes: The classes of the masks.
        names: One name per image.
        images: Image files.
        masks: Mask files, in the same order.
        channels: 3 for RGB, 1 for grey.
        first: The value that stands for class 0 in the mask files.
        problems: What was wrong when the files were listed.
    """

    def __init__(
        self,
        classes: Classes,
        names: Sequence[str],
        images: Sequence[Path],
        masks: Sequence[Path],
        channels: int = 3,
        first: int = 0,
        problems: Sequence[str] = (),
    ) -> None:
        assert len(names) == len(images) == len(masks)
        self.classes, self.channels, self.first, self.problems = classes, channels, first, tuple(problems)
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
        return read_size(os.fsdecode(self._images[index]))

    def read(self, index: int) -> tuple[Array, Array]:
        """Image, uint8 [H, W, C], and mask, uint8 [H, W]."""
        image, path = read_image(os.fsdecode(self._images[index]), self.channels), os.fsdecode(self._masks[index])
        mask = read_mask(path)
        if self.first:
            if mask.min() < self.first:
                raise SegkitError(f"{path}: value {mask.min()}, but the classes of this data set start at {self.first}; replace the file")
            mask -= np.uint8(self.first)
        return image, mask
