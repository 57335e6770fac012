"""Small pictures of what findings are about, as data URIs. Shape legend: `H W` rows and columns."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from segkit.config import IGNORE_INDEX
from segkit.data.classes import Classes
from segkit.data.files import BANDS, read_header, read_image
from segkit.data.masks import read_values
from segkit.data.source import Array, Source
from segkit.errors import SegkitError
from segkit.panels import viewable

SIDE = 176  # pixels
UNLIKELY = 254  # a label for values above 255, that no data set has but with as many classes
IGNORED, UNKNOWN = (110, 110, 110), (255, 0, 255)


def pair(source: Source, index: int) -> list[str]:
    """Image and mask, each as a data URI; what cannot be shown is left out.

    The mask has the colours of the classes, grey where it is ignored, magenta where a label stands for no class. Of a pair that cannot be
    read, each file is shown that can be.
    """
    try:
        image, mask = source.read(index)
        return [_uri(viewable(image)), _uri(colored(mask, source.classes), Image.Resampling.NEAREST)]
    except SegkitError:
        files = source.paths(index)
        return [*file_picture(files[0]), *(_mask_picture(files[1], source.classes))] if files else []


def file_picture(file: str | Path) -> list[str]:
    """The picture in a file as a data URI; none where it cannot be read."""
    try:
        header = read_header(file)
        return [_uri(viewable(read_image(file, 3 if header.mode in BANDS else header.bands, 16 if header.bits > 8 else 8)))]
    except SegkitError:
        return []


def _mask_picture(file: str, classes: Classes) -> list[str]:
    """A mask without the configuration's mapping, or whatever it is instead of a mask."""
    try:
        values = read_values(file)
    except SegkitError:
        return file_picture(file)
    return [_uri(colored(np.where(values > IGNORE_INDEX, UNLIKELY, values).astype(np.uint8), classes), Image.Resampling.NEAREST)]


def colored(mask: Array, classes: Classes) -> Array:
    """A mask uint8 [H, W] in its classes' colours, uint8 [H, W, 3]."""
    palette = np.full((256, 3), UNKNOWN, np.uint8)
    palette[: len(classes)] = classes.colors
    palette[IGNORE_INDEX] = IGNORED
    return palette[mask]


def _uri(pixels: Array, method: Image.Resampling = Image.Resampling.BOX) -> str:
    picture, stream = Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((SIDE, SIDE), method)
    picture.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
