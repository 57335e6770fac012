"""`ablate.py costs`: what the network of a configuration costs on this machine."""

import itertools
import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from segkit.cli.parsing import Parser
from segkit.cli.train import build_task
from segkit.config import TrainConfig, from_dict

if TYPE_CHECKING:
    from segkit.data.module import SegmentationDataModule

DESCRIPTION = "Measure what the network of a configuration costs here: parameters, multiply-adds, latency, time and memory of a step."


def main(args: Sequence[str]) -> None:
    """Parses `args`, measures, and prints or writes the result."""
    parser = Parser(TrainConfig, DESCRIPTION)
    parser.add_argument("--out", metavar="FILE", help="JSON file to write; default: the terminal")
    values = parser.read(args)
    out = values.pop("out")
    text = json.dumps(measure_costs(from_dict(TrainConfig, values)), indent=2)
    if out:
        Path(out).write_text(text + "\n")
    else:
        print(text)


def measure_costs(config: TrainConfig) -> dict[str, object]:
    """Measures one training step with the configuration's batch, crop and precision, and one evaluated image of the data's own size."""
    import torch

    from segkit.costs import measure
    from segkit.data.module import SegmentationDataModule
    from segkit.models.recompute import recompute_activations
    from segkit.provenance import device_name
    from segkit.upsampling import rewriting

    data = SegmentationDataModule(config.data, config.seed, config.in_channels)
    weights = data.class_weights(config.class_weights) if isinstance(config.class_weights, list) else None
    gpu = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    task = build_task(config, data.classes.names, data.classes.colors, weights).to(device)
    if config.recompute:
        recompute_activations(task.model)
    low = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(config.trainer.precision)
    if config.trainer.precision == "64-true":
        task.double()
    optimizer = (
        torch.optim.AdamW(task.parameters()) if config.optimizer == "adamw" else torch.optim.SGD(task.parameters(), momentum=0.9, lr=0)
    )
    side, classes = config.data.crop, len(data.classes)
    images = torch.randint(256, (config.data.batch_size, config.in_channels, side, side), dtype=torch.uint8, device=device)
    masks = torch.randint(classes, (config.data.batch_size, side, side), dtype=torch.uint8, device=device)

    def arithmetic() -> torch.autocast | nullcontext[None]:
        return torch.autocast(device.type, low) if low else nullcontext()

    def step() -> None:
        task.train()
        with arithmetic():
            loss, _ = task.objective(images, masks)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    def infer(image: torch.Tensor) -> torch.Tensor:
        with arithmetic():
            logits: torch.Tensor = task(image)
        return logits

    scored = next(data.sources[split] for split in ("test", "val", "train") if split in data.sources)
    image = torch.randint(256, (1, config.in_channels, *scored.size(0)), dtype=torch.uint8, device=device)
    about = {"device": device_name(config.trainer.accelerator), "precision": config.trainer.precision, "batch": list(images.shape)}
    began = time.perf_counter()
    with rewriting(config.rewrite):
        costs = {**measure(infer, task.model, step, image, device), **about, **run_length(config, data)}
    return {**costs, "measuring_s": time.perf_counter() - began}


def run_length(config: TrainConfig, data: "SegmentationDataModule") -> dict[str, object]:
    """How much work a run has and what its data take, so that its time can be estimated; milliseconds are those of one process."""
    import numpy as np

    from segkit.costs import latency
    from segkit.data.dataset import EvalDataset, TrainDataset
    from segkit.data.transforms import TrainTransform

    epochs, steps = config.trainer.max_epochs, config.trainer.max_steps
    train, scored = data.sources["train"], data.sources.get("val", data.sources["train"])
    rarity = np.ones(len(data.classes), np.int64)  # which classes are rare takes no time, to find it out would
    transform, whole, turn = TrainTransform(config.data, rarity), EvalDataset(scored), itertools.count()
    augmented = TrainDataset(train, transform, config.seed)
    return {
        "steps": epochs * data.steps_per_epoch(1, config.trainer.accumulate) if epochs else steps,
        "images": {split: len(source) for split, source in data.sources.items()},
        "augment_ms": latency(lambda: augmented[0, next(turn) % len(train)], seconds=1.0)[0],
        "read_ms": latency(lambda: whole[next(turn) % len(scored)], seconds=0.5)[0],
    }
