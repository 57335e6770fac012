"""Oxford-IIIT Pet (Parkhi et al., CVPR 2012), as torchvision lays it out: oxford-iiit-pet below the root."""

import hashlib
from pathlib import Path

from segkit.config import DataConfig
from segkit.data.classes import Classes
from segkit.data.download import missing
from segkit.data.labels import FIXED_REMEDY, Labels
from segkit.data.source import FilePairs, Reading, Source

CLASSES = Classes(("pet", "background", "border"), ((242, 143, 59), (38, 38, 46), (255, 255, 255)))
TRIMAP = Labels({1: 0, 2: 1, 3: 2}, remedy=FIXED_REMEDY)


def open_pets(root: Path, config: DataConfig, channels: int = 3) -> dict[str, Source]:
    """The splits train, val and test. The data set has no val: it is the tenth of its trainval whose names' hashes say so.

    Raises:
        SegkitError: The folder or a list of names is missing.
    """
    base = root / "oxford-iiit-pet"
    listed: dict[str, list[str]] = {}
    for part in ("trainval", "test"):
        listing = base / "annotations" / f"{part}.txt"
        if not listing.is_file():
            raise missing("pets", root, listing)
        listed[part] = [line.split()[0] for line in listing.read_text(encoding="utf-8").splitlines() if line.strip() and line[0] != "#"]
    splits = {
        "train": [n for n in listed["trainval"] if not _held_out(n)],
        "val": [n for n in listed["trainval"] if _held_out(n)],
        "test": listed["test"],
    }
    sources: dict[str, Source] = {}
    for split, names in splits.items():
        images = [base / "images" / f"{n}.jpg" for n in names]
        masks = [base / "annotations" / "trimaps" / f"{n}.png" for n in names]
        sources[split] = FilePairs(CLASSES, names, images, masks, Reading(channels, labels=TRIMAP))
    return sources


def _held_out(name: str) -> bool:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 10 == 0
