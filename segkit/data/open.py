"""The data sets that the configuration can name."""

from collections.abc import Callable
from pathlib import Path

from segkit.config import DataConfig
from segkit.data.ade20k import open_ade20k
from segkit.data.cityscapes import open_cityscapes
from segkit.data.cocostuff import open_cocostuff
from segkit.data.download import download, how_to_get
from segkit.data.folder import open_folder
from segkit.data.listing import SPLITS
from segkit.data.manifest import open_manifest
from segkit.data.pets import open_pets
from segkit.data.scenes import Scenes
from segkit.data.source import Source
from segkit.data.voc import open_voc
from segkit.errors import SegkitError

FILES: dict[str, Callable[[Path, DataConfig, int], dict[str, Source]]] = {
    "folder": open_folder,
    "manifest": open_manifest,
    "voc": open_voc,
    "pets": open_pets,
    "cityscapes": open_cityscapes,
    "ade20k": open_ade20k,
    "cocostuff": open_cocostuff,
}
OWN = ("folder", "manifest", "shards")  # one's own data, of any number of channels
# options that say how files are laid out or what they hold, which other kinds know already
ONLY = {
    "masks": ("folder", "manifest"),
    "mapping": ("folder", "manifest"),
    "group": ("folder", "manifest"),
    "val_fraction": ("folder", "manifest"),
    "test_fraction": ("folder", "manifest"),
    "manifest": ("manifest",),
    "bits": OWN,
}
# what a folder of another kind holds
SIGNS = {
    "voc": ("VOCdevkit",),
    "pets": ("oxford-iiit-pet",),
    "cityscapes": ("leftImg8bit",),
    "ade20k": ("ADEChallengeData2016",),
    "cocostuff": ("images/train2017", "images/val2017"),
    "shards": ("shards.json",),
}


def open_sources(config: DataConfig, in_channels: int = 3) -> dict[str, Source]:
    """Open the data set that `config` names, after fetching it where `config` says so.

    Returns:
        Those of the splits "train", "val" and "test" that exist.

    Raises:
        SegkitError: The folder is missing or is not laid out as its kind is; the message says how to get the data. Or an option does not go
            with this kind of data.
    """
    kind = config.kind
    _refuse_what_does_nothing(config)
    if in_channels not in (1, 3) and kind not in OWN:
        raise SegkitError(f"--in_channels {in_channels}: the images of {kind} have 3 channels (RGB) or, made grey, 1")
    if kind == "scenes":
        lengths = {"train": config.scenes_train, "val": config.scenes_val, "test": config.scenes_test}
        return {s: Scenes(s, n, config.scenes_size, config.scenes_seed, in_channels) for s, n in lengths.items() if n}
    if config.root is None:
        raise SegkitError(f"--data.kind {kind} needs the data set's folder: give it with --data.root DIR; {how_to_get(kind)}")
    root = Path(config.root).expanduser()
    if config.download:
        download(kind, root)
    if not root.is_dir():
        raise SegkitError(f"--data.root {config.root}: no such folder, looked up from {Path.cwd()}; {how_to_get(kind, config.root)}")
    if kind == "shards":
        from segkit.data.shards import open_shards

        return open_shards(root, config, in_channels)
    if kind == "folder":
        _refuse_other_kinds(root, config)
    return FILES[kind](root, config, in_channels)


def _refuse_what_does_nothing(config: DataConfig) -> None:
    default = DataConfig()
    for name, kinds in ONLY.items():
        value = getattr(config, name)
        if value != getattr(default, name) and config.kind not in kinds:
            rule = f"is for --data.kind {' or '.join(kinds)}, not {config.kind}"
            raise SegkitError(f"--data.{name} {value}: {rule}; leave it out")
    if config.download and config.kind == "scenes":
        raise SegkitError("--data.download: the built-in scenes are computed; leave it out, or name the data with --data.kind")


def _refuse_other_kinds(root: Path, config: DataConfig) -> None:
    """A folder that has no train, val or test below images, but what other kinds of data have."""
    if any((root / "images" / split).is_dir() for split in SPLITS):
        return
    for kind, names in SIGNS.items():
        if found := [name for name in names if (root / name).exists()]:
            raise SegkitError(f"{root} has {found[0]}, as data of another kind; say --data.kind {kind}")
    if (root / config.manifest).is_file():
        raise SegkitError(f"{root} has {config.manifest}, which lists images; say --data.kind manifest")
    if (root / "images" / "training").is_dir() and (root / "annotations" / "training").is_dir():
        raise SegkitError(f"{root} looks like ADEChallengeData2016; say --data.kind ade20k --data.root {root.resolve().parent}")
