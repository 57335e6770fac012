"""Why a file cannot be used, as one of the kinds of `segkit.data.findings`. It is asked only about files that reading refused."""

from pathlib import Path

from PIL import Image

from segkit.data.files import IMAGE_FORMATS, LOSSLESS_FORMATS, MAX_PIXELS

BOMB = 100  # pixels per byte: the plainest real pictures, white pages as PNG, have about as many
_ENDS = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}


def damage(path: str | Path, mask: bool, deep: bool = False) -> str:
    """The kind of what is wrong with a file.

    Args:
        path: A file that `read_image` or `Labels.read` refused.
        mask: It should be a mask.
        deep: Images of 16 bits are read.
    """
    path = Path(path)
    try:
        data = path.stat().st_size
        if not data:
            return "empty"
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            form, mode, bands, pixels = image.format or "", image.mode, len(image.getbands()), image.width * image.height
            stored, info = str(image.tile), str(image.info.get("compression"))
            if pixels > MAX_PIXELS:
                return "bomb" if pixels > BOMB * data else "too_large"
            several = getattr(image, "n_frames", 1) > 1
        if form == "PNG":  # decoding skips the checksums
            with Image.open(path, formats=IMAGE_FORMATS) as image:
                image.verify()
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            image.load()
    except FileNotFoundError:
        return "missing"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # above twice and once Pillow's own limit, 2^30 / 12
        return "bomb" if BOMB * data < 2**30 // 12 else "too_large"
    except Image.UnidentifiedImageError:
        return "unreadable"
    except Exception as error:  # what a decoder raises for damaged bytes has no common type
        return "truncated" if _cut(path) or "truncated" in str(error).lower() else "damaged"
    if mask:
        if form not in LOSSLESS_FORMATS or "jpeg" in info:
            return "lossy_mask"
        return "frames" if several else "color_mask" if bands > 1 else "refused"
    if mode[0] in "IF" or ";16" in stored:
        return "deep_image" if not deep else "refused"
    return "frames" if several else "channels"


def _cut(path: Path) -> bool:
    """Whether the mark is missing with which files of this format end."""
    with Image.open(path, formats=IMAGE_FORMATS) as image:
        end = _ENDS.get(image.format or "")
    data = path.read_bytes()
    return end is not None and end not in data[-64:]
