"""Options of data sets: where images and masks lie, what they hold, how they are augmented and checked."""

import re
from dataclasses import dataclass, field
from typing import Literal

from segkit.config.choices import IGNORE_INDEX, DataKind, Masks
from segkit.config.rules import MOST_IMAGES, within
from segkit.errors import SegkitError


@dataclass(kw_only=True)
class DataConfig:
    """Where images and masks come from and how they are augmented.

    Args:
        kind: built-in scenes; a folder of images/, masks/ and classes.txt; a CSV manifest; a public data set as its authors lay it out; or
            shards that check_data.py wrote. auto: folder where root is given, else scenes
        root: the data set's folder (all kinds but scenes)
        manifest: manifest: the CSV file in root, with columns image, mask and, if you like, split and sha256
        download: fetch a public data set into root first, where its authors allow it (voc, pets)
        val_fraction: share of the images that becomes val where the data names no splits
        test_fraction: share of the images that becomes test where the data names no splits
        group: what stays in one split where the data names none: manifest: a column; folder: a regular expression for the start of a
            file's name, such as [^_]* for all that comes before the first _
        masks: what mask files hold: class ids, 0 and 255 (binary), or the colours of classes.txt
        mapping: other values of mask files, as {old: new}; old is an id up to 65535 or, of colours, '#rrggbb', new a class id or 255
        bits: bits per channel of the images; files with fewer are scaled up, files with more are refused
        normalize: whose mean and deviation images are normalised by: those that the encoder's weights were trained with, ImageNet's, or
            the training images' own
        batch_size: training images per device and step
        eval_batch_size: images of one size evaluated together; 1 makes results independent of the number of devices
        workers: loader processes per device
        crop: side in pixels of the square training crop
        scale: range of the random zoom applied before the crop, 1 being native resolution
        hflip: probability of a horizontal flip
        vflip: probability of a vertical flip
        rotate90: probability of a rotation by a random multiple of 90 degrees
        rotate: largest random rotation, in degrees
        brightness: largest relative change of brightness
        contrast: largest relative change of contrast
        saturation: largest relative change of saturation
        hue: largest change of hue, as a share of the colour circle
        jitter: probability that the four colour changes are applied
        blur: probability of a Gaussian blur, sigma 0.3 to 1.5 pixels
        noise: probability of Gaussian noise, standard deviation 1 to 5 % of white
        rare_crops: probability that a crop is laid to hold a pixel of a class that is drawn by its rarity, where the image has one
        cache: keep decoded images: in memory (one device), or in files on disk that all processes of a machine share
        cache_folder: cache disk: where; default: segkit in the user's cache folder
        mean: per-channel mean in [0, 1] that normalisation subtracts; default: as normalize says
        std: per-channel standard deviation that normalisation divides by; default: as normalize says
        check: read every image and mask before training starts and report what is wrong
        scenes_size: side in pixels of a built-in scene
        scenes_train: number of built-in training scenes
        scenes_val: number of built-in validation scenes; 0 leaves the split out
        scenes_test: number of built-in test scenes; 0 leaves the split out
        scenes_seed: which world of built-in scenes is drawn
    """

    kind: DataKind = "auto"
    root: str | None = None
    manifest: str = "manifest.csv"
    download: bool = False
    val_fraction: float = 0.2
    test_fraction: float = 0.0
    group: str | None = None
    masks: Masks = "ids"
    mapping: dict[str, int] = field(default_factory=dict)
    bits: Literal[8, 16] = 8
    normalize: Literal["encoder", "imagenet", "dataset"] = "encoder"
    batch_size: int = 8
    eval_batch_size: int = 1
    workers: int = 0
    crop: int = 128
    scale: tuple[float, float] = (0.75, 1.5)
    hflip: float = 0.5
    vflip: float = 0.0
    rotate90: float = 0.0
    rotate: float = 0.0
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.05
    jitter: float = 0.8
    blur: float = 0.0
    noise: float = 0.0
    rare_crops: float = 0.0
    cache: Literal["none", "ram", "disk"] = "none"
    cache_folder: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    check: bool = True
    scenes_size: int = 128
    scenes_train: int = 600
    scenes_val: int = 60
    scenes_test: int = 120
    scenes_seed: int = 0

    def __post_init__(self) -> None:
        if self.kind == "auto":
            self.kind = "scenes" if self.root is None else "folder"
        within("data.", self, 1, MOST_IMAGES, "batch_size", "eval_batch_size", "scenes_train")
        within("data.", self, 0, MOST_IMAGES, "scenes_val", "scenes_test")
        within("data.", self, 0, None, "workers", "scenes_seed")
        within("data.", self, 0, 1, "hflip", "vflip", "rotate90", "jitter", "blur", "noise", "brightness", "contrast", "saturation")
        within("data.", self, 0, 1, "rare_crops", "val_fraction", "test_fraction")
        within("data.", self, 0, 0.5, "hue")
        within("data.", self, 0, 180, "rotate")
        within("data.", self, 16, 8192, "crop")
        within("data.", self, 32, 1024, "scenes_size")
        if self.val_fraction + self.test_fraction >= 1:
            raise SegkitError(
                f"--data.val_fraction {self.val_fraction} and --data.test_fraction {self.test_fraction} leave nothing to train on"
            )
        self.mapping = {str(old): new for old, new in self.mapping.items()}
        for old, new in self.mapping.items():
            if not 0 <= new <= IGNORE_INDEX or not re.fullmatch(r"\d{1,5}|#[0-9a-fA-F]{6}", old):
                raise SegkitError(
                    f"--data.mapping {old}: {new}: give an id (0 to 65535) or a colour ('#rrggbb') and a class id or {IGNORE_INDEX}"
                )
        if self.std is not None and not (self.std and min(self.std) > 0):
            raise SegkitError(f"--data.std {self.std}: give one deviation above 0 per channel, such as [0.229,0.224,0.225]")
        self.scale = (self.scale[0], self.scale[1])
        if not 0.01 <= self.scale[0] <= self.scale[1] <= 100:
            raise SegkitError(
                f"--data.scale {list(self.scale)}: give two zoom factors, 0.01 <= smallest <= largest <= 100, such as [0.75,1.5]"
            )


@dataclass(kw_only=True)
class CheckConfig:
    """A check of a data set.

    Args:
        data: the data set
        in_channels: channels of the images
        out: folder for report.json and report.html
        near: largest number of differing bits, of 64, at which two images count as near duplicates; 0 switches the search off
        workers: threads that read; default: one per core
        write_config: write a configuration for train.py, with all that was found out about the data, to this file
        to_shards: write the data set as shards to this folder, for --data.kind shards
        shard_size: size of a shard in MiB
    """

    data: DataConfig = field(default_factory=DataConfig)
    in_channels: int = 3
    out: str = "data-report"
    near: int = 4
    workers: int | None = None
    write_config: str | None = None
    to_shards: str | None = None
    shard_size: int = 256

    def __post_init__(self) -> None:
        within("", self, 1, None, "in_channels", "workers", "shard_size")
        within("", self, 0, 16, "near")
