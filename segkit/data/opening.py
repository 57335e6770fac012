"""Open a picture file: of a format we know, of a bearable size, with checksums that hold; what is wrong with it in one line."""

import io
import re
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError

from segkit.errors import SegkitError

MAX_PIXELS = 2**26  # 67 megapixels: above any camera in common use, below the size at which Pillow warns
_RULE = f"images may have {MAX_PIXELS // 10**6} megapixels: cut it into tiles; predict.py takes larger ones as TIFF and .npy"
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")


def read_bytes(path: str | Path) -> bytes:
    """All of a file; a SegkitError where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise damaged(path, error) from None


def check_sums(png: bytes) -> None:
    """Decoding skips the checksums, and a flipped bit becomes a wrong label."""
    Image.open(io.BytesIO(png), formats=["PNG"]).verify()


def open_checked(path: str | Path, source: BinaryIO) -> ImageFile.ImageFile:
    """A picture of a known format and a bearable size, whose pixels are not decoded yet."""
    try:
        image = Image.open(source, formats=IMAGE_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SegkitError(f"{path}: {error}; {_RULE}") from None
    except Exception as error:  # what a decoder raises for damaged bytes has no common type
        raise damaged(path, error) from None
    hold_size(path, image.height, image.width)
    return image


def hold_size(path: str | Path, height: int, width: int) -> None:
    """Refuse a picture of more than `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise SegkitError(f"{path}: {width} x {height} pixels, but {_RULE}")


def damaged(path: str | Path, error: Exception) -> SegkitError:
    """The error for a file that cannot be read."""
    known: dict[type[Exception], str] = {UnidentifiedImageError: "not an image", FileNotFoundError: "no such file"}
    reason = known.get(type(error)) or str(error).strip().partition("\n")[0] or type(error).__name__
    library = re.search("tifffile$|'(imagecodecs)'", reason)  # what is missing is not in the file
    remedy = f"pip install {library[1] or library[0]}" if library else "replace or remove the file"
    return SegkitError(f"cannot read {path}: {reason}; {remedy}")


def has_16_bits(image: ImageFile.ImageFile) -> bool:
    """Whether a file has more than 8 bits a channel, by what Pillow says of it."""
    most = max((tile.args[1] for tile in image.tile if tile.codec_name == "ppm" and isinstance(tile.args, tuple)), default=0)
    return most > 255 or image.mode[0] == "I" or ";16" in str(image.tile)
