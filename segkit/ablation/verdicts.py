"""What a study found, in plain sentences."""

from segkit.ablation.compare import Analysis, Comparison, word
from segkit.ablation.numbers import interval, points, probability, several
from segkit.ablation.stats import Contrast, sentence

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
    return word(c), sentence(arm, baseline, c, f"{LABELS[score]} points")


def class_verdicts(analysis: Analysis) -> list[tuple[str, str]]:
    """A word and a sentence for every class in which an arm is better or worse than the baseline, and one for all the others."""
    named = [(name, k, c) for name, found in analysis.comparisons.items() if not found.arm.aa for k, c in (found.classes or {}).items()]
    claimed = [(name, k, c) for name, k, c in named if c.verdict in ("better", "worse")]
    told = [(str(c.verdict), _class_sentence(name, analysis.study.baseline.name, k, c)) for name, k, c in claimed]
    if left := len(named) - len(claimed):
        told.append(("unresolved", f"{left} of {several(len(named), 'difference')} between arms in single classes."))
    return told


def _class_sentence(arm: str, baseline: str, k: str, c: Contrast) -> str:
    p = f"p {'' if c.headline_p_holm < 0.001 else '= '}{probability(c.headline_p_holm)} by Holm over {several(c.comparisons, 'comparison')}"
    return f"{k}: {arm} is {c.verdict} than {baseline}, {points(c.difference)} points of IoU, 95 % interval {interval(c.interval)}, {p}."


def noise(found: Comparison, score: str = "miou") -> str:
    """What an A/A comparison shows."""
    c: Contrast | None = getattr(found, score)
    if c is None:
        return f"{found.arm.name}: nothing to compare yet."
    return (
        f"{found.reference.name} under {several(c.seeds, 'other seed')} differs from itself by {points(c.difference)} points of "
        f"{LABELS[score]}, 95 % interval {interval(c.interval)}: so much chance alone does."
    )
