"""Whether what a file says about a network can be true: asked of the files of strangers, before memory and time are spent on them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from segkit.config import IGNORE_INDEX


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
    if not names or len(names) > IGNORE_INDEX or not all(isinstance(name, str) for name in names):
        raise ValueError("class_names are no list of names")
    if len(colors) != len(names) or not all(len(c) == 3 and all(isinstance(v, int) and 0 <= v <= 255 for v in c) for c in colors):
        raise ValueError(f"colors are not {len(names)} triples in 0..255")
    if parameters.get("white", 255) not in (255, 65535) or not isinstance(parameters.get("ignore_index", IGNORE_INDEX), int):
        raise ValueError("white or ignore_index have no such value")


def refuse_others(network: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise a ValueError where weights are those of another network: two tensors of one name differ in shape, or one has no twin.

    Args:
        network: Its weights.
        state: Those that it should get.
    """
    for name in [*network, *state]:
        shapes = [list(weights[name].shape) if name in weights else "missing" for weights in (network, state)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{name} is {shapes[0]} there and {shapes[1]} here")
