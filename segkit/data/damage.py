"""Why a file cannot be used, as one of the kinds of `segkit.data.findings`. It is asked only about files that reading refused."""

import io
from pathlib import Path

from PIL import Image

from segkit.data import tiff
from segkit.data.files import read_header
from segkit.data.masks import LOSSLESS_FORMATS
from segkit.data.opening import IMAGE_FORMATS, MAX_PIXELS, read_bytes
from segkit.errors import SegkitError

BOMB = 100  # pixels per byte: the plainest real pictures, white pages as PNG, have about as many
PILLOWS_LIMIT = 2**30 // 12  # pixels from which Pillow does not open a file, or warns, and tells no size
_ENDS = {b"\x89PN": b"IEND", b"\xff\xd8\xff": b"\xff\xd9"}  # how PNG and JPEG files begin and end


def damage(path: str | Path, mask: bool, error: SegkitError) -> str:
    """The kind of what is wrong with a file.

    Args:
        path: A file that `read_image` or `Labels.read` refused.
        mask: It should be a mask.
        error: What they said.
    """
    if not Path(path).is_file():
        return "unreadable" if Path(path).exists() else "missing"
    try:
        data = read_bytes(path)
    except SegkitError:
        return "too_large" if "GiB" in str(error) else "missing"
    if not data:
        return "empty"
    if pixels := _claimed(path, data):
        return "bomb" if pixels > BOMB * len(data) else "too_large"
    if "sha256" in str(error):
        return "other_content"
    if str(error).startswith("cannot read"):
        return _broken(data, str(error))
    return _mask(data) if mask else _image(str(error))


def _claimed(path: str | Path, data: bytes) -> int:
    """How many pixels the file claims to have, if too many, else 0."""
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            pixels = image.width * image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        pixels = PILLOWS_LIMIT
    except Exception:  # what a decoder raises for damaged bytes has no common type
        pixels = 0
        if data[:4] in tiff.STARTS:
            try:
                read_header(path)
            except SegkitError as error:
                pixels = PILLOWS_LIMIT if "megapixels" in str(error) else 0
    return pixels if pixels > MAX_PIXELS else 0


def _broken(data: bytes, said: str) -> str:
    end = _ENDS.get(data[:3])
    if (end is not None and end not in data[-64:]) or "truncated" in said.lower():
        return "truncated"
    return "unreadable" if "not an image" in said else "damaged"


def _mask(data: bytes) -> str:
    with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
        if image.format not in LOSSLESS_FORMATS or "jpeg" in str(image.info.get("compression")):
            return "lossy_mask"
        if getattr(image, "n_frames", 1) > 1:
            return "frames"
        return "color_mask" if len(image.getbands()) > 1 else "refused"


def _image(said: str) -> str:
    """Errors name the option that is their remedy."""
    return "deep_image" if "--data.bits" in said else "channels" if "--in_channels" in said else "refused"
