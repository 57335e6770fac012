"""From the runs of a study to its contrasts: every arm against the baseline, on the seeds that both have finished.

S seeds, N images, K classes.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from segkit.ablation.counts import Counts, iou
from segkit.ablation.fairness import Difference, differences
from segkit.ablation.records import AGAIN
from segkit.ablation.stats import Contrast, Score, adjust, contrast
from segkit.ablation.study import Study, StudyArm
from segkit.errors import SegkitError


@dataclass(frozen=True)
class Comparison:
    """An arm against its reference.

    Args:
        arm: The arm.
        reference: The baseline, which is also what an A/A arm repeats.
        seeds: What both have finished.
        withheld: Why there are no contrasts though there are seeds; empty where all is well.
        miou: The contrast of mIoU; None where there is none.
        boundary: The contrast of boundary mIoU; None where it was not measured.
        classes: The contrast of every class's IoU, without those that are nowhere.
    """

    arm: StudyArm
    reference: StudyArm
    seeds: list[int]
    withheld: list[str]
    miou: Contrast | None = None
    boundary: Contrast | None = None
    classes: dict[str, Contrast] | None = None


@dataclass(frozen=True)
class Analysis:
    """All that can be said of a study.

    Args:
        study: What was measured.
        unfair: In what arms differ that should not.
        comparisons: By arm: every arm but the baseline.
    """

    study: Study
    unfair: list[Difference]
    comparisons: dict[str, Comparison]

    def proper(self, score: str) -> dict[str, Contrast]:
        """The contrasts of `miou` or `boundary`, by arm, without A/A arms."""
        found = {name: getattr(c, score) for name, c in self.comparisons.items() if not c.arm.aa}
        return {name: c for name, c in found.items() if c is not None}


def analyse(study: Study, resamples: int = 10_000) -> Analysis:
    """Compares every arm with the baseline.

    The contrasts of one score are one family to Holm's method; those of all classes of all arms are one. Arms without a contrast, because
    their runs failed or are not finished, count in it. An A/A arm stands apart: it is no claim, and its seeds are paired with nothing.

    Args:
        study: What was measured.
        resamples: Of the bootstrap.
    """
    unfair = differences(study)
    comparisons = {}
    for arm in study.arms:
        if arm is not study.baseline:
            seeds = sorted(arm.finished.keys() & study.baseline.finished.keys())
            withheld = [str(found) for found in unfair if arm.name in (found.arm, found.reference) and found.seed in seeds]
            withheld += [str(found) for found in unfair if found.arm == study.baseline.name and str(found) not in withheld]
            comparisons[arm.name] = _contrasts(Comparison(arm, study.baseline, seeds, withheld), study.plan.margin, resamples)
    return Analysis(study, unfair, _adjusted(comparisons))


def _contrasts(found: Comparison, margin: float | None, resamples: int) -> Comparison:
    """Each contrast alone in its family."""
    if not found.seeds or found.withheld:
        return found
    sides = [[side.finished[seed] for seed in found.seeds] for side in (found.arm, found.reference)]
    paired = not found.arm.aa
    ours, theirs = (Counts.from_matrices(run.required("matrix") for run in runs) for runs in sides)

    def against(score: Score, margin: float | None = None) -> Contrast:
        return contrast(ours, theirs, score=score, margin=margin, resamples=resamples, paired_seeds=paired)

    miou = against("miou", margin)
    names = found.arm.finished[found.seeds[0]].classes
    nowhere = np.isnan(ours.class_iou()).all(0) | np.isnan(theirs.class_iou()).all(0)
    classes = {name: against(k) for k, name in enumerate(names) if not nowhere[k]}
    bands = [_bands(side, found.seeds) for side in (found.arm, found.reference)]
    boundary = contrast(bands[0], bands[1], resamples=resamples, paired_seeds=paired) if bands[0] and bands[1] else None
    return replace(found, miou=miou, boundary=boundary, classes=classes)


def _bands(arm: StudyArm, seeds: Iterable[int]) -> Counts | None:
    """Boundary regions shared and covered; None where a run has not measured them."""
    runs = [arm.finished[seed] for seed in seeds]
    counted = [(run.per_image("boundary_intersection"), run.per_image("boundary_union")) for run in runs]
    pairs = [(shared, covered) for shared, covered in counted if shared is not None and covered is not None]
    for run, (shared, covered) in zip(runs, pairs, strict=False):
        if (shared > covered).any():
            raise SegkitError(f"{str(run.evaluation / 'per_image.npz')!r} has boundaries that share more than they cover; {AGAIN}")
    return Counts(np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])) if len(pairs) == len(runs) else None


def _adjusted(comparisons: dict[str, Comparison]) -> dict[str, Comparison]:
    """The same comparisons, the contrasts of each score as one family."""
    claims = {name: c for name, c in comparisons.items() if not c.arm.aa}
    planned, most = len(claims), max((len(c.classes or ()) for c in claims.values()), default=0)
    miou = adjust({name: c.miou for name, c in claims.items() if c.miou}, planned)
    boundary = adjust({name: c.boundary for name, c in claims.items() if c.boundary}, planned)
    every = [(name, k, found) for name, c in claims.items() for k, found in (c.classes or {}).items()]
    each = adjust({str(place): found for place, (_, _, found) in enumerate(every)}, planned * most)
    classes: dict[str, dict[str, Contrast]] = {name: {} for name, c in claims.items() if c.classes is not None}
    for place, (name, k, _) in enumerate(every):
        classes[name][k] = each[str(place)]
    adjusted = {name: replace(c, miou=miou.get(name), boundary=boundary.get(name), classes=classes.get(name)) for name, c in claims.items()}
    return {name: adjusted.get(name, c) for name, c in comparisons.items()}


def word(c: Contrast) -> str:
    """The verdict on an arm in a word or two; one seed has none."""
    return c.verdict if c.seeds > 1 else "one seed"


def image_scores(arm: StudyArm, seeds: Iterable[int]) -> np.ndarray:
    """Mean IoU over the classes in each image, averaged over the seeds: `[N]`; NaN where an image has nothing to score.

    For choosing images only: no score of a data set is an average over them.
    """
    seen = []
    for seed in seeds:
        matrix = arm.finished[seed].required("matrix")
        hit = np.diagonal(matrix, axis1=1, axis2=2)
        seen.append(iou(hit, matrix.sum(1) + matrix.sum(2) - hit))
    values = np.stack(seen)
    counted = ~np.isnan(values)
    total = np.where(counted, values, 0).sum((0, 2))
    average: np.ndarray = np.divide(total, counted.sum((0, 2)), out=np.full(total.shape, np.nan), where=counted.any((0, 2)))
    return average
