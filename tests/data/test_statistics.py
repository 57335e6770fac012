"""Mean and deviation of channels, held against Python's fractions and a float64 pass over all pixels at once."""

from fractions import Fraction

import numpy as np
import pytest

from segkit.config import DataConfig
from segkit.data.classes import Classes
from segkit.data.open import open_sources
from segkit.data.statistics import ChannelSums, measure_channels, sum_channels
from segkit.errors import SegkitError

RNG = np.random.default_rng(0)


class Images:
    """A source of the images given."""

    classes, problems = Classes(("a",), ((0, 0, 0),)), ()

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def read(self, index):
        return self.images[index], np.zeros(self.images[index].shape[:2], np.uint8)


@pytest.mark.parametrize(("kind", "white"), [(np.uint8, 255), (np.uint16, 65535)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_images_of_several_sizes_count_by_their_pixels(kind, white, channels):
    images = [RNG.integers(0, white + 1, (h, w, channels)).astype(kind) for h, w in ((7, 9), (1, 1), (40, 30))]
    images[1][:] = white
    mean, std = measure_channels(Images(images), white)
    pixels = np.concatenate([image.reshape(-1, channels) for image in images]).astype(np.float64) / white
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std(0), rtol=1e-12)
    assert {type(value) for value in mean + std} == {float}  # as a checkpoint wants them


def test_by_hand():
    image = np.array([[[0, 10], [255, 30]], [[0, 10], [255, 30]]], np.uint8)
    assert sum_channels(image) == ChannelSums(4, (510, 80), (2 * 255**2, 2 * 10**2 + 2 * 30**2))
    mean, std = sum_channels(image).moments(255)
    assert mean == [0.5, 20 / 255]
    assert std == pytest.approx([0.5, 10 / 255], rel=1e-15)


def test_sums_beyond_what_floating_point_counts_are_exact():
    image = np.full((1500, 1500, 1), 65535, np.uint16)  # more pixels than one chunk has, and a sum of squares above 2^53
    image[0, 0], image[700, 3], image[-1, -1] = 65534, 1, 3
    ones = 1500 * 1500 - 3
    total = sum_channels(image)
    assert total == ChannelSums(ones + 3, (ones * 65535 + 65538,), (ones * 65535**2 + 65534**2 + 1 + 9,))
    many = total
    for _ in range(9):
        many += many
    assert many == ChannelSums(total.pixels * 512, (total.sums[0] * 512,), (total.squares[0] * 512,))  # far above 2^63
    assert many.moments(65535) == total.moments(65535)


def test_a_small_deviation_on_bright_ground_keeps_its_digits():
    image = np.full((64, 64, 1), 65000, np.uint16)
    image[::2] += 1
    mean, std = sum_channels(image).moments(65535)
    assert mean == [float(Fraction(130001, 2 * 65535))]
    assert std == pytest.approx([0.5 / 65535], rel=1e-14)


def test_a_channel_of_one_value_divides_by_one():
    assert sum_channels(np.full((3, 3, 1), 51, np.uint8)).moments(255) == ([0.2], [1.0])


def test_nothing_has_no_mean_and_a_bad_file_names_itself(make_folder):
    with pytest.raises(SegkitError, match="no training image"):
        measure_channels(Images([]), 255)
    root = make_folder(train=3)
    (root / "images/train/train1.png").write_bytes(b"no image")
    with pytest.raises(SegkitError, match=r"train1.png: not an image"):
        measure_channels(open_sources(DataConfig(kind="folder", root=str(root)))["train"], 255)
