"""Mask files to the values they hold; what those mean is said by `segkit.data.labels`. Shape legend: `H W` rows and columns."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageFile, ImageOps

from segkit.data.opening import check_sums, damaged, has_16_bits, open_checked, read_bytes
from segkit.errors import SegkitError

LOSSLESS_FORMATS = ("PNG", "BMP", "TIFF", "GIF", "PPM")
_PHOTOMETRIC = 262  # the tag of TIFF


def read_values(path: str | Path, data: bytes | None = None) -> Any:
    """Read the raw values of a mask: palette indices, grey levels, or, where a pixel has one bit, False and True.

    Args:
        path: A lossless file (PNG, TIFF, BMP, GIF, PGM) with one channel: Pillow's modes L, P, I;16 and 1. Turned by its EXIF tag.
        data: What the file holds, where it is no file of its own; `path` is then only what errors call it.

    Returns:
        uint8, uint16 or bool [H, W]; it may be read only.

    Raises:
        SegkitError: The file cannot be read, or holds colours, lossy pixels or several frames.
    """
    image = _open_mask(path, data)
    deep = image.mode.startswith("I;16") or (image.format == "PPM" and image.mode == "I")
    if image.mode not in ("L", "P", "1") and not deep:
        raise SegkitError(
            f"{path}: mode {image.mode} is no label image; a mask has one channel that holds the class ids, {_remedy(image.mode)}"
        )
    stored = str(image.tile)
    try:
        inverted = image.format == "TIFF" and image.mode == "L" and image.tag_v2.get(_PHOTOMETRIC) == 0  # type: ignore[attr-defined]
        ImageOps.exif_transpose(image, in_place=True)
        values = np.asarray(image)
    except Exception as error:
        raise damaged(path, error) from None
    if inverted:  # Pillow shows what the file calls white as 255; the label is what it stores
        values = 255 - values
    for grey, step in (("L;2", 85), ("L;4", 17)):  # Pillow stretches 2 and 4 bits of grey over 0..255
        if grey in stored:
            values = values // step
    return values.astype(np.uint16, copy=False) if deep else values


def read_colors(path: str | Path) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """Read a mask of colours, uint32 [H, W]: 65536 red + 256 green + blue. A palette is applied; transparency is for no pixel.

    Args:
        path: A lossless file (PNG, TIFF, BMP, GIF, PPM) of colours, a palette or grey, 8 bits a channel.

    Raises:
        SegkitError: The file cannot be read, or holds lossy pixels, several frames, transparent pixels, or no colours of 8 bits.
    """
    image = _open_mask(path)
    if image.mode not in ("RGB", "RGBA", "P", "L", "LA", "1") or has_16_bits(image):
        bits = " of 16 bits" if has_16_bits(image) else ""
        raise SegkitError(f"{path}: mode {image.mode}{bits} is no picture of colours; a mask of colours is RGB, 8 bits a channel")
    try:
        ImageOps.exif_transpose(image, in_place=True)
        pixels = np.asarray(image.convert("RGBA"))
    except Exception as error:
        raise damaged(path, error) from None
    if image.has_transparency_data and (clear := int((pixels[..., 3] < 255).sum())):
        raise SegkitError(
            f"{path}: {clear} pixels are transparent, so that no colour says their class; fill them with a colour of their own"
        )
    return np.asarray(pixels.view(">u4")[..., 0] >> 8, np.uint32)


def _open_mask(path: str | Path, data: bytes | None = None) -> ImageFile.ImageFile:
    data = read_bytes(path) if data is None else data
    image = open_checked(path, io.BytesIO(data))
    if image.format not in LOSSLESS_FORMATS or "jpeg" in str(image.info.get("compression")):
        raise SegkitError(f"{path}: {image.format} compression changes labels; store masks as PNG")
    try:
        frames = getattr(image, "n_frames", 1)
    except Exception as error:  # a second page that is none
        raise damaged(path, error) from None
    if frames > 1:
        raise SegkitError(f"{path}: {frames} frames; a mask has one")
    if any(tile.codec_name == "ppm" for tile in image.tile):
        raise SegkitError(f"{path}: its levels would be stretched, since the largest is neither 255 nor 65535; store masks as PNG")
    if image.format == "PNG":
        try:
            check_sums(data)
        except Exception as error:
            raise damaged(path, error) from None
    return image


def _remedy(mode: str) -> str:
    colors = "not colours: give the colours in classes.txt and say --data.masks colors"
    return colors if mode in ("RGB", "RGBA", "CMYK") else "8 bits of grey or a palette"
