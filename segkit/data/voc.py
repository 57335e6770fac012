"""Pascal VOC 2012 (Everingham et al., IJCV 2010), as torchvision lays it out: VOCdevkit/VOC2012 below the root."""

from pathlib import Path

from segkit.config import DataConfig
from segkit.data.classes import Classes, voc_color
from segkit.data.download import missing
from segkit.data.source import FilePairs, Reading, Source

NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def open_voc(root: Path, config: DataConfig, channels: int = 3) -> dict[str, Source]:
    """The splits train and val. The masks are palette images; their outlines (255) are ignored.

    Raises:
        SegkitError: The folder or a list of names is missing.
    """
    base = root / "VOCdevkit" / "VOC2012"
    classes = Classes(NAMES, tuple(voc_color(label) for label in range(len(NAMES))))
    sources: dict[str, Source] = {}
    for split in ("train", "val"):
        listing = base / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not listing.is_file():
            raise missing("voc", root, listing)
        names = listing.read_text(encoding="utf-8").split()
        images = [base / "JPEGImages" / f"{n}.jpg" for n in names]
        masks = [base / "SegmentationClass" / f"{n}.png" for n in names]
        sources[split] = FilePairs(classes, names, images, masks, Reading(channels))
    return sources
