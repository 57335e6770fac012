"""Resampling the images of single runs: against the interval of an ablation, a loop over images drawn, and a case known by theory."""

import math

import numpy as np
import pytest

from segkit.ablation.counts import Counts, iou, miou
from segkit.ablation.resampling import bootstrap, bootstrap_images


def every(intersection, union):
    return np.concatenate([miou(intersection, union)[..., None], iou(intersection, union)], -1)


def made(runs=3, images=30, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(1, 200, (images, classes))
    matrices = np.array(
        [
            [[rng.multinomial(t, p) for t, p in zip(row, np.eye(classes) * 0.7 + 0.3 / classes, strict=True)] for row in truth]
            for _ in range(runs)
        ]
    )
    return Counts.from_matrices(matrices)


def one(counts, run):
    return Counts(counts.intersection[[run]], counts.union[[run]])


def test_with_one_seed_an_arm_an_ablation_says_the_same():
    counts = made()
    found = bootstrap_images(counts, every, resamples=500, seed=3, level=0.05)
    assert found.shape == (3, 5, 2)
    assert (found[0] == 0).all()
    for run in (1, 2):
        expected = bootstrap(one(counts, run), one(counts, 0), miou, resamples=500, seed=3, paired_seeds=True, level=0.05)
        assert found[run, 0].tolist() == pytest.approx(expected, abs=1e-15)


def test_a_resample_is_the_data_set_of_the_images_that_were_drawn(monkeypatch):
    """The counts of each image, once for every time it is drawn, the same for both runs; blocks of any size."""
    counts, resamples, rng = made(runs=2, images=7), 40, np.random.default_rng(5)
    drawn = rng.integers(7, size=(resamples, 7))
    stream = iter(np.stack([np.bincount(row, minlength=7) for row in drawn]).astype(float))
    monkeypatch.setattr("segkit.ablation.resampling._weights", lambda rng, b, size: np.stack([next(stream) for _ in range(b)]))
    found = bootstrap_images(counts, every, resamples=resamples, seed=0, level=0.1)
    differences = []
    for row in drawn:
        scores = [[counts.intersection[r, row].sum(0), counts.union[r, row].sum(0)] for r in (0, 1)]
        first, other = (np.array([(i / u).mean(), *(i / u)]) for i, u in scores)
        differences.append(other - first)
    low, high = np.percentile(differences, [5, 95], axis=0)
    np.testing.assert_allclose(found[1, :, 0], low, rtol=1e-12)
    np.testing.assert_allclose(found[1, :, 1], high, rtol=1e-12)


def test_the_width_is_that_of_theory():
    """Images of one class and 100 pixels each: the IoU is a mean over images, and its difference has a standard error we know."""
    rng = np.random.default_rng(0)
    shared = np.stack([rng.binomial(100, p, size=(400, 1)) for p in (0.5, 0.6)])
    counts = Counts(shared, np.full_like(shared, 100))
    low, high = bootstrap_images(counts, every, resamples=4000, seed=0, level=0.05)[1, 0]
    apart = (shared[1] - shared[0])[:, 0] / 100
    assert (low + high) / 2 == pytest.approx(apart.mean(), abs=0.1 * apart.std() / 20)
    assert high - low == pytest.approx(2 * 1.96 * apart.std() / math.sqrt(400), rel=0.05)


def test_a_class_that_is_nowhere_has_no_interval_and_one_in_a_single_image_that_of_the_resamples_with_it():
    counts = made(runs=2, images=5)
    intersection, union = counts.intersection.copy(), counts.union.copy()
    intersection[..., 0] = union[..., 0] = 0
    intersection[:, 1:, 1] = union[:, 1:, 1] = 0
    found = bootstrap_images(Counts(intersection, union), every, resamples=200, seed=0, level=0.05)
    assert np.isnan(found[:, 1]).all()
    apart = np.subtract(*(intersection[r, 0, 1] / union[r, 0, 1] for r in (1, 0)))
    assert found[1, 2].tolist() == pytest.approx([apart, apart])
    assert not np.isnan(found[:, [0, 2, 3, 4]]).any()
