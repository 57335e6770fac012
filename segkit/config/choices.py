"""What the options that name something may name."""

from typing import Literal

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
IGNORE_INDEX = 255  # the mask value that neither trains nor scores

Peer = Literal["smp", "torchvision", "monai", "torchmetrics"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed", "64-true"]
