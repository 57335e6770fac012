"""The protocol of a study: what a reader needs to know to do it again."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from segkit.ablation.numbers import NONE, seconds, several
from segkit.ablation.study import Study, look_up
from segkit.architectures import PREFIX


def protocol(study: Study) -> dict[str, str]:
    """Names and values, in the order of a methods section."""
    plan, config = study.plan, study.baseline.config
    runs = [run for _, run in study.of_state("finished")]
    told = [run.provenance for run in runs]
    margin = "none declared, so no arm can be called equivalent"
    if plan.margin is not None:
        margin = f"{100 * plan.margin:g} {'point' if plan.margin == 0.01 else 'points'} of mIoU, declared in the plan"
    matched = {"params": "parameters", "macs": "multiply-adds"}.get(plan.match)
    rule = "the last of the training" if plan.checkpoint == "last" else "the best on val"
    images = sorted({int(run.scores["images"]) for run in runs if "images" in run.scores})
    seeds = f"{several(len(plan.seeds), 'seed')}: {', '.join(map(str, plan.seeds))}"
    repeated = {True: "algorithms that repeat bit for bit", False: "not enforced: a repetition may differ in the last digits"}
    workers = [f"{several(t.get('processes', 1), 'process', 'processes')}, {several(t.get('threads', 1), 'thread')}" for t in told]
    return {
        "Baseline": plan.baseline,
        "Equivalence margin": margin,
        "Budgets": f"equal {matched} of the operators, within 2 %" if matched else "as the operators come, not matched",
        "Seeds": f"{seeds}; the baseline again with others (A/A)" if plan.aa else seeds,
        "Data": f"{plan.data['description']}; sha256 {plan.data['fingerprint']}",
        "Scored": ", ".join([plan.split, *(several(number, "image") for number in images), "native resolution"]),
        "Checkpoint": f"{rule}, moving average of the weights" if config.get("ema") else rule,
        "Network": _network(config),
        "Training": _training(config),
        "Augmentation": _augmentation(config),
        "segkit": f"{plan.segkit}, commit {plan.commit or 'unknown'}",
        "Software": _joined(", ".join(f"{name} {version}" for name, version in (t.get("software") or {}).items()) for t in told),
        "Device": _joined(str(t.get("device", NONE)) for t in told),
        "Precision": _joined(str(t.get("precision", NONE)) for t in told),
        "Determinism": _joined(repeated[bool(t.get("deterministic"))] for t in told),
        "Processes": _joined(workers),
        "Training time": f"{seconds(sum(run.seconds or 0 for run in runs))} over all finished runs" if runs else NONE,
        "Intervals": "95 %, for new seeds and new images, from variance components; the two-level bootstrap beside them",
        "Verdicts": "better or worse: Holm's p of the interval below 0.05; equivalent: inside the margin by Holm's p too; else unresolved",
    }


def _joined(values: Iterable[str]) -> str:
    """The different values, in the order of their first appearance."""
    return "; ".join(dict.fromkeys(values)) or NONE


def budget(config: Any) -> str:
    """How long a run trains, in steps or epochs."""
    trainer = config["trainer"]
    return several(trainer["max_epochs"], "epoch") if trainer.get("max_epochs") else several(trainer["max_steps"], "step")


def _network(config: Any) -> str:
    weights = f"weights {Path(config['encoder_weights']).name}" if config.get("encoder_weights") else "random weights"
    widths = f", decoder channels {', '.join(map(str, config['decoder_channels']))}" if config.get("decoder") == "unet" else ""
    norm = "" if config["decoder"].startswith(PREFIX) else f", {config['norm']} norm"
    return f"{config['decoder']} over {config['encoder']} ({weights}){widths}{norm}"


def _training(config: Any) -> str:
    trainer = config["trainer"]
    batch = config["data"]["batch_size"] * trainer.get("accumulate", 1)
    rate = f"learning rate {config['lr']:g} ({config['schedule']}, warm-up {config['warmup']:g})"
    rules = f"{config['loss']}, {config['optimizer']}, {rate}, weight decay {config['weight_decay']:g}"
    return f"{budget(config)} of {batch} crops of {config['data']['crop']} pixels, {rules}"


def _augmentation(config: Any) -> str:
    names = ("scale", "hflip", "vflip", "rotate90", "rotate", "brightness", "contrast", "saturation", "hue", "jitter", "blur", "noise")
    chosen = {name: look_up(config, "data", name) for name in names}
    return ", ".join(f"{name} {value}" for name, value in chosen.items() if value) or "none"
