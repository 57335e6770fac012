"""What processes that share a batch compute of it together, each giving its own part.

    W  processes    R  rows, such as one per class    P  columns of one process, such as its pixels

Gradients need no collective of their own: every process computes the same scalar from the same sums, so that its own gradient by a sum is
everyone's, and what it adds to the gradients of the weights is what its own part of the batch adds. DistributedDataParallel *averages*
those parts over the processes where the objective of the whole batch wants their sum; `Ranks.sum` makes up for it with a factor W.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

PADDING = -1  # the mark of a column that is no one's


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient makes up for their average."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        total = local.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * dist.get_world_size()


@dataclass(frozen=True)
class Ranks:
    """The processes that share a batch; by default this one alone, for which nothing is sent and nothing changes.

    Every process must call each method in the same order.

    Args:
        count: W.
    """

    count: int = 1

    @classmethod
    def all(cls) -> "Ranks":
        """All processes of the run."""
        return cls(dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1)

    def sum(self, local: Tensor) -> Tensor:
        """The sum of `local`, of any shape, over all processes, the same bits on each; differentiable, see above."""
        return _Sum.apply(local) if self.count > 1 else local

    def rows(self, function: Callable[[int, Tensor, Tensor], Tensor], rows: list[Tensor], marks: Tensor) -> list[Tensor]:
        """What `function` makes of rows that lie side by side in all processes, as if they were one; not differentiable.

        Each process computes its share of the rows, whole, and gives all others theirs of the results: the work of W processes on rows
        W times as long takes as long as that of one on its own, and no process holds more than a W-th of all.

        Args:
            function: `(number of the row, row [W P], marks [W P]) -> [W P]`; a mark of `PADDING` stands for no column.
            rows: R floats `[P]`, R the same in all processes; P may differ.
            marks: int64 `[P]`, >= `PADDING`: what the function shall know of each column.

        Returns:
            The results for this process's own columns: R floats `[P]`.
        """
        if self.count == 1 or not rows:
            return [function(r, row, marks) for r, row in enumerate(rows)]
        length = torch.tensor(len(marks), device=marks.device)
        dist.all_reduce(length, dist.ReduceOp.MAX)
        mine, longest, share = len(marks), int(length), -(-len(rows) // self.count)
        everyone = marks.new_empty(self.count, longest)
        dist.all_gather(list(everyone.unbind()), pad(marks, (0, longest - mine), value=PADDING))
        sent = rows[0].new_zeros(self.count * share, longest)
        for place, row in zip(sent, rows, strict=False):  # the last shares may have a row less
            place[:mine] = row
        taken = torch.empty_like(sent)
        dist.all_to_all_single(taken, sent)  # from each process, its columns of the rows that are this one's share
        first = dist.get_rank() * share
        whole = taken.view(self.count, share, longest).transpose(0, 1).reshape(share, -1)
        for r in range(first, min(first + share, len(rows))):
            whole[r - first] = function(r, whole[r - first], everyone.flatten())
        dist.all_to_all_single(sent, whole.view(share, self.count, longest).transpose(0, 1).contiguous().view_as(taken))
        return [place[:mine] for place in sent[: len(rows)]]

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Takes the mean of each float tensor over all processes, in place; of equal values it is that value, to the bit."""
        if self.count == 1 or not tensors:
            return
        total = torch.cat([tensor.flatten().double() for tensor in tensors])  # in which float32 add up exactly
        dist.all_reduce(total)
        for tensor, mean in zip(tensors, torch.split(total / self.count, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.data.copy_(mean.view_as(tensor))

    def every(self, holds: bool, device: torch.device) -> bool:
        """Whether it holds in all processes, which talk by `device`."""
        if self.count == 1:
            return holds
        failing = torch.tensor(int(not holds), device=device)
        dist.all_reduce(failing)
        return not failing.item()

    def gather(self, value: Any) -> list[Any]:
        """The plain values of all processes, in their order."""
        values = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return values
