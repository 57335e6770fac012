"""The data sets that the configuration can name."""

from collections.abc import Callable
from pathlib import Path

from segkit.config import DataConfig
from segkit.data.folder import open_folder
from segkit.data.pets import open_pets
from segkit.data.scenes import Scenes
from segkit.data.source import Source
from segkit.data.voc import open_voc
from segkit.errors import SegkitError, unknown

ON_DISK: dict[str, Callable[[Path, DataConfig, int], dict[str, Source]]] = {"folder": open_folder, "voc": open_voc, "pets": open_pets}


def open_sources(config: DataConfig, in_channels: int = 3) -> dict[str, Source]:
    """Open the data set that `config` names.

    Returns:
        Those of the splits "train", "val" and "test" that exist.

    Raises:
        SegkitError: The folder is missing or is not laid out as its kind is.
    """
    if in_channels not in (1, 3):
        raise SegkitError(f"--in_channels {in_channels}: the data sets have 3 channels (RGB) or 1 (grey)")
    if config.kind == "scenes":
        lengths = {"train": config.scenes_train, "val": config.scenes_val, "test": config.scenes_test}
        return {s: Scenes(s, n, config.scenes_size, config.scenes_seed, in_channels) for s, n in lengths.items() if n}
    if config.kind not in ON_DISK:
        raise unknown("--data.kind", config.kind, ["scenes", *ON_DISK])
    if config.root is None:
        raise SegkitError(f"--data.kind {config.kind} needs the data set's folder; give it with --data.root")
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise SegkitError(f"--data.root {config.root}: no such folder; it is looked up from {Path.cwd()}")
    return ON_DISK[config.kind](root, config, in_channels)
