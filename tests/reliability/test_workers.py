"""Loader processes change nothing: the same batches from none, one or two of them, however they start, and whether they stay or not."""

import hashlib
import os
import re
import signal
from multiprocessing.connection import Client
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from segkit.cli.eval import main as evaluate
from segkit.config import DataConfig
from segkit.data.dataset import EvalDataset, TrainDataset
from segkit.data.module import SegmentationDataModule
from segkit.data.open import open_sources
from segkit.data.shards import write_shards
from segkit.errors import RunFailed
from segkit.peers import together

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
            worker_init_fn=plain.worker_init_fn,
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


@pytest.mark.parametrize("command", ["train", "eval"])
def test_a_loader_process_that_is_killed_is_one_line(lab, monkeypatch, command):
    """As the system kills one where memory runs out."""
    trainer, dataset = os.getpid(), TrainDataset if command == "train" else EvalDataset
    words = ["--trainer.max_steps", "40", "--trainer.val_every", "2", "--data.workers", "2", "--name", "lost", "--run_id", "run"]
    if command == "eval":
        lab.train(*words, "--trainer.max_steps", "2")
    read = dataset.__getitem__

    def killed(self, place):
        if os.getpid() != trainer and place in ((4, 3), 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, place)

    monkeypatch.setattr(dataset, "__getitem__", killed)
    remedy = {"train": "go on with --resume runs/lost/run", "eval": "start the evaluation again"}[command]
    lost = rf"a loader process was lost \((worker .*(Killed|unexpectedly)|its pipe is broken)\); {remedy}, with fewer workers where .*"
    words = words if command == "train" else ["runs/lost/run", "--split", "val", "--accelerator", "cpu"]
    with pytest.raises(RunFailed) as failed:
        (lab.train if command == "train" else lambda *words: evaluate(words))(*words)
    assert re.fullmatch(lost, str(failed.value))


def test_a_broken_pipe_to_a_loader_process_is_told_from_other_errors(tmp_path):
    trainer = SimpleNamespace(world_size=1)
    with pytest.raises(RunFailed, match=r"lost \(its pipe is broken\); A, with fewer"), together(trainer, "A"):
        Client(str(tmp_path / "nobody"))
    with pytest.raises(FileNotFoundError), together(trainer, "A"):
        Path(tmp_path / "nobody").read_text()


def test_an_error_in_a_validation_leaves_no_loader_process_that_the_program_waits_for(lab, make_folder):
    """Those of the training, idle then, outlive one SIGTERM."""
    root = make_folder(train=4, val=3)
    picture = root / "images/val/val1.png"
    picture.write_bytes(picture.read_bytes()[:1000])  # whose header is sound
    words = f"--data.kind folder --data.root {root} --data.check false --data.workers 1 --trainer.max_steps 4"
    text = "from segkit.cli.parsing import run\nfrom segkit.cli.train import main\nrun(main)"
    program = lab.script(text, *lab.tiny, *words.split())
    try:
        _, errors = program.communicate(timeout=90)
    finally:
        program.kill()
    assert program.returncode == 2
    assert re.fullmatch(r"program\.py: error: cannot read .*val1\.png: .*\n", errors)
