"""Augmentation: from an image and its mask of any size to a square crop of both, on uint8 all the way.

The window is cut here, in one resampling; flips, colours, blur and noise are albumentations'. Shape legend: `H W` rows and columns of
the image, `C` channels, `crop` the side of the result.
"""

import math
import os
import random
import warnings
from typing import Any

import cv2
import numpy as np

from segkit.config import IGNORE_INDEX, DataConfig

Array = np.ndarray[Any, np.dtype[np.uint8]]
BLUR_SIGMA = (0.3, 1.5)  # pixels
NOISE_DEVIATION = (0.01, 0.05)  # share of white


class TrainTransform:
    """Random zoom, rotation, crop, flips, colours, blur and noise; an option that is 0 leaves its part out.

    The zoom z is log-uniform in `config.scale`, so that enlarging by a factor is as likely as shrinking by it. The window of crop / z
    pixels lies anywhere in the image; where it is larger than the image, the image lies anywhere in the window, and around it the picture
    is black and the mask 255. Images are resampled linearly (by area where they shrink below one half and are not turned), masks by the
    nearest pixel. Everything follows from the seed of the call.

    Args:
        config: The augmentation options.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self._after = _albumentations(config)

    def __call__(self, image: Array, mask: Array, seed: int) -> tuple[Array, Array]:
        """Augment one pair.

        Args:
            image: uint8 [H, W, C].
            mask: uint8 [H, W].
            seed: Decides everything random, in 0..2^64-1.

        Returns:
            uint8 [crop, crop, C] and uint8 [crop, crop].
        """
        numbers = np.random.default_rng(seed)
        image, mask = _window(image, mask, self.config, numbers)
        # Not set_random_seed: that gives every transform the same stream, and two flips of one probability happen together or not at all.
        self._after.set_random_state(numbers, random.Random(int(numbers.integers(2**63))))
        result = self._after(image=image, mask=mask)
        return result["image"], result["mask"]


def _window(image: Array, mask: Array, config: DataConfig, numbers: np.random.Generator) -> tuple[Array, Array]:
    """Cut a random square window and bring it to the size of the crop, in one resampling."""
    crop, (low, high) = config.crop, config.scale
    zoom = math.exp(numbers.uniform(math.log(low), math.log(high)))
    side = max(1, round(crop / zoom))
    # the image's place in the window where the window is larger
    top, left = (int(numbers.integers(min(0, n - side), max(0, n - side) + 1)) for n in mask.shape)
    if config.rotate:
        return _turned(image, mask, crop, (top, left, side), numbers.uniform(-config.rotate, config.rotate))
    height, width = mask.shape
    t, l, b, r = max(top, 0), max(left, 0), min(top + side, height), min(left + side, width)  # noqa: E741
    border = (t - top, top + side - b, l - left, left + side - r)
    image, mask = image[t:b, l:r], mask[t:b, l:r]
    if any(border):
        image = cv2.copyMakeBorder(image, *border, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        mask = cv2.copyMakeBorder(mask, *border, cv2.BORDER_CONSTANT, value=IGNORE_INDEX)
    if side != crop:
        # down to one half, linear resampling still sees every pixel, and is six times faster than averaging areas
        image = cv2.resize(image, (crop, crop), interpolation=cv2.INTER_AREA if side > 2 * crop else cv2.INTER_LINEAR)
        mask = cv2.resize(mask, (crop, crop), interpolation=cv2.INTER_NEAREST_EXACT)
    return image.reshape(crop, crop, -1), mask


def _turned(image: Array, mask: Array, crop: int, window: tuple[int, int, int], degrees: float) -> tuple[Array, Array]:
    """The window, turned about its centre; what comes from outside the image is black and ignored."""
    top, left, side = window
    step, angle, centre = side / crop, math.radians(degrees), (crop - 1) / 2
    a, b = step * math.cos(angle), step * math.sin(angle)
    x, y = left + (side - 1) / 2, top + (side - 1) / 2
    back = np.array([[a, -b, x - (a - b) * centre], [b, a, y - (a + b) * centre]])  # from the crop to the image
    flags = cv2.WARP_INVERSE_MAP
    turned = cv2.warpAffine(
        image, back, (crop, crop), flags=flags | cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0)
    )
    labels = cv2.warpAffine(
        mask, back, (crop, crop), flags=flags | cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=IGNORE_INDEX
    )
    return turned.reshape(crop, crop, -1), labels


def _albumentations(config: DataConfig) -> Any:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # the import would ask the network for a newer version
    import albumentations as A

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an argument that the library does not know only warns
        parts: list[Any] = []
        if config.hflip:
            parts.append(A.HorizontalFlip(p=config.hflip))
        if config.vflip:
            parts.append(A.VerticalFlip(p=config.vflip))
        if config.rotate90:
            parts.append(A.RandomRotate90(p=config.rotate90))
        if config.jitter and any((config.brightness, config.contrast, config.saturation, config.hue)):
            strengths = {name: getattr(config, name) for name in ("brightness", "contrast", "saturation", "hue")}
            parts.append(A.ColorJitter(**strengths, p=config.jitter))
        if config.blur:
            parts.append(A.GaussianBlur(blur_limit=0, sigma_limit=BLUR_SIGMA, p=config.blur))
        if config.noise:
            parts.append(A.GaussNoise(std_range=NOISE_DEVIATION, p=config.noise))
        return A.Compose(parts)
