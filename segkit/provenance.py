"""`provenance.json`: what a run was made of, as hashes and versions, so that two runs can be shown to differ in nothing but one option."""

import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from segkit import __version__
from segkit.config import TrainConfig
from segkit.data.digest import StreamDigest
from segkit.measures import operator_indices
from segkit.models.fingerprint import initial_hash
from segkit.optim import learning_rate_factor
from segkit.runs import write_whole

LIBRARIES = (
    "torch",
    "torchvision",
    "pytorch-lightning",
    "segmentation-models-pytorch",
    "timm",
    "albumentations",
    "opencv-python-headless",
    "numpy",
)
# the code that decides a run, and the one that decides its scores
TRAINING = ("data", "models", "upsampling", "callbacks.py", "losses.py", "optim.py", "ranks.py", "task.py", "trainer.py", "watch.py")
SCORING = ("data", "models", "upsampling", "metrics", "measures", "inference", "tally.py", "task.py", "results.py")
SURROUNDINGS = ("software", "code", "device", "threads")  # what may change the last bits of a run without being an option of it


def provenance(config: TrainConfig, model: nn.Module, steps: int, processes: int) -> dict[str, Any]:
    """What can be said of a run before it starts.

    Args:
        config: Its configuration.
        model: Its network, not yet trained.
        steps: Its budget in optimiser steps.
        processes: How many share its batches.

    Returns:
        `initial`: hash of every initial weight of the network outside the operators; `schedule`: hash of objective, optimiser and every
        step's learning rate; `software`: versions; `code`: hash of segkit's own training code; `ci_op`: index of every operator at
        initialisation; and device, precision, deterministic, processes, threads, seed.
    """
    rate = learning_rate_factor(config.schedule, round(config.warmup * steps), steps)
    names = (
        "optimizer",
        "lr",
        "encoder_lr",
        "weight_decay",
        "momentum",
        "ema",
        "loss",
        "class_weights",
        "label_smoothing",
        "deep_supervision",
    )
    dropout = config.dropout or 0.0  # what smp's network brings of its own is part of the decoder
    rules = [
        *(getattr(config, name) for name in names),
        dropout,
        config.trainer.accumulate,
        config.trainer.clip,
        [rate(i) for i in range(0, steps, max(steps // 10**6, 1))],  # of a long training some: a list of all would fill memory
    ]
    return {
        "seed": config.seed,
        "initial": initial_hash(model),
        "schedule": hashlib.sha256(json.dumps(rules).encode()).hexdigest(),
        "software": {"segkit": __version__, "python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}},
        "code": code_hash(),
        "device": device_name(config.trainer.accelerator),
        "precision": config.trainer.precision,
        "deterministic": config.deterministic,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "ci_op": {name: None if math.isnan(index) else index for name, index in operator_indices(model, config.in_channels).items()},
    }


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:  # the same library under another name, such as OpenCV with windows
        return "unknown"


def code_hash(rooms: Sequence[str] = TRAINING) -> str:
    """sha256 over the files of some rooms of this package: by default those that decide what a training computes."""
    package, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] in rooms:
            digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return digest.hexdigest()


def device_name(accelerator: str) -> str:
    """The model of the processor or graphics card that `--trainer.accelerator` means here."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if accelerator != "cpu" and torch.accelerator.is_available():
        return str(torch.accelerator.current_accelerator())
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def earlier_parts(folder: Path, now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the parts of a run that is gone on with ran on, the last one only if that was something else than now.

    Args:
        folder: Run folder.
        now: From `provenance`.

    Returns:
        `SURROUNDINGS` of each part and the step that it has reached; none where nothing is recorded.
    """
    try:
        path = folder / "provenance.json"
        recorded = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        recorded = {}
    if not isinstance(recorded, dict) or not recorded:
        return []
    parts = recorded.get("earlier")
    parts = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    last = {name: recorded.get(name) for name in SURROUNDINGS}
    return parts if last == {name: now[name] for name in SURROUNDINGS} else [*parts, {"step": recorded.get("step"), **last}]


def differences(part: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between an earlier part of a run and now, in words."""
    then = part["software"] if isinstance(part["software"], dict) else {}
    changed = [f"{name} {then.get(name)}, now {value}" for name, value in now["software"].items() if then.get(name) != value]
    changed += ["segkit's own code"] if part["code"] != now["code"] else []
    return [*changed, *(f"{name} {part[name]}, now {now[name]}" for name in ("device", "threads") if part[name] != now[name])]


class Provenance(Callback):
    """Writes `provenance.json` just before each checkpoint, so that it never says less than the newest checkpoint holds.

    Args:
        folder: Run folder.
        start: From `provenance`, with `earlier` parts where they ran on something else.
        stream: What the data module trains on; of several processes the first one's.
    """

    def __init__(self, folder: Path, start: dict[str, Any], stream: StreamDigest) -> None:
        self.path, self.start, self.stream = folder / "provenance.json", start, stream

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the file, whole or not at all."""
        if trainer.is_global_zero:
            values = {**self.start, "step": trainer.global_step, **self.stream.state_dict(trainer.global_step)}
            write_whole(self.path, json.dumps(values, indent=2) + "\n")
