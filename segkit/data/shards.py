"""A data set as a few large files: tar archives as webdataset reads them, and an index.

A shard holds, for each image, its file as it was, `NAME.image.EXT`, and its labels as a palette PNG, `NAME.mask.png`: class ids, and 255
for what is ignored, whatever the mask file held. `shards.json` says where in which shard each of them lies, so that any image can be
read without those before it; epochs have an exact order and resume at any step. Shape legend: `N` images, `H W` rows and columns.
"""

import json
import os
import zlib
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from segkit.config import IGNORE_INDEX, DataConfig
from segkit.data.archive import Full, read_pairs, write_archive
from segkit.data.classes import Classes
from segkit.data.files import Pixels, read_image
from segkit.data.listing import SPLITS
from segkit.data.masks import read_values
from segkit.data.opening import hold_file
from segkit.data.source import Array, Source
from segkit.errors import SegkitError

INDEX = "shards.json"
_FORMAT = 1


class Shards:
    """A split that lies in shards.

    Args:
        root: The folder of the shards.
        classes: The classes of the masks.
        index: The split's part of the index.
        channels: Channels of the images that come out.
        bits: 8 for uint8 images, 16 for uint16.

    Attributes:
        blocks: Images in each shard: those of a few shards are used together, see `randomness.permutation`.
    """

    problems: tuple[str, ...] = ()

    def __init__(self, root: Path, classes: Classes, index: Mapping[str, Any], channels: int, bits: int) -> None:
        self.root, self.classes, self.channels, self.bits = root, classes, channels, bits
        self.blocks: tuple[int, ...] = tuple(shard["images"] for shard in index["shards"])
        self._files = np.array([os.fsencode(shard["file"]) for shard in index["shards"]], dtype=np.bytes_)
        self._shards = np.repeat(np.arange(len(self.blocks)), self.blocks)
        self._names = np.array([os.fsencode(name) for name in index["names"]], dtype=np.bytes_)
        self._sizes = np.array(index["sizes"], np.int32).reshape(-1, 2)
        self._places = np.array(index["places"], np.int64).reshape(-1, 2, 3)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """A name that no other image of the split has."""
        return os.fsdecode(self._names[index])

    def size(self, index: int) -> tuple[int, int]:
        """Rows and columns of an image, from the index."""
        height, width = self._sizes[index].tolist()
        return height, width

    def paths(self, index: int) -> None:
        """An image in a shard has no file of its own."""

    def read(self, index: int) -> tuple[Pixels, Array]:
        """Image, uint8 or uint16 [H, W, C], and mask, uint8 [H, W].

        Raises:
            SegkitError: The shard cannot be read, or is not what was written.
        """
        path = self.root / os.fsdecode(self._files[self._shards[index]])
        what, contents = f"{path}: {self.name(index)}", []
        try:
            with path.open("rb") as file:
                for start, size, checksum in self._places[index].tolist():
                    file.seek(start)
                    contents.append(file.read(size))
                    if zlib.crc32(contents[-1]) != checksum:
                        raise SegkitError(f"{what} is damaged; copy the shard again")
        except OSError as error:
            raise SegkitError(f"cannot read {path}: {error.strerror or error}; copy the shard again") from None
        image, mask = contents
        return read_image(what, self.channels, self.bits, image), read_values(what, mask)


def open_shards(root: Path, config: DataConfig, channels: int = 3) -> dict[str, Source]:
    """The splits that `write_shards` has written to a folder.

    Raises:
        SegkitError: There is no index, shards are missing or of another size than written, or the images have other channels or more bits.
    """
    path = root / INDEX
    try:
        if path.exists():
            hold_file(path)
        index = json.loads(path.read_text(encoding="utf-8"))
        if (version := index["format"]) != _FORMAT:
            raise SegkitError(f"format {version!r}, of another version of segkit")
        classes = Classes(tuple(index["classes"]), tuple((r, g, b) for r, g, b in map(bytes.fromhex, index["colors"])))
        held: tuple[int, int] = int(index["channels"]), int(index["bits"])
        shards = [shard for split in index["splits"].values() for shard in split["shards"]]
        sources = {split: Shards(root, classes, part, channels, config.bits) for split, part in index["splits"].items()}
        _hold_index(classes, held, index["splits"])
    except Exception as error:  # of what a stranger calls an index any line may stumble
        named = f"{type(error).__name__}: {error}"
        reason = str(error) if isinstance(error, SegkitError) else str(error.strerror) if isinstance(error, OSError) else named
        raise SegkitError(f"{path}: no index of shards ({reason[:200]}); write shards with check_data.py --to_shards {root}") from None
    if wrong := [shard["file"] for shard in shards if not _has_size(root / shard["file"], shard["bytes"])]:
        raise SegkitError(f"{root}: {len(wrong)} of {len(shards)} shards are missing or cut short, such as {wrong[0]}; copy them again")
    if channels != held[0] and not (channels in (1, 3) and held[0] in (1, 3)):
        raise SegkitError(f"--in_channels {channels}: the images in {root} have {held[0]}; give --in_channels {held[0]}")
    if config.bits < held[1]:
        raise SegkitError(f"--data.bits {config.bits}: the images in {root} have {held[1]} bits per channel; give --data.bits {held[1]}")
    return dict(sources)


def _hold_index(classes: Classes, held: tuple[int, int], splits: Mapping[str, Any]) -> None:
    """Raise a SegkitError for what `write_shards` never writes; a shard lies beside its index."""
    if not 1 <= len(classes) <= IGNORE_INDEX or len(set(classes.names)) < len(classes) or len(classes.colors) != len(classes):
        raise SegkitError("classes or colours are none")
    if not all(isinstance(name, str) for name in classes.names) or held[0] < 1 or held[1] not in (8, 16):
        raise SegkitError("classes, channels or bits are none")
    for split, part in splits.items():
        ends = np.repeat([shard["bytes"] for shard in part["shards"]], [shard["images"] for shard in part["shards"]])
        starts, sizes = np.array(part["places"], np.int64).reshape(-1, 2, 3)[..., :2].transpose(2, 0, 1)
        if split not in SPLITS:
            raise SegkitError(f"a split {split!r}")
        if outside := [shard["file"] for shard in part["shards"] if not shard["file"] or Path(shard["file"]).name != shard["file"]]:
            raise SegkitError(f"the shard {outside[0]!r} is a path, not the name of a file beside it")
        if {len(part["names"]), len(part["sizes"]), len(starts)} != {len(ends)}:
            raise SegkitError(f"{split}: names, sizes and places are not as many as images")
        if (starts < 0).any() or (sizes < 0).any() or (starts > ends[:, None] - sizes).any():
            raise SegkitError(f"{split}: a place outside its shard")


def write_shards(
    sources: Mapping[str, Source], folder: Path, shard_size: int, progress: Callable[[int], None] = lambda images: None
) -> None:
    """Write a data set as shards, the index last: a folder without one is not a data set.

    Training images come in a random order, one for all time, since those of one shard will be near each other in every epoch.

    Args:
        sources: The splits by name; every image is read, and nothing that cannot be read is written.
        folder: Where to; it is made. It must not hold shards already.
        shard_size: Bytes at which a shard is full; one image is never split.
        progress: Called with the number of images that have been written since the last call.

    Raises:
        SegkitError: An image cannot be read, or webdataset is not installed.
        OSError: The folder cannot be written to.
    """
    hold_empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    splits: dict[str, dict[str, Any]] = {}
    kinds: set[tuple[int, int]] = set()
    for split, source in sources.items():
        part = splits[split] = {"shards": [], "names": [], "sizes": [], "places": []}
        for number, pairs in groupby(read_pairs(split, source), key=Full(shard_size)):
            shard, records = write_archive(folder / f"{split}-{number:06d}.tar", pairs, progress)
            part["shards"].append(shard)
            part["names"] += [record.name for record in records]
            part["sizes"] += [record.shape[:2] for record in records]
            part["places"] += [record.places for record in records]
            kinds |= {(record.shape[2], record.bits) for record in records}
    assert len(kinds) == 1, "a data set is read with one number of channels and bits"
    classes, (channels, bits) = next(iter(sources.values())).classes, kinds.pop()
    index = {
        "format": _FORMAT,
        "classes": classes.names,
        "colors": [bytes(color).hex() for color in classes.colors],
        "channels": channels,
        "bits": bits,
        "masks": "PNG of 8 bits with a palette: class ids, and 255 for what is ignored",
        "places": "of each image and its mask: first byte in the shard, bytes, CRC-32",
        "splits": splits,
    }
    unfinished = folder / f"{INDEX}.part"
    unfinished.write_text(json.dumps(index), encoding="utf-8")
    os.replace(unfinished, folder / INDEX)


def hold_empty(folder: Path) -> None:
    """Refuse a folder that holds shards already."""
    if (folder / INDEX).exists():
        raise SegkitError(f"{folder} holds shards already; choose another folder, or remove it")


def _has_size(path: Path, size: int) -> bool:
    try:
        hold_file(path)
        return path.stat().st_size == size
    except (OSError, SegkitError):
        return False
