"""Augmentation: from an image and its mask of any size to a square crop of both, in the image's own type until colours change.

The window is cut here, in one resampling; flips, colours, blur and noise are albumentations'. Shape legend: `H W` rows and columns of
the image, `C` channels, `K` classes, `crop` the side of the result.
"""

import math
import os
import random
import warnings
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from segkit.config import IGNORE_INDEX, DataConfig
from segkit.data.classes import Counts
from segkit.data.window import RarePixels, Window, draw_window

Array = np.ndarray[Any, Any]
BLUR_SIGMA = (0.3, 1.5)  # pixels
NOISE_DEVIATION = (0.01, 0.05)  # share of white


class TrainTransform:
    """Random zoom, rotation, crop, flips, colours, blur and noise; an option that is 0 leaves its part out.

    `window.draw_window` says where the crop lies; around the image the picture is black and the mask 255. Images are resampled linearly
    (by area where they shrink below one half and are not turned), masks by the nearest pixel. Saturation and hue are for three channels
    only; brightness and contrast change all channels by the same factors, contrast about the mean of each where there are not three.
    uint16 images go through the colours, blur and noise as float32, which holds them exactly. Everything follows from the seed of the
    call.

    Args:
        config: The augmentation options.
        class_pixels: Pixels of every class in the training split, int64 [K]; needed where `config.rare_crops` is not 0.
    """

    def __init__(self, config: DataConfig, class_pixels: Counts | None = None) -> None:
        assert class_pixels is not None or not config.rare_crops, "rare crops need to know which classes are rare"
        self.config = config
        self.rare = RarePixels(class_pixels) if config.rare_crops and class_pixels is not None else None
        self._moves, self._jitter, self._grain = _albumentations(config)

    def __call__(self, image: Array, mask: Array, seed: int) -> tuple[Array, Array]:
        """Augment one pair.

        Args:
            image: uint8 or uint16 [H, W, C].
            mask: uint8 [H, W].
            seed: Decides everything random, in 0..2^64-1.

        Returns:
            [crop, crop, C] of the image's type, and uint8 [crop, crop].
        """
        numbers = np.random.default_rng(seed)
        image, mask = _cut(image, mask, self.config.crop, draw_window(mask, self.config, self.rare, numbers))
        # Not set_random_seed: that gives every transform the same stream, and two flips of one probability happen together or not at all.
        shared = random.Random(int(numbers.integers(2**63)))
        shared.random()  # what a Compose around them would draw
        for part in (*self._moves, *self._jitter, *self._grain):
            part.set_random_state(numbers, shared)
        for part in self._moves:
            moved = part(image=image, mask=mask)
            image, mask = moved["image"], moved["mask"]
        if not (self._jitter or self._grain):
            return image, mask
        deep = image.dtype == np.uint16
        if deep:
            image = image * np.float32(1 / 65535)
        for part in self._jitter:
            if image.shape[2] in (1, 3):
                image = part(image=image)["image"]
            else:  # one draw for the bands, each of which is a grey picture
                image = part(images=image.transpose(2, 0, 1)[..., None])["images"][..., 0].transpose(1, 2, 0)
        for part in self._grain:
            image = part(image=image)["image"]
        return (np.rint(image * np.float32(65535)).clip(0, 65535).astype(np.uint16) if deep else image), mask


def _cut(image: Array, mask: Array, crop: int, window: Window) -> tuple[Array, Array]:
    """Cut a window and bring it to the size of the crop, in one resampling."""
    if window.degrees:
        return _turned(image, crop, window, 0), _turned(mask[..., None], crop, window, IGNORE_INDEX)[..., 0]
    (top, left, side, _), (height, width) = window, mask.shape
    t, l, b, r = max(top, 0), max(left, 0), min(top + side, height), min(left + side, width)  # noqa: E741
    image, mask = image[t:b, l:r], mask[t:b, l:r]
    if mask.shape != (side, side):
        place = slice(t - top, b - top), slice(l - left, r - left)
        inside = image, mask
        image, mask = np.zeros((side, side, image.shape[2]), image.dtype), np.full((side, side), IGNORE_INDEX, np.uint8)
        image[place], mask[place] = inside
    if side != crop:
        # down to one half, linear resampling still sees every pixel, and is six times faster than averaging areas
        flags = cv2.INTER_AREA if side > 2 * crop else cv2.INTER_LINEAR
        image = _in_parts(image, lambda part: cv2.resize(part, (crop, crop), interpolation=flags))
        mask = cv2.resize(mask, (crop, crop), interpolation=cv2.INTER_NEAREST_EXACT)
    return image, mask


def _turned(pixels: Array, crop: int, window: Window, outside: int) -> Array:
    """The window of an image or, where `outside` is the ignored label, of a mask, both [H, W, C], turned about its centre."""
    step, angle, centre = window.side / crop, math.radians(window.degrees), (crop - 1) / 2
    a, b = step * math.cos(angle), step * math.sin(angle)
    x, y = window.left + (window.side - 1) / 2, window.top + (window.side - 1) / 2
    back = np.array([[a, -b, x - (a - b) * centre], [b, a, y - (a + b) * centre]])  # from the crop to the image
    flags = cv2.WARP_INVERSE_MAP | (cv2.INTER_NEAREST if outside == IGNORE_INDEX else cv2.INTER_LINEAR)
    constant, border = cv2.BORDER_CONSTANT, (outside,) * 3
    return _in_parts(pixels, lambda part: cv2.warpAffine(part, back, (crop, crop), flags=flags, borderMode=constant, borderValue=border))


def _in_parts(image: Array, function: Callable[[Array], Array]) -> Array:
    """A resampling of any number of channels: OpenCV has exact ones for one and for three, and none of some kinds for more than four."""
    channels = image.shape[2]
    if channels in (1, 3):
        result = function(image)
        return result.reshape(*result.shape[:2], channels)
    threes = [slice(c, c + 3) for c in range(0, channels - channels % 3, 3)]
    parts = [*threes, *(slice(c, c + 1) for c in range(channels - channels % 3, channels))]
    return np.dstack([function(np.ascontiguousarray(image[..., part])) for part in parts])


def _albumentations(config: DataConfig) -> tuple[list[Any], list[Any], list[Any]]:
    """What moves pixels, what changes colours, and what changes the picture's grain."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # the import would ask the network for a newer version
    import albumentations as A

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an argument that the library does not know only warns
        moves: list[Any] = []
        if config.hflip:
            moves.append(A.HorizontalFlip(p=config.hflip))
        if config.vflip:
            moves.append(A.VerticalFlip(p=config.vflip))
        if config.rotate90:
            moves.append(A.RandomRotate90(p=config.rotate90))
        jitter: list[Any] = []
        if config.jitter and any((config.brightness, config.contrast, config.saturation, config.hue)):
            strengths = {name: getattr(config, name) for name in ("brightness", "contrast", "saturation", "hue")}
            jitter.append(A.ColorJitter(**strengths, p=config.jitter))
        grain: list[Any] = []
        if config.blur:
            grain.append(A.GaussianBlur(blur_limit=0, sigma_limit=BLUR_SIGMA, p=config.blur))
        if config.noise:
            grain.append(A.GaussNoise(std_range=NOISE_DEVIATION, p=config.noise))
        return moves, jitter, grain
