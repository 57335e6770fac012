"""Image and mask files to arrays. Shape legend: `H W` rows and columns, `C` channels.

Pillow decodes everything: at most a fifth slower than OpenCV and bit-identical to it, it tells palette, grey and 16-bit files apart,
and a damaged file is an exception. The header is read first, so that a small file cannot claim a huge picture.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from segkit.errors import SegkitError

Array = np.ndarray[Any, np.dtype[np.uint8]]
MAX_PIXELS = 2**26  # 67 megapixels: above any camera in common use, below the size at which Pillow warns
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
LOSSLESS_FORMATS = ("PNG", "BMP", "TIFF", "GIF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")
_ORIENTATION = 0x0112  # the EXIF tag


@dataclass(frozen=True)
class Header:
    """What a file says about its picture before it is decoded.

    Args:
        size: Rows and columns as `read_image` returns them.
        format: JPEG, PNG, ...
        mode: Pillow's name of the pixel format, such as RGB, L, P, I;16.
        orientation: The EXIF tag, 1 to 8; 1 is upright.
    """

    size: tuple[int, int]
    format: str
    mode: str
    orientation: int


def read_header(path: str | Path) -> Header:
    """What a file says about its picture, without decoding it."""
    try:
        with Path(path).open("rb") as file:
            image = _open(path, file)
            # Pillow turns a TIFF itself, and would decode all of a PNG in search of EXIF behind the pixels
            asked = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
            orientation = image.getexif().get(_ORIENTATION, 1) if asked else 1
    except SegkitError:
        raise
    except Exception as error:
        raise _damaged(path, error) from None
    size = (image.width, image.height) if orientation >= 5 else (image.height, image.width)
    return Header(size, image.format or "", image.mode, orientation)


def read_image(path: str | Path, channels: int = 3) -> Array:
    """Read an image as it is meant to be looked at: turned by its EXIF tag, palette applied, transparency dropped.

    Args:
        path: A JPEG, PNG, TIFF, BMP, WebP, GIF or PPM file, 8 bits per channel; of a multi-picture JPEG or an animation the first.
        channels: 3 for RGB, 1 for grey; files of the other kind are converted.

    Returns:
        uint8 [H, W, C].

    Raises:
        SegkitError: The file cannot be read, or is too large, or has 16 bits.
    """
    assert channels in (1, 3)
    image = _open_checked(path)
    if image.mode[0] in "IF" or ";16" in str(image.tile):
        raise SegkitError(f"{path}: more than 8 bits per channel (mode {image.mode}); convert it to 8 bits, with a scaling you choose")
    if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        raise SegkitError(f"{path}: {getattr(image, 'n_frames', 0)} pages; store one image per file")
    try:
        ImageOps.exif_transpose(image, in_place=True)
        mode = "RGB" if channels == 3 else "L"
        pixels = np.array(image if image.mode == mode else image.convert(mode))
    except Exception as error:
        raise _damaged(path, error) from None
    return pixels.reshape(*pixels.shape[:2], channels)


def read_values(path: str | Path) -> Any:
    """Read the raw values of a mask: palette indices, grey levels, or 0 and 1.

    Args:
        path: A lossless file (PNG, TIFF, BMP, GIF, PGM) with one channel: Pillow's modes L, P, I;16 and 1. Turned by its EXIF tag.

    Returns:
        uint8 or uint16 [H, W].

    Raises:
        SegkitError: The file cannot be read, or holds colours, lossy pixels or several frames.
    """
    image = _open_mask(path)
    if image.mode not in ("L", "P", "1") and not image.mode.startswith("I;16"):
        raise SegkitError(
            f"{path}: mode {image.mode} is no label image; a mask has one channel that holds the class ids, {_remedy(image.mode)}"
        )
    stored = str(image.tile)
    try:
        ImageOps.exif_transpose(image, in_place=True)
        values = np.array(image)
    except Exception as error:
        raise _damaged(path, error) from None
    for grey, step in (("L;2", 85), ("L;4", 17)):  # Pillow stretches 2 and 4 bits of grey over 0..255
        if grey in stored:
            values //= step
    return values.astype(np.uint8) if values.dtype == np.bool_ else values


def read_colors(path: str | Path) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """Read a mask of colours, uint32 [H, W]: 65536 red + 256 green + blue. A palette is applied.

    Args:
        path: A lossless file (PNG, TIFF, BMP, GIF, PPM) of RGB, an opaque RGBA, or a palette.

    Raises:
        SegkitError: The file cannot be read, or holds lossy pixels, several frames, or no colours of 8 bits.
    """
    image = _open_mask(path)
    if image.mode not in ("RGB", "RGBA", "P", "L", "1"):
        raise SegkitError(f"{path}: mode {image.mode} is no picture of colours; a mask of colours is RGB, 8 bits a channel")
    try:
        ImageOps.exif_transpose(image, in_place=True)
        pixels = np.array(image.convert("RGB"), np.uint32)
    except Exception as error:
        raise _damaged(path, error) from None
    red, green, blue = np.moveaxis(pixels, -1, 0)
    return np.asarray(red << 16 | green << 8 | blue, np.uint32)


def _open_mask(path: str | Path) -> ImageFile.ImageFile:
    image = _open_checked(path)
    if image.format not in LOSSLESS_FORMATS or "jpeg" in str(image.info.get("compression")):
        raise SegkitError(f"{path}: {image.format} compression changes labels; store masks as PNG")
    if getattr(image, "n_frames", 1) > 1:
        raise SegkitError(f"{path}: {getattr(image, 'n_frames', 0)} frames; a mask has one")
    return image


def _remedy(mode: str) -> str:
    colors = "not colours: give the colours in classes.txt and say --data.masks colors"
    return colors if mode in ("RGB", "RGBA", "CMYK") else "8 bits of grey or a palette"


def _open_checked(path: str | Path) -> ImageFile.ImageFile:
    """Open an image of which every byte is at hand, and whose checksums hold where its format has them."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise _damaged(path, error) from None
    image = _open(path, io.BytesIO(data))
    if image.format == "PNG":  # decoding skips the checksums, and a flipped bit becomes a wrong label
        try:
            _open(path, io.BytesIO(data)).verify()
        except Exception as error:
            raise _damaged(path, error) from None
    return image


def _open(path: str | Path, source: BinaryIO) -> ImageFile.ImageFile:
    try:
        image = Image.open(source, formats=IMAGE_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SegkitError(f"{path}: {error}; images may have {MAX_PIXELS // 10**6} megapixels: cut it into tiles") from None
    except Exception as error:  # what a decoder raises for damaged bytes has no common type
        raise _damaged(path, error) from None
    if image.width * image.height > MAX_PIXELS:
        raise SegkitError(
            f"{path}: {image.width} x {image.height} pixels, but images may have {MAX_PIXELS // 10**6} megapixels: cut it into tiles"
        )
    return image


def _damaged(path: str | Path, error: Exception) -> SegkitError:
    known: dict[type[Exception], str] = {UnidentifiedImageError: "not an image", FileNotFoundError: "no such file"}
    reason = known.get(type(error)) or str(error).strip() or type(error).__name__
    return SegkitError(f"cannot read {path}: {reason}; replace or remove the file")
