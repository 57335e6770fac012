"""What cannot be concluded from a study."""

import math
from collections.abc import Iterator

from segkit.ablation.compare import Analysis
from segkit.ablation.numbers import percent, several
from segkit.ablation.protocol import budget
from segkit.ablation.study import Study


def limits(analysis: Analysis) -> list[str]:
    """The limits of what was found, the gravest first."""
    return [*_seeds(analysis), *_runs(analysis.study), *_budgets(analysis.study), *_scope(analysis)]


def least_seeds(comparisons: int) -> int:
    """Seeds with which the exact sign-flip test can reach p < .05 for one of so many comparisons under Holm.

    The least n with `comparisons · 2 / 2**n <= 0.05`.
    """
    return math.ceil(math.log2(2 * max(1, comparisons) / 0.05))


def _seeds(analysis: Analysis) -> Iterator[str]:
    found = analysis.proper("miou")
    if not found:
        yield "No arm can be compared with the baseline yet, so nothing is ranked."
        return
    fewest, family = min(c.seeds for c in found.values()), max(c.comparisons for c in found.values())
    need, alone = least_seeds(family), least_seeds(1)
    if fewest == 1:
        yield "An arm with one seed is not ranked: what another seed would change is unknown, and often more than published differences."
    elif fewest < need:
        needs = f"{need} seeds for one of {family} comparisons under Holm, {alone} for one alone" if family > 1 else f"{alone} seeds"
        yield (
            f"{several(fewest, 'seed')} cannot reach p < .05 in the exact sign-flip test, which needs no normal noise but {needs}. The "
            "verdicts rest on the interval, which takes the differences between seeds for roughly normal."
        )
    blind = max((c.detectable for c in found.values() if not math.isnan(c.detectable)), default=None)
    if blind is not None:
        yield f"A true difference of mIoU below {percent(blind)} points may have been missed in some arm: the power is less than 80 %."
    if analysis.study.plan.margin is None:
        yield "No margin was declared: an unresolved difference is not evidence that two arms are equal."
    elif any(c.verdict == "unresolved" for c in found.values()):
        yield "An unresolved difference is not evidence that two arms are equal; only 'equivalent' is."


def _runs(study: Study) -> Iterator[str]:
    failed, unfinished = (len(study.of_state(state)) for state in ("failed", "unfinished"))
    if failed:
        verb = "is" if failed == 1 else "are"
        yield f"{several(failed, 'run')} failed and {verb} in no mean: if failing depends on the arm, its mean is too good."
    if unfinished:
        verb = "is" if unfinished == 1 else "are"
        yield (
            f"{several(unfinished, 'run')} {verb} not finished, and verdicts may still change: each look on the way is another chance of a "
            "false claim, and who stops when the results please finds too much."
        )
    software = {str(sorted((run.provenance.get("software") or {}).items())) for _, run in study.of_state("finished")}
    code = {run.provenance.get("code") for _, run in study.of_state("finished")}
    if len(software) > 1 or len(code) > 1:
        yield "Software or code changed between seeds: fair within a seed, but the spread of the seeds holds that change too."
    if mixed := sum(bool(run.provenance.get("earlier")) for _, run in study.of_state("finished")):
        yield f"Software, code, device or threads changed within {several(mixed, 'run')} that went on: see their provenance.json."
    if not study.baseline.config.get("deterministic"):
        yield "Deterministic algorithms were off: the same run again may score a little differently on some devices."


def _budgets(study: Study) -> Iterator[str]:
    costs = [arm.cost for arm in study.arms if not arm.aa and arm.cost]
    if study.plan.match == "native" and len(study.arms) > 1:
        ranges = []
        for key, what in (("parameters", "parameters"), ("macs", "multiply-adds")):
            values = [cost[key] for cost in costs if cost.get(key)]
            if values and max(values) > 1.02 * min(values):
                ranges.append(f"{what} by a factor of {max(values) / min(values):.2f}")
        if ranges:
            yield f"Budgets are not matched: arms differ in {' and '.join(ranges)}, so a better arm may owe it to its size. See --match."
        elif not costs:
            yield "Budgets are not matched and were not measured, so a better arm may owe it to its size. See --match."
    if costs:
        yield "Latency and memory are those of one device, one image size and one software; their order may be another elsewhere."


def _scope(analysis: Analysis) -> Iterator[str]:
    study, plan = analysis.study, analysis.study.plan
    if plan.checkpoint == "last":
        yield "Every run is scored at its last checkpoint: no arm gains by choosing, and none is shown at its best."
    else:
        yield "The checkpoint was chosen by its score on val, which flatters runs whose scores go up and down."
    if plan.split != "test":
        yield f"Runs are scored on {plan.split}: whatever was tuned on these images is flattered by them."
    axes = set(plan.axes)
    yield "One data set, one split: the intervals speak for new images of the same kind, not for other data."
    if not axes & {"trainer.max_steps", "trainer.max_epochs"}:
        yield f"One budget of {budget(study.baseline.config)}: an arm that learns more slowly may win with more."
    if not axes & {"lr", "weight_decay", "optimizer", "schedule"}:
        yield "All arms share hyper-parameters that were tuned for none of them in particular: tuned one by one they may rank otherwise."
    if not axes & {"decoder", "encoder"}:
        network = f"{study.baseline.config['decoder']} over {study.baseline.config['encoder']}"
        yield f"One network ({network}): another may rank the arms otherwise."
    done = len(study.of_state("finished"))
    scored = {name: sum(len(arm.values("iou", name)) for arm in study.arms) for name in study.classes}
    if absent := [name for name, runs in scored.items() if not runs]:
        yield f"Absent from truth and predictions, so in no mean: {', '.join(absent)}."
    if partly := [f"{name} ({runs} of {done})" for name, runs in scored.items() if 0 < runs < done]:
        yield f"Absent from the truth, but predicted by some runs, whose mIoU counts an IoU of 0 there: {', '.join(partly)}."
    if any(c.classes for c in analysis.comparisons.values()):
        yield "Boundary and class scores are further looks at the same runs; Holm's method adjusts each score's family by itself."
        yield "The interval of a class that only a few images show is too narrow: in simulations it covers 87 to 93 % instead of 95."
