"""ADE20K's scene parsing benchmark (Zhou et al., CVPR 2017), as its authors lay it out: ADEChallengeData2016 below the root."""

from pathlib import Path

from segkit.config import IGNORE_INDEX, DataConfig
from segkit.data.classes import Classes, voc_color
from segkit.data.download import missing
from segkit.data.labels import FIXED_REMEDY, Labels
from segkit.data.listing import open_pairs
from segkit.data.source import Reading, Source
from segkit.errors import SegkitError

COUNT = 150
LABELS = Labels({0: IGNORE_INDEX, **{number: number - 1 for number in range(1, COUNT + 1)}}, remedy=FIXED_REMEDY)  # 0: none of the 150
_FOLDERS = {"train": "training", "val": "validation"}


def open_ade20k(root: Path, config: DataConfig, channels: int = 3) -> dict[str, Source]:
    """The splits train and val. A class is called by the first of its words in objectInfo150.txt.

    Raises:
        SegkitError: The folders or the list of classes are missing.
    """
    base = root / "ADEChallengeData2016"
    splits = {s: f for s, f in _FOLDERS.items() if (base / "images" / f).is_dir() and (base / "annotations" / f).is_dir()}
    if not splits:
        raise missing("ade20k", root, base / "images" / "training" if base.is_dir() else base)
    classes, reading = _classes(root, base / "objectInfo150.txt"), Reading(channels, labels=LABELS)
    return {s: open_pairs(root, base / "images" / f, base / "annotations" / f, classes, reading) for s, f in splits.items()}


def _classes(root: Path, path: Path) -> Classes:
    """Of a table parted by tabs: a line of titles, then for every class its number first and its words last."""
    if not path.is_file():
        raise missing("ade20k", root, path)
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
    found = {row[0].strip(): row[-1].split(",")[0].strip() for row in rows}
    names = tuple(found.get(str(number), "") for number in range(1, COUNT + 1))
    if not all(names) or len(set(names)) < COUNT:
        raise SegkitError(f"{path} does not name the classes 1 to {COUNT}, each once; unpack it again from ADEChallengeData2016.zip")
    return Classes(names, tuple(voc_color(number) for number in range(1, COUNT + 1)))
