"""Options of a training: the experiment, Lightning's Trainer, the tracking."""

from dataclasses import dataclass, field
from typing import Any, Literal

from segkit.architectures import (
    ARCHITECTURES,
    DECODER_CHANNELS,
    architecture_of,
    default_dropout,
    default_upsample,
    refuse_layers,
    refuse_options,
)
from segkit.config.choices import Decoder, Loss, Norm, Optimizer, Precision, Schedule, Upsample, UpsampleInit
from segkit.config.data import DataConfig
from segkit.config.rules import MOST_IMAGES, within
from segkit.errors import SegkitError

MOST_STAGES, WIDEST = 12, 2**14  # of a decoder: the deepest map has 1 pixel of 4096 x 4096; a layer of this width has 10 GB of weights


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
        within("trainer.", self, 1, 10**12, "max_steps", "max_epochs", "val_every", "save_every", "num_nodes", "log_every")
        within("trainer.", self, 1, MOST_IMAGES, "accumulate")
        within("trainer.", self, 0, None, "clip")
        within("trainer.", self, 1, 10**7, "timeout")


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
        within("wandb.", self, 0, None, "panels")


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
        within("", self, 1, None, "in_channels")
        within("", self, 0, 2**63 - 1, "seed")  # what torch takes
        within("", self, 0, None, "weight_decay", "encoder_lr", "deep_supervision")
        within("", self, 0, 0.999999, "dropout", "label_smoothing", "momentum", "ema", "warmup")
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
