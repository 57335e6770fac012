"""Which figures a study has material for, and the numbers that they show.

N images, F frequencies, S seeds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segkit.ablation.compare import Analysis, image_scores, word
from segkit.ablation.numbers import points
from segkit.ablation.stats import Contrast
from segkit.ablation.study import Study, StudyArm, look_up
from segkit.ablation.tables import trimap_radii
from segkit.config import IGNORE_INDEX
from segkit.errors import SegkitError
from segkit.figures import examples, report
from segkit.figures.report import Curve, Look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = (
    "runs", "differences", "boundary_differences", "latency", "parameters", "classes", "trimap", "trimap_differences", "operator_index",
    "network_index", "spectrum", "images",
)  # fmt: skip
IMAGES, ARMS = 4, 6  # rows and predictions of the figure of images


class Prediction(NamedTuple):
    """What a trained network says of one image.

    Args:
        image: uint8 `[H, W, 3]`.
        mask: The truth, uint8 `[H, W]`.
        labels: The prediction, uint8 `[H, W]`.
        colors: One (r, g, b) per class.
    """

    image: np.ndarray
    mask: np.ndarray
    labels: np.ndarray
    colors: Sequence[Sequence[int]]


Predict = Callable[[Path, int], Prediction]  # a run's folder and the index of an image in the scored split


def draw(analysis: Analysis, predict: Predict | None) -> tuple[dict[str, "Figure"], str]:
    """The figures for which there is something to draw.

    Args:
        analysis: What was found.
        predict: Says what a run predicts; None leaves the figure of images out.

    Returns:
        The figures by name, in the order of `NAMES`, and why there are no images, empty where there are.
    """
    study = analysis.study
    others = [arm for arm in study.arms if not arm.aa]
    look = report.looks(study.plan.baseline, (arm.name for arm in others), (arm.name for arm in study.arms if arm.aa))
    every = {arm.name: arm.values("miou") for arm in study.arms if arm.finished}
    drawn = {"runs": report.draw_runs(every, look, "mIoU")} if every else {}
    drawn |= _differences(analysis, look)
    for name, key, label in (("latency", "latency_ms", "latency of one image (ms)"), ("parameters", "parameters", "parameters (millions)")):
        costs = {arm.name: arm.cost[key] / (1e6 if key == "parameters" else 1) for arm in others if arm.finished and arm.cost.get(key)}
        if costs:
            scores = {arm: list(every[arm].values()) for arm in costs}
            drawn[name] = report.draw_against(costs, scores, look, label, "mIoU")
    drawn |= _trimaps(study, look) | _artefacts(study, look)
    missing = "they were not asked for." if predict is None else "no two arms share a finished seed."
    try:
        if predict and (found := _examples(analysis, predict)):
            drawn["images"], missing = examples.draw_examples(found[0], study.classes, found[1], IGNORE_INDEX), ""
    except SegkitError as error:  # data or checkpoints are elsewhere by now: the rest of the report needs neither
        missing = f"{error}."
    return {name: report.settle(drawn[name]) for name in NAMES if name in drawn}, missing


def _differences(analysis: Analysis, look: Mapping[str, Look]) -> dict[str, "Figure"]:
    drawn, margin = {}, analysis.study.plan.margin
    for name, score, label in (("differences", "miou", "mIoU"), ("boundary_differences", "boundary", "boundary mIoU")):
        found: dict[str, Contrast] = {arm: getattr(c, score) for arm, c in analysis.comparisons.items() if getattr(c, score) is not None}
        if found:
            words = {arm: word(c) for arm, c in found.items()}
            words |= {arm.name: "noise" for arm in analysis.study.arms if arm.aa}
            drawn[name] = report.draw_differences(found, words, look, label, margin if score == "miou" else None)
    classes = {arm: c.classes for arm, c in analysis.comparisons.items() if c.classes and not c.arm.aa}
    if classes:
        drawn["classes"] = report.draw_classes(classes, look, "IoU")
    return drawn


def _trimaps(study: Study, look: Mapping[str, Look]) -> dict[str, "Figure"]:
    radii = trimap_radii(study)
    runs: dict[str, dict[int, np.ndarray]] = {}
    for arm in study.arms:
        values = {seed: look_up(run.scores, "boundary", "trimap") or {} for seed, run in arm.finished.items()}
        whole = {seed: np.array([v[r] for r in radii]) for seed, v in values.items() if all(v.get(r) is not None for r in radii)}
        if radii and whole and not arm.aa:
            runs[arm.name] = whole
    x, label = np.array(radii, float), "distance to a true boundary, at most (pixels)"
    curves = {name: Curve(x, np.stack(list(found.values()))) for name, found in runs.items()}
    drawn = {"trimap": report.draw_curves(curves, look, label, "mIoU (%)")} if curves else {}
    base, apart = runs.get(study.plan.baseline, {}), {}
    for name, found in runs.items():
        if name != study.plan.baseline and (shared := sorted(found.keys() & base.keys())):
            apart[name] = Curve(x, np.stack([found[seed] - base[seed] for seed in shared]))
    if apart:
        drawn["trimap_differences"] = report.draw_curves(apart, look, label, "difference of mIoU (points)", zero=True)
    return drawn


def _artefacts(study: Study, look: Mapping[str, Look]) -> dict[str, "Figure"]:
    drawn = {}
    arms = [arm for arm in study.arms if not arm.aa and arm.finished]
    stages = {name: str(place + 1) for place, name in enumerate(stage_names(study))}
    after = {arm.name: _gather([look_up(run.scores, "artefacts", "ci_op") for run in arm.finished.values()], stages) for arm in arms}
    before = {arm.name: _gather([run.provenance.get("ci_op") for run in arm.finished.values()], stages) for arm in arms}
    if any(after.values()):
        drawn["operator_index"] = report.draw_indices(after, before, look, "upsampling stage", "operator index CI_op")
    nets = {}
    for arm in arms:
        runs = [look_up(run.scores, "artefacts") or {} for run in arm.finished.values()]
        nets[arm.name] = _gather([run.get("ci_net") for run in runs]) | _gather([run.get("null") for run in runs])
    if any(nets.values()):
        periods = len({key for arm in arms for run in arm.finished.values() for key in look_up(run.scores, "artefacts", "ci_net") or {}})
        label = "period (pixels); right of the line: null periods"
        drawn["network_index"] = report.draw_indices(nets, {}, look, label, "network index CI_net", periods)
    spectra = {}
    for arm in arms:
        pairs = [(run.artefacts("frequency"), run.artefacts("spectrum")) for run in arm.finished.values()]
        if measured := [(x, y / np.trapezoid(y, x)) for x, y in pairs if x is not None and y is not None]:
            spectra[arm.name] = Curve(measured[0][0], np.stack([y for _, y in measured]))
    if spectra:
        drawn["spectrum"] = report.draw_spectra(spectra, look)
    return drawn


def stage_names(study: Study) -> list[str]:
    """The upsampling stages of all networks, in their order."""
    runs = [run for arm in study.arms for run in arm.finished.values()]
    told = [mapping for run in runs for mapping in (run.provenance.get("ci_op"), look_up(run.scores, "artefacts", "ci_op")) if mapping]
    return list(dict.fromkeys(name for mapping in told for name in mapping))


def _gather(runs: Sequence[Mapping[str, float] | None], names: Mapping[str, str] | None = None) -> dict[str, list[float]]:
    """The values of all runs at every place, renamed, but for those that could not be measured."""
    gathered: dict[str, list[float]] = {}
    for run in runs:
        for place, value in (run or {}).items():
            if value is not None and not math.isnan(value):
                gathered.setdefault(names[place] if names else place, []).append(value)
    return gathered


def shown_arms(analysis: Analysis) -> list[StudyArm]:
    """The arms whose predictions are shown: the baseline, and those whose mIoU is farthest from it."""
    compared = [c for c in analysis.comparisons.values() if c.miou and not c.arm.aa]
    kept = sorted(compared, key=lambda c: -abs(c.miou.difference) if c.miou else 0)[: ARMS - 1]
    return [analysis.study.baseline, *(c.arm for c in compared if c in kept)]


def _examples(analysis: Analysis, predict: Predict) -> tuple[list[examples.Example], Sequence[Sequence[int]]] | None:
    """The images on which some arm is farthest from the baseline, by their mean IoU averaged over the seeds, as one seed sees them."""
    arms = shown_arms(analysis)
    seeds = sorted(set.intersection(*(set(arm.finished) for arm in arms)))
    if len(arms) < 2 or not seeds:
        return None
    scores = {arm.name: image_scores(arm, seeds) for arm in arms}
    apart = {arm.name: scores[arm.name] - scores[arms[0].name] for arm in arms[1:]}
    largest = np.nanmax(np.abs(np.nan_to_num(np.stack(list(apart.values())))), axis=0)
    chosen = np.argsort(-largest, kind="stable")[:IMAGES]
    first = arms[0].finished[seeds[0]]
    indices, names = first.required("index"), first.required("name")
    seen = {arm.name: [predict(arm.finished[seeds[0]].folder, int(indices[n])) for n in chosen] for arm in arms}
    rows = []
    for row, n in enumerate(chosen):
        mine = seen[arms[0].name][row]
        marks = {name: f"{100 * scores[name][n]:.0f}" if name == arms[0].name else points(apart[name][n])[:-1] for name in scores}
        labels = {name: found[row].labels for name, found in seen.items()}
        rows.append(examples.Example(str(names[n]), mine.image, mine.mask, labels, marks))
    return rows, seen[arms[0].name][0].colors
