"""COCO-Stuff (Caesar et al., CVPR 2018), the pixel maps of things and stuff for the 164,000 images of COCO 2017."""

from pathlib import Path

from segkit.config import IGNORE_INDEX, DataConfig
from segkit.data.classes import Classes, voc_color
from segkit.data.download import missing
from segkit.data.labels import FIXED_REMEDY, Labels
from segkit.data.listing import open_pairs
from segkit.data.source import Reading, Source

# names by the ids 0 to 181 of the maps, which are one less than COCO's; the eleven without a name are on no map
_NAMES = """
person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant||stop sign|parking meter|bench|bird|cat|dog|horse
|sheep|cow|elephant|bear|zebra|giraffe||backpack|umbrella|||handbag|tie|suitcase|frisbee|skis|snowboard|sports ball|kite|baseball bat
|baseball glove|skateboard|surfboard|tennis racket|bottle||wine glass|cup|fork|knife|spoon|bowl|banana|apple|sandwich|orange|broccoli
|carrot|hot dog|pizza|donut|cake|chair|couch|potted plant|bed||dining table|||toilet||tv|laptop|mouse|remote|keyboard|cell phone
|microwave|oven|toaster|sink|refrigerator||book|clock|vase|scissors|teddy bear|hair drier|toothbrush||banner|blanket|branch|bridge
|building-other|bush|cabinet|cage|cardboard|carpet|ceiling-other|ceiling-tile|cloth|clothes|clouds|counter|cupboard|curtain|desk-stuff
|dirt|door-stuff|fence|floor-marble|floor-other|floor-stone|floor-tile|floor-wood|flower|fog|food-other|fruit|furniture-other|grass
|gravel|ground-other|hill|house|leaves|light|mat|metal|mirror-stuff|moss|mountain|mud|napkin|net|paper|pavement|pillow|plant-other
|plastic|platform|playingfield|railing|railroad|river|road|rock|roof|rug|salad|sand|sea|shelf|sky-other|skyscraper|snow|solid-other
|stairs|stone|straw|structural-other|table|tent|textile-other|towel|tree|vegetable|wall-brick|wall-concrete|wall-other|wall-panel
|wall-stone|wall-tile|wall-wood|water-other|waterdrops|window-blind|window-other|wood
"""
_BY_ID = _NAMES.replace("\n", "").split("|")
IDS = [number for number, name in enumerate(_BY_ID) if name]
CLASSES = Classes(tuple(_BY_ID[number] for number in IDS), tuple(voc_color(number + 1) for number in IDS))
MAPS = Labels({IGNORE_INDEX: IGNORE_INDEX, **{number: label for label, number in enumerate(IDS)}}, remedy=FIXED_REMEDY)
_FOLDERS = {"train": "train2017", "val": "val2017"}


def open_cocostuff(root: Path, config: DataConfig, channels: int = 3) -> dict[str, Source]:
    """The splits train and val: images/{train2017,val2017}/*.jpg, and the maps in annotations/ or stuffthingmaps/ beside it.

    Raises:
        SegkitError: The folders are missing.
    """
    images, masks = root / "images", root / "annotations"
    if not any((masks / f).is_dir() for f in _FOLDERS.values()) and (root / "stuffthingmaps").is_dir():
        masks = root / "stuffthingmaps"
    splits = {s: f for s, f in _FOLDERS.items() if (images / f).is_dir() and (masks / f).is_dir()}
    if not splits:
        raise missing("cocostuff", root, (masks if (images / "train2017").is_dir() else images) / "train2017")
    reading = Reading(channels, labels=MAPS)
    return {s: open_pairs(root, images / f, masks / f, CLASSES, reading) for s, f in splits.items()}
