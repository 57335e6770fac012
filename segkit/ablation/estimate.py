"""How long and how large an ablation will be: from what one step, one image and one start took here."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

SCORING = 1.5  # what boundaries and artefacts add to the time of an image
FLOAT = 4  # bytes


def run_seconds(config: Mapping[str, Any], costs: Mapping[str, Any], split: str) -> tuple[float, float]:
    """Seconds that a run takes to train and to be evaluated.

    Args:
        config: The run's configuration, nested plain values.
        costs: What `ablate.py costs` measured for it, and `start_s`, the time that a process takes to begin.
        split: Images that are scored.
    """
    steps, trainer, data = costs["steps"], config["trainer"], config["data"]
    loading = data["batch_size"] * costs["augment_ms"]
    batch = max(costs["step_ms"], loading / data["workers"]) if data["workers"] else costs["step_ms"] + loading
    validations = math.ceil(steps / (trainer["val_every"] or max(steps // 10, 1)))
    image = costs["latency_ms"] + costs["read_ms"]
    training = steps * trainer["accumulate"] * batch + validations * costs["images"].get("val", 0) * image
    scoring = costs["images"].get(split, 0) * image * SCORING
    return costs["start_s"] + training / 1000, costs["start_s"] + scoring / 1000


def run_bytes(config: Mapping[str, Any], costs: Mapping[str, Any]) -> int:
    """Bytes of the two checkpoints of a run: weights, what the optimiser remembers of each, and their moving average."""
    copies = {"adamw": 3, "sgd": 2}[config["optimizer"]] + bool(config["ema"])
    return int(2 * FLOAT * costs["parameters"] * copies)


def time_left(runs: Sequence[float], slots: int) -> float:
    """Seconds until runs of these lengths are through, so many at a time."""
    return max(sum(runs) / slots, *runs) if runs else 0.0


def words(seconds: float) -> str:
    """A duration as `45 s`, `1 min 20 s`, `31 min`, `5 h 10 min`, `3 days 4 h`."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if seconds < 599.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    if seconds < 3570:
        return f"{seconds / 60:.0f} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} days {hours} h" if hours else f"{days} days"
