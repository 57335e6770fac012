"""Where a training crop lies in its image. Shape legend: `H W` rows and columns of the image, `K` classes."""

import math
from typing import Any, NamedTuple

import cv2
import numpy as np

from segkit.config import DataConfig
from segkit.data.classes import Counts

Array = np.ndarray[Any, Any]
_TRIES = 32  # places that are tried before a window is turned less


class Window(NamedTuple):
    """A square of the image, turned about its centre.

    Attributes:
        top: First row; below 0 where the window begins outside the image.
        left: First column.
        side: Rows and columns.
        degrees: Angle, counter-clockwise as seen in the crop.
    """

    top: int
    left: int
    side: int
    degrees: float = 0.0


class RarePixels:
    """Draws pixels of rare classes out of masks.

    Args:
        class_pixels: Pixels of every class in the training split, int64 [K].
    """

    def __init__(self, class_pixels: Counts) -> None:
        self.weights = np.divide(1.0, class_pixels, out=np.zeros(len(class_pixels)), where=class_pixels > 0)

    def draw(self, mask: Array, numbers: np.random.Generator) -> tuple[int, int] | None:
        """Row and column of a pixel of the mask (uint8 [H, W]), or None where it shows no class.

        The class is one of those in the mask, with a probability in proportion to 1 / its pixels in the training split; the pixel is any
        of that class.
        """
        present = cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel()[: len(self.weights)] > 0  # [256, 1] in OpenCV 4
        weights = self.weights * present
        if not weights.any():
            return None
        label = int(numbers.choice(len(weights), p=weights / weights.sum()))
        hits = cv2.compare(mask, label, cv2.CMP_EQ)
        ends = np.cumsum(cv2.reduce(hits, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)) // 255  # pixels in this row and those above
        number = int(numbers.integers(ends[-1]))
        row = int(np.searchsorted(ends, number, side="right"))
        before = int(ends[row - 1]) if row else 0
        return row, int(np.flatnonzero(hits[row])[number - before])


def draw_window(mask: Array, config: DataConfig, rare: RarePixels | None, numbers: np.random.Generator) -> Window:
    """The window of one crop.

    Its side is crop / z, the zoom z log-uniform in `config.scale`. It lies anywhere in the image; where it is larger than the image, the
    image lies anywhere in it. With probability `config.rare_crops` it lies, by the same rule, anywhere where it contains the pixel that
    `rare` draws; turned, it is tried in 32 places for each angle, and the angle is halved while none of them will do, as in the corner of
    an image as small as the window. (nnU-Net, Isensee et al., Nature Methods 2021, lays a third of each batch around a pixel of a class
    that is drawn evenly; rarity as the weight and an even place, not the centre, keep crops as various as they are without.)

    Args:
        mask: uint8 [H, W].
        config: The augmentation options.
        rare: The source of rare pixels, where `config.rare_crops` is not 0.
        numbers: Everything random; an option that is 0 draws nothing.
    """
    low, high = config.scale
    zoom = math.exp(numbers.uniform(math.log(low), math.log(high)))
    side = max(1, round(config.crop / zoom))
    ranges = [(min(0, n - side), max(0, n - side)) for n in mask.shape]
    pixel = rare.draw(mask, numbers) if rare and numbers.random() < config.rare_crops else None
    if pixel is not None:
        return _around(pixel, side, ranges, numbers.uniform(-config.rotate, config.rotate) if config.rotate else 0.0, numbers)
    top, left = (int(numbers.integers(least, most + 1)) for least, most in ranges)
    return Window(top, left, side, numbers.uniform(-config.rotate, config.rotate) if config.rotate else 0.0)


def _around(pixel: tuple[int, int], side: int, ranges: list[tuple[int, int]], degrees: float, numbers: np.random.Generator) -> Window:
    """An even choice among the windows that have the pixel, turned by `degrees` or, where there is none, by less."""
    half = (side - 1) / 2
    y, x = pixel
    while True:
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        reach = half * (abs(cos) + abs(sin))  # of the turned window, from its centre
        bounds = [
            (max(least, math.ceil(p - half - reach)), min(most, math.floor(p - half + reach)))
            for p, (least, most) in zip(pixel, ranges, strict=True)
        ]
        if all(least <= most for least, most in bounds):
            tops, lefts = (numbers.integers(least, most, _TRIES, endpoint=True) for least, most in bounds)
            down, right = y - (tops + half), x - (lefts + half)  # from the centre, along the image; next along the window
            inside = (np.abs(cos * right + sin * down) <= half) & (np.abs(cos * down - sin * right) <= half)
            if inside.any():
                first = int(np.argmax(inside))
                return Window(int(tops[first]), int(lefts[first]), side, degrees)
        degrees = degrees / 2 if abs(degrees) * side > 1 else 0.0
