import numpy as np
import pytest

from segkit.doctor.classes import CHANCE, LEAST, drift, shares


def test_shares_are_over_the_labelled_pixels_of_all_images():
    assert shares(np.array([[1, 3, 0], [4, 0, 0]])).tolist() == [5 / 8, 3 / 8, 0]
    assert shares(np.zeros((2, 3), int)).tolist() == [0, 0, 0]


def test_the_distance_is_the_total_variation():
    found = drift(np.array([[80, 20, 0]] * 3), np.array([[50, 20, 30]] * 2), "val", ["a", "b", "c"])
    assert found.distance == pytest.approx(0.3)
    assert found.most in ("a", "c")
    # ten ways to choose two images of five, of which one is as far as this; another, mirrored, cannot be
    assert found.chance == pytest.approx(0.1, abs=0.03)


def test_splits_of_one_kind_differ_by_chance_and_others_do_not():
    rng = np.random.default_rng(0)
    images = rng.multinomial(1000, [0.6, 0.3, 0.1], 400) * rng.integers(1, 4, (400, 1))
    chances = []
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(400)
        chances.append(drift(images[order[:300]], images[order[300:]], "val", "abc", seed).chance)
    # uniform on (0, 1]: the mean of twenty lies within 0.5 +- 0.26 but once in ten thousand
    assert 0.24 < np.mean(chances) < 0.76
    other = drift(images, rng.multinomial(1000, [0.4, 0.4, 0.2], 100), "val", "abc")
    assert other.chance == 1 / 1000 <= CHANCE
    assert other.distance == pytest.approx(0.2, abs=0.02)
    assert other.distance > LEAST
