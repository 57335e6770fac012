"""Image files to arrays. Shape legend: `H W` rows and columns, `C` channels.

Pillow decodes all that has 8 bits: a loader would be a tenth faster by OpenCV, whose pixels are the same, but that takes JPEGs with a
broken end, which Pillow refuses, and writes about others to the terminal. Pillow tells palette, grey and 16-bit files apart. OpenCV takes
over for PNG with colours of 16 bits, tifffile for TIFF of 16 bits or many bands; they are imported only then. The header is read first,
so that a small file cannot claim a huge picture.
"""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ImageFile, ImageOps

from segkit.data import tiff
from segkit.data.opening import check_scans, check_sums, damaged, has_16_bits, hold_file, hold_size, open_checked, read_bytes
from segkit.errors import SegkitError

Array = np.ndarray[Any, np.dtype[np.uint8]]
Pixels = np.ndarray[Any, np.dtype[np.uint8 | np.uint16]]
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")
BANDS = {"1": 1, "L": 1, "I;16": 1, "LA": 2, "RGB": 3, "P": 3, "YCbCr": 3, "RGBA": 4, "CMYK": 4}  # of Pillow's modes; a palette has colours
_ORIENTATION, _BITS, _SAMPLES, _EXTRA, _TYPE = 274, 258, 277, 338, 339  # tags of EXIF and TIFF
_ALPHA = (1, 2)  # what _EXTRA says of an alpha channel
_UNSIGNED = 1  # what _TYPE says of whole numbers without a sign


@dataclass(frozen=True)
class Header:
    """What a file says about its picture before it is decoded.

    Args:
        size: Rows and columns as `read_image` returns them.
        format: JPEG, PNG, ...
        mode: Pillow's name of the pixel format, such as RGB, L, P, I;16; numpy's name of the values, such as uint16 or float32, where the
            bands are no colours, or the values not whole numbers of 8 or 16 bits.
        orientation: The EXIF tag, 1 to 8; 1 is upright.
        bands: Channels in the file; a palette counts as its colours, 3.
        bits: Bits per channel, 8 for fewer.
    """

    size: tuple[int, int]
    format: str
    mode: str
    orientation: int
    bands: int = 3
    bits: int = 8


def read_header(path: str | Path) -> Header:
    """What a file says about its picture, without decoding it."""
    hold_file(path)
    try:
        with Path(path).open("rb") as file:
            return _look(path, file)[0]
    except OSError as error:
        raise damaged(path, error) from None


def read_image(path: str | Path, channels: int = 3, bits: int = 8, data: bytes | None = None) -> Pixels:
    """Read an image as it is meant to be looked at: turned by its EXIF tag, palette applied.

    Args:
        path: A JPEG, PNG, TIFF, BMP, WebP, GIF or PPM file, 8 or 16 bits per channel; of a multi-picture JPEG or an animation the first.
            The bands of a TIFF may lie in one page or in several; overviews are passed over.
        channels: 3 for RGB, 1 for grey: grey, palette, RGB and CMYK files are converted, transparency is dropped. Any other number, and
            bands that are no colours, must be what the file has.
        bits: 8 or 16. Files of 8 bits are scaled up to 16, by 257; files of 16 bits are refused where 8 are wanted.
        data: What the file holds, where it is no file of its own; `path` is then only what errors call it.

    Returns:
        uint8 or uint16 [H, W, C]; it may be read only.

    Raises:
        SegkitError: The file cannot be read, or is too large, or has other channels or more bits.
    """
    assert bits in (8, 16)
    data = read_bytes(path) if data is None else data
    header, picture = _look(path, io.BytesIO(data))
    _refuse_others(path, header, channels, bits)
    try:
        if header.format == "PNG":
            check_sums(data)
        elif header.format in ("JPEG", "MPO"):
            check_scans(data)
        if isinstance(picture, tiff.Stack):
            pixels = _converted(_turned(picture.read(), header.orientation), picture.model, channels)
        elif header.bits == 16:
            pixels = _converted(_deep(picture, header, data), header.mode, channels)
        else:
            ImageOps.exif_transpose(picture, in_place=True)
            mode = {1: "L", 2: "LA", 3: "RGB"}.get(channels, picture.mode)
            pixels = np.asarray(picture if picture.mode == mode else picture.convert(mode))
    except SegkitError:
        raise
    except Exception as error:  # what a decoder raises for damaged bytes has no common type
        raise damaged(path, error) from None
    pixels = pixels.reshape(*pixels.shape[:2], channels)
    return pixels * np.uint16(257) if pixels.dtype == np.uint8 and bits == 16 else pixels


def _look(path: str | Path, file: BinaryIO) -> tuple[Header, ImageFile.ImageFile | tiff.Stack]:
    """The header, and what decodes the rest."""
    start = file.read(4)
    file.seek(0)
    try:
        image = open_checked(path, file)
    except SegkitError:
        if start not in tiff.STARTS:
            raise
        return _look_deeper(path, file)
    try:
        if image.format != "TIFF":
            # Pillow would decode all of a PNG in search of EXIF behind the pixels
            asked = image.format != "PNG" or "exif" in image.info
            orientation = _known(image.getexif().get(_ORIENTATION)) if asked else 1
            size = (image.width, image.height) if orientation >= 5 else (image.height, image.width)
            bits = 16 if has_16_bits(image) else 8
            mode = "LA" if "LA;16" in str(image.tile) else "I;16" if image.mode == "I" else image.mode
            return Header(size, image.format or "", mode, orientation, BANDS.get(mode, 0), bits), image
        plain = _is_plain(image)
    except Exception as error:
        raise damaged(path, error) from None
    if not plain or _has_pages(image):
        header, stack = _look_deeper(path, file)
        if not plain or len(stack.pages) > 1 or not stack.first:
            return header, stack
        image = open_checked(path, file)  # anew, at its first page: the rest is overviews
    orientation = _known(image.tag_v2.get(_ORIENTATION))  # type: ignore[attr-defined]
    return Header((image.height, image.width), "TIFF", image.mode, orientation, BANDS[image.mode], 8), image  # Pillow turns a TIFF itself


def _look_deeper(path: str | Path, file: BinaryIO) -> tuple[Header, tiff.Stack]:
    file.seek(0)
    try:
        stack = tiff.open_stack(file)
        size, bands = stack.stored, stack.bands
        orientation, bits = _known(stack.orientation), int(re.sub(r"\D", "", stack.type))
        model = stack.model if stack.type in ("uint8", "uint16") else None
    except Exception as error:  # any tag may hold anything
        raise damaged(path, error) from None
    hold_size(path, *size)
    mode = "I;16" if (model, bits) == ("L", 16) else model or stack.type
    header = Header(size[::-1] if orientation >= 5 else size, "TIFF", mode, orientation, bands, max(bits, 8))
    return header, stack


def _known(orientation: Any) -> int:
    return int(orientation) if orientation in range(1, 9) else 1


def _is_plain(image: Any) -> bool:
    """Whether Pillow reads this page of a TIFF as it is: it drops bands that it has no mode for, and half of 16 bits."""
    tags = image.tag_v2
    extra, types = tags.get(_EXTRA, ()), tags.get(_TYPE, (_UNSIGNED,))
    colors = {**BANDS, "P": 1}.get(image.mode) == tags.get(_SAMPLES, 1) and set(extra) <= set(_ALPHA)
    return colors and max(tags.get(_BITS, (1,))) <= 8 and set(types) == {_UNSIGNED}


def _has_pages(image: Any) -> bool:
    try:
        return bool(image.n_frames > 1)
    except Exception:  # a page that Pillow has no mode for
        return True


def _refuse_others(path: str | Path, header: Header, channels: int, bits: int) -> None:
    if header.mode not in (*BANDS, "uint8", "uint16"):
        raise SegkitError(
            f"{path}: {header.mode} values; images are whole numbers of 8 or 16 bits without a sign: convert it, with a scaling you choose"
        )
    if header.bits > bits:
        raise SegkitError(f"{path}: {header.bits} bits per channel; read them with --data.bits 16, or convert the images to 8 bits")
    if (header.format, header.bits, header.bands) == ("PPM", 16, 3):
        raise SegkitError(f"{path}: PPM with colours of 16 bits, of which Pillow would keep 8; store it as PNG or TIFF")
    if channels != header.bands and not (channels in (1, 3) and header.mode in BANDS):
        bands = f"{header.bands} band{'s' * (header.bands != 1)} ({header.mode})"
        raise SegkitError(f"{path}: {bands}, but --in_channels {channels}; give --in_channels {header.bands}, or convert the images")


def _deep(image: ImageFile.ImageFile, header: Header, data: bytes) -> Pixels:
    """PNG and PGM of 16 bits, [H, W, C], turned by their EXIF tag."""
    if header.bands == 1:
        ImageOps.exif_transpose(image, in_place=True)
        return np.array(image).astype(np.uint16)[..., None]
    import cv2  # Pillow keeps the upper 8 bits of colours

    image.load()  # and says what OpenCV does not say: that bytes are missing
    pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    order = {"LA": [0, 3], "RGB": [2, 1, 0], "RGBA": [2, 1, 0, 3]}[header.mode]  # OpenCV has blue first
    return _turned(np.asarray(pixels[..., order], np.uint16), header.orientation)


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """[H, W, C] as its EXIF tag wants it to be seen."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    rows, columns = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}.get(orientation, (1, 1))
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _converted(pixels: Pixels, model: str | None, channels: int) -> Pixels:
    """[H, W, C] of a Pillow mode to grey or RGB, by Pillow's formulas; where there are as many channels already, as it is."""
    if pixels.shape[2] == channels:
        return pixels
    if model == "CMYK":
        white = np.iinfo(pixels.dtype).max
        light = white - pixels.astype(np.uint32)
        pixels = ((light[..., :3] * light[..., 3:] + white // 2) // white).astype(pixels.dtype)
    if model in ("L", "I;16", "LA"):
        return pixels[..., :1].repeat(channels, axis=2)
    if channels == 1:  # ITU-R 601
        red, green, blue = (pixels[..., band].astype(np.uint32) for band in range(3))
        return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(pixels.dtype)[..., None]
    return np.ascontiguousarray(pixels[..., :3])
