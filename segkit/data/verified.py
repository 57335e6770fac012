"""Files that are compared with the hashes they had when they were listed. Shape legend: `H W` rows and columns, `C` channels."""

import hashlib
from collections.abc import Sequence

import numpy as np

from segkit.data.files import Pixels
from segkit.data.opening import hold_file
from segkit.data.source import Array, FilePairs
from segkit.errors import SegkitError


class Verified:
    """A split in files whose sha256 are known, which are compared at every reading.

    Args:
        pairs: The files.
        images: 64 hexadecimal digits for every image, or "": not compared.
        masks: The same for the masks.
    """

    def __init__(self, pairs: FilePairs, images: Sequence[str], masks: Sequence[str]) -> None:
        self.pairs, self.classes, self.problems = pairs, pairs.classes, pairs.problems
        self._hashes = [np.array([h.encode() for h in hashes], np.bytes_) for hashes in (images, masks)]

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """The image's path below the root, without the suffix."""
        return self.pairs.name(index)

    def size(self, index: int) -> tuple[int, int]:
        """Rows and columns of an image, from its header."""
        return self.pairs.size(index)

    def paths(self, index: int) -> tuple[str, str]:
        """The image's file and the mask's."""
        return self.pairs.paths(index)

    def read(self, index: int) -> tuple[Pixels, Array]:
        """Image and mask as `FilePairs.read` gives them; a file that is not the one listed is a SegkitError."""
        for path, hashes in zip(self.paths(index), self._hashes, strict=True):
            if expected := hashes[index].decode():
                hold_file(path)
                try:
                    with open(path, "rb") as file:
                        found = hashlib.file_digest(file, "sha256").hexdigest()
                except OSError as error:
                    raise SegkitError(f"cannot read {path}: {error.strerror}; replace or remove the file") from None
                if found != expected:
                    rule = f"its sha256 is {found[:12]}..., the manifest says {expected[:12]}..."
                    raise SegkitError(f"{path}: {rule}; put the file back that was listed, or list this one")
        return self.pairs.read(index)
