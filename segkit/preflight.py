"""What a run needs of the machine, asked before it starts: a folder to write to, room for checkpoints, shared memory, open files."""

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segkit.config import TrainConfig
from segkit.errors import SegkitError

if TYPE_CHECKING:
    from torch import nn

    from segkit.data.module import SegmentationDataModule

CHECKPOINTS = ("last.ckpt", "previous.ckpt", "best.ckpt", ".last.ckpt.tmp")  # what lies in the folder at most, while one is written
REST = 8 * 2**20  # bytes for all else: tables, panels, what W&B keeps
TENSORS = 3  # of a batch: images, masks, indices; each is an open file on its way from a loader process
PIPES = 6  # open files per loader process, for its queue and to learn of its end
SHARED = Path("/dev/shm")


def before_data(config: TrainConfig, folder: Path) -> None:
    """Asks what can be answered before any data is read.

    Args:
        config: Of the training.
        folder: That runs are written to, which need not exist.

    Raises:
        SegkitError: It cannot be written to, or the encoder's weights cannot be had.
    """
    from segkit.models.encoders import check_weights

    check_writable(folder)
    check_weights(config.encoder, config.encoder_weights, len(config.decoder_channels) if config.decoder == "unet" else 5)


def before_steps(config: TrainConfig, folder: Path, model: "nn.Module", data: "SegmentationDataModule", devices: int, first: bool) -> None:
    """Asks the rest, when data and network are known; in every process, for each has loader processes of its own.

    Args:
        config: Of the training.
        folder: That runs are written to, or the run folder that is gone on with.
        model: The network.
        data: What it trains on.
        devices: Processes of this machine.
        first: Whether this is the process that writes.

    Raises:
        SegkitError: The disk, the shared memory or the number of open files is too small.
    """
    if first:
        check_room(folder, model, moments=2 if config.optimizer == "adamw" else 1, copies=2 if config.ema else 1)
    check_workers(data, ("train", "val"), devices)


def check_writable(folder: Path) -> None:
    """Refuses a folder in which nothing can be written.

    Raises:
        SegkitError: It, or the nearest folder above it that exists, takes no file.
    """
    place = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"\0")
    except OSError as error:
        raise SegkitError(
            f"the run folder cannot be written to {str(place)!r} ({error.strerror}); choose a folder that you may write to: --runs DIR"
        ) from None


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists and can be seen; `Path.exists` raises where it may not look."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.exists(path))


def check_room(folder: Path, model: "nn.Module", moments: int, copies: int) -> None:
    """Refuses a disk on which the checkpoints will not fit.

    Args:
        folder: That runs are written to, or a run folder, whose checkpoints will be replaced.
        model: The network.
        moments: Numbers that the optimiser keeps for each weight.
        copies: Of the weights in a checkpoint.

    Raises:
        SegkitError: There is less room.
    """
    from segkit.data.cache import mib

    place = _nearest(folder)
    state = sum(value.nbytes for value in model.state_dict().values())
    trained = sum(value.nbytes for value in model.parameters() if value.requires_grad)
    files = (place / "checkpoints" / name for name in CHECKPOINTS)
    there = sum(path.stat().st_size for path in files if path.exists())
    need = len(CHECKPOINTS) * (copies * state + moments * trained) + REST - there
    free = shutil.disk_usage(place).free
    if free < need:
        raise SegkitError(
            f"{str(place)!r} has room for {mib(free)}, and this run needs about {mib(need)}, for up to {len(CHECKPOINTS)} checkpoints; "
            "make room, or choose another disk: --runs DIR"
        )


def check_workers(data: "SegmentationDataModule", splits: Sequence[str], devices: int = 1) -> None:
    """Sees to it that loader processes can hand over their batches.

    Each batch lies in shared memory until it is used, and each of its tensors is an open file. The limit of open files is raised as far as
    it may be; where that is too low for the tensors, they are handed over by name instead.

    Args:
        data: What is loaded.
        splits: That are loaded, at the same time: training images are loaded ahead while a validation runs.
        devices: Processes of this machine that load.

    Raises:
        SegkitError: The shared memory is too small for the batches, or the limit for the loader processes themselves.
    """
    from segkit.data.cache import mib
    from segkit.data.module import PREFETCH

    workers = data.config.workers
    if not workers:
        return
    try:
        multiprocessing.Lock()
    except OSError as error:
        raise SegkitError(f"workers {workers}: {SHARED} takes no locks ({error.strerror}); use 0 workers, or make it writable") from None
    ahead = workers * PREFETCH  # batches of each split that may be ready at once
    _allow_files(workers, len(splits), 2 * ahead * TENSORS * len(splits))
    need = devices * ahead * sum(_batch_bytes(data, split) for split in splits)
    free = shutil.disk_usage(SHARED).free if SHARED.is_dir() else need
    if free < need:
        raise SegkitError(
            f"workers {workers}: {SHARED} has room for {mib(free)}, and the batches that they load ahead "
            f"need up to {mib(need)}; use {int(workers * free / need)} workers or smaller batches, or give it more (docker run --shm-size)"
        )


def _batch_bytes(data: "SegmentationDataModule", split: str) -> int:
    """Of images and masks."""
    config, source = data.config, data.sources[split]
    if split == "train":
        pixels = config.batch_size * config.crop**2
    else:  # whole images, a few of which show how large they are
        some = range(0, len(source), max(len(source) // 32, 1))
        pixels = config.eval_batch_size * max((height * width for height, width in map(source.size, some)), default=0)
    return pixels * (data.in_channels * config.bits // 8 + 1)


def _allow_files(workers: int, loaders: int, tensors: int) -> None:
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    import torch

    opened = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 64
    processes = opened + PIPES * workers * loaders
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= processes + tensors:
        return
    soft = processes + tensors if hard == unlimited else min(processes + tensors, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft < processes + tensors:
        torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]
    if soft < processes:
        raise SegkitError(
            f"workers {workers}: they need about {processes} open files, and `ulimit -n` allows {soft}; "
            f"use {max(soft - opened, 0) // (PIPES * loaders)} workers, or raise the limit"
        )
