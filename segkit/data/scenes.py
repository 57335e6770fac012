"""The built-in data set: scenes that are computed, not stored, each one from (seed, split, index) alone.

A scene is a lit, textured ground with things on it that cast shadows and hide one another. A thing's class is its shape. Its colour leans
towards a hue of the class, more or less, so that a small network tells the classes apart within minutes and what is left to learn is where
they end: that is what upsampling operators differ in. A pixel belongs to the topmost thing that covers about half of it,
so a wire of one pixel is whole in the mask. Shape legend: `H W` rows and columns of the scene, `h w` of a thing's box.
"""

import colorsys
import math
from typing import Any

import cv2
import numpy as np

from segkit.data import shapes
from segkit.data.classes import Classes

Array = np.ndarray[Any, Any]
CLASSES = Classes(
    ("background", "disc", "polygon", "ring", "wire", "lattice"),
    ((38, 38, 46), (242, 143, 59), (88, 164, 176), (200, 85, 61), (255, 226, 120), (150, 120, 200)),
)
_SHAPES = (shapes.disc, shapes.polygon, shapes.ring, shapes.wire, shapes.lattice)
# of 255: a line of one pixel between two rows covers half of each; a little less keeps it whole where its edge is rounded
_COVERED = 110
_HUE_SPREAD = 0.07  # standard deviation of a thing's hue around that of its class, as a share of the colour circle
_SPLITS = ("train", "val", "test")


class Scenes:
    """A split of the built-in data set.

    Args:
        split: "train", "val" or "test": streams that share no scene.
        length: Number of scenes.
        size: Side of a scene in pixels, at least 32. Larger scenes show more and larger things; wires stay 1 to 3 pixels wide.
        seed: Which world of scenes is drawn.
        channels: 3 for RGB, 1 for grey.
    """

    classes = CLASSES
    problems: tuple[str, ...] = ()

    def __init__(self, split: str, length: int, size: int = 128, seed: int = 0, channels: int = 3) -> None:
        self.split, self.length, self.side, self.seed, self.channels = split, length, size, seed, channels

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        """Name of a scene, such as "val_0007"."""
        return f"{self.split}_{index:04d}"

    def size(self, index: int) -> tuple[int, int]:
        """Rows and columns of a scene."""
        return self.side, self.side

    def paths(self, index: int) -> None:
        """A scene has no files."""

    def read(self, index: int) -> tuple[Array, Array]:
        """Draw a scene: uint8 [H, W, C] and its mask, uint8 [H, W]."""
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, _SPLITS.index(self.split), index)))
        image, mask = draw(rng, self.side)
        return (image if self.channels == 3 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None]), mask


def draw(rng: np.random.Generator, size: int) -> tuple[Array, Array]:
    """One scene of side `size`: image uint8 [size, size, 3], mask uint8 [size, size]."""
    grain = _noise(rng, size, max(size // 16, 2), 4)
    angle = rng.uniform(0, 2 * math.pi)
    light = (math.cos(angle), math.sin(angle))
    image, mask = _ground(rng, size, grain), np.zeros((size, size), np.uint8)
    count = round(rng.uniform(8, 14) * size / 128)  # things grow with the scene, so this keeps the ground in sight
    # most things are small; the larger a thing, the further back it lies
    radii = 4 + (0.34 * size - 4) * rng.random(count) ** 2
    for radius in sorted(radii.tolist(), reverse=True):
        kind = int(rng.integers(len(_SHAPES)))
        covered = shapes.coverage(_SHAPES[kind](rng, size, radius), size)
        if covered is not None:
            _place(rng, image, mask, grain, light, kind + 1, *covered)
    return _photograph(rng, image, light), mask


def _noise(rng: np.random.Generator, size: int, lumps: int, octaves: int) -> Array:
    """Fractal noise around 0 with a deviation near 1: float32 [size, size], the coarsest octave `lumps` lumps wide."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        n = min(lumps * 2**octave, size)
        total += cv2.resize(rng.standard_normal((n, n), np.float32), (size, size), interpolation=cv2.INTER_CUBIC) * np.float32(0.75**octave)
    return total / np.float32(1.2)


def _colour(rng: np.random.Generator, saturation: float, darkest: float, brightest: float, label: int = 0) -> Array:
    """A random colour, float32 [3, 1, 1] in 0..1, as often greyish as vivid; that of a thing leans towards the hue of its class."""
    hue, vivid, value = rng.random(3).tolist()
    if label:
        hue = (label / len(_SHAPES) + rng.normal(0, _HUE_SPREAD)) % 1
        vivid = vivid**0.5
    rgb = colorsys.hsv_to_rgb(hue, saturation * vivid, darkest + (brightest - darkest) * value)
    return np.array(rgb, np.float32).reshape(3, 1, 1)


def _waves(rng: np.random.Generator, h: int, w: int, length: float, bend: Array) -> Array:
    """Waves of `length` pixels in a random direction, bent by `bend` [h, w]: float32 [h, w] in -1..1."""
    angle, k = rng.uniform(0, math.pi), 2 * math.pi / length
    x = np.arange(w, dtype=np.float32) * np.float32(k * math.cos(angle))
    y = np.arange(h, dtype=np.float32)[:, None] * np.float32(k * math.sin(angle))
    return np.asarray(np.sin(x + y + bend), np.float32)


def _ground(rng: np.random.Generator, size: int, grain: Array) -> Array:
    """Two materials that meet along a curve, sharp or soft, with a texture that is no thing: float32 [3, H, W] in 0..1."""
    lumps = _noise(rng, size, 2, 2)
    first = _colour(rng, 0.4, 0.25, 0.8)
    second = np.clip(first + rng.uniform(-0.12, 0.12, (3, 1, 1)) + rng.uniform(-0.15, 0.15), 0.1, 0.9).astype(np.float32)
    blend = np.clip(0.5 + (lumps + np.float32(rng.uniform(-0.8, 0.8))) * np.float32(math.exp(rng.uniform(-1, 3))), 0, 1)
    texture = grain * np.float32(rng.uniform(0.01, 0.06))
    kind = rng.integers(5)
    if kind == 0:  # wood, cloth, ploughed earth
        texture += _waves(
            rng, size, size, rng.uniform(3, 16), lumps * np.float32(rng.uniform(0, 4)) + grain * np.float32(0.3)
        ) * np.float32(0.06)
    elif kind == 1:  # woven
        texture += _waves(rng, size, size, rng.uniform(3, 8), lumps) * _waves(rng, size, size, rng.uniform(3, 8), lumps) * np.float32(0.08)
    elif kind == 2:  # boards with dark joints, which are neither wires nor lattices
        joints = _waves(rng, size, size, rng.uniform(16, 40), lumps * np.float32(0.1))
        texture -= np.clip(joints * 12 - 11, 0, 1) * np.float32(rng.uniform(0.1, 0.3))
    elif kind == 3:  # stains
        texture -= np.clip(grain * np.float32(0.8) + lumps - 1, 0, 1) * np.float32(rng.uniform(0.1, 0.3))
    return np.asarray((first + (second - first) * blend) * (1 + texture), np.float32)


def _place(
    rng: np.random.Generator,
    image: Array,
    mask: Array,
    grain: Array,
    light: tuple[float, float],
    label: int,
    alpha: Array,
    corner: tuple[int, int],
) -> None:
    """Put a thing of coverage `alpha` (uint8 [h, w]) into the scene, its shadow first; changes `image` and `mask`."""
    size, (h, w), (top, left) = len(mask), alpha.shape, corner
    cover, texture = alpha * np.float32(1 / 255), grain[:h, :w]
    height, reach = rng.uniform(1, 6), 12
    t, b = max(top - reach, 0), min(top + h + reach, size)
    l, r = max(left - reach, 0), min(left + w + reach, size)  # noqa: E741
    shift = np.array([[1, 0, left - l - light[0] * height], [0, 1, top - t - light[1] * height]])
    shadow = cv2.GaussianBlur(cv2.warpAffine(cover, shift, (r - l, b - t)), (0, 0), 0.3 * height + 0.4)
    image[:, t:b, l:r] *= 1 - shadow * np.float32(rng.uniform(0.25, 0.6))

    box = image[:, top : top + h, left : left + w]
    behind, colour = box[:, h // 2, w // 2, None, None], _colour(rng, 0.9, 0.25, 0.95, label)
    for _ in range(3):  # it should be seen, though not always easily
        if np.abs(colour - behind).max() > 0.2:
            break
        colour = _colour(rng, 0.9, 0.25, 0.95, label)
    soft = cv2.GaussianBlur(cover, (5, 5), 1.2)
    edge = cv2.Sobel(soft, cv2.CV_32F, 1, 0, scale=light[0]) + cv2.Sobel(soft, cv2.CV_32F, 0, 1, scale=light[1])
    bulge, relief, rough, opacity = rng.uniform((0.1, 0.05, 0, 0.85), (0.7, 0.3, 0.09, 1)).astype(np.float32)
    x = np.arange(w, dtype=np.float32) * (light[0] * bulge / w)
    y = np.arange(h, dtype=np.float32)[:, None] * (light[1] * bulge / h)
    shade = x + (y + (1 - 0.5 * bulge * (light[0] + light[1]))) - edge * relief + texture * rough
    paint = colour * shade
    if rng.random() < 0.25:
        marks = _waves(rng, h, w, rng.uniform(4, 20), texture * np.float32(rng.uniform(0, 1.5))) > 0.2
        paint += (_colour(rng, 0.9, 0.15, 0.95) - colour) * (marks * np.float32(rng.uniform(0.3, 0.9)))
    box += (paint - box) * (cover * opacity)
    mask[top : top + h, left : left + w][alpha >= _COVERED] = label


def _photograph(rng: np.random.Generator, image: Array, light: tuple[float, float]) -> Array:
    """The light falls off across the scene, the lens blurs, the sensor adds noise: float32 [3, H, W] to uint8 [H, W, 3]."""
    size = image.shape[1]
    x = np.linspace(-1, 1, size, dtype=np.float32)
    y = x[:, None]
    slope, vignette = rng.uniform((0.05, 0), (0.4, 0.2)).astype(np.float32)
    lit = 1.05 + slope * (np.float32(light[0]) * x + np.float32(light[1]) * y) - vignette * (x * x + y * y)
    tint = rng.uniform(0.93, 1.07, (3, 1, 1)).astype(np.float32)
    photo = cv2.GaussianBlur(cv2.merge(list(image * (lit * tint))), (0, 0), rng.uniform(0.35, 0.8))
    photo += rng.standard_normal(photo.shape, np.float32) * np.float32(rng.uniform(0.006, 0.035))
    return np.asarray(np.clip(photo * 255 + 0.5, 0, 255), np.uint8)
