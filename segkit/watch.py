"""Holds every training step to finite numbers: logits, loss, gradients, weights.

Shapes: B batch, K classes, H W rows/columns.
"""

import math
from collections.abc import Callable, Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from segkit.models.finite import all_finite, nonfinite, numbers
from segkit.ranks import Ranks

ADVICE = "Lower --lr, lengthen --warmup, or, in 16-mixed precision, use bf16-mixed; then look at these images"


class Watch:
    """Ends a run before an update that would destroy its weights, in all processes at once, and names the images it was seen on.

    In a step, `begin` and `forward` come for each batch, then `update`.

    Args:
        modules: What is trained.
        named: Images by their indices, in words.
        fail: Ends the run with a line.
        scaled: A loss scaler skips the updates of gradients that are not finite by itself.
    """

    def __init__(
        self, modules: Sequence[nn.Module], named: Callable[[Sequence[int]], str], fail: Callable[[str], NoReturn], scaled: bool = False
    ) -> None:
        self.modules, self.named, self.fail, self.scaled = modules, named, fail, scaled
        self.numbers = list(numbers(*modules).values())  # finding them in the network takes a small one a tenth of a step
        self.step, self.indices = 0, list[Tensor]()

    def begin(self, step: int, indices: Tensor, first: bool) -> None:
        """A batch of images `[B]` of the step with that number; `first` of it."""
        self.step, self.indices = step, [*([] if first else self.indices), indices]

    def forward(self, loss: Tensor, logits: Tensor) -> None:
        """The loss of the batch, that of all processes, and this process's logits `[B, K, H, W]`.

        Raises:
            RunFailed: A logit or the loss is not finite.
        """
        if math.isfinite(value := loss.item()):  # `Tensor.isfinite` is five operations
            return
        own = self.indices[-1][~logits.detach().flatten(1).isfinite().all(1)].tolist()
        if bad := [index for part in Ranks.all().gather(own) for index in part]:
            self._stop("the logits are not finite", bad)
        self.indices = self.indices[-1:]
        self._stop(f"the loss is {value}")

    def update(self, norm: Tensor) -> None:
        """The update that comes next, with the norm of all gradients.

        Raises:
            RunFailed: A gradient, a weight or a running statistic is not finite, in any process.
        """
        if not self.scaled and not math.isfinite(value := norm.item()):
            self._stop(f"the gradient norm is {value}")
        if Ranks.all().every(all_finite(self.numbers), norm.device):
            return
        if names := [name for name in Ranks.all().gather(nonfinite(*self.modules)) if name]:
            self._stop(f"{names[0]} is not finite since the last update")

    def _stop(self, what: str, images: Sequence[int] | None = None) -> NoReturn:
        """Every process calls this; `images`: where it was seen; default: all images of the step."""
        if images is None:
            images = [index for part in Ranks.all().gather(torch.cat(self.indices).tolist()) for index in part]
        self.fail(f"{what} at step {self.step} on {self.named(images)}; the weights were not updated. {ADVICE}")
