"""Image and mask files to arrays. Shape legend: `H W` rows and columns, `C` channels.

Pillow decodes everything: at most a fifth slower than OpenCV and bit-identical to it, it tells palette, grey and 16-bit files apart,
and a damaged file is an exception. The header is read first, so that a small file cannot claim a huge picture.
"""

import io
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


def read_size(path: str | Path) -> tuple[int, int]:
    """Rows and columns of an image as `read_image` returns it, from its header alone."""
    try:
        with Path(path).open("rb") as file:
            image = _open(path, file)
            # Pillow turns a TIFF itself, and would decode all of a PNG in search of EXIF behind the pixels
            asked = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
            turned = asked and image.getexif().get(_ORIENTATION, 1) >= 5
    except SegkitError:
        raise
    except Exception as error:
        raise _damaged(path, error) from None
    return (image.width, image.height) if turned else (image.height, image.width)


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


def read_mask(path: str | Path) -> Array:
    """Read the labels of a mask, which are its raw values: palette indices, grey levels, or 0 and 1.

    Args:
        path: A lossless file (PNG, TIFF, BMP, GIF, PGM) with one channel: Pillow's modes L, P, I;16 and 1. Turned by its EXIF tag.

    Returns:
        uint8 [H, W].

    Raises:
        SegkitError: The file cannot be read, or holds colours, lossy pixels, several frames or values above 255.
    """
    image = _open_checked(path)
    if image.format not in LOSSLESS_FORMATS or "jpeg" in str(image.info.get("compression")):
        raise SegkitError(f"{path}: {image.format} compression changes labels; store masks as PNG")
    if getattr(image, "n_frames", 1) > 1:
        raise SegkitError(f"{path}: {getattr(image, 'n_frames', 0)} frames; a mask has one")
    if image.mode not in ("L", "P", "1") and not image.mode.startswith("I;16"):
        raise SegkitError(
            f"{path}: mode {image.mode} is no label image; a mask has one channel that holds the class ids, {_remedy(image.mode)}"
        )
    stored = str(image.tile)
    try:
        ImageOps.exif_transpose(image, in_place=True)
        labels = np.array(image)
    except Exception as error:
        raise _damaged(path, error) from None
    if labels.dtype == np.uint16 and labels.max() > 255:
        raise SegkitError(f"{path}: value {labels.max()} in a 16-bit mask; class ids are 0 to 254, and 255 means ignore")
    for grey, step in (("L;2", 85), ("L;4", 17)):  # Pillow stretches 2 and 4 bits of grey over 0..255
        if grey in stored:
            labels //= step
    return labels.astype(np.uint8, copy=False)


def _remedy(mode: str) -> str:
    return "not colours: map every colour to its id first" if mode in ("RGB", "RGBA", "CMYK") else "8 bits of grey or a palette"


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
