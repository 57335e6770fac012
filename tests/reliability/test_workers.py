"""Loader processes change nothing: the same batches from none, one or two of them, however they start, and whether they stay or not."""

import hashlib
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from segkit.config import DataConfig
from segkit.data.module import SegmentationDataModule, begin_worker
from segkit.data.open import open_sources
from segkit.data.shards import write_shards

IMAGES, BATCH, EPOCHS = 8, 4, 2
STEPS = EPOCHS * IMAGES // BATCH
MIDDLE = 1  # batches behind a run that goes on in mid-epoch
STARTS = ("fork", "spawn", "forkserver")
KINDS = ("folder", "disk", "ram", "shards")


@pytest.fixture
def module(make_folder, tmp_path):
    """`(kind, seed) -> data module` that reads files, files cached on disk or in memory, or shards of three images or so."""
    root = make_folder(train=IMAGES, val=3)
    write_shards(open_sources(DataConfig(kind="folder", root=str(root))), tmp_path / "shards", 20_000, lambda count: None)

    def make(kind="folder", seed=0):
        place = {"kind": "shards", "root": str(tmp_path / "shards")} if kind == "shards" else {"kind": "folder", "root": str(root)}
        options = {"cache": kind if kind in ("disk", "ram") else "none", "cache_folder": str(tmp_path / "cache")}
        config = DataConfig(**place, **options, crop=24, batch_size=BATCH, scale=(0.5, 2.0), check=False)
        data = SegmentationDataModule(config, seed)
        data.trainer = SimpleNamespace(max_steps=STEPS, global_step=0, global_rank=0, world_size=1, accumulate_grad_batches=1)
        return data

    return make


def digests(loader):
    """sha256 of every batch."""
    return [hashlib.sha256(b"".join(batch[key].numpy().tobytes() for key in ("image", "mask", "index"))).hexdigest() for batch in loader]


def streams(data, workers, start=None, persistent=False):
    """The batches of a whole run, those of a run that goes on in mid-epoch, from the same loader, and those of a validation."""
    seen = []
    for split in ("train", "val"):
        data.trainer.global_step = 0
        plain = data.train_dataloader() if split == "train" else data.val_dataloader()
        loader = DataLoader(
            plain.dataset,
            batch_sampler=plain.batch_sampler,
            num_workers=workers,
            multiprocessing_context=start,
            persistent_workers=persistent,
            worker_init_fn=begin_worker,
            generator=torch.Generator(),
        )
        seen.append(digests(loader))
        if split == "train":
            data.trainer.global_step = MIDDLE
            seen.append(digests(loader))
    return seen


def ways(starts, counts=(1, 2), stays=(False, True)):
    return [(count, start, persistent) for start in starts for count in counts for persistent in stays]


def check(module, kind, every):
    whole, resumed, validation = streams(module(kind), workers=0)
    assert len(set(whole)) == len(whole) == STEPS
    assert resumed == whole[MIDDLE:]
    assert len(set(validation)) == 3
    for way in every:
        assert streams(module(kind), *way) == [whole, resumed, validation], (kind, way)
    print(f"{len(every)} of {len(every)} ways to load {kind} give the batches of one process")
    return whole


def test_the_epochs_of_a_run_and_the_runs_of_two_seeds_differ(module):
    data = module()
    batches = list(data.train_dataloader())
    epochs = [batches[: STEPS // 2], batches[STEPS // 2 :]]
    orders = [torch.cat([batch["index"] for batch in epoch]).tolist() for epoch in epochs]
    assert [sorted(order) for order in orders] == [list(range(IMAGES))] * 2
    assert orders[0] != orders[1]
    views = [{int(i): image for batch in epoch for i, image in zip(batch["index"], batch["image"], strict=True)} for epoch in epochs]
    assert not any(torch.equal(views[0][i], views[1][i]) for i in range(IMAGES))
    assert not set(digests(module(seed=1).train_dataloader())) & set(digests(batches))


def test_workers_change_nothing_however_they_start(module):
    check(module, "folder", [*ways(["fork"]), (1, "spawn", True), (1, "forkserver", True)])


@pytest.mark.slow
def test_every_way_to_start_workers_gives_the_same_batches(module):
    check(module, "folder", ways(STARTS))


@pytest.mark.slow
def test_caches_and_shards_give_workers_the_same_batches(module):
    streams_of = {kind: check(module, kind, ways(STARTS, counts=[2], stays=[True])) for kind in KINDS}
    assert streams_of["disk"] == streams_of["ram"] == streams_of["folder"]
    assert streams_of["shards"] != streams_of["folder"]  # which are shuffled together


def test_forked_workers_read_caches_and_shards_alike(module):
    for kind in KINDS[1:]:
        check(module, kind, ways(["fork"], counts=[2], stays=[True]))
