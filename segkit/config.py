"""Every option of segkit: its name, type, default and one line of help.

Standard library only, so that `--help` and every typing error answer at once. Unprefixed fields are the experiment, `data.` the
data, `trainer.` Lightning's Trainer, `wandb.` the tracking. A comment above a field is not its help: the docstrings are.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Upsample = Literal["bilinear", "nearest", "pixel_shuffle", "transpose", "transpose_k2"]
UpsampleInit = Literal["smooth", "standard", "bilinear"]
Decoder = Literal["unet", "fcn32s", "fcn16s", "fcn8s"]
Norm = Literal["batch", "group"]
Loss = Literal["ce", "dice", "ce_dice", "focal", "lovasz", "tversky"]
Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["constant", "poly", "cosine", "onecycle"]
DataKind = Literal["scenes", "folder", "voc", "pets"]
Split = Literal["train", "val", "test"]
IGNORE_INDEX = 255  # the mask value that neither trains nor scores

Precision = Literal["32-true", "bf16-mixed", "16-mixed", "64-true"]


@dataclass(kw_only=True)
class DataConfig:
    """Where images and masks come from and how they are augmented.

    Args:
        kind: built-in scenes, a folder images/{train,val,test} + masks/... + classes.txt, Pascal VOC 2012, or Oxford-IIIT Pet
        root: the data set's folder (all kinds but scenes)
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
        blur: probability of a Gaussian blur
        noise: probability of Gaussian noise
        mean: per-channel mean in [0, 1] that normalisation subtracts; default: the encoder's own
        std: per-channel standard deviation that normalisation divides by; default: the encoder's own
        check: read every image and mask before training starts and report what is wrong
        scenes_size: side in pixels of a built-in scene
        scenes_train: number of built-in training scenes
        scenes_val: number of built-in validation scenes
        scenes_test: number of built-in test scenes
        scenes_seed: which world of built-in scenes is drawn
    """

    kind: DataKind = "scenes"
    root: str | None = None
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
    mean: list[float] | None = None
    std: list[float] | None = None
    check: bool = True
    scenes_size: int = 128
    scenes_train: int = 600
    scenes_val: int = 60
    scenes_test: int = 120
    scenes_seed: int = 0


@dataclass(kw_only=True)
class TrainerConfig:
    """Lightning's Trainer.

    Args:
        max_steps: training budget in optimiser steps
        max_epochs: training budget in passes over the data; given, it takes the place of max_steps
        val_every: optimiser steps between validations; default: ten validations a run
        accumulate: batches whose gradients are added up for one optimiser step
        clip: largest gradient norm; 0 switches clipping off
        precision: arithmetic of the forward and backward pass
        accelerator: hardware to run on (auto, cpu, gpu, ...)
        devices: number of devices per node, "auto", or a list of indices
        num_nodes: number of machines
        strategy: how several devices work together (auto, ddp, ...)
        log_every: optimiser steps between two logged training losses
        extra: any other argument of Lightning's Trainer, as trainer.extra.NAME
    """

    max_steps: int = 400
    max_epochs: int | None = None
    val_every: int | None = None
    accumulate: int = 1
    clip: float = 1.0
    precision: Precision = "32-true"
    accelerator: str = "auto"
    devices: int | str | list[int] = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    log_every: int = 10
    extra: dict[str, Any] = field(default_factory=dict)


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


@dataclass(kw_only=True)
class TrainConfig:
    """One experiment.

    Args:
        name: name of the experiment, the folder its runs lie in; default: data-decoder-operator
        runs: folder that holds all runs
        seed: decides every random number of the run
        deterministic: only algorithms that repeat bit for bit, at a cost in speed
        upsample: upsampling operator of the decoder, one for all stages or a list with one per stage (deepest first)
        upsample_init: initial weights of the operators; default: smooth, and in an FCN bilinear for transposed convolution
        decoder: segmentation decoder
        encoder: plain (the 2015 U-Net's contracting path), any smp encoder or any timm model
        encoder_weights: imagenet, or a .safetensors or .pt file; default: random
        in_channels: channels of the images
        decoder_channels: U-Net: channels per decoder stage, deepest first; their number is the encoder's depth
        norm: normalisation layers of the decoder
        dropout: probability of dropping a channel before the classifier
        loss: training objective
        class_weights: none, median_frequency, or a list with one weight per class
        label_smoothing: share of the target spread over all classes (ce and ce_dice)
        optimizer: update rule
        lr: peak learning rate
        encoder_lr: factor on the learning rate of the encoder
        weight_decay: decoupled weight decay, not applied to norms and biases
        momentum: momentum (sgd)
        schedule: learning rate over the steps after the warm-up
        warmup: steps of linear warm-up from 0
        ema: decay of the moving average of the weights that is evaluated and saved; 0 switches it off
        channels_last: memory layout of images and weights; faster on most hardware
        compile: compile the model with torch.compile
        data: data set and augmentation
        trainer: Lightning's Trainer
        wandb: Weights & Biases
    """

    name: str | None = None
    runs: str = "runs"
    seed: int = 0
    deterministic: bool = False
    upsample: Upsample | list[Upsample] = "transpose"
    upsample_init: UpsampleInit | None = None
    decoder: Decoder = "unet"
    encoder: str = "plain"
    encoder_weights: str | None = None
    in_channels: int = 3
    decoder_channels: list[int] = field(default_factory=lambda: [256, 128, 64, 32, 16])
    norm: Norm = "batch"
    dropout: float = 0.0
    loss: Loss = "ce_dice"
    class_weights: str | list[float] = "none"
    label_smoothing: float = 0.0
    optimizer: Optimizer = "adamw"
    lr: float = 2e-3
    encoder_lr: float = 1.0
    weight_decay: float = 1e-2
    momentum: float = 0.9
    schedule: Schedule = "poly"
    warmup: int = 20
    ema: float = 0.0
    channels_last: bool = True
    compile: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
