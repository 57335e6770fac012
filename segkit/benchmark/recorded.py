"""Forward and backward passes as CUDA graphs: recorded once, then started by one call each in place of one per kernel.

A graphics card does the step of a small batch in less time than Python takes to start its kernels one by one. The kernels are those of the
plain passes, on the same numbers; what they read and write lies at the same addresses in every step.

Shapes: B batch, C channels, K classes, H W rows/columns.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from segkit.errors import SegkitError

Passes = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class LossAndLogits(nn.Module):
    """What is recorded: images and masks to the loss, which is differentiable, and the logits, which are not.

    Args:
        network: Images `[B, C, H, W]` to logits `[B, K, H, W]`.
        loss: Logits and masks `[B, H, W]` to a scalar.
    """

    def __init__(self, network: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """The two of one batch."""
        logits = self.network(images)
        return self.loss(logits, masks), logits.detach()


def record(network: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], images: Tensor, masks: Tensor) -> Passes:
    """`LossAndLogits` for batches of one size, as graphs; statistics of the norms are left as they were.

    Gradients lie where the graphs write them, so that each has to be used up before the next step: gradients of several batches cannot be
    added up.

    Args:
        network: On a CUDA device, in training mode, under the autocast in which it will be called.
        loss: Must not wait for the device, nor choose what to compute by what it finds there.
        images: An example `[B, C, H, W]`.
        masks: An example `[B, H, W]`.

    Raises:
        SegkitError: Something in the passes cannot be recorded.
    """
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    passes = LossAndLogits(network, loss)
    enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    try:
        with torch.autocast("cuda", dtype, enabled=enabled, cache_enabled=False):  # a cast of the weights belongs into the graph
            torch.cuda.make_graphed_callables(passes, (images.clone(), masks.clone()), allow_unused_input=True)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise SegkitError(f"CUDA graphs: this network or loss cannot be recorded ({reason}); name another with --upsample") from error
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    return passes
