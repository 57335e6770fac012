"""A proof that two runs saw the same files."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from segkit.config import DataConfig
from segkit.data.open import SIGNS, open_sources
from segkit.data.threads import each
from segkit.errors import SegkitError


def fingerprint(config: DataConfig, extra: Iterable[str | None] = ()) -> str:
    """sha256 over the classes of a data set and, for every image of every split, its name and the contents of its two files.

    It is the same wherever the data lies, and what else lies there, such as a report, plays no part. Of shards the index counts, which
    has the sha256 of each of them and checksums that are compared at every reading: they may be too large to be read for this. Built-in
    scenes have no files.

    Args:
        config: The data set; its augmentation plays no part.
        extra: Further files that decide a run, such as encoder weights; None and what is no file are passed over.

    Raises:
        SegkitError: The data set cannot be opened, or a file cannot be read.
    """
    digest = hashlib.sha256(config.kind.encode())
    files: list[tuple[str, Path]] = []
    if config.kind == "shards":
        files = [("index", Path(config.root or "").expanduser() / SIGNS["shards"][0])]
    elif config.kind != "scenes":
        sources = open_sources(config)
        digest.update(repr(next(iter(sources.values())).classes).encode())
        for split, source in sources.items():
            for index in range(len(source)):
                pair = source.paths(index)
                assert pair is not None
                files += [(f"{split}/{source.name(index)} {kind}", Path(path)) for kind, path in zip(("image", "mask"), pair, strict=True)]
    files += [(f"extra {i}", Path(path)) for i, path in enumerate(extra) if path and Path(path).is_file()]
    for (name, _), content in zip(files, each(lambda index: _hash(files[index][1]), len(files)), strict=True):
        digest.update(f"\n{name} {content}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SegkitError(f"{path} cannot be read ({error.strerror}); repair or remove it") from None
