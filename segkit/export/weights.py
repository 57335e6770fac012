"""Weights as safetensors, with a card from which segkit builds the network again: no code in the file, no pickle."""

import json
from pathlib import Path
from typing import Any, get_args

import torch

from segkit import __version__
from segkit.errors import SegkitError
from segkit.models import Network
from segkit.plausible import refuse_growth, refuse_nonsense
from segkit.task import SegmentationTask

CARD = "segkit"  # the key of the card in the file's own metadata


def write_safetensors(task: SegmentationTask, path: Path) -> None:
    """Writes the weights as they were trained, unfolded, and the card: in the file's metadata, and beside it as `NAME.json`.

    Raises:
        SegkitError: The network is of a class of one's own, which no card describes.
    """
    from safetensors.torch import save

    if type(task.model) not in get_args(Network):
        raise SegkitError(
            f"the network {type(task.model).__name__} is a class of your own, which a card cannot rebuild: save its state_dict yourself, "
            "or choose --format onnx or torch_export"
        )
    values = {
        "segkit_version": __version__,
        "step": task.step,
        "task": {**task.hparams, "encoder_weights": None, "deep_supervision": 0.0},  # what training alone has is left out
    }
    state = {name: value.detach().cpu().contiguous() for name, value in task.model.state_dict().items()}
    path.write_bytes(save(state, metadata={CARD: json.dumps(values)}))
    path.with_suffix(".json").write_text(json.dumps(values, indent=2) + "\n")


def load_safetensors(path: str | Path) -> SegmentationTask:
    """The task behind a file of `write_safetensors`, in evaluation mode; it needs neither the checkpoint nor the JSON file beside it.

    Raises:
        SegkitError: The file is missing, damaged, not of segkit, or of a version that builds another network.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            values: dict[str, Any] = json.loads((file.metadata() or {})[CARD])
            state: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except KeyError:
        raise SegkitError(f"{str(path)!r} has no card of segkit: write it by export.py --format safetensors") from None
    except (OSError, SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise SegkitError(f"cannot read the weights {str(path)!r} ({str(error).splitlines()[0]}); export them again") from None
    try:
        refuse_growth(values["task"], state)
        refuse_nonsense(values["task"])
        task = SegmentationTask(**{**values["task"], "encoder_weights": None})
        task.model.load_state_dict(state)
        task.step = int(values["step"])
    except Exception as error:  # of what a stranger calls a card any line may stumble
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        writer = str(values.get("segkit_version") if isinstance(values, dict) else None)[:20]
        raise SegkitError(f"{str(path)!r} was written by segkit {writer} and does not fit this version ({reason}); use that one") from None
    return task.eval()
