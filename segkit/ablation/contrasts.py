"""One arm against its baseline: by how much it differs, and how sure that is.

n  seeds    m  images    d  difference of the scores of one seed
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from segkit.ablation.counts import Counts, Score, score_function
from segkit.ablation.headline import LEVEL, spread
from segkit.ablation.resampling import bootstrap, permutation, pseudo_values, sign_flip
from segkit.errors import SegkitError

Verdict = Literal["better", "worse", "equivalent", "unresolved"]


@dataclass(frozen=True)
class Contrast:
    """An arm against its baseline. Differences, intervals and standard deviations have the score's unit: 0.01 is one point.

    Args:
        difference: Mean over the seeds of score(arm) − score(baseline).
        interval: The headline, 95 %, for other seeds and other images; NaN with one seed, one image, or a class that one image has.
        df: Degrees of freedom at which Student's 97.5 % quantile is the one of the interval.
        standard_error: Of `difference`; its square is `seed_sd² / n + image_sd² / m` where seeds are paired.
        seed_sd: Standard deviation of d over the seeds on these images; more images would take `interaction_sd² / m` off its square.
        image_sd: That of an image's influence on the difference, without the interaction (with one seed it is in it).
        interaction_sd: That of the noise of one seed on one image.
        bootstrap: 95 % percentile interval of the two-level bootstrap, too narrow with few seeds; with one seed of the images alone.
        seeds: n, of the arm that has fewer.
        images: m.
        paired: Whether seed s of both arms belongs together.
        differences: d of every seed; empty where seeds are not paired.
        headline_p: Two-sided p-value of the headline: the level at which the interval ends at zero.
        headline_p_holm: The same over the family: what the verdict is made of.
        p: Exact two-sided sign-flip test over the seeds (where they are not paired, permutation test), for these images only.
        p_holm: The same over the family.
        least_p: The least `p` that so many seeds can reach, 2 / 2ⁿ where they are paired.
        equivalence_p: The level at which the interval ends at the margin, 1 where `difference` is beyond; NaN without margin.
        equivalence_p_holm: The same over the family: what the verdict is made of.
        improvement: Probability of improvement, P(arm > baseline) over pairs of runs, ties half (Agarwal et al., 2021).
        detectable: The smallest true difference that so many seeds and images detect with 80 % power at 5 %, alone in its family; an
            estimate from these runs, with 3 seeds often half or one and a half times the truth.
        margin: The largest difference that does not matter, declared beforehand.
        comparisons: Size of the family.
        verdict: On the arm, by the rule of the function `verdict`.
    """

    difference: float
    interval: tuple[float, float]
    df: float
    standard_error: float
    seed_sd: float
    image_sd: float
    interaction_sd: float
    bootstrap: tuple[float, float]
    seeds: int
    images: int
    paired: bool
    differences: tuple[float, ...]
    headline_p: float
    headline_p_holm: float
    p: float
    p_holm: float
    least_p: float
    equivalence_p: float
    equivalence_p_holm: float
    improvement: float
    detectable: float
    margin: float | None
    comparisons: int
    verdict: Verdict


def contrast(
    arm: Counts,
    baseline: Counts,
    *,
    score: Score = "miou",
    margin: float | None = None,
    resamples: int = 10_000,
    seed: int = 0,
    paired_seeds: bool = True,
) -> Contrast:
    """Compares an arm with its baseline, alone in its family.

    Args:
        arm: Counts of the arm.
        baseline: Counts of the baseline: the same images in the same order, and the same seeds if they are paired. Leave out a seed that
            one of the two has not finished.
        score: "miou", the index of a class, or a function of summed intersection and union, `[..., K] -> [...]`.
        margin: The largest difference that does not matter, in the score's unit; None declares none.
        resamples: Of the bootstrap; 0 leaves it out.
        seed: Of the bootstrap's random streams.
        paired_seeds: False where seed s of one arm has nothing to do with seed s of the other, as in an A/A comparison.

    Raises:
        SegkitError: The arms do not match, the score is unknown, or the margin is not positive.
    """
    (n, m, classes), (n_baseline, *others) = arm.union.shape, baseline.union.shape
    if [m, classes] != others or (paired_seeds and n != n_baseline):
        raise SegkitError(
            f"an arm of [seeds, images, classes] {list(arm.union.shape)} and a baseline of {list(baseline.union.shape)}: "
            "give both the same images and classes, and the same seeds if they are paired"
        )
    if margin is not None and not margin > 0:
        raise SegkitError(f"margin {margin}: give the largest difference that does not matter, above 0, or none")
    function = score_function(score, classes)
    if isinstance(score, int):  # the other classes would be resampled for nothing
        arm, baseline = (Counts(c.intersection[..., [score]], c.union[..., [score]]) for c in (arm, baseline))
        function = score_function(0, 1)
    a, b = (function(*counts.summed()) for counts in (arm, baseline))
    pseudo_a, pseudo_b = (pseudo_values(counts, function) for counts in (arm, baseline))
    error = spread([(a - b, pseudo_a - pseudo_b)] if paired_seeds else [(a, pseudo_a), (-b, -pseudo_b)])
    difference = float((a - b).mean() if paired_seeds else a.mean() - b.mean())
    half = error.critical() * error.standard_error
    headline_p = error.p(abs(difference))
    equivalence_p = error.p(float(np.maximum(0, margin - abs(difference)))) if margin is not None else float("nan")
    p, least_p = sign_flip(a - b) if paired_seeds else permutation(a, b, seed)
    alone = Contrast(
        difference=difference,
        interval=(difference - half, difference + half),
        df=error.effective_df(),
        standard_error=error.standard_error,
        seed_sd=error.seed,
        image_sd=error.image,
        interaction_sd=error.interaction,
        bootstrap=bootstrap(arm, baseline, function, resamples=resamples, seed=seed, paired_seeds=paired_seeds, level=LEVEL),
        seeds=min(n, n_baseline),
        images=m,
        paired=paired_seeds,
        differences=tuple((a - b).tolist()) if paired_seeds else (),
        headline_p=headline_p,
        headline_p_holm=headline_p,
        p=p,
        p_holm=p,
        least_p=least_p,
        equivalence_p=equivalence_p,
        equivalence_p_holm=equivalence_p,
        improvement=float((np.sign(a[:, None] - b).mean() + 1) / 2),
        detectable=error.detectable(),
        margin=margin,
        comparisons=1,
        verdict="unresolved",
    )
    return replace(alone, verdict=verdict(alone))


def verdict(c: Contrast) -> Verdict:
    """What may be said of the arm, from the Holm-adjusted p-values of the headline; alone in its family, from the 95 % interval.

    *equivalent*: a margin was declared and the interval lies inside it, on whatever side of zero (stricter than the 90 % interval of the
    usual two one-sided tests). Else *better* or *worse*: the interval excludes zero. Else *unresolved*, as with one seed.
    A family asks for more than an interval that excludes zero, so that at most 5 % of families without differences call any arm better or
    worse.
    """
    if c.equivalence_p_holm < LEVEL:  # NaN is below nothing
        return "equivalent"
    if c.headline_p_holm < LEVEL:
        return "better" if c.difference > 0 else "worse"
    return "unresolved"
