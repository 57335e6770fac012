from itertools import islice

import pytest

from segkit.data.sampler import EvalBatchSampler, StepBatchSampler


def stream(sampler):
    return [item for batch in sampler for item in batch]


@pytest.mark.parametrize(("length", "batch_size"), [(10, 4), (7, 7), (3, 8), (1, 2), (5, 1)])
def test_every_epoch_is_a_permutation_and_every_batch_is_full(length, batch_size):
    sampler = StepBatchSampler(length, batch_size, 30, seed=5)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 30
    assert all(len(batch) == batch_size for batch in batches)
    items = stream(sampler)
    for epoch in range(len(items) // length):
        part = items[epoch * length : (epoch + 1) * length]
        assert {e for e, _ in part} == {epoch}
        assert sorted(i for _, i in part) == list(range(length))


def test_epochs_and_seeds_have_orders_of_their_own():
    def order(seed, epoch):
        return tuple(i for _, i in stream(StepBatchSampler(20, 20, 4, seed))[epoch * 20 : epoch * 20 + 20])

    assert len({order(seed, epoch) for seed in range(4) for epoch in range(4)}) == 16
    assert order(2, 3) == order(2, 3)


def test_a_resumed_run_goes_on_with_the_very_next_batch():
    whole = list(StepBatchSampler(10, 4, 25, seed=1))
    for done in (0, 1, 7, 24, 25):
        assert list(StepBatchSampler(10, 4, 25, seed=1, start=lambda done=done: done)) == whole[done:]


def test_start_is_asked_when_iteration_begins():
    done = [0]
    sampler = StepBatchSampler(10, 4, 5, seed=1, start=lambda: done[0])
    first = list(islice(sampler, 2))
    done[0] = 2
    assert first + list(sampler) == list(StepBatchSampler(10, 4, 5, seed=1))


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_each_step_of_the_one_rank_stream(world):
    alone = list(StepBatchSampler(11, 4 * world, 9, seed=2))
    ranks = [list(StepBatchSampler(11, 4, 9, 2, rank, world)) for rank in range(world)]
    assert [[item for part in parts for item in part] for parts in zip(*ranks, strict=True)] == alone


@pytest.mark.parametrize("count", range(1, 10))
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_evaluation_sees_every_image_once_in_batches_of_one_size(count, world, batch_size):
    sizes = [(4, 4) if i % 5 < 3 else (6, 4) for i in range(count)]
    seen = []
    for rank in range(world):
        sampler = EvalBatchSampler(sizes, batch_size, rank, world)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert all(1 <= len(batch) <= batch_size for batch in batches)
        assert all(len({sizes[i] for i in batch}) == 1 for batch in batches)
        own = [i for batch in batches for i in batch]
        assert own == list(range(rank, count, world))
        seen += own
    assert sorted(seen) == list(range(count))


def test_consecutive_images_of_one_size_share_a_batch():
    assert list(EvalBatchSampler([(4, 4), (4, 4), (4, 4), (6, 4), (4, 4)], 2)) == [[0, 1], [2], [3], [4]]
