import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from segkit.data import scenes, shapes
from segkit.data.scenes import CLASSES, Scenes


def digest(*arrays):
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()


def test_a_scene_depends_on_its_seed_split_and_index_only():
    one, other = Scenes("train", 10, 64), Scenes("train", 10, 64)
    forward = [digest(*one.read(i)) for i in range(4)]
    assert [digest(*other.read(i)) for i in (3, 1, 2, 0)] == [forward[i] for i in (3, 1, 2, 0)]
    code = "import hashlib; from segkit.data.scenes import Scenes; i, m = Scenes('train', 1, 64).read(0); "
    code += "print(hashlib.sha256(i.tobytes() + m.tobytes()).hexdigest())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == forward[0]


def test_splits_worlds_and_indices_share_no_scene():
    splits = [Scenes(split, 20, 32, seed) for split in ("train", "val", "test") for seed in (0, 1)]
    assert len({digest(s.read(i)[0]) for s in splits for i in range(20)}) == 120


@pytest.mark.parametrize("size", [32, 64, 97, 128, 512])
def test_any_size(size):
    source = Scenes("val", 3, size)
    image, mask = source.read(2)
    assert (image.shape, image.dtype, mask.shape, mask.dtype) == ((size, size, 3), np.uint8, (size, size), np.uint8)
    assert source.size(2) == (size, size)
    assert source.name(2) == "val_0002"
    assert mask.max() < len(CLASSES)


def test_grey_is_the_grey_of_the_colour_scene():
    colour, _ = Scenes("train", 1, 64).read(0)
    grey, _ = Scenes("train", 1, 64, channels=1).read(0)
    assert np.array_equal(grey[..., 0], cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY))


def test_every_class_is_common_and_wires_and_lattices_are_thin():
    pixels, thin = np.zeros(6), np.zeros(6)
    for i in range(60):
        _, mask = Scenes("train", 60).read(i)
        for label in range(6):
            region = (mask == label).astype(np.uint8)
            pixels[label] += region.sum()
            # what a 5 x 5 square does not fit into
            thin[label] += region.sum() - cv2.morphologyEx(region, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)).sum()
    share = pixels / pixels.sum()
    assert 0.5 < share[0] < 0.85
    assert (share[1:] > 0.01).all()
    assert (thin[4:] / pixels[4:] > 0.85).all()
    assert (thin[1:3] / pixels[1:3] < 0.35).all()


def test_colour_hints_at_the_class_and_does_not_give_it_away():
    right = total = 0
    for i in range(60):
        image, mask = Scenes("train", 60).read(i)
        hue = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 0] / 180  # 0..1
        guess = np.rint(hue * 5) % 5  # the nearest of five hues, class k being k / 5
        things = mask > 0
        right += (guess == mask % 5)[things].sum()
        total += things.sum()
    assert 0.4 < right / total < 0.9


def test_coverage_of_a_square_by_hand():
    square = np.array([[2.0, 3.0], [6.0, 3.0], [6.0, 5.5], [2.0, 5.5]])
    alpha, (top, left) = shapes.coverage(shapes.Outline([square]), 10)
    picture = np.zeros((10, 10))
    picture[top : top + alpha.shape[0], left : left + alpha.shape[1]] = alpha / 255
    expected = np.zeros((10, 10))
    expected[3:5, 2:6] = 1
    expected[5, 2:6] = 0.5
    assert np.abs(picture - expected).max() <= 0.21  # one of five sub-samples


@pytest.mark.parametrize("width", [1.0, 1.8, 3.0])
@pytest.mark.parametrize("degrees", [0, 17, 45, 80])
def test_a_stroke_has_its_width_and_no_gaps(width, degrees):
    step = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    areas = {80: 0.0, 40: 0.0}
    offsets = np.random.default_rng(0).uniform(0, 1, (20, 2))
    for offset in offsets:
        for length in areas:
            line = 64 + offset + np.outer([-0.5, 0.5], step * length)
            alpha, _ = shapes.coverage(shapes.Outline([line], width), 128)
            areas[length] += alpha.sum() / 255 / len(offsets)
            labelled = (alpha >= scenes._COVERED).astype(np.uint8)
            assert cv2.connectedComponents(labelled, connectivity=8)[0] == 2  # the line and what it lies on
    assert (areas[80] - areas[40]) / 40 == pytest.approx(width, abs=0.12)


def test_what_lies_outside_covers_nothing():
    assert shapes.coverage(shapes.Outline([np.array([[-9.0, -9.0], [-5.0, -9.0], [-5.0, -4.0]])]), 32) is None
