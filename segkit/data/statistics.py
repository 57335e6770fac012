"""Mean and standard deviation of every channel of a set of images, from exact sums. Shape legend: `H W` rows and columns, `C` channels."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from segkit.data.source import Source
from segkit.data.threads import each
from segkit.errors import SegkitError

_PIXELS = 2**18  # summed at a time: a square of 16 bits has 32, so that all sums stay below 2^53 and exact in float64


@dataclass(frozen=True)
class ChannelSums:
    """Sums over pixels; Python's integers, which neither round nor overflow, so that neither order nor number of processes matters.

    Args:
        pixels: Number of pixels.
        sums: Per channel, of the values.
        squares: Per channel, of their squares.
    """

    pixels: int
    sums: tuple[int, ...]
    squares: tuple[int, ...]

    def __add__(self, other: "ChannelSums") -> "ChannelSums":
        pairs = ((self.sums, other.sums), (self.squares, other.squares))
        sums, squares = (tuple(a + b for a, b in zip(*pair, strict=True)) for pair in pairs)
        return ChannelSums(self.pixels + other.pixels, sums, squares)

    def moments(self, white: int) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel, in shares of `white`, 255 or 65535; for a deviation of 0 it is 1."""
        n = self.pixels
        mean = [s / (n * white) for s in self.sums]
        # n Σx² - (Σx)² is a whole number: no digits cancel
        variance = [(n * q - s * s) / (n * white) ** 2 for s, q in zip(self.sums, self.squares, strict=True)]
        return mean, [v**0.5 if v else 1.0 for v in variance]


def sum_channels(image: np.ndarray[Any, Any]) -> ChannelSums:
    """The sums of one image, uint8 or uint16 [H, W, C]."""
    flat, nothing = image.reshape(-1, image.shape[2]), (0,) * image.shape[2]
    total = ChannelSums(0, nothing, nothing)
    for start in range(0, len(flat), _PIXELS):
        part = flat[start : start + _PIXELS].astype(np.float64)
        sums, squares = np.ones(len(part)) @ part, np.einsum("nc,nc->c", part, part)
        total += ChannelSums(len(part), tuple(map(int, sums)), tuple(map(int, squares)))
    return total


def measure_channels(source: Source, white: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of all pixels of a split, in shares of `white`, by as many threads as there are processors.

    Raises:
        SegkitError: A file cannot be read, or there is no image.
    """
    if not len(source):
        raise SegkitError("--data.normalize dataset: there is no training image to take mean and deviation of")

    def look(index: int) -> ChannelSums:
        return sum_channels(source.read(index)[0])

    looks = each(look, len(source))
    total = next(looks)
    for one in looks:
        total += one
    return total.moments(white)
