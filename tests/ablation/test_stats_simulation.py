"""Whether the claims hold what they promise, on simulated confusion matrices whose truth is known.

    S  seeds    N  images    K  classes

Seed s of an arm classifies a share of class k in image i rightly: a base, how hard the image is (the same for both arms), how good the
seed is (in part the same for both), and the arm's own effects of seed, of image, and of seed on image. Classes differ in size, and two of
them are not in every image. The truth is the difference of the mean mIoU of infinitely many seeds, each on infinitely many images: the
shares are linear and independent of the sizes, so that the expected matrix of a seed is known, and only the seeds are drawn, 200,000 times.
"""

import numpy as np
import pytest

from segkit.ablation.counts import miou
from segkit.ablation.resampling import sign_flip
from segkit.ablation.stats import Counts, contrast, family

BASE = np.array([0.70, 0.70, 0.60, 0.65])
PRESENT, LOG_SIZE, LOG_SPREAD = np.array([1, 1, 0.6, 0.3]), np.log([8000, 3000, 1500, 400]), np.array([0.4, 0.6, 0.8, 0.6])
TAKEN_FOR = np.array([[0, 0.6, 0.3, 0.1], [0.7, 0, 0.2, 0.1], [0.6, 0.3, 0, 0.1], [0.5, 0.3, 0.2, 0]])
COMMON = 0.01  # standard deviation of what both arms owe to a seed

# standard deviations of an arm's effects of seed, image, and seed on image; beside them the seeds' share of Var at n = 3 and 10, m = 60
SETTINGS = {
    "images": (0.0, 0.05, 0.02),  # 0.05, 0.02
    "images most": (0.004, 0.04, 0.03),  # 0.2, 0.1
    "even": (0.008, 0.04, 0.03),  # 0.4, 0.2
    "seeds most": (0.016, 0.04, 0.03),  # 0.6, 0.4
    "seeds": (0.016, 0.0, 0.01),  # 1, 1
    "noise": (0.0, 0.0, 0.05),  # 0.9, 0.9: no effect of its own, all is noise of seed on image
}


def effects(rng, *shape, skewed=False):
    """Mean 0, standard deviation 1, half the variance common to the classes: `[*shape, K]`."""
    draw = (lambda *s: rng.exponential(size=s) - 1) if skewed else (lambda *s: rng.normal(size=s))
    return (draw(*shape, 1) + draw(*shape, len(BASE))) / np.sqrt(2)


def tally(sizes, right):
    """Confusion matrices `[..., K, K]` of classes of these sizes."""
    matrix = (sizes * (1 - right))[..., None] * TAKEN_FOR
    k = range(len(BASE))
    matrix[..., k, k] = sizes * right
    return matrix


def simulate(rng, seeds, images, gains, setting, skewed=False):
    """One ablation: the counts of an arm for each of `gains`, which is what it has before the others in the share of right pixels."""
    seed_sd, image_sd, noise_sd = SETTINGS[setting]
    sizes = (rng.random((images, len(BASE))) < PRESENT) * np.exp(LOG_SIZE + LOG_SPREAD * rng.normal(size=(images, len(BASE))))
    shared = BASE + 0.04 * effects(rng, images) + COMMON * effects(rng, seeds)[:, None]
    arms = []
    for gain in gains:
        own = seed_sd * effects(rng, seeds)[:, None] + image_sd * effects(rng, images, skewed=skewed)
        right = shared + gain + own + noise_sd * effects(rng, seeds, images)
        arms.append(Counts.from_matrices(np.rint(tally(sizes, right.clip(0, 1))).astype(np.int64)))
    return arms


def truth(gain, setting):
    rng = np.random.default_rng(99)
    sizes = PRESENT * np.exp(LOG_SIZE + LOG_SPREAD**2 / 2)
    right = BASE + COMMON * effects(rng, 200_000) + SETTINGS[setting][0] * effects(rng, 200_000)
    means = []
    for matrix in (tally(sizes, right + gain), tally(sizes, right)):
        hit = np.diagonal(matrix, axis1=1, axis2=2)
        means.append(miou(hit, matrix.sum(1) + matrix.sum(2) - hit).mean())
    return means[0] - means[1]


def coverage(repetitions, seeds, images, setting, resamples=0, skewed=False):
    """Shares of the intervals that hold the truth: headline, bootstrap, sign-flip over the seeds; and the seeds' mean share of Var."""
    rng, expected = np.random.default_rng(seeds * images), truth(0.02, setting)
    held, share = np.zeros(3), 0.0
    for repetition in range(repetitions):
        baseline, arm = simulate(rng, seeds, images, (0, 0.02), setting, skewed)
        c = contrast(arm, baseline, resamples=resamples, seed=repetition)
        flipped = sign_flip(np.array(c.differences) - expected)[0] > 0.05  # the values that the test does not reject
        held += [c.interval[0] <= expected <= c.interval[1], c.bootstrap[0] <= expected <= c.bootstrap[1], flipped]
        share += c.seed_sd**2 / seeds / c.standard_error**2
    return *held / repetitions, share / repetitions


def claims(repetitions, seeds, images, setting, comparisons):
    """Shares of the first contrasts alone, and of whole families, that call an arm better or worse where none differs."""
    rng = np.random.default_rng(seeds + images)
    found = np.zeros(2)
    for _ in range(repetitions):
        arms = simulate(rng, seeds, images, (0,) * (comparisons + 1), setting)
        contrasts = family({str(i): arm for i, arm in enumerate(arms)}, "0", resamples=0)
        found += [contrasts["1"].headline_p < 0.05, any(c.verdict != "unresolved" for c in contrasts.values())]
    return found / repetitions


def power(repetitions, seeds, images, setting, gain):
    """How often a true gain is called better, and the root mean square of what the contrasts say they could detect."""
    rng = np.random.default_rng(seeds)
    contrasts = [contrast(*simulate(rng, seeds, images, (gain, 0), setting), resamples=0) for _ in range(repetitions)]
    return np.mean([c.verdict == "better" for c in contrasts]), np.sqrt(np.mean([c.detectable**2 for c in contrasts]))


def test_three_seeds_cover_new_seeds_and_new_images():
    headline, _, _, share = coverage(400, 3, 40, "even")
    assert 0.93 <= headline <= 0.985  # 0.97, with three standard errors of 400 repetitions either way
    assert 0.25 < share < 0.6


def test_seeds_alone_speak_for_these_images_only():
    headline, _, flips, _ = coverage(300, 8, 40, "images")
    assert headline >= 0.92
    assert flips < 0.5


def test_families_without_differences_make_few_claims():
    alone, whole = claims(300, 3, 40, "seeds", 3)
    assert max(alone, whole) <= 0.09  # 0.05, with three standard errors


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 6, 10])
@pytest.mark.parametrize("images", [60, 233])
@pytest.mark.parametrize("setting", SETTINGS)
def test_coverage(setting, images, seeds):
    headline, percentile, flips, share = coverage(1500, seeds, images, setting, resamples=300)
    print(f"\n{setting:12s} m={images} n={seeds} share {share:.2f}: headline {headline:.1%} bootstrap {percentile:.1%} flips {flips:.1%}")
    assert 0.93 - 0.012 <= headline <= 0.97 + 0.009  # two standard errors of 1,500 repetitions at the ends


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 10])
@pytest.mark.parametrize("setting", ["images", "even"])
def test_coverage_where_few_images_make_the_difference(setting, seeds):
    headline, percentile, flips, share = coverage(1500, seeds, 60, setting, resamples=300, skewed=True)
    print(f"\nskewed {setting:12s} n={seeds} share {share:.2f}: headline {headline:.1%} bootstrap {percentile:.1%} flips {flips:.1%}")
    assert 0.93 - 0.012 <= headline <= 0.97 + 0.009


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 6, 10])
@pytest.mark.parametrize("setting", ["images", "even", "seeds", "noise"])
def test_false_claims(setting, seeds):
    alone, whole = claims(1500, seeds, 60, setting, 7)
    print(f"\n{setting:12s} n={seeds}: alone {alone:.1%} families of 7 {whole:.1%}")
    assert max(alone, whole) <= 0.05 + 0.012  # two standard errors


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["images", "even", "seeds"])
def test_power_grows_with_the_seeds_as_predicted(setting):
    found = []
    for seeds in (3, 6, 10):
        _, detectable = power(500, seeds, 60, setting, 0.0)
        gain = 0.02 * detectable / truth(0.02, setting)
        found.append((detectable, power(1000, seeds, 60, setting, gain)[0]))
    fixed = [power(1000, seeds, 60, setting, 0.02)[0] for seeds in (3, 6, 10)]
    text = "; ".join(f"n={n} detectable {d:.4f} found {p:.1%}" for n, (d, p) in zip((3, 6, 10), found, strict=True))
    print(f"\n{setting:12s} {text}; a gain of {truth(0.02, setting):.4f} found " + ", ".join(f"{p:.0%}" for p in fixed))
    assert all(0.75 <= p <= 0.88 for _, p in found)  # 0.8, with four standard errors and what a cautious interval costs or gives
    assert [d for d, _ in found] == sorted((d for d, _ in found), reverse=True)
    assert fixed == sorted(fixed)
