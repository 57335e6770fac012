from dataclasses import replace

import cv2
import numpy as np
import pytest

from segkit.config import DataConfig
from segkit.data.transforms import TrainTransform, _cut
from segkit.data.window import Window
from segkit.errors import SegkitError

RNG = np.random.default_rng(3)
PLAIN = DataConfig(crop=32, scale=(1.0, 1.0), hflip=0, jitter=0)  # nothing but the crop
# the mask numbers the pixels, so that it says where each one came from
MASK = np.arange(200, dtype=np.uint8).reshape(10, 20)
IMAGE = np.repeat(MASK[..., None], 3, 2)


def marked(height, width):
    """An image whose channels say row and column, and a mask that does not name 255."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, rows * 0 + 9], -1).astype(np.uint8), (rows % 5 * 5 + columns % 5).astype(np.uint8)


def test_a_crop_at_native_resolution_is_a_copy_and_reaches_every_place():
    image, mask = marked(40, 50)
    transform, corners = TrainTransform(PLAIN), set()
    for seed in range(400):
        crop, labels = transform(image, mask, seed)
        top, left = int(crop[0, 0, 0]), int(crop[0, 0, 1])
        assert np.array_equal(crop, image[top : top + 32, left : left + 32])
        assert np.array_equal(labels, mask[top : top + 32, left : left + 32])
        corners.add((top, left))
    assert {t for t, _ in corners} == set(range(9))
    assert {left for _, left in corners} == set(range(19))


def test_a_window_larger_than_the_image_holds_all_of_it_and_ignores_the_rest():
    transform, places = TrainTransform(PLAIN), set()
    for seed in range(200):
        crop, labels = transform(IMAGE, MASK, seed)
        inside = labels != 255
        assert np.array_equal(labels[inside], MASK.ravel())
        assert np.array_equal(crop[inside], IMAGE.reshape(-1, 3))
        assert not crop[~inside].any()
        places.add(tuple(np.argwhere(inside)[0]))
    assert {t for t, _ in places} == set(range(23))
    assert {left for _, left in places} == set(range(13))


def test_one_side_smaller_one_larger():
    image, mask = marked(10, 60)
    crop, labels = TrainTransform(PLAIN)(image, mask, 5)
    assert (labels != 255).sum() == 10 * 32
    assert not crop[labels == 255].any()


@pytest.mark.parametrize("zoom", [0.4, 0.5, 0.8, 2.0, 3.0])
def test_zoom_means_pixels_per_pixel_and_image_and_mask_stay_together(zoom):
    disc = np.zeros((120, 120), np.uint8)
    cv2.circle(disc, (60, 60), 14, 1, -1)
    transform = TrainTransform(replace(PLAIN, crop=144, scale=(zoom, zoom)))
    found = 0
    for seed in range(30):
        crop, labels = transform(np.repeat(disc[..., None] * 200, 3, 2), disc, seed)
        whole = labels[0].max() != 1 and labels[-1].max() != 1 and labels[:, 0].max() != 1 and labels[:, -1].max() != 1
        if (labels == 1).any() and whole:
            found += 1
            assert (labels == 1).sum() == pytest.approx(disc.sum() * zoom**2, rel=0.06, abs=12)
            assert ((crop[..., 0] > 100) != (labels == 1)).mean() < 0.012
    assert found


def test_zoom_is_log_uniform():
    bright = np.full((60, 60, 3), 200, np.uint8), np.zeros((60, 60), np.uint8)
    transform = TrainTransform(replace(PLAIN, crop=240, scale=(0.5, 2.0)))
    zooms = [np.sqrt((transform(*bright, seed)[1] == 0).mean()) * 240 / 60 for seed in range(400)]
    assert (np.array(zooms) < 1).mean() == pytest.approx(0.5, abs=0.1)  # 4 standard deviations; uniform would be 1/3
    assert min(zooms) >= 0.49
    assert max(zooms) <= 2.02


def test_rotation_turns_about_the_centre_of_the_window():
    image, mask = marked(33, 33)
    for degrees, quarter in ((90, 1), (180, 2), (-90, 3)):
        turned, labels = _cut(image, mask, 33, Window(0, 0, 33, degrees))
        assert np.array_equal(labels, np.rot90(mask, quarter))
        assert np.array_equal(turned, np.rot90(image, quarter))


def test_corners_that_rotation_uncovers_are_ignored():
    image, mask = np.full((32, 32, 3), 90, np.uint8), np.zeros((32, 32), np.uint8)
    crop, labels = _cut(image, mask, 32, Window(0, 0, 32, 45.0))
    # the square and the turned square share 2 (sqrt 2 - 1) of their area
    assert (labels == 255).mean() == pytest.approx(3 - 2 * 2**0.5, abs=0.02)
    assert not crop[0, 0].any()


def test_a_turned_crop_inside_a_large_image_ignores_nothing():
    image, mask = marked(200, 200)
    turned, labels = _cut(image, mask, 32, Window(80, 80, 32, 30.0))
    assert labels.max() < 255
    assert turned.shape == (32, 32, 3)


def test_a_seed_repeats_and_seeds_differ():
    everything = replace(DataConfig(), crop=32, vflip=0.5, rotate90=0.5, rotate=20, blur=0.5, noise=0.5, saturation=0.5)
    image, mask = RNG.integers(0, 256, (50, 60, 3), np.uint8), RNG.integers(0, 9, (50, 60), np.uint8)
    before = image.copy(), mask.copy()
    one, other = TrainTransform(everything), TrainTransform(everything)
    first = [one(image, mask, seed) for seed in range(20)]
    for seed in reversed(range(20)):
        again = other(image, mask, seed)
        assert np.array_equal(first[seed][0], again[0])
        assert np.array_equal(first[seed][1], again[1])
        assert again[0].dtype == again[1].dtype == np.uint8
        assert (again[0].shape, again[1].shape) == ((32, 32, 3), (32, 32))
    assert len({crop.tobytes() for crop, _ in first}) == 20
    assert np.array_equal(image, before[0])
    assert np.array_equal(mask, before[1])


def test_every_transform_has_a_stream_of_its_own():
    """Two flips of probability one half: all four outcomes come, each a quarter of the time."""
    corner = np.zeros((32, 32), np.uint8)
    corner[:16, :16], corner[:16, 16:], corner[16:, :16] = 1, 2, 3
    transform = TrainTransform(replace(PLAIN, hflip=0.5, vflip=0.5))
    image = np.zeros((32, 32, 3), np.uint8)
    outcomes = np.bincount([transform(image, corner, seed)[1][0, 0] for seed in range(400)], minlength=4)
    assert (np.abs(outcomes - 100) < 35).all()  # 4 standard deviations


@pytest.mark.parametrize("option", ["hflip", "vflip", "rotate90", "jitter", "blur", "noise"])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_option_does_something_and_alone(option, channels):
    image, mask = RNG.integers(0, 256, (32, 32, channels), np.uint8), RNG.integers(0, 9, (32, 32), np.uint8)
    transform = TrainTransform(replace(PLAIN, **{option: 1.0}))
    changed = [transform(image, mask, seed) for seed in range(6)]
    assert any(not np.array_equal(crop, image) for crop, _ in changed)
    moves = option in ("hflip", "vflip", "rotate90")
    assert any(not np.array_equal(labels, mask) for _, labels in changed) == moves
    assert all(crop.shape == (32, 32, channels) for crop, _ in changed)
    assert all(sorted(labels.ravel()) == sorted(mask.ravel()) for _, labels in changed)


def test_nothing_asked_is_nothing_done():
    image, mask = RNG.integers(0, 256, (32, 32, 3), np.uint8), RNG.integers(0, 9, (32, 32), np.uint8)
    crop, labels = TrainTransform(PLAIN)(image, mask, 1)
    assert np.array_equal(crop, image)
    assert np.array_equal(labels, mask)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("crop", 8), ("scale", (0.0, 1.0)), ("scale", (2.0, 1.0)), ("scale", (1.0, float("inf"))), ("hflip", 1.5), ("jitter", -0.1),
        ("hue", 0.6), ("rotate", 200.0), ("brightness", 2.0),
    ],
)  # fmt: skip
def test_values_out_of_range_name_their_flag(option, value):
    with pytest.raises(SegkitError, match=f"--data.{option} ") as caught:
        TrainTransform(replace(DataConfig(), **{option: value}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize(
    "options",
    [
        {"scale": (0.2, 0.3)}, {"scale": (0.4, 3.0)}, {"rotate": 40.0, "scale": (0.7, 1.4)}, {"hflip": 0.5, "vflip": 0.5, "rotate90": 0.5},
        {"blur": 1.0},
    ],
)  # fmt: skip
def test_every_channel_is_treated_as_it_would_be_alone(dtype, channels, options):
    image, mask = RNG.integers(0, np.iinfo(dtype).max + 1, (50, 60, channels), dtype), RNG.integers(0, 9, (50, 60), np.uint8)
    transform = TrainTransform(replace(PLAIN, **options))
    for seed in range(4):
        crop, labels = transform(image, mask, seed)
        assert (crop.shape, crop.dtype) == ((32, 32, channels), dtype)
        for c in range(channels):
            alone, same = transform(image[..., c : c + 1], mask, seed)
            assert np.abs(crop[..., c].astype(int) - alone[..., 0]).max() <= 1  # rounding
            assert np.array_equal(labels, same)


def test_sixteen_bits_come_through_whole():
    """A ramp of all 65536 values, in every option that changes colours, none of which happens."""
    image = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1).repeat(3, 2)
    untouched = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "jitter": 1.0}
    for options in ({"jitter": 1e-12}, {"noise": 1e-12}, {"blur": 1e-12}, {**untouched, "brightness": 1e-12}):
        transform = TrainTransform(replace(PLAIN, crop=256, **options))
        crop, _ = transform(image, np.zeros((256, 256), np.uint8), 0)
        assert crop.dtype == np.uint16
        assert np.array_equal(crop, image)


@pytest.mark.parametrize("option", ["brightness", "contrast", "saturation", "hue"])
def test_colours_of_sixteen_bits_change_as_those_of_eight(option):
    small = RNG.integers(0, 256, (32, 32, 3), np.uint8)
    none = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    transform = TrainTransform(replace(PLAIN, jitter=1.0, **{**none, option: 0.3}))
    for seed in range(5):
        eight, _ = transform(small, np.zeros((32, 32), np.uint8), seed)
        sixteen, _ = transform(small.astype(np.uint16) * 257, np.zeros((32, 32), np.uint8), seed)
        # of eight bits hues are held in steps of 2 degrees
        assert np.abs(sixteen / 257 - eight).mean() < (3 if option == "hue" else 1)
        if option != "hue":
            assert np.abs(sixteen / 257 - eight).max() < 2.5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bands_change_by_one_factor_and_about_their_own_means(dtype):
    white = np.iinfo(dtype).max
    bands = np.zeros((32, 32, 5), dtype)
    for c in range(5):
        bands[:16, :, c], bands[16:, :, c] = white * (c + 2) // 20, white * (c + 4) // 20
    image, mask = bands, np.zeros((32, 32), np.uint8)
    shares = {"saturation": 0.9, "hue": 0.5, "jitter": 1.0}  # which there is nothing to apply to
    for seed in range(4):
        brighter, _ = TrainTransform(replace(PLAIN, brightness=0.5, contrast=0.0, **shares))(image, mask, seed)
        factors = brighter.astype(float) / image
        assert factors.std() < 0.03
        contrasted, _ = TrainTransform(replace(PLAIN, brightness=0.0, contrast=0.5, **shares))(image, mask, seed)
        assert contrasted.mean((0, 1)) == pytest.approx(image.mean((0, 1)), abs=white / 150)
        spreads = contrasted.astype(float).std((0, 1)) / image.astype(float).std((0, 1))
        assert spreads.std() < 0.06
        assert abs(spreads.mean() - 1) > 0.01


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_noise_of_sixteen_bits_has_the_deviation_of_eight(channels):
    grey = np.full((256, 256, channels), 30000, np.uint16)
    transform = TrainTransform(replace(PLAIN, crop=256, noise=1.0))
    deviations = [(transform(grey, grey[..., 0].astype(np.uint8), seed)[0] / 65535.0).std((0, 1)) for seed in range(12)]
    assert np.min(deviations) > 0.0099
    assert np.max(deviations) < 0.0505
    noisy = transform(grey, grey[..., 0].astype(np.uint8), 1)[0].astype(float)
    if channels > 1:  # every channel has noise of its own
        assert abs(np.corrcoef(noisy[..., 0].ravel(), noisy[..., 1].ravel())[0, 1]) < 0.02
