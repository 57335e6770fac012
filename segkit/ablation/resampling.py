"""What resampling says of a difference between two arms: jackknife, bootstrap, and the exact tests over seeds.

S  seeds    N  images    K  classes    b  resamples at once
"""

import itertools
import math

import numpy as np

from segkit.ablation.counts import Counts, ScoreFunction

EXACT = 200_000  # more ways than these to divide the runs between two arms are sampled: 10 + 10 runs still are exact
ROUNDING = 1e-12  # sums that differ by less than this share of their terms are ties


def pseudo_values(counts: Counts, score: ScoreFunction) -> np.ndarray:
    """Jackknife pseudo-values of the score of every seed (Tukey, 1958): `N·score − (N − 1)·score without image i`, `[S, N]`.

    To first order a score is the mean of its pseudo-values over the images, which makes mIoU, no mean over images, as good as one.
    A class that vanishes with an image is left out of that mIoU.
    """
    images = counts.union.shape[1]
    intersection, union = (c.sum(1, keepdims=True) for c in (counts.intersection, counts.union))
    without = score(intersection - counts.intersection, union - counts.union)
    values: np.ndarray = images * score(intersection, union) - (images - 1) * without
    return values


def _weights(rng: np.random.Generator, resamples: int, size: int) -> np.ndarray:
    """How often each of `size` things is drawn by `size` draws with replacement: `[b, size]`."""
    drawn = rng.integers(size, size=(resamples, size)) + np.arange(resamples)[:, None] * size
    counts: np.ndarray = np.bincount(drawn.ravel(), minlength=resamples * size)
    return counts.reshape(resamples, size).astype(np.float64)


def bootstrap(
    arm: Counts, baseline: Counts, score: ScoreFunction, *, resamples: int, seed: int, paired_seeds: bool, level: float
) -> tuple[float, float]:
    """The percentile interval of the two-level bootstrap: seeds and images are drawn anew, images (and paired seeds) alike in both arms.

    A resample sums the counts of its images for each seed, weighted by how often each was drawn, and averages the scores of its seeds.
    Resamples without a score (the class has vanished) are left out.

    Args:
        arm: Counts of the arm.
        baseline: Counts of the baseline on the same images.
        score: Function of the summed counts.
        resamples: How many; 0 gives NaN.
        seed: Of the random streams: one for the images, one for the seeds of each arm, so that the size of a block decides nothing.
        paired_seeds: Whether seed s of both arms belongs together.
        level: What the interval leaves out, 0.05 for 95 %.
    """
    images_stream, *seed_streams = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
    images = arm.union.shape[1]
    block = max(1, 2**21 // (images + arm.union[:, 0].size + baseline.union[:, 0].size))  # some 50 MB at once
    differences = np.empty(resamples)
    for start in range(0, resamples, block):
        stop = min(start + block, resamples)
        drawn = _weights(images_stream, stop - start, images)
        means: list[np.ndarray] = []
        for counts, stream in zip((arm, baseline), seed_streams, strict=True):
            if not (means and paired_seeds):
                shares = _weights(stream, stop - start, len(counts.union)) / len(counts.union)
            # float64 holds such sums exactly; tensordot is one matrix product over all seeds and classes
            values = score(*(np.tensordot(drawn, c.astype(np.float64), (1, 1)) for c in (counts.intersection, counts.union)))
            means.append((shares * values).sum(1))
        differences[start:stop] = means[0] - means[1]
    differences = differences[~np.isnan(differences)]
    low, high = np.quantile(differences, [level / 2, 1 - level / 2]) if len(differences) else (math.nan, math.nan)
    return float(low), float(high)


def bootstrap_images(counts: Counts, score: ScoreFunction, *, resamples: int, seed: int, level: float) -> np.ndarray:
    """Percentile intervals of how far single runs are from the first of them: images are drawn anew, alike for all of them.

    What the interval covers are other images of the kind, not other trainings. Resamples without a score are left out, as in `bootstrap`,
    whose random stream draws the images here too: for one seed an arm both say the same.

    Args:
        counts: A run in the place of each seed.
        score: Several scores at once: a function of summed counts, `[..., K] -> [..., V]`.
        resamples: How many.
        seed: Of the random stream.
        level: What the interval leaves out, 0.05 for 95 %.

    Returns:
        float64 `[S, V, 2]`, low and high; NaN where no resample has a score.
    """
    stream = np.random.default_rng(np.random.SeedSequence(seed).spawn(3)[0])
    images = counts.union.shape[1]
    block = max(1, 2**21 // (images + counts.union[:, 0].size))
    parts = []
    for start in range(0, resamples, block):
        drawn = _weights(stream, min(block, resamples - start), images)
        values = score(*(np.tensordot(drawn, c.astype(np.float64), (1, 1)) for c in (counts.intersection, counts.union)))
        parts.append(values - values[:, :1])
    differences = np.concatenate(parts)  # [resamples, S, V]
    intervals = np.full((*differences.shape[1:], 2), np.nan)
    for place in np.ndindex(differences.shape[1:]):
        found = differences[:, *place]
        found = found[~np.isnan(found)]
        if len(found):
            intervals[place] = np.quantile(found, [level / 2, 1 - level / 2])
    return intervals


def _signed_sums(values: np.ndarray) -> np.ndarray:
    """The sums of `values` under every choice of signs, `[2**n]`, sorted."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return np.sort(sums)


def sign_flip(differences: np.ndarray) -> tuple[float, float]:
    """Exact two-sided test that paired differences are symmetric around zero: of all 2**n sign patterns, how many give a sum as large?

    The sums of two halves are met in the middle, so that 40 seeds cost what 20 would by enumeration.

    Returns:
        p, and the least p that n seeds can reach, 2 / 2**n.
    """
    n = len(differences)
    least = min(1.0, 2 / 2**n)
    if np.isnan(differences).any():
        return math.nan, least
    threshold = abs(differences.sum()) - ROUNDING * np.abs(differences).sum()
    if threshold <= 0:
        return 1.0, least
    left, right = _signed_sums(differences[: n // 2]), _signed_sums(differences[n // 2 :])
    as_large = len(left) * len(right) - np.searchsorted(right, threshold - left).sum()
    return float(2 * as_large / 2**n), least


def permutation(arm: np.ndarray, baseline: np.ndarray, seed: int) -> tuple[float, float]:
    """Two-sided permutation test that two sets of independent runs come from one distribution, by the difference of their means.

    Exact up to `EXACT` ways to divide the runs; beyond, that many random ones and the observed one.

    Returns:
        p, and the least p that so many runs can reach.
    """
    runs, size = np.concatenate([arm, baseline]), len(arm)
    ways = math.comb(len(runs), size)
    least = (2 if size == len(baseline) else 1) / ways  # equal sizes can swap
    if np.isnan(runs).any():
        return math.nan, least
    centred = runs - runs.mean()  # the difference of the means is then proportional to the sum of the first group
    threshold = abs(centred[:size].sum()) - ROUNDING * np.abs(centred).sum()
    if ways <= EXACT:
        divisions = np.array(list(itertools.combinations(range(len(runs)), size)))
        return float((np.abs(centred[divisions].sum(1)) >= threshold).mean()), least
    shuffled = np.random.default_rng(seed).permuted(np.broadcast_to(centred, (EXACT, len(runs))), axis=1)[:, :size]
    return float((1 + (np.abs(shuffled.sum(1)) >= threshold).sum()) / (EXACT + 1)), least
