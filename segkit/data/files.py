"""Image and mask files to arrays. Shape legend: `H W` rows and columns, `C` channels.

Pillow decodes all that has 8 bits: at most a fifth slower than OpenCV and bit-identical to it, it tells palette, grey and 16-bit files
apart, and a damaged file is an exception. OpenCV takes over for PNG with colours of 16 bits, tifffile for TIFF of 16 bits or many bands;
they are imported only then. The header is read first, so that a small file cannot claim a huge picture.
"""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from segkit.data import tiff
from segkit.errors import SegkitError

Array = np.ndarray[Any, np.dtype[np.uint8]]
Pixels = np.ndarray[Any, np.dtype[np.uint8 | np.uint16]]
MAX_PIXELS = 2**26  # 67 megapixels: above any camera in common use, below the size at which Pillow warns
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
LOSSLESS_FORMATS = ("PNG", "BMP", "TIFF", "GIF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")
BANDS = {"1": 1, "L": 1, "I;16": 1, "LA": 2, "RGB": 3, "P": 3, "YCbCr": 3, "RGBA": 4, "CMYK": 4}  # of Pillow's modes; a palette has colours
_ORIENTATION, _BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA, _TYPE = 274, 258, 262, 277, 338, 339  # tags of EXIF and TIFF
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
    try:
        with Path(path).open("rb") as file:
            return _look(path, file)[0]
    except OSError as error:
        raise _damaged(path, error) from None


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
        uint8 or uint16 [H, W, C].

    Raises:
        SegkitError: The file cannot be read, or is too large, or has other channels or more bits.
    """
    assert bits in (8, 16)
    data = _read(path) if data is None else data
    header, picture = _look(path, io.BytesIO(data))
    _refuse_others(path, header, channels, bits)
    try:
        if header.format == "PNG":
            _check_sums(data)
        if isinstance(picture, tiff.Stack):
            pixels = _converted(_turned(picture.read(), header.orientation), picture.model, channels)
        elif header.bits == 16:
            pixels = _converted(_deep(picture, header, data), header.mode, channels)
        else:
            ImageOps.exif_transpose(picture, in_place=True)
            mode = {1: "L", 2: "LA", 3: "RGB"}.get(channels, picture.mode)
            pixels = np.array(picture if picture.mode == mode else picture.convert(mode))
    except SegkitError:
        raise
    except Exception as error:  # what a decoder raises for damaged bytes has no common type
        raise _damaged(path, error) from None
    pixels = pixels.reshape(*pixels.shape[:2], channels)
    return pixels * np.uint16(257) if pixels.dtype == np.uint8 and bits == 16 else pixels


def _look(path: str | Path, file: BinaryIO) -> tuple[Header, ImageFile.ImageFile | tiff.Stack]:
    """The header, and what decodes the rest."""
    start = file.read(4)
    file.seek(0)
    try:
        image = _open(path, file)
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
            bits = 16 if _has_16_bits(image) else 8
            mode = "LA" if "LA;16" in str(image.tile) else "I;16" if image.mode == "I" else image.mode
            return Header(size, image.format or "", mode, orientation, BANDS.get(mode, 0), bits), image
        plain = _is_plain(image)
    except Exception as error:
        raise _damaged(path, error) from None
    if not plain or _has_pages(image):
        header, stack = _look_deeper(path, file)
        if not plain or len(stack.pages) > 1 or not stack.first:
            return header, stack
        image = _open(path, file)  # anew, at its first page: the rest is overviews
    orientation = _known(image.tag_v2.get(_ORIENTATION))  # type: ignore[attr-defined]
    return Header((image.height, image.width), "TIFF", image.mode, orientation, BANDS[image.mode], 8), image  # Pillow turns a TIFF itself


def _look_deeper(path: str | Path, file: BinaryIO) -> tuple[Header, tiff.Stack]:
    file.seek(0)
    try:
        stack = tiff.open_stack(file)
        size = stack.stored
        orientation, bits = _known(stack.orientation), int(re.sub(r"\D", "", stack.type))
    except Exception as error:
        raise _damaged(path, error) from None
    _hold_size(path, *size)
    model = stack.model if stack.type in ("uint8", "uint16") else None
    mode = "I;16" if (model, bits) == ("L", 16) else model or stack.type
    header = Header(size[::-1] if orientation >= 5 else size, "TIFF", mode, orientation, stack.bands, max(bits, 8))
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


def _has_16_bits(image: ImageFile.ImageFile) -> bool:
    most = max((tile.args[1] for tile in image.tile if tile.codec_name == "ppm" and isinstance(tile.args, tuple)), default=0)
    return most > 255 or image.mode[0] == "I" or ";16" in str(image.tile)


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


def read_values(path: str | Path, data: bytes | None = None) -> Any:
    """Read the raw values of a mask: palette indices, grey levels, or, where a pixel has one bit, False and True.

    Args:
        path: A lossless file (PNG, TIFF, BMP, GIF, PGM) with one channel: Pillow's modes L, P, I;16 and 1. Turned by its EXIF tag.
        data: What the file holds, where it is no file of its own; `path` is then only what errors call it.

    Returns:
        uint8, uint16 or bool [H, W].

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
    inverted = image.format == "TIFF" and image.mode == "L" and image.tag_v2.get(_PHOTOMETRIC) == 0  # type: ignore[attr-defined]
    try:
        ImageOps.exif_transpose(image, in_place=True)
        values = np.array(image)
    except Exception as error:
        raise _damaged(path, error) from None
    if inverted:  # Pillow shows what the file calls white as 255; the label is what it stores
        values = 255 - values
    for grey, step in (("L;2", 85), ("L;4", 17)):  # Pillow stretches 2 and 4 bits of grey over 0..255
        if grey in stored:
            values //= step
    return values.astype(np.uint16, copy=False) if deep else values


def read_colors(path: str | Path) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """Read a mask of colours, uint32 [H, W]: 65536 red + 256 green + blue. A palette is applied; transparency is for no pixel.

    Args:
        path: A lossless file (PNG, TIFF, BMP, GIF, PPM) of colours, a palette or grey, 8 bits a channel.

    Raises:
        SegkitError: The file cannot be read, or holds lossy pixels, several frames, transparent pixels, or no colours of 8 bits.
    """
    image = _open_mask(path)
    if image.mode not in ("RGB", "RGBA", "P", "L", "LA", "1") or _has_16_bits(image):
        bits = " of 16 bits" if _has_16_bits(image) else ""
        raise SegkitError(f"{path}: mode {image.mode}{bits} is no picture of colours; a mask of colours is RGB, 8 bits a channel")
    try:
        ImageOps.exif_transpose(image, in_place=True)
        pixels = np.asarray(image.convert("RGBA"))
    except Exception as error:
        raise _damaged(path, error) from None
    if image.has_transparency_data and (clear := int((pixels[..., 3] < 255).sum())):
        raise SegkitError(
            f"{path}: {clear} pixels are transparent, so that no colour says their class; fill them with a colour of their own"
        )
    return np.asarray(pixels.view(">u4")[..., 0] >> 8, np.uint32)


def _open_mask(path: str | Path, data: bytes | None = None) -> ImageFile.ImageFile:
    data = _read(path) if data is None else data
    image = _open(path, io.BytesIO(data))
    if image.format not in LOSSLESS_FORMATS or "jpeg" in str(image.info.get("compression")):
        raise SegkitError(f"{path}: {image.format} compression changes labels; store masks as PNG")
    if getattr(image, "n_frames", 1) > 1:
        raise SegkitError(f"{path}: {getattr(image, 'n_frames', 0)} frames; a mask has one")
    if any(tile.codec_name == "ppm" for tile in image.tile):
        raise SegkitError(f"{path}: its levels would be stretched, since the largest is neither 255 nor 65535; store masks as PNG")
    if image.format == "PNG":
        try:
            _check_sums(data)
        except Exception as error:
            raise _damaged(path, error) from None
    return image


def _remedy(mode: str) -> str:
    colors = "not colours: give the colours in classes.txt and say --data.masks colors"
    return colors if mode in ("RGB", "RGBA", "CMYK") else "8 bits of grey or a palette"


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _damaged(path, error) from None


def _check_sums(png: bytes) -> None:
    """Decoding skips the checksums, and a flipped bit becomes a wrong label."""
    Image.open(io.BytesIO(png), formats=["PNG"]).verify()


def _open(path: str | Path, source: BinaryIO) -> ImageFile.ImageFile:
    try:
        image = Image.open(source, formats=IMAGE_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SegkitError(f"{path}: {error}; images may have {MAX_PIXELS // 10**6} megapixels: cut it into tiles") from None
    except Exception as error:  # what a decoder raises for damaged bytes has no common type
        raise _damaged(path, error) from None
    _hold_size(path, image.height, image.width)
    return image


def _hold_size(path: str | Path, height: int, width: int) -> None:
    if width * height > MAX_PIXELS:
        raise SegkitError(f"{path}: {width} x {height} pixels, but images may have {MAX_PIXELS // 10**6} megapixels: cut it into tiles")


def _damaged(path: str | Path, error: Exception) -> SegkitError:
    known: dict[type[Exception], str] = {UnidentifiedImageError: "not an image", FileNotFoundError: "no such file"}
    reason = known.get(type(error)) or str(error).strip().partition("\n")[0] or type(error).__name__
    library = re.search("tifffile$|'(imagecodecs)'", reason)  # what is missing is not in the file
    remedy = f"pip install {library[1] or library[0]}" if library else "replace or remove the file"
    return SegkitError(f"cannot read {path}: {reason}; {remedy}")
