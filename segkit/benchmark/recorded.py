"""CUDA graphs: what a graphics card does, recorded once, then started by one call each time in place of one per kernel.

A card does the step of a small batch in less time than Python takes to start its kernels one by one. The kernels are those of the plain
passes, on numbers that lie at the same addresses each time.

Shapes: B batch, C channels, K classes, H W rows/columns.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Passes = Callable[[Tensor, Tensor], Tensor]


class NetworkAndLoss(nn.Module):
    """Images `[B, C, H, W]` and masks `[B, H, W]` to the loss.

    Args:
        network: Images to logits `[B, K, H, W]`.
        loss: Logits and masks to a scalar.
    """

    def __init__(self, network: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """The loss of one batch."""
        return self.loss(self.network(images), masks)


def record_passes(passes: NetworkAndLoss, images: Tensor, masks: Tensor) -> Passes:
    """The same for batches of that size, forward and backward as graphs; statistics of norms are left as they were.

    Args:
        passes: On a CUDA device, in training mode, under the autocast in which it will be called; the loss must not wait for the device.
        images: An example.
        masks: An example.

    Raises:
        RuntimeError: Something in the passes cannot be recorded.
    """
    buffers = [(buffer, buffer.clone()) for buffer in passes.buffers()]
    enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    try:
        with torch.autocast("cuda", dtype, enabled=enabled, cache_enabled=False):  # a cast of the weights belongs into the graph
            torch.cuda.make_graphed_callables(passes, (images, masks), allow_unused_input=True)
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    return passes


def record_call(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A call without gradients as one graph; what it returns is overwritten by the next call."""
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        for _ in range(3):  # libraries choose their algorithms and take their memory
            call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay
