"""TIFF files that Pillow does not read as they are: many bands, 16 bits, several pages. Shape legend: `H W` rows and columns, `C` bands.

Everything here may raise a ValueError that says what is wrong with the file; `segkit.data.files` adds its name.
"""

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from tifffile import TiffPage

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # each oddity of a file as a line, before the one line that counts
STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType: an overview or thumbnail, a transparency mask


@dataclass(frozen=True)
class Stack:
    """The bands of a file, from its pages in their order.

    Args:
        pages: Those that are neither an overview nor a transparency mask; all of one size and type.
        first: The first of them is the file's first page.
    """

    pages: "tuple[TiffPage, ...]"
    first: bool

    @property
    def stored(self) -> tuple[int, int]:
        """Rows and columns as they lie in the file."""
        return self.pages[0].shaped[2], self.pages[0].shaped[3]

    @property
    def bands(self) -> int:
        """C."""
        return sum(page.shaped[0] * page.shaped[4] for page in self.pages)

    @property
    def orientation(self) -> Any:
        """The tag of this name, 1 to 8 if the file is sound; 1 is upright."""
        return self.pages[0].tags.valueof(274, 1)

    @property
    def type(self) -> str:
        """What a band is made of: numpy's name, such as uint16, or one like it, such as uint12."""
        page = self.pages[0]
        kinds = {1: "uint", 2: "int", 3: "float", 6: "complex"}
        return f"{kinds.get(int(page.sampleformat), 'unknown')}{page.bitspersample}"

    @property
    def model(self) -> str | None:
        """What the bands say together, as Pillow calls it: L, LA, RGB, RGBA, CMYK; None for bands that are no known colours."""
        page = self.pages[0]
        if len(self.pages) > 1:
            return None
        alpha = len(page.extrasamples) == 1 and int(page.extrasamples[0]) in (1, 2)  # associated, unassociated
        known = {(0, 1, False): "L", (1, 1, False): "L", (1, 2, True): "LA", (2, 3, False): "RGB", (2, 4, True): "RGBA"}
        return known.get((int(page.photometric), self.bands, alpha)) or ("CMYK" if page.photometric == 5 and self.bands == 4 else None)

    def read(self) -> np.ndarray[Any, Any]:
        """The values [H, W, C] as they lie in the file; where it says that white is 0, turned round."""
        planes = []
        for page in self.pages:
            if page.photometric not in (0, 1, 2, 5):
                raise ValueError(f"colours of the kind {getattr(page.photometric, 'name', page.photometric)} in {self.type}")
            check_segments(page)
            values = page.asarray(maxworkers=1, squeeze=False)  # [planes, depth, H, W, samples]; the loader is parallel already
            values = values[:, 0].transpose(1, 2, 0, 3).reshape(*self.stored, -1)
            values = values.astype(values.dtype.newbyteorder("="), copy=False)
            planes.append(np.iinfo(values.dtype).max - values if page.photometric == 0 else values)
        return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)


def open_stack(file: BinaryIO) -> Stack:
    """What a file holds, from its headers; it has to stay open until it has been read.

    Raises:
        ValueError: It is damaged, or its pages do not go together.
    """
    try:
        from tifffile import TiffFile
    except ImportError:
        raise ValueError("many bands, pages or 16 bits in a TIFF need tifffile") from None

    everything: list[Any] = list(TiffFile(file).pages)
    pages = [page for page in everything if not int(page.subfiletype) & (_REDUCED | _MASK)]
    if not pages:
        raise ValueError("no page with an image")
    stack = Stack(tuple(pages), pages[0] is everything[0])
    if min(*stack.stored, stack.bands) < 1:
        raise ValueError("a page without pixels")
    for page in pages:
        if (page.shaped[2:4], page.bitspersample, page.sampleformat) != (stack.stored, pages[0].bitspersample, pages[0].sampleformat):
            raise ValueError(f"{len(pages)} pages of different sizes or types")
        if page.shaped[1] != 1:
            raise ValueError(f"a volume of {page.shaped[1]} slices")
    return stack


def check_segments(page: "TiffPage") -> None:
    """Every strip or tile is there and of a sound size: tifffile leaves memory as it was for one that is not listed.

    Raises:
        ValueError: Says what is not.
    """
    if page.is_contiguous:  # read as one piece, and its length is checked
        return
    offsets, counts, end = page.dataoffsets, page.databytecounts, page.parent.filehandle.size
    wanted = math.prod(page.chunked)
    if len(offsets) < wanted or len(counts) < wanted:
        raise ValueError(f"{min(len(offsets), len(counts))} of {wanted} strips or tiles")
    if any((offset or count) and not (offset and count and offset + count <= end) for offset, count in zip(offsets, counts, strict=False)):
        raise ValueError("truncated")  # one of which both are 0 is empty on purpose
    if math.prod(page.chunks[:2]) > max(2**26, 4 * page.shaped[2] * page.shaped[3]):
        raise ValueError("tiles much larger than the image")
