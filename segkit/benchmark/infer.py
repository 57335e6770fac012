"""Inference, beside smp's U-Net.

Shapes: B batch, K classes, H W rows/columns.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from segkit.benchmark.bench import Bench
from segkit.benchmark.networks import BATCH, CLASSES, SIDE, build
from segkit.benchmark.recorded import record_call
from segkit.benchmark.report import Results, Row, milliseconds
from segkit.export import capture
from segkit.task import SegmentationTask

OPERATORS = ("transpose", "nearest", "smp:Unet")


def measure(bench: Bench) -> Results:
    """Times a batch of given normalised images to logits."""
    if "smp" not in bench.peers:
        return Results("infer", "inference", [])
    config = bench.config
    batch, side = config.batch or BATCH, config.size or SIDE
    images = {low: bench.images(batch, side, low) for low in (False, True)}
    networks = {name: build(name).eval() for name in (*OPERATORS, "smp")}
    calls: dict[str, Callable[[], Tensor]] = {}
    notes = []
    for name in OPERATORS:
        fast = calls[f"{name}, folded"] = _call(bench, fastest(bench, networks[name]), images[True].to(bench.low), False)
        plain = _call(bench, networks[name].to(bench.device), images[True], False)
        share = float((plain().max(1).indices == fast().max(1).indices).float().mean())
        notes.append(f"{name}, folded: {share:.2%} of the labels are those of float32, in an untrained network")
        if bench.device.type == "cuda":
            calls[f"{name}, folded, CUDA graph"] = record_call(fast)
        calls[f"{name}, as predict.py"] = _call(bench, bench.place(networks[name]), images[True], True)
    calls["smp as it comes"] = _call(bench, bench.place(networks["smp"], False), images[False], False)
    calls["smp, same format"] = _call(bench, bench.place(build("smp").eval()), images[True], True)
    times = {name: milliseconds(values) for name, values in bench.time(calls).items()}
    rows = []
    for peer, goal in (("smp as it comes", 0.35), ("smp, same format", 0.85)):
        for form, least in (("folded", goal), ("folded, CUDA graph", None), ("as predict.py", None)):
            for name in OPERATORS:
                if f"{name}, {form}" not in times:
                    continue
                ours = times[f"{name}, {form}"]
                group = f"{bench.format()}, beside {peer}"
                rows.append(Row(f"U-Net resnet18 {name}, {form}", ours, theirs=times[peer], peer=peer, goal=least, group=group))
    return Results("infer", f"inference, batch {batch}, {side}²", rows, notes)


def fastest(bench: Bench, network: nn.Module) -> nn.Module:
    """The network as a graph with batch norms folded and operators rewritten, its weights in the precision asked for, channels_last."""
    task = SegmentationTask([str(k) for k in range(CLASSES)], [[k, k, k] for k in range(CLASSES)], [0.5] * 3, [0.25] * 3, model=network)
    graph = capture(task, normalize=False).module(check_guards=False)
    graph = graph.to(bench.device, bench.low).to(memory_format=torch.channels_last)
    if bench.config.compile:
        graph.compile()
    return graph


def _call(bench: Bench, network: nn.Module, images: Tensor, low: bool) -> Callable[[], Tensor]:
    def infer() -> Tensor:
        with torch.inference_mode(), bench.arithmetic(low):
            logits: Tensor = network(images)
        return logits

    return infer
