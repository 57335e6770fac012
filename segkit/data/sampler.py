"""Which image comes when. Shape legend: `t` batch of one rank, `p` place in the stream of all ranks."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from segkit.data.randomness import permutation


class StepBatchSampler:
    """A whole training run as one stream of images, in batches that are always full.

    Image j of batch t on a rank has the place p = (t * world + rank) * batch_size + j in the stream; place p is number p mod n of epoch
    p div n, whose order is a permutation of its own. So every image comes once an epoch, a batch may cross the border between two, a run
    can go on from any batch, and w ranks with batches of b see in each step what one rank sees with w * b.

    Args:
        length: Number of images n.
        batch_size: Images per batch of one rank.
        total_batches: Batches of the whole run on one rank.
        seed: Decides the permutations.
        rank: This process, 0..world-1.
        world: Number of processes.
        start: Says, whenever an iteration begins, how many batches are already done.
        blocks: Numbers of successive images that lie together, see `randomness.permutation`.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        total_batches: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        start: Callable[[], int] = int,
        blocks: Sequence[int] = (),
    ) -> None:
        assert length > 0
        assert batch_size > 0
        assert 0 <= rank < world
        self.length, self.batch_size, self.total_batches, self.seed = length, batch_size, total_batches, seed
        self.rank, self.world, self.start, self.blocks = rank, world, start, blocks

    def __len__(self) -> int:
        return self.total_batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Lists of `batch_size` pairs (epoch, index)."""
        orders: dict[int, Any] = {}
        for t in range(self.start(), self.total_batches):
            first = (t * self.world + self.rank) * self.batch_size
            places = [divmod(p, self.length) for p in range(first, first + self.batch_size)]
            epochs = range(places[0][0], places[-1][0] + 1)
            orders = {e: orders[e] if e in orders else permutation(self.length, self.seed, e, self.blocks) for e in epochs}
            yield [(epoch, int(orders[epoch][k])) for epoch, k in places]


class EvalBatchSampler:
    """Every image exactly once over all ranks: no rank pads, so nothing is counted twice.

    Args:
        sizes: Rows and columns of every image, [N, 2]; images of one batch have the same.
        batch_size: Most images in a batch.
        rank: This process; it takes the images rank, rank + world, ...
        world: Number of processes.
    """

    def __init__(self, sizes: Sequence[Sequence[int]], batch_size: int = 1, rank: int = 0, world: int = 1) -> None:
        self._batches: list[list[int]] = []
        for index in range(rank, len(sizes), world):
            batch = self._batches[-1] if self._batches else []
            if batch and len(batch) < batch_size and tuple(sizes[batch[0]]) == tuple(sizes[index]):
                batch.append(index)
            else:
                self._batches.append([index])

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)
