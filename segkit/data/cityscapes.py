"""Cityscapes (Cordts et al., CVPR 2016), as its authors lay it out: leftImg8bit/SPLIT/CITY and gtFine/SPLIT/CITY below the root."""

from pathlib import Path

from segkit.config import IGNORE_INDEX, DataConfig
from segkit.data.classes import Classes
from segkit.data.download import missing
from segkit.data.labels import FIXED_REMEDY, Labels
from segkit.data.listing import open_pairs
from segkit.data.source import Reading, Source

# the 19 classes that are scored, in the order of their train ids: id in the files, name, colour
SCORED = (
    (7, "road", (128, 64, 128)), (8, "sidewalk", (244, 35, 232)), (11, "building", (70, 70, 70)), (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)), (17, "pole", (153, 153, 153)), (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)), (21, "vegetation", (107, 142, 35)), (22, "terrain", (152, 251, 152)), (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)), (25, "rider", (255, 0, 0)), (26, "car", (0, 0, 142)), (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)), (31, "train", (0, 80, 100)), (32, "motorcycle", (0, 0, 230)), (33, "bicycle", (119, 11, 32)),
)  # fmt: skip
CLASSES = Classes(tuple(name for _, name, _ in SCORED), tuple(color for _, _, color in SCORED))
LABEL_IDS = Labels(
    {**dict.fromkeys(range(34), IGNORE_INDEX), **{number: k for k, (number, _, _) in enumerate(SCORED)}}, remedy=FIXED_REMEDY
)


def open_cityscapes(root: Path, config: DataConfig, channels: int = 3) -> dict[str, Source]:
    """The splits train and val with fine labels; an image is called CITY/CITY_000000_000019.

    The split test is left out: its labels are not public, and the files in their place hold no class.

    Raises:
        SegkitError: The folders are missing.
    """
    images, masks = root / "leftImg8bit", root / "gtFine"
    splits = [s for s in ("train", "val") if (images / s).is_dir() and (masks / s).is_dir()]
    if not splits:
        raise missing("cityscapes", root, next((f for f in (images, masks) if not f.is_dir()), images / "train"))
    reading, ends = Reading(channels, labels=LABEL_IDS), ("_leftImg8bit", "_gtFine_labelIds")
    return {s: open_pairs(root, images / s, masks / s, CLASSES, reading, ends) for s in splits}
