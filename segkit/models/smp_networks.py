"""Whole networks of segmentation-models-pytorch, for images of any size; with `encoders.py` the only place that builds smp networks.

Shapes: B batch, C channels, S channels of a skip, K classes, H W rows/columns, s scale.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, interpolate

from segkit.architectures import ARCHITECTURES, PREFIX, architecture_of, refuse_options
from segkit.errors import SegkitError
from segkit.models.blocks import pad_to_stride
from segkit.models.encoders import PretrainedEncoder, build_around, freeze_unused
from segkit.models.recompute import run
from segkit.models.stages import per_stage, width_per_stage
from segkit.upsampling import Operator, Transpose, TransposeK2, build_upsampler, is_guided
from segkit.upsampling.interpolate import fold_nearest
from segkit.upsampling.rewrite import rewritten


class UnetStage(nn.Module):
    """A decoder block of smp's U-Net with an operator in place of its interpolation.

    Args:
        block: The block, whose layers it takes over under their names.
        upsample: Maps `[B, C, H, W]` to `[B, C, 2H, 2W]`.
    """

    def __init__(self, block: Any, upsample: nn.Module) -> None:
        super().__init__()
        self.upsample = upsample
        self.conv1, self.attention1, self.conv2, self.attention2 = block.conv1, block.attention1, block.conv2, block.attention2

    def forward(self, coarse: Tensor, height: int, width: int, skip_connection: Tensor | None = None) -> Tensor:
        """`[B, C, H, W]` and `[B, S, 2H, 2W]` (or None) -> `[B, D, 2H, 2W]`; height and width are 2H and 2W."""
        x = self.upsample(coarse)
        if skip_connection is not None:
            x = self.attention1(torch.cat([x, skip_connection], dim=1))
        out: Tensor = self.attention2(self.conv2(self.conv1(x)))
        return out


class NearestUnetStage(nn.Module):
    """A decoder block of smp's U-Net as it is, with an equal and faster form.

    Its first convolution follows a concatenation, so it is the sum of two, and the one over what nearest neighbour enlarged is a
    transposed convolution (`segkit.upsampling.interpolate.fold_nearest`): 4 multiply-adds in place of 9, and nothing is enlarged or
    concatenated.

    Args:
        block: The block, without attention, whose layers it takes over under their names.
        skip_channels: S; 0 where it has no skip.
    """

    def __init__(self, block: Any, skip_channels: int) -> None:
        super().__init__()
        self.skip_channels = skip_channels
        self.conv1, self.conv2 = block.conv1, block.conv2
        assert isinstance(block.attention1.attention, nn.Identity)
        assert isinstance(block.attention2.attention, nn.Identity)
        assert block.interpolation_mode == "nearest"

    def plain(self, coarse: Tensor, height: int, width: int, skip: Tensor | None) -> Tensor:
        """The first convolution, as smp computes it."""
        fine = interpolate(coarse, size=(height, width), mode="nearest")
        out: Tensor = self.conv1[0](fine if skip is None else torch.cat([fine, skip], dim=1))
        return out

    def forward(self, coarse: Tensor, height: int, width: int, skip_connection: Tensor | None = None) -> Tensor:
        """`[B, C, H, W]` and `[B, S, 2H, 2W]` (or None) -> `[B, D, 2H, 2W]`; height and width are 2H and 2W."""
        if rewritten("smp:Unet", coarse, 2):
            weight, c = self.conv1[0].weight, coarse.shape[1]
            x = conv_transpose2d(coarse, fold_nearest(weight[:, :c], 2), None, stride=2, padding=1)
            if skip_connection is not None and self.skip_channels:
                x = x + conv2d(skip_connection, weight[:, c:], padding=1)
        else:
            x = self.plain(coarse, height, width, skip_connection)
        _, norm, activation = self.conv1
        out: Tensor = self.conv2(activation(norm(x)))
        return out


class PyramidStage(nn.Module):
    """A step of smp's FPN from a level to the finer one, with an operator in place of its interpolation.

    Args:
        block: The step, whose layer it takes over under its name.
        upsample: Maps `[B, C, H, W]` to `[B, C, 2H, 2W]`.
    """

    def __init__(self, block: Any, upsample: nn.Module) -> None:
        super().__init__()
        self.upsample = upsample
        self.skip_conv = block.skip_conv

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """`[B, C, H, W]` and `[B, S, 2H, 2W]` -> `[B, C, 2H, 2W]`."""
        out: Tensor = self.upsample(coarse) + self.skip_conv(skip)
        return out


class SMPNetwork(nn.Module):
    """An architecture of smp as smp builds it, for images of any size, over an encoder that `segkit.models.encoders` has loaded.

    Args:
        num_classes: K.
        architecture: A name in `segkit.architectures.ARCHITECTURES`, such as `FPN`.
        encoder: Any smp encoder or any timm model with a feature pyramid.
        encoder_weights: None, "imagenet", or a `.safetensors` / `.pt` file.
        in_channels: Channels of the images; pretrained first layers are adapted.
        upsample: None: the network as it is. An operator, or a list with one per interpolation that can be replaced, coarsest first
            (`places`): each maps C channels to C, and nothing else changes.
        upsample_init: Initial weights of the operators; default `smooth`, and for transposed convolution of class scores `bilinear`.
        upsample_width: Channels of a 1x1 convolution before each operator; default: no such convolution.
        dropout: Probability of the network's dropout; None: smp's own.

    Raises:
        SegkitError: If a name, an option or the weights do not fit.
    """

    def __init__(
        self,
        num_classes: int,
        architecture: str,
        encoder: str = "resnet34",
        encoder_weights: str | None = None,
        in_channels: int = 3,
        upsample: Operator | Sequence[Operator] | None = None,
        upsample_init: str | None = None,
        upsample_width: Sequence[int] | None = None,
        dropout: float | None = None,
    ) -> None:
        super().__init__()
        decoder = PREFIX + architecture
        architecture_of(decoder)
        refuse_options(
            decoder, encoder=encoder, upsample=upsample, upsample_init=upsample_init, upsample_width=upsample_width, dropout=dropout
        )
        taken = ARCHITECTURES[architecture]
        options = {taken.dropout: dropout} if taken.dropout and dropout is not None else {}

        def build(name: str, in_channels: int, depth: int, weights: str | bool | None, **flexible: object) -> nn.Module:
            import segmentation_models_pytorch as smp

            make = getattr(smp, architecture)
            network: nn.Module = make(
                name, encoder_depth=depth, encoder_weights=weights, in_channels=in_channels, classes=num_classes, **options, **flexible
            )
            return network

        whole: Any = build_around(build, decoder, encoder, in_channels, taken.depth, encoder_weights)
        self.architecture, self.stride, self.smallest = architecture, int(whole.encoder.output_stride), taken.smallest
        self.encoder = PretrainedEncoder(whole.encoder, in_channels, taken.depth)
        self.recompute = False  # `segkit.models.recompute`
        self.decoder, self.segmentation_head = whole.decoder, whole.segmentation_head
        if architecture == "Linknet":
            for block in self.decoder.blocks:
                block.block[1] = _named(block.block[1], block.block[1][0])
        if architecture == "Unet" and upsample is None:
            coarse = [self.encoder.channels[-1], *(block.conv2[0].out_channels for block in self.decoder.blocks)]
            for i, block in enumerate(self.decoder.blocks):
                self.decoder.blocks[i] = NearestUnetStage(block, block.conv1[0].in_channels - coarse[i])
        if upsample is not None:
            self._swap(per_stage(upsample, taken.operators), upsample_init, width_per_stage(upsample_width, taken.operators))
        freeze_unused(self, lambda: self._logits(in_channels, num_classes, decoder, encoder))

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C, H, W] -> logits [B, K, H, W]` for any H, W >= 1; sizes that do not divide are padded inside and cropped."""
        h, w = images.shape[-2:]
        features = self.encoder(pad_to_stride(images, self.stride, self.smallest))
        logits: Tensor = self.segmentation_head(run(self.decoder, features, again=self.recompute))
        return logits[..., :h, :w]

    def _logits(self, in_channels: int, num_classes: int, decoder: str, encoder: str) -> list[Tensor]:
        """Those of an empty image."""
        side = self.smallest
        try:
            logits = self(torch.zeros(1, in_channels, side, side))
        except (AssertionError, RuntimeError, ValueError, IndexError) as error:
            raise SegkitError(
                f"encoder {encoder!r} does not go with decoder {decoder!r} ({str(error).splitlines()[0]}); choose another"
            ) from error
        if logits.shape != (1, num_classes, side, side):
            raise SegkitError(f"encoder {encoder!r} does not halve the image as decoder {decoder!r} wants it; choose another")
        return [logits]

    def _swap(self, operators: Sequence[type[nn.Module]], init: str | None, widths: Sequence[int | None]) -> None:
        """Puts an operator in each place, coarsest first."""
        if guided := [operator.__name__ for operator in operators if is_guided(operator)]:
            raise SegkitError(
                f"upsample {guided[0]} of decoder {PREFIX + self.architecture!r}: it wants finer features as its guide, which smp's "
                "decoders do not hand over; choose another operator"
            )
        chosen = list(zip(operators, widths, strict=True))

        def next_one(channels: int, scale: int = 2, scores: bool = False) -> nn.Module:
            operator, width = chosen.pop(0)
            default = "bilinear" if scores and issubclass(operator, Transpose | TransposeK2) else "smooth"
            return build_upsampler(operator, channels, channels, scale, init or default, width)

        decoder: Any = self.decoder
        if self.architecture == "Unet":
            channels = [self.encoder.channels[-1], *(block.conv2[0].out_channels for block in decoder.blocks)]
            for i, block in enumerate(decoder.blocks):
                decoder.blocks[i] = UnetStage(block, next_one(channels[i]))
        elif self.architecture == "Linknet":
            for block in decoder.blocks:
                block.block[1] = _named(block.block[1], next_one(block.block[1].upsample.in_channels))
        elif self.architecture == "FPN":
            for level in ("p4", "p3", "p2"):
                setattr(decoder, level, PyramidStage(getattr(decoder, level), next_one(decoder.p5.out_channels)))
            for branch in decoder.seg_blocks:
                for i, block in enumerate(branch.block):
                    if block.upsample:
                        parts = OrderedDict(block=block.block, upsample=next_one(block.block[0].out_channels))
                        branch.block[i] = nn.Sequential(parts)
        elif self.architecture == "DeepLabV3Plus":
            channels = decoder.block2[0][1].out_channels
            decoder.up = nn.Sequential(OrderedDict(upsample=next_one(channels, int(decoder.up.scale_factor))))
        head = self.segmentation_head
        if isinstance(head[1], nn.Upsample):
            assert isinstance(head[1].scale_factor, float | int)
            scores = next_one(head[0].out_channels, int(head[1].scale_factor), scores=True)
            self.segmentation_head = nn.Sequential(OrderedDict([("0", head[0]), ("upsample", scores)]))
        assert not chosen


def _named(layers: nn.Sequential, upsample: nn.Module) -> nn.Sequential:
    """A step of smp's LinkNet whose first layer, a transposed convolution, bears an operator's name, and the others their own."""
    return nn.Sequential(OrderedDict([("upsample", upsample), ("1", layers[1]), ("2", layers[2])]))
