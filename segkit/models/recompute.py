"""Gradient checkpointing: activations that are computed again in the backward pass instead of kept (Chen et al. 2016)."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from segkit.errors import SegkitError


def recompute_activations(network: nn.Module) -> None:
    """Makes the parts of a network that know how drop what is inside them: stages of decoders, levels of the plain encoder; in place.

    Values, gradients and running statistics stay what they are, bit for bit.

    Raises:
        SegkitError: The network has no such part.
    """
    parts = [module for module in network.modules() if isinstance(getattr(module, "recompute", None), bool)]
    if not parts:
        raise SegkitError("--recompute true: no part of this network can be computed again; a U-Net, smp's decoders, a plain encoder can")
    for part in parts:
        part.recompute = True  # type: ignore[assignment]


def run(part: nn.Module, *inputs: Tensor | Sequence[Tensor] | None, again: bool) -> Tensor:
    """`part(*inputs)`; with `again`, and where gradients are wanted, of its activations the inputs alone are kept."""
    if not (again and torch.is_grad_enabled()):
        out: Tensor = part(*inputs)
        return out
    contexts = partial(_contexts, part)
    out = checkpoint(part, *inputs, use_reentrant=False, context_fn=contexts)
    return out


def _contexts(part: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What the first and the second computation run in."""
    return nullcontext(), same_statistics(part)


@contextmanager
def same_statistics(part: nn.Module) -> Iterator[None]:
    """Keeps batch norms from counting the same batch twice."""
    norms = [module for module in part.modules() if isinstance(module, _BatchNorm) and module.training]
    before = [(norm.momentum, None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()) for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and count is not None:
                norm.num_batches_tracked.copy_(count)
