"""Segmentation networks as plain `nn.Module`s: images `[B, C, H, W]` to logits `[B, K, H, W]`, for any H and W."""

from segkit.models.fcn import FCN
from segkit.models.unet import UNet

__all__ = ["FCN", "UNet"]
