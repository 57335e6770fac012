"""A proof that two runs saw the same files. Standard library only."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from segkit.config import DataConfig
from segkit.errors import SegkitError


def fingerprint(config: DataConfig, extra: Iterable[str | None] = ()) -> str:
    """sha256 over the names and contents of every file of a data set, wherever it lies; built-in scenes have no files.

    Folders may be links. Hidden files are passed over: file browsers leave them, and no data set reads them.

    Args:
        config: The data set; its augmentation plays no part.
        extra: Further files that decide a run, such as encoder weights; None and what is no file are passed over.

    Raises:
        SegkitError: The data set's folder is missing, or a file cannot be read.
    """
    files: dict[str, Path] = {}
    if config.kind != "scenes":
        root = Path(config.root or "").expanduser()
        if config.root is None or not root.is_dir():
            raise SegkitError(f"--data.root {config.root}: no such folder; --data.kind {config.kind} needs the data set's folder")
        files = {path.relative_to(root).as_posix(): path for path in _files(root)}
    files |= {f"extra {i}": Path(path) for i, path in enumerate(extra) if path and Path(path).is_file()}
    digest = hashlib.sha256(config.kind.encode())
    names = sorted(files)
    with ThreadPoolExecutor() as pool:  # hashing leaves the interpreter's lock
        for name, content in zip(names, pool.map(lambda name: _hash(files[name]), names), strict=True):
            digest.update(f"\n{name} {content}".encode())
    return digest.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    for folder, inner, names in os.walk(root, followlinks=True):
        inner[:] = [name for name in inner if not name.startswith(".")]
        yield from (path for name in names if not name.startswith(".") and (path := Path(folder, name)).is_file())


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SegkitError(f"{path} cannot be read ({error.strerror}); repair or remove it") from None
