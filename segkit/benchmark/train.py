"""Training steps and their memory, beside smp's U-Net and torchvision's FCN."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from segkit.benchmark.bench import Bench
from segkit.benchmark.memory import peaks, training_peak
from segkit.benchmark.networks import BATCH, FORMS, SIDE, Training
from segkit.benchmark.report import Results, Row, milliseconds
from segkit.benchmark.timing import spread
from segkit.costs import count

OPERATORS = ("transpose", "transpose_k2", "smp:Unet")
SHOWN = "U-Net resnet18"


def measure(bench: Bench) -> Results:
    """Times steps on given normalised images: forward, objective, backward, update; what a run adds to them is the subject `overhead`."""
    rows: list[Row] = []
    if "smp" in bench.peers:
        rows += _unets(bench)
    if "torchvision" in bench.peers:
        rows += _fcns(bench)
    if "smp" in bench.peers:
        rows += _memory(bench)
    rows += _recomputed(bench)
    notes = ["segkit: cross-entropy + Dice, AdamW fused; smp: CrossEntropyLoss + DiceLoss, AdamW as it comes"]
    if bench.device.type == "cuda":
        forms, failed = _forms(bench)
        rows, notes = rows + forms, notes + failed
    title = f"training steps, batch {bench.config.batch or BATCH}, {bench.config.size or SIDE}²"
    return Results("train", title, rows, notes)


def _names(bench: Bench) -> list[str]:
    return [str(name) for name in dict.fromkeys(bench.config.upsample)] or list(OPERATORS)


def _training(bench: Bench, name: str, low: bool) -> Training:
    config = bench.config
    form = "compiled" if config.compile else "eager"
    return Training(name, bench.device, bench.low if low else None, config.batch or BATCH, config.size or SIDE, form=form)


def _about(calls: Mapping[str, Training], times: Mapping[str, Sequence[float]], ceiling: float) -> dict[str, dict[str, Any]]:
    """What each step comes to: images a second, and its share of a matrix product's rate; a backward pass counts as two forward ones."""
    found = {}
    for name, step in calls.items():
        (images, _, h, w), seconds = step.images.shape, spread(times[name]).median / 1000
        macs = 3 * images * count(step.network, (h, w))[""]["macs"]
        found[name] = {"images/s": images / seconds, "of a product": f"{macs / seconds / ceiling:.0%}"}
    return found


def _unets(bench: Bench) -> list[Row]:
    names = _names(bench)
    calls = {name: _training(bench, name, True) for name in names}
    calls |= {"smp as it comes": _training(bench, "smp", False), "smp, same format": _training(bench, "smp", True)}
    times = {name: milliseconds(values) for name, values in bench.time(calls).items()}
    about = _about({name: calls[name] for name in names}, times, bench.ceiling())
    rows = []
    for peer, goal in (("smp as it comes", 0.42), ("smp, same format", 0.88)):
        rows += [
            Row(
                f"{SHOWN} {name}", times[name], theirs=times[peer], peer=peer, goal=goal, group=f"step, {bench.format()}", about=about[name]
            )
            for name in names
        ]
    return rows


def _fcns(bench: Bench) -> list[Row]:
    calls = {name: _training(bench, kind, low) for name, kind, low in (
        ("ours", "fcn8s", True), ("torchvision as it comes", "torchvision", False), ("torchvision, same format", "torchvision", True),
    )}  # fmt: skip
    times = {name: milliseconds(values) for name, values in bench.time(calls, warm=1).items()}
    name, group = "FCN-8s resnet50", f"step, {bench.format()}"
    return [Row(name, times["ours"], theirs=times[peer], peer=peer, group=group) for peer in times if peer != "ours"]


def _forms(bench: Bench) -> tuple[list[Row], list[str]]:
    """Ways to run one network on a graphics card, beside the plain one; and, a line each, why others cannot be had."""
    name, rest = _names(bench)[0], (bench.low, bench.config.batch or BATCH, bench.config.size or SIDE)
    calls, failed = {}, []
    for form in FORMS:
        try:
            calls[form] = Training(name, bench.device, *rest, form=form)
        except RuntimeError as error:
            failed.append(f"{form}: {str(error).strip().splitlines()[0]}")
    times = {form: milliseconds(values) for form, values in bench.time(calls).items()}
    group = f"{SHOWN} {name}, {bench.format()}"
    return [Row(form, times[form], theirs=times["eager"], peer="eager", group=group) for form in calls if form != "eager"], failed


def _setting(bench: Bench) -> tuple[str, str | None, int, int, int]:
    """What `training_peak` needs besides the network, as plain values."""
    low = None if bench.low == torch.float32 else str(bench.low).removeprefix("torch.")
    return bench.device.type, low, bench.config.batch or BATCH, bench.config.size or SIDE, torch.get_num_threads()


def _recomputed(bench: Bench) -> list[Row]:
    """What gradient checkpointing saves, and what it costs."""
    name = _names(bench)[0]
    rest = bench.low, bench.config.batch or BATCH, bench.config.size or SIDE
    calls = {kind: Training(name, bench.device, *rest, recompute=kind == "with") for kind in ("with", "without")}
    times = {kind: milliseconds(values) for kind, values in bench.time(calls).items()}
    memory = peaks(bench, training_peak, {kind: (name, *_setting(bench), kind == "with") for kind in calls})
    group = f"--recompute true, {SHOWN} {name}"
    return [
        Row("a step", times["with"], theirs=times["without"], peer="without", group=group),
        Row("its peak memory", memory["with"], "MiB", memory["without"], "without", group=group),
    ]


def _memory(bench: Bench) -> list[Row]:
    names = _names(bench)
    found = peaks(bench, training_peak, {name: (name, *_setting(bench)) for name in (*names, "smp")})
    group = f"peak memory of a step, {bench.format()}"
    return [Row(f"{SHOWN} {name}", found[name], "MiB", found["smp"], "smp, same format", goal=0.85, group=group) for name in names]
