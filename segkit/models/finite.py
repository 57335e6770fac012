"""Whether all numbers of a network are numbers."""

import math
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm


def numbers(*modules: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers that could hold NaN or infinity, by name."""
    named = chain(*(part for module in modules for part in (module.named_parameters(), module.named_buffers())))
    return {name: value for name, value in named if value.is_floating_point()}


@torch.no_grad()
def all_finite(values: Sequence[Tensor]) -> bool:
    """Whether all are surely finite: False where one is not, and where the norm of all overflows; one pass, one wait for the device.

    Biases and statistics, most of the tensors and few of the numbers, are looked at as one.
    """
    vectors = [value for value in values if value.ndim == 1]
    others = [value.detach() for value in values if value.ndim != 1]  # of parameters themselves the norms are taken one by one
    return math.isfinite(get_total_norm([*others, torch.cat(vectors)] if vectors else others).item())


@torch.no_grad()
def nonfinite(*modules: nn.Module) -> str | None:
    """The name of the first parameter or buffer that holds NaN or infinity, or None."""
    values = numbers(*modules)
    if all_finite(list(values.values())):
        return None
    return next((name for name, value in values.items() if not value.isfinite().all()), None)
