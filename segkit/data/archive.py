"""One shard: pairs of an image and a mask as a tar archive that webdataset reads."""

import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from PIL import Image

from segkit.data.randomness import permutation
from segkit.data.source import Source
from segkit.data.threads import each
from segkit.errors import SegkitError

_AHEAD = 64  # pairs that are read while earlier ones are written


class Pair(NamedTuple):
    """What goes into a shard: the image's file, the labels as PNG, and the decoded image's shape [H, W, C] and bits per channel."""

    name: str
    image: bytes
    suffix: str
    mask: bytes
    shape: tuple[int, ...]
    bits: int


class Record(NamedTuple):
    """What the index says about a pair; `places` has, for image and mask, the first byte in the archive, the bytes and their CRC-32."""

    name: str
    shape: tuple[int, ...]
    bits: int
    places: list[tuple[int, int, int]]


class Full:
    """Numbers the shard that a pair goes to.

    Args:
        shard_size: Bytes at which a shard is full; a pair is never split.
    """

    def __init__(self, shard_size: int) -> None:
        self.shard_size, self.number, self.size = shard_size, 0, 0

    def __call__(self, pair: Pair) -> int:
        """The number of the shard of a pair; pairs come in order."""
        more = len(pair.image) + len(pair.mask)
        if self.size and self.size + more > self.shard_size:
            self.number, self.size = self.number + 1, 0
        self.size += more
        return self.number


def read_pairs(split: str, source: Source) -> Iterator[Pair]:
    """All pairs of a split, read and encoded by as many threads as there are processors."""
    order = permutation(len(source), 0, 0).tolist() if split == "train" else range(len(source))
    for first in range(0, len(order), _AHEAD):
        part = order[first : first + _AHEAD]
        yield from each(lambda place, part=part: _pair(source, part[place]), len(part))  # type: ignore[misc]


def _pair(source: Source, index: int) -> Pair:
    image, mask = source.read(index)
    name, paths = source.name(index), source.paths(index)
    if mask.shape != image.shape[:2]:
        raise SegkitError(f"{name}: the mask has another size than the image; run check_data.py, which finds all such files")
    if paths:
        content, suffix = Path(paths[0]).read_bytes(), Path(paths[0]).suffix.lower()
    elif image.shape[2] in (1, 3) and image.dtype == np.uint8:  # computed, or out of other shards
        content, suffix = _png(Image.fromarray(image if image.shape[2] == 3 else image[..., 0])), ".png"
    else:
        raise SegkitError(f"{name}: only images of 8 bits, grey or RGB, can be written that are in no file of their own")
    labels = Image.fromarray(mask)
    labels.putpalette(bytes(value for color in source.classes.colors for value in color).ljust(768, b"\xff"))
    return Pair(name, content, suffix, _png(labels), image.shape, 8 * image.itemsize)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def write_archive(path: Path, pairs: Iterator[Pair], progress: Callable[[int], None]) -> tuple[dict[str, Any], list[Record]]:
    """One shard; returns what the index says about it and about its pairs."""
    try:
        from webdataset import TarWriter  # type: ignore[import-untyped]
    except ImportError:
        raise SegkitError('shards are written by webdataset, which is not installed: pip install "segkit[stream]"') from None
    part, records, checksums = path.with_suffix(".part"), [], []
    with part.open("wb") as stream, TarWriter(stream, encoder=False, mtime=0, user="", group="", format="PAX_FORMAT") as tar:
        for pair in pairs:
            key = quote(os.fsencode(pair.name)).replace(".", "%2E")  # webdataset's keys end at the first dot
            tar.write({"__key__": key, f"image{pair.suffix}": pair.image, "mask.png": pair.mask})
            records.append(Record(pair.name, pair.shape, pair.bits, []))
            checksums += [zlib.crc32(pair.image), zlib.crc32(pair.mask)]
            progress(1)
    with tarfile.open(part) as tar:  # what was written, as it is found
        for member, (number, checksum) in zip(tar, enumerate(checksums), strict=True):
            records[number // 2].places.append((member.offset_data, member.size, checksum))
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    os.replace(part, path)
    return {"file": path.name, "images": len(records), "bytes": path.stat().st_size, "sha256": digest}, records
