from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from segkit.config import DataConfig
from segkit.data.transforms import TrainTransform
from segkit.data.window import RarePixels, draw_window

RARE = DataConfig(crop=32, scale=(1.0, 1.0), hflip=0, jitter=0, rare_crops=1.0)
COUNTS = np.array([900, 300, 0, 100])


def numbers(seed):
    return np.random.default_rng(seed)


def test_a_class_is_drawn_by_its_rarity_among_those_present():
    mask = np.full((20, 30), 255, np.uint8)
    mask[:, 3:20], mask[2:5, 25], mask[7, 1] = 0, 1, 3
    rare = RarePixels(COUNTS)
    drawn = np.bincount([mask[rare.draw(mask, numbers(seed))] for seed in range(1300)], minlength=4)
    # 1/900 : 1/300 : 1/100 = 1 : 3 : 9
    assert drawn[2] == 0
    assert chisquare(drawn[[0, 1, 3]], [100, 300, 900]).pvalue > 0.01
    mask[7, 1] = 255
    drawn = np.bincount([mask[rare.draw(mask, numbers(seed))] for seed in range(800)], minlength=2)
    assert chisquare(drawn, [200, 600]).pvalue > 0.01


def test_every_pixel_of_a_class_is_as_likely():
    mask = np.zeros((6, 9), np.uint8)
    places = [(0, 0), (0, 8), (2, 3), (2, 4), (5, 8)]
    for place in places:
        mask[place] = 1
    rare = RarePixels(np.array([10**9, 1]))
    drawn = [rare.draw(mask, numbers(seed)) for seed in range(1000)]
    assert chisquare([drawn.count(place) for place in places], [200] * 5).pvalue > 0.01


@pytest.mark.parametrize("label", [2, 9, 255])  # not in the training split, no class at all, ignored
def test_a_mask_without_a_known_class_is_cropped_as_ever(label):
    mask = np.full((50, 60), label, np.uint8)
    assert RarePixels(COUNTS).draw(mask, numbers(0)) is None
    plain, odd = replace(RARE, rare_crops=0.0), replace(RARE, rare_crops=1e-12)  # draws a coin, which never falls on rare
    windows = [draw_window(mask, RARE, RarePixels(COUNTS), numbers(seed)) for seed in range(300)]
    assert {w.top for w in windows} == set(range(19))
    assert {w.left for w in windows} == set(range(29))
    assert draw_window(mask, odd, RarePixels(COUNTS), numbers(0)) != draw_window(mask, plain, None, numbers(0))


def test_no_rare_crops_draw_nothing_and_a_share_of_them_is_a_share():
    mask = np.zeros((64, 64), np.uint8)
    mask[0, 0] = 1
    rare, half = RarePixels(np.array([10**12, 1])), replace(RARE, rare_crops=0.5)
    # at random the corner is in the crop once in 33 * 33
    hits = sum((w.top, w.left) == (0, 0) for w in (draw_window(mask, half, rare, numbers(seed)) for seed in range(400)))
    assert hits == pytest.approx(200, abs=40)  # 4 standard deviations


def test_windows_around_a_pixel_are_all_as_likely():
    mask = np.full((40, 38), 255, np.uint8)
    mask[5, 36] = 1
    windows = [draw_window(mask, RARE, RarePixels(np.array([1, 1])), numbers(seed)) for seed in range(2400)]
    # rows 5 - 31..5 and 0..8 leave 0..5; columns 36 - 31..36 and 0..6 leave 5 and 6
    assert {w.top for w in windows} == set(range(6))
    assert {w.left for w in windows} == {5, 6}
    assert chisquare(np.unique([w.top * 7 + w.left for w in windows], return_counts=True)[1]).pvalue > 0.01


def test_a_turned_window_is_an_even_choice_among_those_that_hold_the_pixel():
    mask = np.full((120, 120), 255, np.uint8)
    mask[60, 60] = 1
    config = replace(RARE, crop=16, rotate=180.0)
    offsets, angles = [], []
    for seed in range(4000):
        top, left, side, degrees = draw_window(mask, config, RarePixels(np.array([1, 1])), numbers(seed))
        right, down = 60 - left - (side - 1) / 2, 60 - top - (side - 1) / 2
        turn = np.exp(-1j * np.radians(degrees)) * complex(right, down)
        offsets.append([turn.real, turn.imag])
        angles.append(degrees)
    offsets = np.array(offsets)
    assert np.abs(offsets).max() <= 7.5 + 1e-9
    assert chisquare(np.histogram(angles, 8, (-180, 180))[0]).pvalue > 0.01  # so that no angle was halved
    # far from the border, the pixel is anywhere in the crop: half of the time in its middle, of half the area
    middle = (np.abs(offsets) <= 7.5 * 0.5**0.5).all(1).mean()
    assert middle == pytest.approx(0.5, abs=0.035)  # 4 standard deviations and half a grid step


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.3, 0.4), (2.0, 4.0), (0.2, 4.0)])
@pytest.mark.parametrize("rotate", [0.0, 20.0, 180.0])
@pytest.mark.parametrize("size", [(32, 32), (20, 90), (100, 70)])
def test_the_pixel_is_in_the_crop(scale, rotate, size):
    """The image says where each of its pixels comes from, so that the crop does."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    image = np.stack([rows * 256, columns * 256, np.full(size, 65535)], -1).astype(np.uint16)
    transform = TrainTransform(replace(RARE, scale=scale, rotate=rotate, hflip=0.5, rotate90=0.5), np.array([1, 1]))
    for seed in range(12):
        y, x = (0, 0) if seed == 0 else (size[0] - 1, size[1] - 1) if seed == 1 else numbers(seed).integers(size)
        mask = np.full(size, 255, np.uint8)
        mask[y, x] = 1
        crop, _ = transform(image, mask, seed)
        weight = crop[..., 2] / 65535  # less than 1 where a pixel is mixed with what is outside the image
        from_row, from_column = (crop[..., c][weight > 0.1] / weight[weight > 0.1] / 256 for c in (0, 1))
        step = max(1.0, 1 / scale[0])
        assert np.hypot(from_row - y, from_column - x).min() <= 0.75 * step + 0.5  # half a diagonal of the crop's grid, and rounding


def test_a_seed_decides_a_rare_crop():
    mask = numbers(0).integers(0, 2, (60, 50)).astype(np.uint8)
    image = numbers(1).integers(0, 256, (60, 50, 3), np.uint8)
    one, other = (TrainTransform(replace(RARE, rare_crops=0.6, rotate=30.0), np.array([5, 1])) for _ in range(2))
    first = [one(image, mask, seed)[0].tobytes() for seed in range(20)]
    assert [other(image, mask, seed)[0].tobytes() for seed in reversed(range(20))] == first[::-1]
    assert len(set(first)) == 20
