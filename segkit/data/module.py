"""The data as Lightning takes it: loaders for training, validation and evaluation, in step with the Trainer."""

import atexit
import hashlib
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from multiprocessing import active_children
from types import TracebackType
from typing import Any

import cv2
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from segkit.config import DataConfig
from segkit.data.cache import Cached, cache_size, cached, check_memory, mib
from segkit.data.check import SplitSummary, check_listing, check_sources, count_classes
from segkit.data.classes import Classes, Counts, PixelCounts, median_frequency_weights
from segkit.data.dataset import EvalDataset, Sample, TrainDataset
from segkit.data.digest import StreamDigest
from segkit.data.open import open_sources
from segkit.data.sampler import EvalBatchSampler, StepBatchSampler
from segkit.data.source import Source
from segkit.data.transforms import TrainTransform
from segkit.errors import SegkitError, stopping_signals

PREFETCH = 4  # batches that a loader process has ready
SPLITS = {"training": "train", "validation": "val"}  # that a run is made of, by what a reader calls them
READ = ("train_labels", "train_pixels", "val_labels", "val_pixels")  # digests that only whoever has read the files can tell


class SegmentationDataModule(pl.LightningDataModule):
    """Opens the data set that the configuration names and loads it.

    The Trainer needs `use_distributed_sampler=False` and a budget in steps (`max_steps`): the samplers know ranks and resumption.

    Args:
        config: Data set and augmentation.
        seed: Decides the order of the images and their augmentation.
        in_channels: 3 for RGB, 1 for grey, else as many as the image files have.

    Raises:
        SegkitError: The data set cannot be opened, or an option is out of range.
    """

    def __init__(self, config: DataConfig, seed: int = 0, in_channels: int = 3) -> None:
        super().__init__()
        self.config, self.seed, self.in_channels = config, seed, in_channels
        self.sources: dict[str, Source] = open_sources(config, in_channels)
        self.classes: Classes = next(iter(self.sources.values())).classes
        self.stream = StreamDigest()
        self.held: dict[str, str] = {}  # of `READ`, what the earlier part of a run has told
        self._caches: dict[str, Cached] = {}
        self._about_cache = ""

    def __str__(self) -> str:
        splits = ", ".join(f"{split} {len(source)}" for split, source in self.sources.items())
        place = f" in {self.config.root}" if self.config.root else ""
        return f"{self.config.kind}{place}: {splits} images, {len(self.classes)} classes{self._about_cache}"

    def prepare(self, world: int = 1, splits: Sequence[str] = ("train", "val"), read: bool = True) -> None:
        """Look at the data before training starts.

        Args:
            world: Number of processes; each needs an image of every split that is scored.
            splits: The splits that will be used.
            read: Read all of every file, unless the configuration says otherwise; without it only that pairs are complete.

        Raises:
            SegkitError: A split is missing or too small, or cannot be cached, or files are wrong: one report of all of them.
        """
        for split in splits:
            if split != "train":
                self._scored(split, world)
            self._source(split)
        if "train" in splits and self.config.cache != "none":
            self._plan_cache(world, splits)
        if read:
            _ = self.summaries

    def class_weights(self, weights: str | list[float]) -> list[float] | None:
        """What `--class_weights` means for this data: None, median frequency balancing (Eigen & Fergus 2015), or the numbers given."""
        if weights == "none":
            return None
        if isinstance(weights, str):
            return median_frequency_weights(self.class_pixels())
        if len(weights) != len(self.classes) or min(weights) < 0:
            raise SegkitError(f"--class_weights {weights}: give one number >= 0 for each of the {len(self.classes)} classes")
        return weights

    @cached_property
    def summaries(self) -> dict[str, SplitSummary]:
        """What the check found out about every split that it read; nothing for built-in scenes and with `check` off."""
        files = {} if self.config.kind == "scenes" else self.sources
        if self.config.check:
            return check_sources(files)
        check_listing(files)
        return {}

    @cached_property
    def training_images(self) -> str:
        """sha256 over the names of the training images: another one where images came or went, or a split by hash has moved."""
        return _digest_of_names(self._source("train"))

    @cached_property
    def validation_images(self) -> str:
        """The same of the validation images."""
        return _digest_of_names(self._source("val"))

    def contents(self) -> dict[str, str]:
        """Digests of what a run is trained and scored on: names of the images, labels and pixels where this process has read them."""
        out = {"images": self.training_images} | ({"val_images": self.validation_images} if "val" in self.sources else {})
        for split, seen in self.__dict__.get("summaries", {}).items():  # only one of several processes reads
            out |= {f"{split}_labels": seen.labels, f"{split}_pixels": seen.pixels} if split in SPLITS.values() else {}
        return out

    def hold(self, saved: Mapping[str, Any]) -> list[str]:
        """Holds the data against what a checkpoint says of those that the run was started with, which anybody may have written.

        Returns:
            What differs without being refused, in words: decoders of other versions may read other pixels from the same JPEG file.

        Raises:
            SegkitError: The images of a split, or their labels, are others.
        """
        now = self.contents()
        changed = {name for name in now if str(saved.get(name, now[name])) != now[name]}
        for what, split in SPLITS.items():
            if f"{split}_images".removeprefix("train_") in changed:  # those of training are "images" in every checkpoint
                rule = f"has {len(self._source(split))} images, which are not those that the run was started with"
            elif f"{split}_labels" in changed:
                rule = "has other labels in its masks than those that the run was started with"
            else:
                continue
            raise SegkitError(f"the {what} split {rule}; put them back, or start a new run")
        self.held = {name: str(saved[name]) for name in READ if name in saved}
        return [f"pixels of {what} images" for what, split in SPLITS.items() if f"{split}_pixels" in changed]

    def class_pixels(self) -> PixelCounts:
        """Pixels of every class in the training masks, from the check where it ran."""
        return self.summaries["train"].counts if "train" in self.summaries else count_classes(self._source("train"))

    def steps_per_epoch(self, world: int = 1, accumulate: int = 1) -> int:
        """Optimiser steps after which every training image has been seen at least once."""
        return -(-len(self._source("train")) // (self.config.batch_size * world * accumulate))

    def train_dataloader(self) -> DataLoader[Sample]:
        """Batches from the Trainer's current step to its last: images [B, C, crop, crop], uint8 or uint16; masks uint8 [B, crop, crop]."""
        trainer, source = self._trainer(), self._cached("train")
        assert trainer.max_steps > 0, "the sampler needs a budget in steps"
        accumulate = trainer.accumulate_grad_batches
        sampler = StepBatchSampler(
            len(source),
            self.config.batch_size,
            trainer.max_steps * accumulate,
            self.seed,
            trainer.global_rank,
            trainer.world_size,
            start=lambda: trainer.global_step * accumulate,
            blocks=getattr(self.sources["train"], "blocks", ()),  # which shards have
        )
        return self._loader(TrainDataset(source, TrainTransform(self.config, self._class_pixels()), self.seed), sampler)

    def on_before_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Note what is trained on, while it is in the memory of the host."""
        if self._trainer().training:
            self.stream.update(batch, self._trainer().global_step)
        return batch

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """On a CPU nothing moves, which Lightning would find out by a walk through the batch."""
        return batch if device.type == "cpu" else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def state_dict(self) -> dict[str, str]:
        """What a checkpoint holds: the digest of the batches so far, and of what they are drawn from."""
        return {**self.stream.state_dict(self._trainer().global_step), **self.held, **self.contents()}

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        """Go on with the digest of the earlier part of the run.

        Raises:
            SegkitError: The run was started with other images or labels.
        """
        self.hold(state_dict)
        self.stream.load_state_dict(state_dict)

    def val_dataloader(self) -> DataLoader[Sample]:
        """The Trainer's share of the validation images, whole."""
        trainer = self._trainer()
        self._scored("val", trainer.world_size)
        self._cached("val")
        return self.eval_dataloader("val", trainer.global_rank, trainer.world_size)

    def eval_dataloader(self, split: str, rank: int = 0, world: int = 1) -> DataLoader[Sample]:
        """Whole images of a split, each exactly once over all ranks; images of one batch have one size.

        Raises:
            SegkitError: There is no such split, or its pairs are not complete, or it has fewer images than there are ranks.
        """
        source = self._caches.get(split, self._scored(split, world))
        check_listing({split: source})
        # with one image a batch sizes do not matter, and no header is read
        sizes = [source.size(index) if self.config.eval_batch_size > 1 else (0, 0) for index in range(len(source))]
        return self._loader(EvalDataset(source), EvalBatchSampler(sizes, self.config.eval_batch_size, rank, world))

    def _loader(self, dataset: TrainDataset | EvalDataset, batches: StepBatchSampler | EvalBatchSampler) -> DataLoader[Sample]:
        workers = self.config.workers
        return DataLoader(
            dataset,
            batch_sampler=batches,  # a training item is asked for by (epoch, index)
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=PREFETCH if workers else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=partial(begin_worker, sharing=torch.multiprocessing.get_sharing_strategy()),  # type: ignore[no-untyped-call]
            generator=torch.Generator(),  # its own, so that starting a pass over the data draws nothing from the model's stream
        )

    def _plan_cache(self, world: int, splits: Sequence[str]) -> None:
        """Say where the cache will be, and whether it can be there."""
        if self.config.cache == "disk":
            self._about_cache = ", cached on disk"
            return
        if world > 1:
            raise SegkitError(f"--data.cache ram: {world} devices would each keep a copy; use --data.cache disk, which they share")
        used = [split for split in splits if split in ("train", "val")]
        size = sum(cache_size(self.sources[split], self.config, self.in_channels) for split in used)
        check_memory(size, " and ".join(used))
        self._about_cache = f", cached in memory: {mib(size)}"

    def _cached(self, split: str) -> Source:
        """A split that training reads again and again, decoded already where that is wanted."""
        source = self._source(split)
        if self.config.cache == "none":
            return source
        if split not in self._caches:
            check_listing({split: source})
            self._caches[split] = cached(split, source, self.config, self.in_channels)
        return self._caches[split]

    def _class_pixels(self) -> Counts | None:
        """What rare crops need to know, the same on all ranks: the first one has read the data already, or reads it."""
        if not self.config.rare_crops:
            return None
        trainer = self._trainer()
        counts = self.class_pixels().pixels if trainer.global_rank == 0 else None
        return counts if trainer.world_size == 1 else trainer.strategy.broadcast(counts)

    def _scored(self, split: str, world: int) -> Source:
        source = self._source(split)
        if 0 < len(source) < world:  # an empty one is among the findings of the check
            raise SegkitError(
                f"{len(source)} {split} images for {world} devices; every device needs one: add images or use {len(source)} devices"
            )
        return source

    def _source(self, split: str) -> Source:
        if split not in self.sources:
            remedies = {
                "scenes": f"set --data.scenes_{split}",
                "folder": f"move some pairs to images/{split} and masks/{split}",
                "manifest": f"write {split} in the column split of some of its lines",
                "shards": f"write shards from data that has one, with check_data.py --data.root DIR --to_shards {self.config.root}",
            }
            remedy = remedies.get(self.config.kind, f"use one of {', '.join(self.sources)}")
            raise SegkitError(f"the data has no split {split}, only {', '.join(self.sources)}; {remedy}")
        return self.sources[split]

    def _trainer(self) -> pl.Trainer:
        assert self.trainer is not None, "the loader belongs to a Trainer"
        return self.trainer


def begin_worker(worker: int, sharing: str) -> None:
    """Keep a loader process to one thread, there being one process per core already, and leave signals to the process that trains.

    What reaches all processes of a job, such as Ctrl-C in a terminal, would end this one before that one has saved. Ending it by a
    second SIGTERM stays possible, for whoever shuts it down.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    torch.multiprocessing.set_sharing_strategy(sharing)  # type: ignore[no-untyped-call]  # which `spawn` does not hand down
    sys.excepthook = _quiet
    for number in set(stopping_signals(everywhere=True)) - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))


def _digest_of_names(source: Source) -> str:
    return hashlib.sha256("\n".join(source.name(index) for index in range(len(source))).encode("utf-8", "surrogateescape")).hexdigest()


def end_workers() -> None:
    """Ends loader processes that an error has left: Python sends them a single SIGTERM, which they ignore, and waits for them for ever."""
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's own would raise an error for each
    for child in active_children():
        if child.daemon:  # one that Python would not leave alone either
            child.kill()


atexit.register(end_workers)  # later than Python's own, so that it comes before


def _quiet(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Says nothing of a batch that a process which was stopped has left half read: multiprocessing would print a traceback of it."""
    if not issubclass(kind, ConnectionError):
        sys.__excepthook__(kind, error, trace)
