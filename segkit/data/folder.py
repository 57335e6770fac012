"""A data set as a folder: images/{train,val,test}/NAME.*, masks/{train,val,test}/NAME.png and classes.txt; or all in images/ and masks/."""

from pathlib import Path

from segkit.config import DataConfig
from segkit.data.classes import Classes, read_classes
from segkit.data.files import SUFFIXES
from segkit.data.labels import labels_of
from segkit.data.listing import SPLITS, list_images, open_pairs, pair
from segkit.data.source import FilePairs, Reading, Source
from segkit.data.splits import groups_of_names, refuse_split_options, split_by_group
from segkit.errors import SegkitError

# what others call the splits; taken for folders of images they would be mixed, or left out, without a word
_MISNAMED = {"training": "train", "trn": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test", "tst": "test"}


def open_folder(root: Path, config: DataConfig, channels: int = 3) -> dict[str, Source]:
    """The splits that the folder has, or those that `split_by_group` makes of images and masks that lie in none.

    A file's name is its path below the split (below images/ where there is none), without the suffix; sub-folders are fine.

    Raises:
        SegkitError: images/, masks/ or `classes.txt` is missing, no mask has the name of an image, or a split has an unknown name.
    """
    images, masks = root / "images", root / "masks"
    for folder, what in ((images, "images"), (masks, "masks, each of the same name as its image,")):
        if not folder.is_dir():
            raise SegkitError(f"{folder} is missing; put {what} there, in train, val and test or all together")
    for folder in sorted(p for p in images.iterdir() if p.is_dir()):
        right = _MISNAMED.get(folder.name.lower(), folder.name.lower())
        if right in SPLITS and right != folder.name:
            raise SegkitError(f"{folder}: splits are called train, val and test; rename it, and its twin in masks, to {right}")
    splits = [s for s in SPLITS if (images / s).is_dir()]
    classes = read_classes(root / "classes.txt")
    reading = Reading(channels, config.bits, labels_of(config, classes))
    if not splits:
        return _without_splits(root, config, classes, reading)
    refuse_split_options(config, f"{root} has folders train, val or test")
    loose = sorted(p.name for p in images.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    outside = [f"image outside {', '.join(SPLITS)}: images/{name}" for name in loose]
    known = dict.fromkeys(splits, ()) | {splits[0]: outside}
    sources = {s: open_pairs(root, images / s, masks / s, classes, reading, known=known[s]) for s in splits}
    for source in sources.values():
        _refuse_strangers(source)
    return dict(sources)


def _without_splits(root: Path, config: DataConfig, classes: Classes, reading: Reading) -> dict[str, Source]:
    problems: list[str] = []
    images, masks = (list_images(root, root / kind, problems) for kind in ("images", "masks"))
    names = pair(root, images, masks, problems)
    chosen = split_by_group(groups_of_names(names, config.group), config.val_fraction, config.test_fraction)
    sources: dict[str, Source] = {}
    for split in SPLITS:
        members = [name for name, its in zip(names, chosen, strict=True) if its == split]
        if members or (not names and split != "test"):  # the check tells what is wrong with a folder of no pairs
            files = [images[n] for n in members], [masks[n] for n in members]
            sources[split] = FilePairs(classes, members, *files, reading, problems if split == "train" else ())
    _refuse_strangers(sources["train"])
    return sources


def _refuse_strangers(source: Source) -> None:
    """No pair at all, though there are images and masks, is one mistake and not one per file."""
    lonely = {kind: [p.partition(": ")[2] for p in source.problems if p.startswith(kind)] for kind in ("image without", "mask without")}
    if not len(source) and all(lonely.values()):
        image, mask = (files[0] for files in lonely.values())
        raise SegkitError(
            f"no mask has the name of an image, as {image} and {mask} show; give them the same names, or list the pairs in a "
            "manifest.csv (--data.kind manifest)"
        )
