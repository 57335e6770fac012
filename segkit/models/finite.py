"""Whether all numbers of a network are numbers."""

from collections.abc import Iterable
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm


def numbers(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers that could hold NaN or infinity, by name."""
    named = chain(module.named_parameters(), module.named_buffers())
    return {name: value for name, value in named if value.is_floating_point()}


def all_finite(values: Iterable[Tensor]) -> bool:
    """Whether all are surely finite: False where one is not, and where the norm of all overflows; one pass, one wait for the device."""
    return bool(get_total_norm([value.detach() for value in values]).isfinite())  # which takes parameters themselves one by one


@torch.no_grad()
def nonfinite(module: nn.Module) -> str | None:
    """The name of the first parameter or buffer that holds NaN or infinity, or None."""
    values = numbers(module)
    if all_finite(values.values()):
        return None
    return next((name for name, value in values.items() if not value.isfinite().all()), None)
