"""Decoded images and masks, kept in memory or in a file that every process maps. Shape legend: `N` images, `H W` rows and columns.

A cache is one piece of bytes: a table int64 [N, 5] (where an image's pixels begin, H, W, channels, bytes per channel), then for each
image its pixels and its mask. What could not be read as its header promised has a zero there and is read from its file, so that
whatever is wrong with it comes to light when and where it would without a cache.
"""

import hashlib
import json
import mmap
import os
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import numpy as np

from segkit.config import DataConfig
from segkit.data.memory import available_memory
from segkit.data.shards import INDEX
from segkit.data.source import Source
from segkit.data.threads import each
from segkit.errors import SegkitError

Array = np.ndarray[Any, Any]
_FORMAT = 1  # of the file, and of what reading makes of the same image files
_COLUMNS = 5
_SPARE = 0.9  # share of the free memory that a cache may take


class Cached:
    """A source whose images are decoded already.

    Arrays that it reads are views of memory that cannot be written to. Loader processes share the memory, however they are started.

    Args:
        source: The split.
        file: Descriptor of the cache, which is closed with this object.
    """

    def __init__(self, source: Source, file: int) -> None:
        self.source, self.classes, self.problems = source, source.classes, source.problems
        self._file = file
        weakref.finalize(self, os.close, file)
        self._bytes = np.frombuffer(mmap.mmap(file, 0, prot=mmap.PROT_READ), np.uint8)
        self._table = self._bytes[: len(source) * _COLUMNS * 8].view(np.int64).reshape(-1, _COLUMNS)

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (self.source, DupFd(self._file))

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        """A name that no other image of the split has."""
        return self.source.name(index)

    def size(self, index: int) -> tuple[int, int]:
        """Rows and columns of an image."""
        start, height, width = self._table[index, :3].tolist()
        return (height, width) if start else self.source.size(index)

    def paths(self, index: int) -> tuple[str, str] | None:
        """The image's file and the mask's."""
        return self.source.paths(index)

    def read(self, index: int) -> tuple[Array, Array]:
        """Image, uint8 or uint16 [H, W, C], and mask, uint8 [H, W]."""
        start, height, width, channels, depth = self._table[index].tolist()
        if not start:
            return self.source.read(index)
        middle = start + height * width * channels * depth
        image = self._bytes[start:middle].view(np.uint16 if depth == 2 else np.uint8)
        return image.reshape(height, width, channels), self._bytes[middle : middle + height * width].reshape(height, width)


def _received(source: Source, file: Any) -> Cached:
    return Cached(source, file.detach())


def cached(split: str, source: Source, config: DataConfig, channels: int) -> Cached:
    """The source with a cache that is filled, as `config.cache` says.

    Args:
        split: Name of the split.
        source: The split.
        config: Where the cache lies and how files are read.
        channels: Channels of the images.

    Raises:
        SegkitError: There is not enough room, or no access to it.
    """
    if config.cache == "ram":
        return _in_memory(split, source, channels * config.bits // 8)
    return _on_disk(split, source, config, channels)


def check_memory(size: int, what: str) -> None:
    """Raise a SegkitError where a cache of so many bytes cannot be kept in memory; `what` says of which splits."""
    if not hasattr(os, "memfd_create"):
        raise SegkitError("--data.cache ram: only Linux has memory that processes share without a file; use --data.cache disk")
    if size > _SPARE * (free := available_memory()):
        raise SegkitError(
            f"--data.cache ram: the decoded {what} images take {mib(size)}, and {mib(free)} of memory are free; "
            "use --data.cache disk, or none"
        )


def cache_size(source: Source, config: DataConfig, channels: int) -> int:
    """Bytes that the cache of a split takes, from the headers of its images."""
    return int(_layout(source, channels * config.bits // 8)[-1])


def _in_memory(split: str, source: Source, depth: int) -> Cached:
    layout = _layout(source, depth)
    check_memory(int(layout[-1]), split)
    file = os.memfd_create("segkit")
    _fill(file, split, source, layout, "in memory")
    return Cached(source, file)


def _on_disk(split: str, source: Source, config: DataConfig, channels: int) -> Cached:
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "segkit") if config.cache_folder is None else Path(config.cache_folder)
    path = caches.expanduser() / f"{split}-{_identity(split, source, config, channels)[:32]}.pixels"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):  # of processes that start together one fills it, and the others wait
            if not path.exists():
                _build(path, split, source, _layout(source, channels * config.bits // 8))
        return Cached(source, os.open(path, os.O_RDONLY))
    except OSError as error:
        raise SegkitError(
            f"--data.cache disk: {path.parent}: {error.strerror or error}; choose another folder with --data.cache_folder"
        ) from None


def _build(path: Path, split: str, source: Source, layout: Any) -> None:
    """Write a cache whole or not at all."""
    size, part = int(layout[-1]), path.with_suffix(".part")
    part.unlink(missing_ok=True)  # of a run that was killed
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise SegkitError(
            f"--data.cache disk: the decoded {split} images take {mib(size)}, and {path.parent} has {mib(free)} free; "
            "make room, or choose another folder with --data.cache_folder"
        )
    file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and the end of the process where a mapping is written
            os.posix_fallocate(file, 0, size)
        _fill(file, split, source, layout, f"in {path}")
        os.fsync(file)
        os.replace(part, path)
    finally:
        os.close(file)
        part.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _layout(source: Source, depth: int) -> Any:
    """Where the pixels of every image begin, and where the last end: int64 [N + 1]; `depth` is the bytes of a pixel."""

    def pixels(index: int) -> int:
        try:
            height, width = source.size(index)
        except SegkitError:  # it will be said when the image is asked for
            return 0
        return height * width

    sizes = np.fromiter(each(pixels, len(source)), np.int64, len(source))
    # pixels begin at even addresses, for those of two bytes
    return np.cumsum([len(source) * _COLUMNS * 8, *((sizes * (depth + 1) + 1) // 2 * 2)])


def _fill(file: int, split: str, source: Source, layout: Any, where: str) -> None:
    """Announce the cache and fill it, by as many threads as there are processors: decoders work outside the interpreter lock."""
    from rich.console import Console
    from rich.progress import track

    console = Console()
    print(f"caching {len(source)} {split} images {where}: {mib(int(layout[-1]))}", flush=True)
    os.ftruncate(file, int(layout[-1]))
    with mmap.mmap(file, int(layout[-1])) as memory:
        store = partial(_store, memory, source, layout)
        done, shown = each(store, len(source)), console.is_terminal
        for _ in track(done, "  decoding", len(source), console=console, transient=True, disable=not shown):
            pass
        memory.flush()


def _store(memory: mmap.mmap, source: Source, layout: Any, index: int) -> None:
    start, end = int(layout[index]), int(layout[index + 1])
    try:
        image, mask = source.read(index)
    except SegkitError:
        return
    size = image.nbytes + mask.nbytes
    if image.shape[:2] != mask.shape or not size <= end - start <= size + 1:
        return
    memory[start : start + size] = image.tobytes() + mask.tobytes()
    row = np.array([start, *image.shape, image.itemsize], np.int64)
    memory[index * _COLUMNS * 8 : (index + 1) * _COLUMNS * 8] = row.tobytes()


def _identity(split: str, source: Source, config: DataConfig, channels: int) -> str:
    """sha256 of what decides the pixels: names, sizes and times of the files, and how they are read."""
    how = ("kind", "masks", "mapping", "bits", "scenes_size", "scenes_seed")
    reading = {name: getattr(config, name) for name in how}
    classes = [source.classes.names, source.classes.colors]
    digest = hashlib.sha256(json.dumps([_FORMAT, split, len(source), channels, reading, classes], sort_keys=True).encode())
    if config.kind == "shards":
        digest.update(Path(config.root or "").expanduser().joinpath(INDEX).read_bytes())
    for index in range(len(source)):
        about = [_version(path) for path in source.paths(index) or ()]
        digest.update(f"\n{source.name(index)} {about}".encode())
    return digest.hexdigest()


def _version(path: str) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError:  # it will be said when the image is asked for
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def mib(size: int) -> str:
    """A number of bytes for the eye."""
    return f"{size / 2**20:,.0f} MiB"
