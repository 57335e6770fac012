"""`results.csv` with every run, and `table.tex` for a paper."""

import csv
import io
from collections.abc import Mapping
from statistics import fmean, stdev
from typing import Any

from segkit.ablation.compare import Analysis, word
from segkit.ablation.fairness import RECORDS, recorded
from segkit.ablation.numbers import MINUS, NONE, interval, percent, points
from segkit.ablation.study import Run, Study

SCORES = ("miou", "accuracy", "mean_dice", "iou", "boundary", "artefacts")
COSTS = ("parameters", "operator_parameters", "macs", "operator_macs", "latency_ms", "memory_mib")


def results_csv(study: Study) -> str:
    """A row per run, finished or not: arm, settings, seed, state, all scores, costs, and what fairness compares."""
    rows = []
    for arm in study.arms:
        for seed, run in sorted(arm.runs.items()):
            row: dict[str, Any] = {"arm": arm.name, **{axis: arm.settings.get(axis) for axis in study.plan.axes}, "seed": seed}
            row |= {"trained_seed": run.provenance.get("seed"), "run": run.folder.name, "state": run.state, "seconds": run.seconds}
            row |= {"message": run.failure.get("message")} | _flat({key: run.scores[key] for key in SCORES if key in run.scores})
            row |= _flat({"ci_op_initial": run.provenance.get("ci_op") or {}})
            row |= {key: arm.cost.get(key) for key in COSTS}
            rows.append(row | _hashes(run))
    found = dict.fromkeys(key for row in sorted(rows, key=lambda row: row["state"] != "finished") for key in row)  # theirs come in order
    first = [*list(rows[0])[: list(rows[0]).index("message") + 1], *SCORES[:3]] if rows else []
    columns = list(dict.fromkeys([*first, *found]))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _hashes(run: Run) -> dict[str, Any]:
    """What fairness compares; of the software each version by its name."""
    values = {key: recorded(run, key) if run.state == "finished" else run.provenance.get(key) for key in RECORDS}
    return _flat({key: value for key, value in values.items() if value is not None})


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values as `boundary/trimap/4`."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        out |= _flat(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {prefix + name: value}
    return out


def latex(analysis: Analysis) -> str:
    """The table of arms for a paper; needs the package booktabs."""
    study = analysis.study
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{lrrlrrr}",
        r"\toprule",
        r"Arm & mIoU (\%) & $\Delta$ [95\,\%] & Verdict & Boundary mIoU (\%) & Parameters (M) & Latency (ms) \\",
        r"\midrule",
    ]
    for arm in study.arms:
        if arm.aa:
            continue
        c = analysis.comparisons.get(arm.name)
        difference = f"{points(c.miou.difference)} {interval(c.miou.interval)}" if c and c.miou else "--"
        verdict = "baseline" if c is None else "withheld" if c.withheld else word(c.miou) if c.miou else "--"
        cost = arm.cost.get("parameters"), arm.cost.get("latency_ms")
        size, time = f"{cost[0] / 1e6:.2f}" if cost[0] else "--", f"{cost[1]:.1f}" if cost[1] else "--"
        near = _spread(arm.values("boundary", "miou"))
        lines.append(" & ".join([_tex(arm.name), _spread(arm.values("miou")), _tex(difference), verdict, near, size, time]) + r" \\")
    seeds = ", ".join(map(str, study.plan.seeds))
    note = f"% mean and standard deviation over the finished seeds of {seeds}; interval for new seeds and new images"
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", note]) + "\n"


def _spread(values: Mapping[int, float]) -> str:
    """Mean and standard deviation over the seeds."""
    numbers = list(values.values())
    if not numbers:
        return "--"
    return percent(fmean(numbers)) + (rf" $\pm$ {percent(stdev(numbers))}" if len(numbers) > 1 else "")


def _tex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    special = {"\\": r"\textbackslash{}", MINUS: "$-$", NONE: "--", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
