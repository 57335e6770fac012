"""Whether what a file says about a network can be true: asked of the files of strangers, before memory and time are spent on them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from segkit.config import IGNORE_INDEX
from segkit.errors import is_name

MOMENTS = {"AdamW": {"step", "exp_avg", "exp_avg_sq"}, "SGD": {"momentum_buffer"}}  # what an optimiser keeps for each parameter
RATES = ("lr", "initial_lr", "params")  # what a scheduler changes, and what is compared by itself


def refuse_growth(parameters: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Hold what a file says about a network against the weights in it, before memory is taken for more than those.

    Args:
        parameters: The arguments of `SegmentationTask`.
        state: The weights.

    Raises:
        ValueError: The decoder alone has more numbers than the file has bytes.
    """
    held = sum({value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in state.values()}.values())
    widths = [*(parameters.get("upsample_width") or []), *(parameters["decoder_channels"] if parameters["decoder"] == "unet" else [])]
    if (
        sum(9 * width**2 for width in parameters["decoder_channels"] if parameters["decoder"] == "unet") > held
        or max(widths, default=0) > held
    ):
        raise ValueError(f"layers of {max(widths)} channels, and weights of {held} bytes")


def refuse_nonsense(parameters: Mapping[str, Any]) -> None:
    """Raise a ValueError where classes or colours are none, which would come to light in the middle of a prediction only."""
    names, colors = parameters["class_names"], parameters["colors"]
    if not names or len(names) > IGNORE_INDEX or not all(isinstance(name, str) and is_name(name) for name in names):
        raise ValueError("class_names are no list of names")
    if len(colors) != len(names) or not all(len(c) == 3 and all(isinstance(v, int) and 0 <= v <= 255 for v in c) for c in colors):
        raise ValueError(f"colors are not {len(names)} triples in 0..255")
    if not 0 <= (parameters.get("dropout") or 0) <= 1:
        raise ValueError(f"dropout is {parameters['dropout']!r:.20}, no probability")
    if parameters.get("white", 255) not in (255, 65535) or not isinstance(parameters.get("ignore_index", IGNORE_INDEX), int):
        raise ValueError("white or ignore_index have no such value")


def refuse_others(network: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise a ValueError where weights are those of another network: two tensors of one name differ in shape, or one has no twin.

    Args:
        network: Its weights.
        state: Those that it should get.
    """
    for name in [*network, *state]:
        shapes = [_shape(weights[name]) if name in weights else "missing" for weights in (network, state)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{name} is {shapes[0]} there and {shapes[1]} here")


def refuse_other_updates(optimizer: Optimizer, saved: Any) -> None:
    """Raise a ValueError where what a file holds for an optimiser is not of its parameters.

    A fused update takes shapes on trust: with a smaller tensor it would read and write beyond its end.

    Args:
        optimizer: That is to go on.
        saved: The states of all optimisers, of which there is one.
    """
    if len(saved) != 1:
        raise ValueError(f"{len(saved)} optimisers")
    groups, wanted = saved[0]["param_groups"], optimizer.state_dict()["param_groups"]
    if [list(group["params"]) for group in groups] != [group["params"] for group in wanted]:
        raise ValueError("parameters of the optimiser in other groups")
    for group, own in zip(groups, wanted, strict=True):
        for name, value in own.items():
            if not isinstance(group.get(name, value), type(value)) or (name not in RATES and group.get(name, value) != value):
                raise ValueError(f"{name} of the optimiser is {group[name]!r} here and {value!r} there")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, values in saved[0]["state"].items():
        parameter = parameters[index]
        if set(values) != MOMENTS[type(optimizer).__name__]:
            raise ValueError(f"an optimiser with {', '.join(map(str, values))}")
        for name, value in values.items():
            shape = [] if name == "step" else list(parameter.shape)
            if name == "momentum_buffer" and value is None:  # without momentum
                continue
            if _shape(value) != shape or not value.is_floating_point() or _spans(value) != value.numel():
                raise ValueError(f"{name} of the optimiser is {_shape(value)} here and {shape} there")


def _shape(value: Any) -> list[int] | str:
    """Of a tensor with a number at each place."""
    plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type != "meta" and not value.is_quantized
    return list(value.shape) if plain else "no plain tensor"


def _spans(value: Tensor) -> int:
    """Places in memory from the first number of a tensor to the last; as many as numbers where none is shared and none left out."""
    return 1 + sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True)) if value.numel() else 0
