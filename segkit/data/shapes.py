"""The outlines that the built-in scenes are made of.

Every shape is one `Outline` in pixels: closed contours to fill (even-odd, so that two nested ones make a band) or lines to
stroke. `coverage` turns it into anti-aliased coverage. Shape legend: `n` points, each (x, y); `h w` rows and columns of a box.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

Array = np.ndarray[Any, Any]
SUBPIXELS = 5  # per side; odd, so that no pixel is covered by exactly one half
_CIRCLE = np.stack([np.cos(np.arange(48) * np.pi / 24), np.sin(np.arange(48) * np.pi / 24)], 1)
_SHIFT = 4  # OpenCV's fractional bits: points lie on a grid of 1/80 pixel


@dataclass(frozen=True)
class Outline:
    """Contours to fill where `width` is None, otherwise lines of `width` pixels to stroke.

    Args:
        paths: Polylines, float [n, 2] each, in pixels; (0, 0) is the corner of the first pixel.
        width: Width of the stroke in pixels, in steps of 0.4 from 1.
    """

    paths: list[Array]
    width: float | None = None


def coverage(outline: Outline, size: int) -> tuple[Array, tuple[int, int]] | None:
    """Share of every pixel that the outline covers.

    Returns:
        uint8 [h, w] (255 is all of the pixel) and the box's (top, left) in a picture of side `size`, or None where it misses the picture.
    """
    points = np.concatenate(outline.paths)
    margin = 1 + (outline.width or 0) / 2
    left, top = np.clip(np.floor(points.min(0) - margin), 0, size).astype(int).tolist()
    right, bottom = np.clip(np.ceil(points.max(0) + margin), 0, size).astype(int).tolist()
    if right <= left or bottom <= top:
        return None
    fine = np.zeros(((bottom - top) * SUBPIXELS, (right - left) * SUBPIXELS), np.uint8)
    # -0.5: OpenCV puts integer coordinates on sample centres
    paths = [np.rint(((p - (left, top)) * SUBPIXELS - 0.5) * (1 << _SHIFT)).astype(np.int32) for p in outline.paths]
    if outline.width is None:
        cv2.fillPoly(fine, paths, 255, cv2.LINE_8, _SHIFT)
    else:
        # OpenCV strokes an even thickness t with t + 1 samples
        cv2.polylines(fine, paths, False, 255, 2 * round((outline.width * SUBPIXELS - 1) / 2), cv2.LINE_8, _SHIFT)
    return cv2.resize(fine, (right - left, bottom - top), interpolation=cv2.INTER_AREA), (top, left)


def disc(rng: np.random.Generator, size: int, radius: float) -> Outline:
    """A filled circle or ellipse."""
    return Outline([_turn(_CIRCLE * (radius, radius * rng.uniform(0.55, 1)), rng.uniform(0, np.pi)) + _centre(rng, size)])


def ring(rng: np.random.Generator, size: int, radius: float) -> Outline:
    """A closed band, from 1.25 pixels to half the radius wide, a little thicker on one side."""
    centre, flat, angle = _centre(rng, size), rng.uniform(0.6, 1), rng.uniform(0, np.pi)
    radius = max(radius, 4.0)
    band = max(1.25, radius * flat * rng.uniform(0.08, 0.6))
    aside = rng.uniform(-0.25, 0.25, 2) * min(band - 1, radius * 0.2)
    outer, inner = _CIRCLE * (radius, radius * flat), _CIRCLE * (radius - band, radius * flat - band)
    return Outline([_turn(outer, angle) + centre, _turn(inner, angle) + centre + aside])


def polygon(rng: np.random.Generator, size: int, radius: float) -> Outline:
    """A filled polygon of 3 to 8 straight sides: regular, ragged or star-shaped."""
    sides = int(rng.integers(3, 9))
    angles = (np.arange(sides) + rng.uniform(-0.3, 0.3, sides)) * (2 * np.pi / sides)
    radii = rng.uniform(0.7, 1, sides)
    if sides > 5 and rng.random() < 0.6:
        radii[::2] *= rng.uniform(0.4, 0.6)
    corners = np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None] * (1, rng.uniform(0.5, 1))
    return Outline([_turn(corners * radius * 1.15, rng.uniform(0, 2 * np.pi)) + _centre(rng, size)])


def wire(rng: np.random.Generator, size: int, radius: float) -> Outline:
    """Open lines of 1 to 3 pixels: a curved cable, parallel sagging lines, a straight rod, a coil or a forked twig."""
    width = _thin(rng, 3.0)
    kind = rng.random()
    if kind < 0.3:
        return Outline([_curve(rng.uniform(-0.1, 1.1, (int(rng.integers(3, 6)), 2)) * size)], width)
    if kind < 0.5:
        t = np.linspace(0, 1, 24)
        start, end = rng.uniform(0, size, 2), rng.uniform(0, size, 2)
        sag, gap = rng.uniform(0.02, 0.25) * size, rng.uniform(4, 10)
        line = np.stack([t * 1.1 * size - 0.05 * size, start[0] + (end[0] - start[0]) * t + 4 * sag * t * (1 - t)], 1)
        if rng.random() < 0.3:
            line = line[:, ::-1]
        across = np.array([0.0, gap]) if line[0, 0] < 0 else np.array([gap, 0.0])
        return Outline([line + across * i for i in range(int(rng.integers(1, 4)))], min(width, 2.0))
    if kind < 0.65:
        angle, length = rng.uniform(0, np.pi), rng.uniform(1, 4) * radius + 8
        return Outline([_centre(rng, size) + np.outer([-1, 1], [np.cos(angle), np.sin(angle)]) * length / 2], width)
    if kind < 0.8:
        turns, pitch = rng.uniform(2, 5), rng.uniform(0.25, 0.6)
        t = np.linspace(0, turns * 2 * np.pi, int(turns * 20))
        coil = np.stack([t * pitch + np.cos(t), np.sin(t)], 1) * max(radius * 0.35, 4 * width)
        return Outline([_turn(coil - coil.mean(0), rng.uniform(0, 2 * np.pi)) + _centre(rng, size)], width)
    return Outline(_twig(rng, _centre(rng, size), rng.uniform(0, 2 * np.pi), max(radius, 12.0), 3), min(width, 2.0))


def lattice(rng: np.random.Generator, size: int, radius: float) -> Outline:
    """Crossing lines of 1 to 2 pixels with 4 to 12 pixels between them, turned, sheared and bent: nets, fences, meshes."""
    gap = rng.uniform(4, 11)
    radius = max(radius, 2 * gap)
    rows, columns = (max(2, round(radius * rng.uniform(0.8, 2.2) / gap)) for _ in range(2))
    t = np.linspace(-0.5, 0.5, 12)
    lines = np.empty((rows + columns + 2, len(t), 2))
    lines[: rows + 1, :, 0], lines[: rows + 1, :, 1] = columns * t, np.arange(rows + 1)[:, None] - rows / 2
    lines[rows + 1 :, :, 0], lines[rows + 1 :, :, 1] = np.arange(columns + 1)[:, None] - columns / 2, rows * t
    shear = np.array([[gap, 0], [gap * rng.uniform(-0.7, 0.7), gap * rng.uniform(0.7, 1.4)]])
    lines = _turn(lines @ shear, rng.uniform(0, np.pi))
    bend, waves, phase = rng.uniform(0, 0.6) * gap, rng.uniform(0.02, 0.12, 2), rng.uniform(0, 2 * np.pi, 2)
    lines += bend * np.sin(lines[..., ::-1] * waves + phase) + _centre(rng, size)
    return Outline(list(lines), _thin(rng, 2.0))


def _thin(rng: np.random.Generator, most: float) -> float:
    """A width from 1 to `most` pixels, thin ones more often."""
    share = rng.random()
    return 1 + (most - 1) * math.pow(share, 1.5)


def _centre(rng: np.random.Generator, size: int) -> Array:
    return rng.uniform(-0.02, 1.02, 2) * size


def _turn(points: Array, angle: float) -> Array:
    c, s = math.cos(angle), math.sin(angle)
    return np.asarray(points @ np.array([[c, s], [-s, c]]))


def _curve(knots: Array, steps: int = 10) -> Array:
    """Catmull-Rom curve through the knots: [k, 2] -> [(k - 1) * steps, 2]."""
    p = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    t = np.linspace(0, 1, steps)[:, None]
    a, b, c, d = p[:-3, None], p[1:-2, None], p[2:-1, None], p[3:, None]
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return np.asarray(curve.reshape(-1, 2))


def _twig(rng: np.random.Generator, start: Array, angle: float, length: float, depth: int) -> list[Array]:
    bends = angle + np.cumsum(rng.normal(0, 0.25, 4))
    steps = np.stack([np.cos(bends), np.sin(bends)], 1) * length / 4
    path = np.concatenate([start[None], start + np.cumsum(steps, 0)])
    if depth == 1:
        return [path]
    forks = [_twig(rng, path[k], angle + side * rng.uniform(0.4, 0.9), length * 0.65, depth - 1) for k, side in ((2, 1), (3, -1))]
    return [path, *forks[0], *forks[1]]
