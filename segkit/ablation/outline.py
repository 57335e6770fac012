"""What an ablation is going to do, before it does it: arms and what they cost, runs, time and disk."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from segkit.ablation.estimate import run_bytes, run_seconds, time_left, words
from segkit.ablation.plan import Plan
from segkit.ablation.trial import Trial, state


def outline(plan: Plan, folder: Path, costs: Mapping[str, Mapping[str, Any]], slots: int) -> Group:
    """Arms, seeds, runs, and about how long and how large they will be.

    Args:
        plan: The ablation.
        folder: Its folder, which need not exist.
        costs: By arm, as `estimate.run_seconds` needs them.
        slots: Runs at a time.
    """
    place = (folder / plan.trials).resolve()
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False, pad_edge=False)
    table.add_column("arm")
    for column in ("parameters", "operators'", "MACs", "step", "image", "run"):
        table.add_column(column, justify="right", no_wrap=True)
    lengths: list[float] = []
    size, finished = 0, 0
    for arm in plan.arms:
        cost = costs[arm.name]
        run = sum(run_seconds(arm.config, cost, plan.split))
        states = [state(Trial(str(place / trial), arm.config, plan.split)) for trial in arm.trials.values()]
        left = sum(s != "finished" for s in states)
        lengths += [run] * left
        size, finished = size + left * run_bytes(arm.config, cost), finished + len(states) - left
        table.add_row(
            Text(f"{arm.name}{' *' if arm.name == plan.baseline else ''}"),
            f"{cost['parameters']:,}",
            f"{cost['operator_parameters']:,}",
            f"{cost['macs'] / 1e9:.3g} G",
            f"{cost['step_ms']:.0f} ms",
            f"{cost['latency_ms']:.1f} ms",
            words(run),
        )
    rows = {
        "arms": f"{len(plan.arms)}, the baseline is marked *",
        "seeds": f"{len(plan.seeds)}: {plan.seeds[0]} to {plan.seeds[-1]}" if len(plan.seeds) > 1 else f"1: {plan.seeds[0]}",
        "runs": f"{finished + len(lengths)}{f', {finished} of them finished' if finished else ''}",
        "data": f"{plan.data['description']}; scored on {plan.split}",
        "time": _time(lengths, slots),
        "disk": _disk(size, folder),
        "folder": str(folder),
    }
    return Group(table, Text(), *(Text.assemble((f"{name:8}", "dim"), text) for name, text in rows.items()))


def _time(lengths: list[float], slots: int) -> str:
    if not lengths:
        return "none left"
    at_once = min(slots, len(lengths))
    return f"about {words(time_left(lengths, at_once))}, {at_once} at a time; {words(sum(lengths))} of computing"


def _disk(size: int, folder: Path) -> str:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    return f"about {size / 1e9:.2f} GB of checkpoints, {free / 1e9:.0f} GB free{': too little' if size > free else ''}"
