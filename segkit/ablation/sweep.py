"""An ablation as a W&B sweep, for people who start its agents themselves: `sweep.yaml`, and a complete configuration per arm beside it."""

import os
import re
from pathlib import Path

import yaml

from segkit.ablation.plan import Plan
from segkit.errors import SegkitError
from segkit.runs import cannot_write


def export_sweep(plan: Plan, folder: Path, program: Path) -> str:
    """Writes the sweep; all paths in it are seen from the current folder, where `wandb sweep` and the agents are to be started.

    Args:
        plan: The ablation. Its A/A arm is left out: a grid gives every arm the same seeds.
        folder: Where to; made if it is missing.
        program: `train.py`.

    Returns:
        The two commands to type.

    Raises:
        SegkitError: Two arms would have one file, or the folder cannot be written.
    """
    arms = {re.sub(r"[^\w.=+-]+", "_", arm.name) + ".yaml": arm for arm in plan.arms if not arm.aa}
    if len(arms) < sum(not arm.aa for arm in plan.arms):
        raise SegkitError("--export_wandb_sweep: the values of two arms differ in signs only, so their files would have one name")
    wandb = plan.arms[0].config["wandb"]
    sweep = {
        "name": plan.name,
        "project": wandb["project"],
        **({"entity": wandb["entity"]} if wandb["entity"] else {}),
        "program": _from_here(program),
        "method": "grid",
        "metric": {"name": "val/miou", "goal": "maximize"},
        "parameters": {"config": {"values": [_from_here(folder / name) for name in arms]}, "seed": {"values": plan.seeds}},
        "command": ["${env}", "${interpreter}", "${program}", "${args}"],
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, arm in arms.items():
            (folder / name).write_text(yaml.safe_dump(arm.config, sort_keys=False))
        (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    except OSError as error:
        raise cannot_write(folder, error) from None
    agent = "wandb agent SWEEP_ID  # which the first command prints; on every machine or card that takes part"
    return f"wandb sweep {_from_here(folder / 'sweep.yaml')}\n{agent}"


def _from_here(path: Path) -> str:
    return os.path.relpath(path.resolve())
