"""Small pictures of what findings are about, as data URIs. Shape legend: `H W` rows and columns."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from segkit.config import IGNORE_INDEX
from segkit.data.classes import Classes
from segkit.data.files import read_header
from segkit.data.source import Array, Source
from segkit.errors import SegkitError
from segkit.panels import viewable

SIDE = 176  # pixels
IGNORED, UNKNOWN = (110, 110, 110), (255, 0, 255)


def pair(source: Source, index: int) -> list[str]:
    """Image and mask, each as a data URI; what cannot be shown is left out.

    The mask has the colours of the classes, grey where it is ignored, magenta where a label stands for no class. Of a pair that cannot be
    read, its files are shown as they are.
    """
    try:
        image, mask = source.read(index)
    except SegkitError:
        return [uri for file in source.paths(index) or () for uri in file_picture(file)]
    return [_uri(Image.fromarray(viewable(image))), _uri(Image.fromarray(colored(mask, source.classes)), Image.Resampling.NEAREST)]


def file_picture(file: str | Path) -> list[str]:
    """The picture in a file as a data URI; none where it cannot be read."""
    try:
        read_header(file)  # which refuses what claims to be huge
        with Image.open(file) as image:
            return [_uri(image.convert("RGB"))]
    except Exception:  # a decoder may raise anything on a damaged file
        return []


def colored(mask: Array, classes: Classes) -> Array:
    """A mask uint8 [H, W] in its classes' colours, uint8 [H, W, 3]."""
    palette = np.full((256, 3), UNKNOWN, np.uint8)
    palette[: len(classes)] = classes.colors
    palette[IGNORE_INDEX] = IGNORED
    return palette[mask]


def _uri(image: Image.Image, method: Image.Resampling = Image.Resampling.BOX) -> str:
    image.thumbnail((SIDE, SIDE), method)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
