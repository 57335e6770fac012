"""Holds every training step to finite numbers: logits, loss, gradients, weights.

Each is read before the step goes on. On a graphics card that would leave the card idle while Python prepares the next step; there the
numbers decide on the card itself whether the update is applied (`found_inf` of torch's fused optimisers), and are read one step later.

Shapes: B batch, K classes, H W rows/columns.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import torch
from torch import Tensor, nn

from segkit.models.finite import all_finite, largest, nonfinite, numbers
from segkit.ranks import Ranks

ADVICE = "Lower --lr, lengthen --warmup, or, in 16-mixed precision, use bf16-mixed; then look at these images"


@dataclass
class Step:
    """One optimiser step.

    Args:
        number: Steps before it.
        indices: Of the images, int64 `[B]` for each batch of the step.
        losses: A scalar for each batch.
        sums: Of the logits of each image, `[B]` for each batch: finite where the logits are.
    """

    number: int
    indices: list[Tensor] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    sums: list[Tensor] = field(default_factory=list)


class Watch:
    """Ends a run before an update that would destroy its weights, in all processes at once, and names the images it was seen on.

    The order of calls in a step is `begin` and `forward` for each batch, then `update`; `settle` before anything is made of the weights.

    Args:
        model: The network.
        named: Images by their indices, in words.
        fail: Ends the run with a line.
        late: Hold bad updates back on the device and read the numbers one step later; wants a fused optimiser.
        skips: Gradients that are not finite end nothing: a loss scaler skips their update itself.
    """

    def __init__(
        self,
        model: nn.Module,
        named: Callable[[Sequence[int]], str],
        fail: Callable[[str], NoReturn],
        late: bool = False,
        skips: bool = False,
    ) -> None:
        self.model, self.named, self.fail, self.late, self.skips = model, named, fail, late, skips
        self.numbers = list(numbers(model).values())  # finding them in the network takes a small one a tenth of a step
        self.step = Step(0)
        self.unread: tuple[Step, Tensor, torch.cuda.Event | None] | None = None

    def begin(self, number: int, indices: Tensor, first: bool) -> None:
        """A batch of the step with that number; `first` of it."""
        if first:
            self.step = Step(number)
        self.step.indices.append(indices)

    def forward(self, loss: Tensor, logits: Tensor) -> None:
        """The loss of the batch, that of all processes, and this process's logits `[B, K, H, W]`.

        Raises:
            RunFailed: A logit or the loss is not finite.
        """
        if self.late:
            self.step.losses.append(loss)
            self.step.sums.append(logits.detach().sum((1, 2, 3), dtype=torch.float32))
        elif not math.isfinite(value := loss.item()):  # `Tensor.isfinite` is five operations
            self._judge(self.step, value, self.step.indices[-1], logits.detach().flatten(1).isfinite().all(1))

    def update(self, optimizer: torch.optim.Optimizer, norm: Tensor) -> None:
        """The update that comes next, with the norm of all gradients.

        Raises:
            RunFailed: A gradient or a weight is not finite; of late steps, something in the one before.
        """
        if not self.late:
            if not self.skips and not math.isfinite(value := norm.item()):
                self._stop(self.step, f"the gradient norm is {value}")
            if not all_finite(self.numbers):
                self._judge_weights(self.step)
            return
        self.settle()
        held = torch.stack([*self.step.losses, norm, largest(self.numbers)]).float()
        optimizer.found_inf = (~held.isfinite().all()).float()  # type: ignore[attr-defined]  # torch's own name, for its loss scaler
        row = torch.cat([held, *self.step.sums]).to("cpu", non_blocking=True)
        event = None
        if norm.device.type == "cuda":
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self.unread = self.step, row, event

    def settle(self) -> None:
        """Reads what has not been read yet.

        Raises:
            RunFailed: Something was not finite; the update was held back.
        """
        if self.unread is None:
            return
        (step, row, event), self.unread = self.unread, None
        if event is not None:
            event.synchronize()
        count = len(step.losses)
        losses, (norm, weight), sums = row[:count].tolist(), row[count : count + 2].tolist(), row[count + 2 :]
        images = torch.split(sums.isfinite(), [len(part) for part in step.sums])
        for loss, indices, finite in zip(losses, step.indices, images, strict=True):
            if not math.isfinite(loss):
                self._judge(step, loss, indices, finite.to(indices.device))
        if not math.isfinite(norm):
            self._stop(step, f"the gradient norm is {norm}")
        if not math.isfinite(weight):
            self._judge_weights(step)

    def _judge(self, step: Step, loss: float, indices: Tensor, finite: Tensor) -> NoReturn:
        """What to say of a batch whose loss is not finite."""
        bad = [index for part in Ranks.all().gather(indices[~finite].tolist()) for index in part]
        if bad:
            self._stop(step, "the logits are not finite", bad)
        step.indices = [indices]
        self._stop(step, f"the loss is {loss}")

    def _judge_weights(self, step: Step) -> None:
        if name := nonfinite(self.model):
            self._stop(step, f"{name} is not finite since the last update")

    def _stop(self, step: Step, what: str, images: Sequence[int] | None = None) -> NoReturn:
        """Every process calls this; `images`: where it was seen; default: all images of the step."""
        if images is None:
            images = [index for part in Ranks.all().gather(torch.cat(step.indices).tolist()) for index in part]
        self.fail(f"{what} at step {step.number} on {self.named(images)}; the weights were not updated. {ADVICE}")
