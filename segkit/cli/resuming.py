"""How a run goes on: where its configuration is, what of it may change, and whether its files belong together."""

import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from segkit.cli.parsing import saved_config
from segkit.config import TrainConfig
from segkit.errors import SegkitError
from segkit.runs import checkpoints, find_checkpoint
from segkit.yaml_file import read_yaml

if TYPE_CHECKING:
    from segkit.data.module import SegmentationDataModule
    from segkit.task import SegmentationTask

# what a resumed run may change: where it runs and how long, never what it computes
CHANGEABLE = {"runs", "recompute", "wandb.mode", "wandb.entity", "wandb.project"}
CHANGEABLE |= {f"data.{name}" for name in ("root", "download", "workers", "check", "eval_batch_size", "cache", "cache_folder")}
CHANGEABLE |= {f"trainer.{name}" for name in ("max_steps", "max_epochs", "save_every", "log_every")}
CHANGEABLE |= {f"trainer.{name}" for name in ("accelerator", "devices", "num_nodes", "strategy", "timeout")}


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration that a run was started with; one that is lost is written again from a checkpoint, which has it too."""
    path = folder / "config.yaml"
    lost = not path.exists() or (path.is_file() and not path.stat().st_size)  # a power cut leaves an empty file
    if lost and any(map(Path.is_file, checkpoints(folder))):
        from segkit.checkpoint import load_checkpoint

        checkpoint = find_checkpoint(folder, resuming=True)
        if saved := options_in(load_checkpoint(checkpoint), checkpoint):
            own = path.with_name(f".config.{secrets.token_hex(4)}.yaml")  # all processes of a run may be here at once
            own.write_text(yaml.safe_dump(saved, sort_keys=False))
            os.replace(own, path)
            sys.stderr.write(f"{path} was lost; it is written again from {checkpoint.name}\n")
    return dict(read_yaml(path, f"{str(folder)!r} is no run folder, give runs/NAME/ID: config.yaml cannot be read", dict))


def options_in(state: Mapping[str, Any], checkpoint: Path) -> dict[str, Any] | None:
    """The configuration in a checkpoint, with defaults for what was no option then; None where it has none."""
    saved = state.get("config")
    return None if saved is None else dict(plain(asdict(saved_config(saved, checkpoint))))


def changes(saved: dict[str, Any], now: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Option, old value and new one of what a resumed run may not change: all but where and how long it runs."""
    for name, value in now.items():
        old, key = saved.get(name), prefix + name
        if isinstance(value, dict) and name != "extra":
            yield from changes(old or {}, value, f"{key}.")
        elif key not in CHANGEABLE and yaml.safe_load(yaml.safe_dump(plain(value))) != old:
            yield key, old, value


def refuse_changes(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """A resumed run is the same experiment."""
    for key, old, value in changes(saved, now):
        raise SegkitError(
            f"--{key} {value}: the run was started with {old}, and with another value it would be another; start a new run instead"
        )


def hold_options(config: TrainConfig, saved: dict[str, Any], checkpoint: Path) -> None:
    """Raises a SegkitError where config.yaml, which anybody may have edited or cut, is of another experiment than the checkpoint."""
    for key, old, value in changes(saved, asdict(config)):
        raise SegkitError(
            f"config.yaml says --{key} {value}, and {checkpoint} was trained with {old}; put back the files of one run, or delete "
            "config.yaml, which is then written again from the checkpoint"
        )


def plain(value: Any) -> Any:
    """Tuples to lists, all the way down, for YAML and checkpoints."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def hold_network(task: "SegmentationTask", state: Mapping[str, Any], checkpoint: Path, double: bool) -> None:
    """Raises a SegkitError where a checkpoint is not of the network, or the optimiser, that a run's configuration describes.

    Both files may have been edited by anybody.

    Args:
        task: The network.
        state: What it is to go on from.
        checkpoint: Where that was read.
        double: Whether it trains in 64 bits.
    """
    from segkit.plausible import refuse_other_updates, refuse_others

    try:
        network = task.state_dict()
        for part in [part for part in ("state_dict", "raw_state_dict") if part in state]:
            refuse_others(network, state[part])
            for name, value in state[part].items():
                if value.dtype != network[name].dtype and not (double and str(value.dtype) == "torch.float64"):
                    raise ValueError(f"{name} is {network[name].dtype} there and {value.dtype} here")
        refuse_other_updates(task.optimizer(), state["optimizer_states"])
        if type(state["global_step"]) is not int or state["global_step"] < 0:
            raise ValueError(f"its step is {state['global_step']!r}")
    except (ValueError, AttributeError, TypeError, LookupError) as error:
        raise SegkitError(f"config.yaml and {checkpoint} are not of one training ({error}); put back what belongs together") from error


def hold_data(data: "SegmentationDataModule", state: Mapping[str, Any], world: int) -> list[str]:
    """Holds the data and the number of processes against a checkpoint, before there are other processes to say it again.

    Args:
        data: What the run would go on with.
        state: What it is to go on from; a stranger's may lack or hold anything.
        world: Number of processes.

    Returns:
        What differs without being refused, in words.

    Raises:
        SegkitError: Classes, images of a split, their labels or the number of processes are others.
    """
    from segkit.task import hold_processes

    hold_processes(state.get("processes", 1), world)
    parameters, saved = state.get("hyper_parameters"), state.get("SegmentationDataModule")
    before = parameters.get("class_names") if isinstance(parameters, dict) else None
    if isinstance(before, list) and list(map(str, before)) != (names := list(data.classes.names)):
        raise SegkitError(f"the data has the classes {names}, and the run was started with {before}; put those back, or start a new run")
    return data.hold(saved) if isinstance(saved, dict) else []


def has_results(folder: Path, steps: int) -> bool:
    """Whether a run has left what it leaves last, the scores of its last step."""
    try:
        path = folder / "metrics.json"
        return path.is_file() and bool(json.loads(path.read_text())["step"] == steps)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
