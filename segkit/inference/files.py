"""Images whose rows are read as they are needed: arrays, .npy files, TIFFs larger than memory, and image files that are decoded whole.

Shapes: H W rows and columns, C channels, n rows of a band.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segkit.data.files import read_image
from segkit.data.opening import MAX_PIXELS, hold_file
from segkit.errors import SegkitError

TIFF = (".tif", ".tiff")


@dataclass(frozen=True, eq=False)
class Picture:
    """An image of which rows can be read.

    Args:
        size: Rows and columns.
        read: First row and one behind the last -> uint8 [n, W, C], or uint16 where white is 65535.
    """

    size: tuple[int, int]
    read: Callable[[int, int], np.ndarray]


@contextmanager
def open_picture(image: str | Path | np.ndarray, channels: int, white: int) -> Iterator[Picture]:
    """Opens an image for a model of `channels` channels whose white is 255 or 65535; values of 8 bits are scaled to 16 by 257.

    Files are read as those of a data set (`segkit.data.files.read_image`), TIFFs of more than 67 megapixels row by row. A `.npy` file, read
    row by row too, and an array are [H, W, C] or, of one channel, [H, W]; their channels are not converted.

    Raises:
        SegkitError: The file cannot be read, or channels or type do not fit.
    """
    if isinstance(image, np.ndarray):
        yield _of_array(image, "the image", channels, white)
    elif not isinstance(image, str | Path):
        raise SegkitError(f"an image is a file name or a numpy array, not of type {type(image).__name__}; numpy.asarray makes one of most")
    elif Path(image).suffix.lower() == ".npy":
        yield _of_array(_map(Path(image)), str(image), channels, white)
    elif Path(image).suffix.lower() in TIFF and _tiff_pixels(image) > MAX_PIXELS:
        from segkit.inference.tiff import TiffRows

        rows = TiffRows(image)
        try:
            _check_type(rows.dtype, str(image), white)
            convert = _converter(rows.channels, channels, rows.model, str(image))
            yield Picture(rows.size, lambda start, stop: _scale(convert(rows.read(start, stop)), white))
        finally:
            rows.close()
    else:
        pixels = read_image(image, channels, 8 if white == 255 else 16)
        yield Picture(pixels.shape[:2], lambda start, stop: pixels[start:stop])


def _tiff_pixels(path: str | Path) -> int:
    """Pixels of a TIFF, from its header; 0 where that cannot be told, and the usual reader says why."""
    hold_file(path)
    try:
        import tifffile

        with tifffile.TiffFile(path) as file:
            return int(file.pages.first.imagelength * file.pages.first.imagewidth)
    except Exception:  # what a decoder raises for damaged bytes has no common type
        return 0


def _map(path: Path) -> np.ndarray:
    hold_file(path)
    try:
        with np.errstate(all="ignore"):  # a header may claim more than numbers go
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy reads its header by Python's own parser, which may raise anything
        reason = "it holds Python objects" if "allow_pickle" in str(error) else (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SegkitError(f"cannot read {path}: {reason}; give an array of numbers saved by numpy.save") from None
    if not isinstance(array, np.ndarray):
        raise SegkitError(f"cannot read {path}: an archive; give one array saved by numpy.save")
    return array


def _of_array(array: np.ndarray, name: str, channels: int, white: int) -> Picture:
    _check_type(array.dtype.newbyteorder("="), name, white)
    shape = (*array.shape, 1) if array.ndim == 2 else array.shape
    if array.ndim not in (2, 3) or shape[2] != channels or 0 in shape:
        wanted = f"[rows, columns, {channels}]" + (" or [rows, columns]" if channels == 1 else "")
        raise SegkitError(f"{name} has the shape {list(array.shape)}; the model takes {wanted}")
    native = array.dtype.newbyteorder("=")

    def read(start: int, stop: int) -> np.ndarray:
        return _scale(array[start:stop].astype(native, copy=False).reshape(-1, *shape[1:]), white)

    return Picture((shape[0], shape[1]), read)


def _check_type(dtype: np.dtype[Any], name: str, white: int) -> None:
    if dtype == np.uint16 and white == 255:
        raise SegkitError(
            f"{name} has 16 bits a channel, the model takes 8: scale it as its training images were, or train with --data.bits 16"
        )
    if dtype not in (np.uint8, np.uint16):
        raise SegkitError(f"{name} has values of type {dtype}; the model takes uint8" + (" and uint16" if white > 255 else ""))


def _scale(pixels: np.ndarray, white: int) -> np.ndarray:
    return pixels.astype(np.uint16) * np.uint16(257) if white > 255 and pixels.dtype == np.uint8 else pixels


def _converter(have: int, want: int, model: str | None, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """What `read_image` does to the channels of a file: grey to RGB, RGB to grey by Pillow's weights, an alpha channel dropped.

    Bands that are no colours (`model` is None) are never taken for some.
    """
    if have == want:
        return lambda pixels: pixels
    if model is None:
        raise SegkitError(f"{name} has {have} channels that are no colours, the model takes {want}")
    if (have, want) == (4, 3):
        return lambda pixels: pixels[..., :3]
    if (have, want) in ((1, 3), (2, 3)):
        return lambda pixels: pixels[..., :1].repeat(3, axis=2)
    if (have, want) == (2, 1):
        return lambda pixels: pixels[..., :1]
    if have in (3, 4) and want == 1:
        weights = np.array([19595, 38470, 7471], np.uint32)  # ITU-R 601-2, in 65536ths; 65535 * 65536 + 32768 < 2 ** 32
        return lambda pixels: ((pixels[..., :3] @ weights + 0x8000) >> 16).astype(pixels.dtype)[..., None]
    raise SegkitError(f"{name} has {have} channels, the model takes {want}")
