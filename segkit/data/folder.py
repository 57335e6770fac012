"""A data set as a folder: images/{train,val,test}/NAME.*, masks/{train,val,test}/NAME.png and classes.txt."""

from pathlib import Path

from segkit.config import DataConfig
from segkit.data.classes import read_classes
from segkit.data.files import SUFFIXES
from segkit.data.labels import labels_of
from segkit.data.source import FilePairs, Reading, Source
from segkit.errors import SegkitError

SPLITS = ("train", "val", "test")


def open_folder(root: Path, config: DataConfig, channels: int = 3) -> dict[str, Source]:
    """The splits that the folder has. A file's name is its path below the split, without the suffix; sub-folders are fine.

    Raises:
        SegkitError: There is no split, or no `classes.txt`.
    """
    splits = [s for s in SPLITS if (root / "images" / s).is_dir()]
    if not splits:
        raise SegkitError(
            f"{root / 'images'} has no folder train, val or test; put images in images/train, masks of the same names in masks/train"
        )
    classes = read_classes(root / "classes.txt")
    reading = Reading(channels, config.bits, labels_of(config, classes))
    sources: dict[str, Source] = {}
    for split in splits:
        problems: list[str] = []
        images, masks = (_list(root, root / kind / split, problems) for kind in ("images", "masks"))
        problems += [f"image without mask: {images[n].relative_to(root)}" for n in images if n not in masks]
        problems += [f"mask without image: {masks[n].relative_to(root)}" for n in masks if n not in images]
        names = sorted(images.keys() & masks.keys())
        sources[split] = FilePairs(classes, names, [images[n] for n in names], [masks[n] for n in names], reading, problems=problems)
    return sources


def _list(root: Path, folder: Path, problems: list[str]) -> dict[str, Path]:
    """Name -> file, for the image files below the folder; hidden files and other kinds of files are passed over."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in inside.parts):
            name = inside.with_suffix("").as_posix()
            if name in found:
                problems.append(f"two files of one name: {found[name].relative_to(root)}, {path.relative_to(root)}")
            found.setdefault(name, path)
    return found
