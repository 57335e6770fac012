"""The tables of a report: arms, contrasts, costs, classes, boundaries, failures, hashes."""

import math
from collections.abc import Mapping
from statistics import fmean, stdev

from segkit.ablation.compare import Analysis, word
from segkit.ablation.document import Table
from segkit.ablation.fairness import RECORDS, groups, recorded, short
from segkit.ablation.numbers import NONE, amount, interval, percent, plain, points, probability, several
from segkit.ablation.stats import Contrast
from segkit.ablation.study import Study, StudyArm, look_up

STATES = {"failed": "failed", "unfinished": "…"}


def arms_table(study: Study) -> Table:
    """Every run's mIoU: a row per arm, a column per seed."""
    rows = []
    for arm in study.arms:
        values = list(arm.values("miou").values())
        spread = percent(stdev(values)) if len(values) > 1 else NONE
        cells = [percent(run.scores["miou"]) if run.state == "finished" else STATES[run.state] for _, run in sorted(arm.runs.items())]
        rows.append([_named(study, arm), percent(fmean(values)) if values else NONE, spread, *cells])
    header = ["arm", "mean", "sd", *(f"seed {seed}" for seed in study.plan.seeds)]
    return Table(header, rows, f"mIoU in per cent on {study.plan.split}, every run; sd over the seeds. … not finished.")


def contrast_table(analysis: Analysis, contrasts: Mapping[str, Contrast], score: str) -> Table:
    """Differences to the baseline with all that the verdict rests on."""
    tests = ["verdict", "p", "p (Holm)", "bootstrap 95 %", "sign-flip p", "P(better run)"]
    header = ["arm", "Δ", "95 % interval", *tests, "detectable", "seeds"]
    rows = []
    for name, c in contrasts.items():
        found = [points(c.difference), interval(c.interval), word(c), probability(c.headline_p), probability(c.headline_p_holm)]
        found += [interval(c.bootstrap), probability(c.p), plain(c.improvement, 2), percent(c.detectable), str(c.seeds)]
        rows.append([name, *found])
    caption = (
        f"Difference of {score} to {analysis.study.baseline.name} in points. Interval and p speak for new seeds and new images; the "
        "sign-flip test for these images only. P(better run): share won by the arm of all pairs of one of its runs and one of the "
        "baseline's. Detectable: the true difference found with 80 % power, were it the only comparison."
    )
    return Table(header, rows, caption, left=(3,))


def class_table(analysis: Analysis) -> Table:
    """IoU of every class: the baseline's, and the arms' differences to it."""
    study = analysis.study
    compared = {name: c.classes for name, c in analysis.comparisons.items() if c.classes is not None and not c.arm.aa}
    rows = []
    for k in study.classes:
        values = study.baseline.values("iou", k).values()
        cells = [percent(fmean(values)) if values else "absent"]
        for found in compared.values():
            c = found.get(k)
            mark = {"better": " ▲", "worse": " ▼"}.get(c.verdict, "") if c else ""
            cells.append(f"{points(c.difference)} {interval(c.interval)}{mark}" if c else NONE)
        rows.append([k, *cells])
    caption = (
        f"IoU of {study.baseline.name} in per cent, and differences to it in points with 95 % intervals; ▲ better, ▼ worse, by Holm over "
        "all classes and arms."
    )
    return Table(["class", study.baseline.name, *compared], rows, caption)


def cost_table(study: Study) -> Table:
    """What every arm costs."""
    header = ["arm", "parameters", "of operators", "MACs", "of operators", "latency (ms)", "quartiles", "peak memory (MiB)"]
    rows = []
    for arm in study.arms:
        if arm.aa:
            continue
        if not arm.cost:
            rows.append([_named(study, arm), *["not measured"] * (len(header) - 1)])
            continue
        quartiles = " to ".join(plain(end, 1) for end in arm.cost.get("latency_iqr_ms") or ()) or NONE
        cells = [amount(arm.cost.get(key)) for key in ("parameters", "operator_parameters", "macs", "operator_macs")]
        rows.append([_named(study, arm), *cells, plain(arm.cost.get("latency_ms"), 1), quartiles, plain(arm.cost.get("memory_mib"), 0)])
    measured = next((arm.cost for arm in study.arms if arm.cost), {})
    size = " x ".join(map(str, measured.get("image") or ())) or "one image"
    where = f" on {measured['device']}" if measured.get("device") else ""
    threads = f", {several(measured['threads'], 'thread')}" if measured.get("threads") else ""
    return Table(header, rows, f"MACs and latency of one image of {size} pixels{where}{threads}; memory of one training step.")


def boundary_table(study: Study) -> Table:
    """Boundary measures of every arm, means over its seeds."""
    radii = trimap_radii(study)
    rows = []
    for arm in study.arms:
        keys = [("miou",), ("bf",), *(("trimap", radius) for radius in radii)]
        values = [arm.values("boundary", *key).values() for key in keys]
        rows.append([_named(study, arm), *(percent(fmean(v)) if v else NONE for v in values)])
    caption = "Means over the seeds in per cent. Trimap: mIoU of the pixels so near to a true boundary."
    return Table(["arm", "boundary mIoU", "BF score", *(f"trimap {radius} px" for radius in radii)], rows, caption)


def index_table(study: Study) -> Table:
    """Checkerboard indices of every arm, means over its seeds."""
    periods, nulls = (sorted({key for arm in study.arms for key in _keys(arm, what)}, key=int) for what in ("ci_net", "null"))
    rows = []
    for arm in study.arms:
        runs = arm.finished.values()
        told = [run.provenance.get("ci_op") for run in runs], [look_up(run.scores, "artefacts", "ci_op") for run in runs]
        before, after = ([v for stages in each if stages for v in stages.values() if v is not None and not math.isnan(v)] for each in told)
        cells = [plain(fmean(values), 3) if values else NONE for values in (before, after)]
        for what, keys in (("ci_net", periods), ("null", nulls)):
            values = [list(arm.values("artefacts", what, key).values()) for key in keys]
            cells += [plain(fmean(v), 4) if v else NONE for v in values]
        rows.append([_named(study, arm), *cells])
    header = ["arm", "CI_op before", "CI_op after", *(f"CI_net({s})" for s in periods), *(f"null {s}" for s in nulls)]
    caption = "CI_op: mean over stages and seeds, at initialisation and after training. CI_net: of the trained logits at each period."
    return Table(header, rows, caption)


def _keys(arm: StudyArm, what: str) -> list[str]:
    return [key for run in arm.finished.values() for key in look_up(run.scores, "artefacts", what) or {}]


def trimap_radii(study: Study) -> list[str]:
    """The radii at which some run has measured the trimap mIoU."""
    runs = [run for arm in study.arms for run in arm.finished.values()]
    return sorted({radius for run in runs for radius in look_up(run.scores, "boundary", "trimap") or {}}, key=int)


def hash_table(study: Study) -> Table:
    """What the runs of each seed share, record by record."""
    seeds = [seed for seed in study.plan.seeds if any(seed in arm.finished for arm in study.arms)]
    rows = [["finished runs", *(str(sum(seed in arm.finished for arm in study.arms)) for seed in seeds)]]
    for record, name in RECORDS.items():
        cells = []
        for seed in seeds:
            parted = [{short(recorded(arm.finished[seed], record)) for arm in group} for group in groups(study, seed, record)]
            cells.append(" | ".join(" ≠ ".join(sorted(values)) for values in parted))
        rows.append([name, *cells])
    caption = (
        "The first eight digits of a sha256, or the value where it is short. One value: all finished runs of that seed share it. Parted "
        "by |: arms that differ in it by design. Parted by ≠: an error. Whole hashes are in results.csv."
    )
    return Table(["within", *(f"seed {seed}" for seed in seeds)], rows, caption)


def failure_table(study: Study) -> Table:
    """The runs that ended in an error."""
    rows = []
    for arm, run in study.of_state("failed"):
        told = [str(run.failure.get(key, NONE)) for key in ("stage", "code", "message")]
        rows.append([arm.name, str(run.seed), *told, run.folder.name])
    return Table(["arm", "seed", "stage", "exit code", "message", "folder"], rows, "Runs that failed; they are in no mean.", left=(2, 4, 5))


def score_rows(analysis: Analysis) -> tuple[list[str], list[list[str]]]:
    """The short table for a terminal: mean mIoU, every seed, difference, interval and verdict of each arm.

    Returns:
        The header and a row per arm.
    """
    study, table, rows = analysis.study, arms_table(analysis.study), []
    for arm, cells in zip(study.arms, table.rows, strict=True):
        found = analysis.comparisons.get(arm.name)
        c = found.miou if found else None
        verdict = "baseline" if found is None else "withheld" if found.withheld else NONE if c is None else "" if arm.aa else word(c)
        rows.append([arm.name, cells[1], *cells[3:], points(c.difference) if c else NONE, interval(c.interval) if c else NONE, verdict])
    return ["arm", "mIoU %", *table.header[3:], "Δ", "95 % interval", "verdict"], rows


def _named(study: Study, arm: StudyArm) -> str:
    return f"{arm.name} (baseline)" if arm is study.baseline else arm.name
