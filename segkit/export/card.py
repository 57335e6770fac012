"""What is to be known about an exported network, beside its weights: plain values that go into every format as JSON."""

import json
from typing import Any

from segkit import __version__
from segkit.models import Network
from segkit.task import SegmentationTask


def card(task: SegmentationTask, normalize: bool) -> dict[str, Any]:
    """The card of an exported graph.

    Args:
        task: What is exported.
        normalize: Whether the graph normalises, and takes pixel values.

    Returns:
        segkit_version, decoder, encoder, upsample, class_names, colors (RGB in 0..255), in_channels, white (255 or 65535), mean and std (in
        units of white), normalize, step.
    """
    h = task.hparams
    own = None if isinstance(task.model, Network) else type(task.model).__name__
    return {
        "segkit_version": __version__,
        "decoder": own or h["decoder"],
        "encoder": None if own else h["encoder"],
        "upsample": None if own else h["upsample"],
        "class_names": task.class_names,
        "colors": task.colors,
        "in_channels": h["in_channels"],
        "white": task.hparams["white"],
        "mean": h["mean"],
        "std": h["std"],
        "normalize": normalize,
        "step": task.step,
    }


def as_text(values: dict[str, Any]) -> dict[str, str]:
    """Every value as JSON: the metadata of an ONNX file are strings."""
    return {name: json.dumps(value) for name, value in values.items()}
