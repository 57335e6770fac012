"""What a study found, in plain sentences."""

from segkit.ablation.compare import Analysis, Comparison
from segkit.ablation.numbers import interval, percent, points, probability, several
from segkit.ablation.stats import Contrast

LABELS = {"miou": "mIoU", "boundary": "boundary mIoU"}


def verdicts(analysis: Analysis, score: str = "miou") -> list[tuple[str, str]]:
    """A word and a sentence for every arm but the baseline, A/A arms last.

    Args:
        analysis: What was found.
        score: `miou` or `boundary`.
    """
    return [_verdict(c, score) for c in sorted(analysis.comparisons.values(), key=lambda c: c.arm.aa)]


def _verdict(found: Comparison, score: str) -> tuple[str, str]:
    arm, baseline = found.arm.name, found.reference.name
    c: Contrast | None = getattr(found, score)
    if found.withheld:
        return "withheld", f"{arm} against {baseline}: the runs differ in more than they should, see Fairness."
    if not found.seeds:
        return "pending", f"{arm} against {baseline}: no seed that both have finished."
    if c is None:
        return "pending", f"{arm} against {baseline}: {LABELS[score]} was not measured in all runs."
    if found.arm.aa:
        return "noise", noise(found, score)
    return ("one seed" if c.seeds == 1 else c.verdict), sentence(c, arm, baseline, LABELS[score])


def sentence(c: Contrast, arm: str, baseline: str, label: str) -> str:
    """What a contrast says, in one sentence, with what so many seeds cannot say."""
    by = f"{points(c.difference)} points of {label}"
    if c.seeds == 1:
        return f"{arm} against {baseline}: {by} with one seed, which ranks nothing: another seed may turn it round."
    told = f"{by}, 95 % interval {interval(c.interval)}"
    basis = f"{several(c.seeds, 'seed')}, {several(c.images, 'image')}"
    p = f"p {_equals(c.headline_p_holm)}" + (f" by Holm over {c.comparisons} comparisons" if c.comparisons > 1 else "")
    few = "" if c.least_p <= 0.05 else f" {c.seeds} seeds cannot reach p < .05 in the sign-flip test."
    if c.verdict in ("better", "worse"):
        return f"{arm} is {c.verdict} than {baseline}: {told}, {p}, {basis}.{few}"
    if c.verdict == "equivalent":
        return f"{arm} and {baseline} are equivalent within {100 * (c.margin or 0):g} points: {told}, {basis}.{few}"
    return (
        f"{arm} against {baseline} is unresolved: {told}, {p}; {basis} detect a true difference of {percent(c.detectable)} points "
        f"in four of five studies.{few}"
    )


def _equals(p: float) -> str:
    return probability(p) if p < 0.001 else f"= {probability(p)}"


def noise(found: Comparison, score: str = "miou") -> str:
    """What an A/A comparison shows."""
    c: Contrast | None = getattr(found, score)
    if c is None:
        return f"{found.arm.name}: nothing to compare yet."
    return (
        f"{found.reference.name} under {several(c.seeds, 'other seed')} differs from itself by {points(c.difference)} points of "
        f"{LABELS[score]}, 95 % interval {interval(c.interval)}: so much chance alone does."
    )
