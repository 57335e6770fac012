"""Equal and faster forms of operators: which of them are used.

An operator that has one keeps its plain form beside it, in `plain`; `tests/upsampling/test_rewrites.py` holds values and gradients of both
equal in float64.
"""

import contextlib
from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from segkit.errors import unknown

Rewriting = Literal["auto", "on", "off"]

# Where the rewritten form won, forward and backward, at scale 2: on CPUs in `scripts/benchmark.py operators`, on an H200 with 2 to 34
# million values a batch. `smp:Unet` is the first convolution of that network's blocks (`segkit.models.smp_networks`), timed on CPUs only.
FASTER: dict[str, dict[str, tuple[torch.dtype, ...]]] = {
    "nearest": {"cpu": (torch.float32, torch.bfloat16), "cuda": (torch.float32, torch.bfloat16, torch.float16)},
    "smp:Unet": {"cpu": (torch.float32, torch.bfloat16)},
}

PIXELS = 256  # of a batch on a CPU; with fewer, folding the weights takes longer than it saves
VALUES = 2**24  # of a batch on a graphics card; with fewer, starting the kernels that fold takes longer, unless a graph starts them

_choice: Rewriting = "auto"


@contextlib.contextmanager
def rewriting(choice: Rewriting) -> Iterator[None]:
    """Which form of operators is computed inside: `auto` the faster one as measured, `on` the rewritten one, `off` the plain one.

    Raises:
        SegkitError: If the choice is unknown.
    """
    if choice not in get_args(Rewriting):
        raise unknown("rewriting", choice, get_args(Rewriting))
    global _choice
    before, _choice = _choice, choice
    try:
        yield
    finally:
        _choice = before


def rewritten(name: str, x: Tensor, scale: int) -> bool:
    """Whether operator `name` of a scale computes its rewritten form of input `x` `[B, C, H, W]`."""
    if _choice != "auto":
        return _choice == "on"
    if scale != 2 or torch.compiler.is_exporting() or not _large(x):
        return False
    device = x.device.type
    kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    return kind in FASTER[name].get(device, ())


def _large(x: Tensor) -> bool:
    """Whether the rewritten form saves more than folding the weights costs."""
    if x.device.type == "cuda":
        return x.numel() >= VALUES or (not torch.compiler.is_compiling() and torch.cuda.is_current_stream_capturing())
    return x.shape[0] * x.shape[2] * x.shape[3] >= PIXELS
