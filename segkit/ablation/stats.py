"""What an ablation may claim: the contrasts of its arms as one family, and each of them in words.

`contrast` compares two arms, `family` all of them with the baseline; headline.py has the interval, `contrasts.verdict` the rule.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from segkit.ablation.contrasts import Contrast, contrast, verdict
from segkit.ablation.counts import Counts, Score
from segkit.ablation.headline import LEVEL
from segkit.errors import unknown

__all__ = ["Contrast", "Counts", "Score", "adjust", "contrast", "family", "holm", "sentence"]


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for all being looked at (Holm, 1979), in the order given; NaN counts as a comparison and stays NaN."""
    order = sorted(range(len(p)), key=lambda i: (math.isnan(p[i]), p[i]))
    adjusted, so_far = list(p), 0.0
    for rank, i in enumerate(order):
        if not math.isnan(p[i]):
            so_far = max(so_far, min(1.0, (len(p) - rank) * p[i]))
            adjusted[i] = so_far
    return adjusted


def adjust(contrasts: Mapping[str, Contrast], planned: int = 0) -> dict[str, Contrast]:
    """The same contrasts as one family: p-values adjusted by Holm, and the verdicts that follow.

    Args:
        contrasts: Those that there are.
        planned: How many there are to be; those still missing count as comparisons, so that stopping early makes nothing significant.
    """
    missing = [math.nan] * (planned - len(contrasts))
    kinds = [[getattr(c, kind) for c in contrasts.values()] for kind in ("headline_p", "p", "equivalence_p")]
    adjusted = zip(*(holm([*p, *missing])[: len(contrasts)] for p in kinds), strict=True)
    size = max(planned, len(contrasts))
    family = {
        name: replace(c, headline_p_holm=headline, p_holm=flips, equivalence_p_holm=equivalence, comparisons=size)
        for (name, c), (headline, flips, equivalence) in zip(contrasts.items(), adjusted, strict=True)
    }
    return {name: replace(c, verdict=verdict(c)) for name, c in family.items()}


def family(
    arms: Mapping[str, Counts],
    baseline: str,
    margin: float | None = None,
    *,
    score: Score = "miou",
    resamples: int = 10_000,
    seed: int = 0,
    paired_seeds: bool = True,
) -> dict[str, Contrast]:
    """Every other arm against the baseline, as one family. Arms that lack a seed: `adjust` contrasts of the seeds they have.

    Args:
        arms: Counts of each, the baseline's among them.
        baseline: Its name.
        margin: As in `contrast`, like the rest.
        score: "miou", a class, or a function.
        resamples: Of the bootstrap.
        seed: Of its random streams.
        paired_seeds: Whether seed s of all arms belongs together.

    Raises:
        SegkitError: The baseline is unknown; see also `contrast`.
    """
    if baseline not in arms:
        raise unknown("baseline arm", baseline, arms)
    return adjust(
        {
            name: contrast(arm, arms[baseline], score=score, margin=margin, resamples=resamples, seed=seed, paired_seeds=paired_seeds)
            for name, arm in arms.items()
            if name != baseline
        }
    )


def sentence(name: str, baseline: str, c: Contrast, unit: str = "mIoU points") -> str:
    """A contrast in one plain sentence: the difference, its interval, the verdict, and what cannot be concluded.

    Args:
        name: Of the arm.
        baseline: Of the baseline.
        c: The contrast.
        unit: What a hundredth of the score is called.
    """
    seeds, images = _count(c.seeds, "seed"), _count(c.images, "image")
    by = f"{100 * c.difference:+.2f} {unit}"
    if math.isnan(c.difference):
        return f"{name} against {baseline}: nothing to compare, the score is undefined on these images."
    if c.seeds == 1:
        low, high = c.bootstrap
        alone = "" if math.isnan(low) else f"; resampling the images alone gives {_interval(low, high)}, which ignores that training varies"
        return f"{name} against {baseline}: {by} with one seed, and one seed ranks nothing{alone}."
    if math.isnan(c.standard_error):
        return f"{name} against {baseline}: {by}, and no interval: too few of the {images} count for this score; nothing can be concluded."
    tests = [f"95 % interval {_interval(*c.interval)} over {seeds} and {images}"]
    if c.comparisons > 1 and c.verdict != "equivalent":
        tests.append(f"p = {c.headline_p_holm:.2g} after Holm over {c.comparisons} comparisons")
    claims = {
        "better": f"{name} is better than {baseline}",
        "worse": f"{name} is worse than {baseline}",
        "equivalent": f"{name} and {baseline} are equivalent within {100 * (c.margin or 0):.2g} points",
        "unresolved": f"whether {name} is better or worse than {baseline} is unresolved",
    }
    parts = [f"{claims[c.verdict]}: {by} ({', '.join(tests)})"]
    excludes_zero = c.interval[0] > 0 or c.interval[1] < 0
    if c.verdict == "equivalent" and c.headline_p_holm < LEVEL:
        parts.append("the difference is real, and too small to matter")
    if c.verdict == "unresolved":
        inside = c.margin is not None and -c.margin < c.interval[0] and c.interval[1] < c.margin
        if excludes_zero or inside:
            found = "lies inside the margin" if inside else "excludes zero"
            parts.append(f"the interval {found}, which {c.comparisons} comparisons do not let count")
        alone = ", were it the only comparison" if c.comparisons > 1 else ""
        parts.append(f"so many seeds and images detect {100 * c.detectable:.2g} points with 80 % power{alone}")
    if c.verdict != "unresolved" and c.paired and c.seed_sd < c.interaction_sd / math.sqrt(c.images):
        parts.append("the seeds agree more than their noise on single images lets expect, and more seeds may well widen the interval")
    if c.comparisons * c.least_p >= LEVEL:
        family = f" under Holm with {c.comparisons} comparisons" if c.comparisons > 1 else ""
        rests = ", so that the verdict rests on normally distributed noise" if c.verdict in ("better", "worse") else ""
        test = "exact sign-flip test over the seeds" if c.paired else "permutation test over the seeds"
        parts.append(f"{seeds} cannot reach p < .05{family} in the {test}{rests}")
    return "; ".join(parts) + "."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _interval(low: float, high: float) -> str:
    return f"{100 * low:+.2f} to {100 * high:+.2f}"
