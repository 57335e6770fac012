"""Open a picture file: of a format we know, of a bearable size, with checksums that hold; what is wrong with it in one line."""

import io
import logging
import os
import re
import stat
import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError

from segkit.errors import SegkitError

MAX_PIXELS = 2**26  # 67 megapixels: above any camera in common use, below the size at which Pillow warns
_RULE = f"images may have {MAX_PIXELS // 10**6} megapixels: cut it into tiles; predict.py takes larger ones as TIFF and .npy"
MAX_BYTES = 2**32  # of a file: 67 megapixels of 32 bands of 16 bits, unpacked
MAX_SCANS = 100  # of a progressive JPEG, which is decoded as often; cameras and tools write about ten
_SCAN = re.compile(
    rb"\xff\xda\x00[\x08\x0a\x0c\x0e][\x01-\x04]"
)  # with its length and 1 to 4 components: no chance hit in a video behind it
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # each oddity of a file as a line, before the one line that counts
warnings.filterwarnings("ignore", module=r"PIL\.")
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")


def hold_file(path: str | Path) -> None:
    """Raise a SegkitError where reading would fail or never end: pipes and devices, to which links in a folder of images may lead."""
    _size(path)


def _size(path: str | Path) -> int:
    try:
        status = os.stat(path)
    except OSError as error:
        raise damaged(path, error) from None
    if not stat.S_ISREG(status.st_mode):
        raise damaged(path, ValueError("a folder, pipe or device, no file"))
    return status.st_size


def read_bytes(path: str | Path) -> bytes:
    """All of a file; a SegkitError where it cannot be read."""
    if (size := _size(path)) > MAX_BYTES:
        raise damaged(path, ValueError(f"{size / 2**30:.1f} GiB; images may have {MAX_BYTES // 2**30}"))
    try:
        with open(path, "rb", buffering=0) as file:  # all at once, into memory of the right size
            return file.readall()
    except OSError as error:
        raise damaged(path, error) from None


def check_scans(jpeg: bytes) -> None:
    """A small file may have thousands of scans, each of which takes as long as a whole picture.

    Raises:
        ValueError: There are more than any tool writes.
    """
    if (scans := len(_SCAN.findall(jpeg))) > MAX_SCANS:
        raise ValueError(f"{scans} scans; a JPEG may have {MAX_SCANS}")


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
