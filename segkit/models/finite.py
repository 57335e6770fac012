"""Whether all numbers of a network are numbers."""

from itertools import chain

import torch
from torch import nn
from torch.nn.utils import get_total_norm


@torch.no_grad()
def nonfinite(module: nn.Module) -> str | None:
    """The name of the first parameter or buffer that holds NaN or infinity, or None; one pass over the weights, one wait for the device."""
    named = chain(module.named_parameters(), module.named_buffers())
    values = {name: value for name, value in named if value.is_floating_point()}
    if get_total_norm(list(values.values())).isfinite():
        return None
    # a norm can also overflow
    return next((name for name, value in values.items() if not value.isfinite().all()), None)
