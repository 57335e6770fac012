"""Every option of segkit: its name, type, default and one line of help.

Standard library only, so that `--help` and every typing error answer at once. Unprefixed fields are the experiment, `data.` the
data, `trainer.` Lightning's Trainer, `wandb.` the tracking. A comment above a field is not its help: the docstrings are.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from segkit.architectures import (
    ARCHITECTURES,
    DECODER_CHANNELS,
    architecture_of,
    default_dropout,
    default_upsample,
    refuse_layers,
    refuse_options,
)
from segkit.errors import SegkitError

Upsample = Literal[
    "bicubic", "bilinear", "bilinear_additive", "bilinear_k1", "blur_pixel_shuffle", "carafe", "dysample", "dysample_dynamic", "fade",
    "fcn_bilinear", "nearest", "pixel_shuffle", "sapa", "transpose", "transpose_k2", "transpose_large", "transpose_large_k11", "unpool",
]  # fmt: skip
UpsampleInit = Literal["smooth", "standard", "bilinear"]
Decoder = Literal[
    "unet",
    "fcn32s",
    "fcn16s",
    "fcn8s",
    "smp:Unet",
    "smp:UnetPlusPlus",
    "smp:MAnet",
    "smp:Linknet",
    "smp:FPN",
    "smp:PSPNet",
    "smp:DeepLabV3",
    "smp:DeepLabV3Plus",
    "smp:PAN",
    "smp:UPerNet",
    "smp:Segformer",
]
Norm = Literal["batch", "group"]
Loss = Literal["ce", "dice", "ce_dice", "focal", "lovasz", "tversky"]
Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["constant", "poly", "cosine", "onecycle"]
DataKind = Literal["auto", "scenes", "folder", "manifest", "voc", "pets", "cityscapes", "ade20k", "cocostuff", "shards"]
Masks = Literal["ids", "binary", "colors"]
Flip = Literal["hflip", "vflip"]
Split = Literal["train", "val", "test"]
MOST_IMAGES = 10**6  # in a batch, or in a split of built-in scenes: more is a slip of the hand, and lists of that many fill memory
MOST_STAGES, WIDEST = 12, 2**14  # of a decoder: the deepest map has 1 pixel of 4096 x 4096; a layer of this width has 10 GB of weights
IGNORE_INDEX = 255  # the mask value that neither trains nor scores

Peer = Literal["smp", "torchvision", "monai", "torchmetrics"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed", "64-true"]


def _within(prefix: str, config: object, least: float, most: float | None, *names: str) -> None:
    """Holds the named numbers of `config` between `least` and `most`, ends included."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not (least <= value and (most is None or value <= most)):
            rule = f"give {least} or more" if most is None else f"give a number from {least} to {most}"
            raise SegkitError(f"--{prefix}{name} {value}: {rule}")


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
        _within("data.", self, 1, MOST_IMAGES, "batch_size", "eval_batch_size", "scenes_train")
        _within("data.", self, 0, MOST_IMAGES, "scenes_val", "scenes_test")
        _within("data.", self, 0, None, "workers", "scenes_seed")
        _within("data.", self, 0, 1, "hflip", "vflip", "rotate90", "jitter", "blur", "noise", "brightness", "contrast", "saturation")
        _within("data.", self, 0, 1, "rare_crops", "val_fraction", "test_fraction")
        _within("data.", self, 0, 0.5, "hue")
        _within("data.", self, 0, 180, "rotate")
        _within("data.", self, 16, 8192, "crop")
        _within("data.", self, 32, 1024, "scenes_size")
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
class TrainerConfig:
    """Lightning's Trainer.

    Args:
        max_steps: training budget in optimiser steps
        max_epochs: training budget in passes over the data; given, it takes the place of max_steps
        val_every: optimiser steps between validations; default: ten validations a run
        save_every: optimiser steps between checkpoints, besides one at each validation
        accumulate: batches whose gradients are added up for one optimiser step
        clip: largest gradient norm; 0 switches clipping off
        precision: arithmetic of the forward and backward pass
        accelerator: hardware to run on (auto, cpu, gpu, ...)
        devices: number of devices per node, "auto", or a list of indices
        num_nodes: number of machines
        strategy: how several devices work together (auto, ddp, ...)
        timeout: seconds that a process waits for another before it takes it for lost; above what one may do alone, such as the first
            one's check of the data or its panels, tables and checkpoints
        log_every: optimiser steps between two logged training losses
        extra: any other argument of Lightning's Trainer, as trainer.extra.NAME
    """

    max_steps: int = 400
    max_epochs: int | None = None
    val_every: int | None = None
    save_every: int | None = None
    accumulate: int = 1
    clip: float = 1.0
    precision: Precision = "32-true"
    accelerator: str = "auto"
    devices: int | str | list[int] = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    timeout: float = 1800.0
    log_every: int = 10
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _within("trainer.", self, 1, 10**12, "max_steps", "max_epochs", "val_every", "save_every", "num_nodes", "log_every")
        _within("trainer.", self, 1, MOST_IMAGES, "accumulate")
        _within("trainer.", self, 0, None, "clip")
        _within("trainer.", self, 1, 10**7, "timeout")


@dataclass(kw_only=True)
class WandbConfig:
    """Tracking with Weights & Biases; the run folder holds the same, always.

    Args:
        mode: auto is online where a key is configured and offline elsewhere
        project: W&B project
        entity: W&B user or team
        group: runs of one comparison share a group
        tags: words to find the run by; the operator, decoder and encoder are added
        panels: validation images shown as image / truth / prediction
    """

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: str = "segkit"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    panels: int = 4

    def __post_init__(self) -> None:
        _within("wandb.", self, 0, None, "panels")


@dataclass(kw_only=True)
class TrainConfig:
    """One experiment.

    Args:
        name: name of the experiment, the folder its runs lie in; default: data-decoder-operator
        runs: folder that holds all runs
        run_id: name of the run's own folder; default: the time and six random characters
        seed: decides every random number of the run
        deterministic: only algorithms that repeat bit for bit, at a cost in speed
        upsample: upsampling operator of the decoder, one for all stages or a list with one per stage (deepest first); default: transpose,
            and in a network of smp its own interpolation
        upsample_init: initial weights of the operators; default: smooth, and in an FCN bilinear for transpose and transpose_k2
        upsample_width: channels of a 1x1 convolution before each operator, one per stage, deepest first, to compare operators at one
            cost; default: no such convolution
        decoder: segmentation decoder: a U-Net, an FCN, or an architecture of segmentation-models-pytorch
        encoder: plain (the 2015 U-Net's contracting path), any smp encoder or any timm model
        encoder_weights: imagenet, or a .safetensors or .pt file; default: random
        in_channels: channels of the images
        decoder_channels: U-Net: channels per decoder stage, deepest first; their number is the encoder's depth
        norm: normalisation layers of the decoder, of segkit's own only
        dropout: probability of dropping a channel before the classifier; default: 0, and in a network of smp its own
        loss: training objective
        class_weights: none, median_frequency, or a list with one weight per class (ce, ce_dice, focal)
        label_smoothing: share of the target spread over all classes (ce and ce_dice)
        deep_supervision: weight of the auxiliary loss of each coarse stage of a U-Net's decoder, such as 0.4; train/loss includes them,
            and only training has them; 0 switches them off
        optimizer: update rule
        lr: peak learning rate
        encoder_lr: factor on the learning rate of the encoder
        weight_decay: weight decay (adamw: decoupled; sgd: L2, where 5e-4 is usual), not applied to norms and biases
        momentum: momentum (sgd)
        schedule: learning rate over the steps after the warm-up
        warmup: share of the steps in which the learning rate rises; onecycle: 0 stands for its usual 0.3
        ema: decay of the moving average of the weights that is evaluated and saved; 0 switches it off
        channels_last: memory layout of images and weights; faster on most hardware
        rewrite: which form operators are computed in: the faster one of two that are equal, as measured (auto), or always the rewritten or
            the plain one
        recompute: gradient checkpointing: keep the inputs of decoder stages and of the plain encoder's levels alone, and compute what is
            inside them again in the backward pass; less memory, more time, the same values
        compile: compile the model with torch.compile
        data: data set and augmentation
        trainer: Lightning's Trainer
        wandb: Weights & Biases
    """

    name: str | None = None
    runs: str = "runs"
    run_id: str | None = None
    seed: int = 0
    deterministic: bool = False
    upsample: Upsample | list[Upsample] | None = None
    upsample_init: UpsampleInit | None = None
    upsample_width: list[int] | None = None
    decoder: Decoder = "unet"
    encoder: str = "plain"
    encoder_weights: str | None = None
    in_channels: int = 3
    decoder_channels: list[int] = field(default_factory=lambda: list(DECODER_CHANNELS))
    norm: Norm = "batch"
    dropout: float | None = None
    loss: Loss = "ce_dice"
    class_weights: str | list[float] = "none"
    label_smoothing: float = 0.0
    deep_supervision: float = 0.0
    optimizer: Optimizer = "adamw"
    lr: float = 3e-3
    encoder_lr: float = 1.0
    weight_decay: float = 1e-2
    momentum: float = 0.9
    schedule: Schedule = "onecycle"
    warmup: float = 0.1
    ema: float = 0.0
    channels_last: bool = True
    rewrite: Literal["auto", "on", "off"] = "auto"
    recompute: bool = False
    compile: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)

    def __post_init__(self) -> None:
        _within("", self, 1, None, "in_channels")
        _within("", self, 0, 2**63 - 1, "seed")  # what torch takes
        _within("", self, 0, None, "weight_decay", "encoder_lr", "deep_supervision")
        _within("", self, 0, 0.999999, "dropout", "label_smoothing", "momentum", "ema", "warmup")
        if not self.lr > 0:
            raise SegkitError(f"--lr {self.lr}: give a learning rate above 0")
        widths = self.decoder_channels
        if not 1 <= len(widths) <= MOST_STAGES or not 1 <= min(widths) <= max(widths) <= WIDEST:
            raise SegkitError(
                f"--decoder_channels {widths}: give one width of 1 to {WIDEST} per stage, {MOST_STAGES} at most, such as [256,128,64,32,16]"
            )
        if max(self.upsample_width or [0]) > WIDEST:
            raise SegkitError(f"--upsample_width {self.upsample_width}: give one width of 1 to {WIDEST} per stage")
        if self.recompute and self.compile:
            raise SegkitError("--recompute true with --compile true: the two do not go together; leave one of them out")
        if isinstance(self.class_weights, str) and self.class_weights not in ("none", "median_frequency"):
            raise SegkitError(
                f"--class_weights {self.class_weights}: give none, median_frequency, or one number per class, such as [1,2.5,1]"
            )
        self._decide()

    def _decide(self) -> None:
        """Puts in what the decoder decides where it is not said, and refuses what has no meaning in it."""
        self.upsample = default_upsample(self.decoder) if self.upsample is None else self.upsample  # type: ignore[assignment]
        self.dropout = default_dropout(self.decoder) if self.dropout is None else self.dropout
        refuse_layers(self.decoder, self.norm, self.decoder_channels)
        refuse_options(
            self.decoder,
            encoder=self.encoder,
            upsample=self.upsample,
            upsample_init=self.upsample_init,
            upsample_width=self.upsample_width,
            dropout=self.dropout,
        )
        if self.deep_supervision and (self.decoder != "unet" or len(self.decoder_channels) < 3):
            raise SegkitError(f"--deep_supervision {self.deep_supervision} is for --decoder unet with 3 --decoder_channels or more; give 0")
        name = architecture_of(self.decoder)
        if name and ARCHITECTURES[name].pooled and self.data.batch_size < 2 and not self.trainer.extra.get("sync_batchnorm"):
            raise SegkitError(
                f"--data.batch_size {self.data.batch_size}: {self.decoder} normalises maps of one pixel over the images of a step; "
                "give 2 or more"
            )


@dataclass(kw_only=True)
class AblateConfig(TrainConfig):
    """An ablation: arms that differ in one option or a few, every arm with the same seeds.

    Args:
        axes: options and the values that each takes, as `upsample: [transpose, bilinear]`; arms are all combinations. On the command
            line several words after an option say the same: --upsample transpose bilinear
        exclude: combinations to leave out, each as `{upsample: bilinear, decoder: fcn8s}`
        seeds: training runs per arm, with the seeds seed, seed + 1, ...; 6 is the least with which a sign-flip test can reach p < .05
        baseline: arm that the others are compared with; default: the first
        margin: differences of mIoU below it count as none, such as 0.01; declared before the results are known, it allows "equivalent"
        match: what is made equal within 2 percent by the width of the operators: nothing, their parameters, or their multiply-adds
        aa: compare the baseline with itself under other seeds too, which shows the noise
        split: images that are scored; default: test, or val where there is no test split
        executor: where runs are executed: processes of this machine, a SLURM cluster through submitit, or a Ray cluster
        slots: runs at a time; default: local: one per graphics card, without one a run per two cores; else no limit of ours
        cluster: what submitit or Ray should give a run, as cluster.NAME: parameters of submitit's executor (cluster.cluster local: without
            SLURM), options of a Ray task (cluster.address: of the head node)
        retry_failed: run again what has failed
        dry_run: print arms, runs, time and disk, and do nothing
        export_wandb_sweep: write the same as a W&B sweep to this folder, and do nothing else
    """

    axes: dict[str, list[Any]] = field(default_factory=dict)
    exclude: list[dict[str, Any]] = field(default_factory=list)
    seeds: int = 6
    baseline: str | None = None
    margin: float | None = None
    match: Literal["native", "params", "macs"] = "native"
    aa: bool = False
    split: Split | None = None
    executor: Literal["local", "slurm", "ray"] = "local"
    slots: int | None = None
    cluster: dict[str, Any] = field(default_factory=dict)
    retry_failed: bool = False
    dry_run: bool = False
    export_wandb_sweep: str | None = None

    def _decide(self) -> None:
        """Leaves it to the arms, which may have other decoders."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _within("", self, 1, 1000, "seeds")
        _within("", self, 1, None, "slots")
        _within("", self, 0, 1, "margin")


@dataclass(kw_only=True)
class ReportConfig:
    """The report of an ablation.

    Args:
        images: draw the images on which arms differ most, for which runs predict them again; needs the data set
    """

    images: bool = True


@dataclass(kw_only=True)
class EvalConfig:
    """One evaluation.

    Args:
        split: images to score; default: test, or val where there is no test split
        checkpoint: which checkpoint of the run; choosing best on val and reporting on val is optimistic
        data_root: the data set's folder, where it has moved since training
        batch_size: images of one size evaluated together; default: as in training
        workers: loader processes; default: as in training
        precision: arithmetic; default: as in training
        accelerator: hardware to run on (auto, cpu, gpu, ...)
        devices: number of devices
        boundary: score boundaries too: boundary IoU, trimap mIoU and BF score
        artefacts: measure checkerboards too: the index of every operator and of the logits, and the spectrum of the logits
        calibration: measure too how far confidence is from accuracy, with a reliability diagram
        tile: side in pixels of the tiles that images are cut into; default: whole images
        overlap: share of a tile that the next one covers again
        tta: flips whose predictions are averaged with the image's own (test-time augmentation)
        tta_scales: sizes of the image, relative to its own, whose predictions are averaged
        resamples: several runs: bootstrap samples of the images behind an interval
        images: images in the gallery, the worst; in the panel half as many of the worst and of the best; 0 draws none
        out: folder for the results, of several runs for their comparison; default: eval/SPLIT-CHECKPOINT in the run's folder, followed by
            what --tta, --tta_scales and --tile say
    """

    split: Split | None = None
    checkpoint: Literal["last", "best"] = "last"
    data_root: str | None = None
    batch_size: int | None = None
    workers: int | None = None
    precision: Precision | None = None
    accelerator: str = "auto"
    devices: int = 1
    boundary: bool = False
    artefacts: bool = False
    calibration: bool = False
    tile: int | None = None
    overlap: float = 0.25
    tta: list[Flip] = field(default_factory=list)
    tta_scales: list[float] = field(default_factory=lambda: [1.0])
    resamples: int = 10_000
    images: int = 8
    out: str | None = None

    def __post_init__(self) -> None:
        _within("", self, 1, None, "batch_size", "devices")
        _within("", self, 0, None, "workers", "images")
        _within("", self, 100, 10**6, "resamples")
        _inference(self)


@dataclass(kw_only=True)
class PredictConfig:
    """Predictions for images of any size.

    Args:
        out: folder for the masks and whatever else is asked for
        checkpoint: which checkpoint of a run
        images_from: text file that names one more image per line
        overlays: write the image under its transparent prediction too, as NAME.overlay.jpg
        probabilities: write the probability of every class too, in 255ths: NAME.probabilities.npy, uint8 [classes, rows, columns]
        tile: side in pixels of the tiles that large images are cut into
        overlap: share of a tile that the next one covers again
        tta: flips whose predictions are averaged with the image's own (test-time augmentation)
        tta_scales: sizes of the image, relative to its own, whose predictions are averaged
        batch_size: tiles predicted together
        precision: arithmetic; default: as in training
        device: hardware to run on: auto, cpu, cuda, cuda:1, mps
        overwrite: predict again what has its mask already
    """

    out: str = "predictions"
    checkpoint: Literal["last", "best"] = "last"
    images_from: str | None = None
    overlays: bool = False
    probabilities: bool = False
    tile: int = 1024
    overlap: float = 0.25
    tta: list[Flip] = field(default_factory=list)
    tta_scales: list[float] = field(default_factory=lambda: [1.0])
    batch_size: int = 1
    precision: Precision | None = None
    device: str = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        _within("", self, 1, None, "batch_size")
        _inference(self)


@dataclass(kw_only=True)
class ExportConfig:
    """A network for use elsewhere.

    Args:
        format: onnx: one file for onnxruntime; torch_export: a program of torch.export (.pt2); safetensors: weights with a card (JSON) from
            which segkit rebuilds the network
        checkpoint: which checkpoint of the run
        out: file to write; default: export/MODEL in the run's folder
        normalize: put the normalisation into the graph, so that it takes pixel values as they are in the file; not of
            safetensors, which hold no graph
        opset: ONNX operator set; of --format onnx only
        check: compare the exported network with the original on 20 sizes, odd ones included
    """

    format: Literal["onnx", "torch_export", "safetensors"] = "onnx"
    checkpoint: Literal["last", "best"] = "last"
    out: str | None = None
    normalize: bool = True
    opset: int = 20
    check: bool = True

    def __post_init__(self) -> None:
        _within("", self, 18, 23, "opset")


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
        _within("", self, 1, None, "in_channels", "workers", "shard_size")
        _within("", self, 0, 16, "near")


def _inference(config: EvalConfig | PredictConfig) -> None:
    _within("", config, 32, 65536, "tile")
    _within("", config, 0, 0.9, "overlap")
    if not config.tta_scales or not all(0.1 <= scale <= 8 for scale in config.tta_scales):
        raise SegkitError(f"--tta_scales {config.tta_scales}: give factors from 0.1 to 8, such as [0.75,1,1.25]")


def _picture_file(out: str) -> None:
    if not out.endswith((".png", ".pdf")):
        raise SegkitError(f"--out {out}: give a file name that ends in .png or .pdf")


@dataclass(kw_only=True)
class OperatorFigureConfig:
    """A figure of what upsampling operators do: a worked example and the responses of one, or a row for each of several.

    Args:
        upsample: operators to draw, one with its worked example; default: all, or those of the checkpoint
        checkpoint: run folder or .ckpt file whose operators are drawn stage by stage, before and after training
        scale: upsampling factor
        init: initial weights of what is shown for one initialisation only; bilinear is for transpose and transpose_k2 only
        seed: decides the random weights
        out: file to write, .png or .pdf
    """

    upsample: list[Upsample] = field(default_factory=list)
    checkpoint: str | None = None
    scale: int = 2
    init: UpsampleInit = "smooth"
    seed: int = 0
    out: str = "operators.png"

    def __post_init__(self) -> None:
        _within("", self, 2, 16, "scale")
        _within("", self, 0, 2**63 - 1, "seed")
        if self.checkpoint is not None and (self.scale, self.init, self.seed) != (2, "smooth", 0):
            raise SegkitError("--checkpoint: the run decides scale, initial weights and seed; leave out --scale, --init and --seed")
        if self.checkpoint is not None and len(self.upsample) > 1:
            raise SegkitError(f"--upsample {' '.join(self.upsample)}: with --checkpoint name one of the run's operators, or none")
        _picture_file(self.out)


@dataclass(kw_only=True)
class FeaturesFigureConfig:
    """A figure of the feature maps before and after every upsampling stage, of runs or of small untrained networks.

    Args:
        image: image file; default: a built-in scene, or the first validation image of the run
        upsample: operators of untrained networks, side by side; default: transpose
        init: initial weights of their operators
        seed: decides all their weights
        channels: maps shown before and after each stage, those that vary most
        crop: side in image pixels of the central window that is shown; default: the smaller of 128 and the image
        out: file to write, .png or .pdf
    """

    image: str | None = None
    upsample: list[Upsample] = field(default_factory=list)
    init: UpsampleInit = "smooth"
    seed: int = 0
    channels: int = 4
    crop: int | None = None
    out: str = "features.png"

    def __post_init__(self) -> None:
        _within("", self, 0, 2**63 - 1, "seed")
        _within("", self, 1, 16, "channels")
        _within("", self, 8, 512, "crop")
        _picture_file(self.out)


@dataclass(kw_only=True)
class OverlapFigureConfig:
    """A table and a figure of how often transposed convolutions write to each output pixel.

    Args:
        kernel: kernel sizes k
        stride: strides s, each combined with each kernel size
        padding: paddings p; default: (k - s) / 2, rounded down and up where it is no integer
        out: file to write, .png or .pdf
    """

    kernel: list[int] = field(default_factory=lambda: [2, 3, 4, 5, 6, 7])
    stride: list[int] = field(default_factory=lambda: [2, 3])
    padding: list[int] = field(default_factory=list)
    out: str = "overlap.png"

    def __post_init__(self) -> None:
        for name, least, most in (("kernel", 1, 16), ("stride", 2, 8), ("padding", 0, 8)):
            values = getattr(self, name)
            if (not values and name != "padding") or not all(least <= value <= most for value in values):
                raise SegkitError(f"--{name} {values}: give numbers from {least} to {most}")
            if len(values) > 8:
                raise SegkitError(f"--{name}: {len(values)} numbers do not fit a page; give 8 at most")
        _picture_file(self.out)


@dataclass(kw_only=True)
class BenchmarkConfig:
    """segkit measured beside its peers.

    Args:
        against: libraries to compare with; one that is not installed is left out
        upsample: operators: those that are timed; default: all. train: those of the networks; default: transpose, transpose_k2, and
            smp's U-Net in segkit's form
        device: hardware to run on; auto: a graphics card where there is one
        precision: arithmetic of segkit, and of peers where they are compared under the same
        threads: threads of a CPU; default: as torch chooses
        clock: wall: the time that passes; cpu: that of the processors, which other jobs on a busy machine disturb less
        seconds: about how long each thing is measured; 0: once, to see that it works
        size: side of the images in pixels; default: operators: 16, 64 and 128; train, fit, infer: 256; eval: 512; tile: 4096; scaling:
            256 and below
        batch: images per step; default: 4; fit, eval: 8
        images: fit, data, eval: how many images there are; default: 64, 64 and 24
        workers: fit: loader processes; data: loader processes that are measured beside none
        root: data: folder with images/train and masks/train to read; default: made-up photographs of 480 x 360
        window: tile: side of a tile in pixels
        compile: compile the networks with torch.compile
        table: operators: file whose table between <!-- operators --> and <!-- /operators --> is written anew
        table_steps: operators: training steps behind the index after training in that table
        seed: decides all random numbers
        out: folder for benchmark-NAME.json and benchmark-NAME.png
    """

    against: list[Peer] = field(default_factory=lambda: list(get_args(Peer)))
    upsample: list[Upsample] = field(default_factory=list)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "bf16-mixed"
    threads: int | None = None
    clock: Literal["wall", "cpu"] = "wall"
    seconds: float = 3.0
    size: int | None = None
    batch: int | None = None
    images: int | None = None
    workers: int = 0
    root: str | None = None
    window: int = 512
    compile: bool = False
    table: str | None = None
    table_steps: int = 150
    seed: int = 0
    out: str = "benchmarks"

    def __post_init__(self) -> None:
        _within("", self, 1, None, "threads", "batch", "table_steps", "images")
        _within("", self, 0, None, "workers")
        _within("", self, 0, 3600, "seconds")
        _within("", self, 8, 65536, "size")
        _within("", self, 32, 4096, "window")
        _within("", self, 0, 2**63 - 1, "seed")


Config = TypeVar("Config")


def from_dict(config: type[Config], values: Mapping[str, Any], prefix: str = "") -> Config:
    """Builds a configuration from nested plain values, such as a saved `config.yaml`; the inverse of `dataclasses.asdict`.

    Args:
        config: The class.
        values: Some of its fields.
        prefix: What comes before their names in messages.

    Raises:
        SegkitError: If a value breaks its rule, is null where that is none, or a name is unknown.
    """
    hints = get_type_hints(config)
    if not isinstance(values, Mapping):
        raise SegkitError(
            f"{config.__name__.removesuffix('Config').lower()}: {values!r} in the configuration; give its options, one per line below it"
        )
    if unexpected := sorted(values.keys() - hints.keys(), key=str):
        raise SegkitError(f"the configuration has no option {unexpected[0]!r}; it was written by another version of segkit")
    for name, value in values.items():
        if value is None and hints[name] is not Any and NoneType not in get_args(hints[name]) and not is_dataclass(hints[name]):
            raise SegkitError(f"--{prefix}{name} null: the option needs a value; leave it out for its default")
    return config(**{k: from_dict(hints[k], v, f"{prefix}{k}.") if is_dataclass(hints[k]) else v for k, v in values.items()})
