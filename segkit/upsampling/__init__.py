"""The upsampling operators, one family a file. `UPSAMPLERS` is the one list of their names.

An operator of your own is a class with the signature `(in_channels, out_channels, scale=2)` that maps `[B, C, H, W]` to
`[B, D, s*H, s*W]`; pass it where a name is taken: `UNet(11, upsample=MyOperator)`.
"""

from torch import nn

from segkit.errors import SegkitError, unknown
from segkit.upsampling.dysample import DySample, DySampleDynamic
from segkit.upsampling.interpolate import Bicubic, Bilinear, BilinearAdditive, BilinearK1, Nearest
from segkit.upsampling.operator import GuidedUpsampler, Upsampler, build_upsampler, is_guided
from segkit.upsampling.reassemble import CARAFE, FADE, SAPA
from segkit.upsampling.rewrite import rewriting
from segkit.upsampling.shuffle import BlurPixelShuffle, PixelShuffle
from segkit.upsampling.transpose import FCNBilinear, Transpose, TransposeK2, TransposeLarge, TransposeLargeK11
from segkit.upsampling.unpool import Unpool

UPSAMPLERS: dict[str, type[Upsampler]] = {
    "bicubic": Bicubic,
    "bilinear": Bilinear,
    "bilinear_additive": BilinearAdditive,
    "bilinear_k1": BilinearK1,
    "blur_pixel_shuffle": BlurPixelShuffle,
    "carafe": CARAFE,
    "dysample": DySample,
    "dysample_dynamic": DySampleDynamic,
    "fade": FADE,
    "fcn_bilinear": FCNBilinear,
    "nearest": Nearest,
    "pixel_shuffle": PixelShuffle,
    "sapa": SAPA,
    "transpose": Transpose,
    "transpose_k2": TransposeK2,
    "transpose_large": TransposeLarge,
    "transpose_large_k11": TransposeLargeK11,
    "unpool": Unpool,
}

Operator = str | type[nn.Module]


def operator_class(operator: Operator) -> type[nn.Module]:
    """The class behind a name of `UPSAMPLERS`, or the class itself.

    Raises:
        SegkitError: If the name is unknown or the object is no `nn.Module` class.
    """
    if isinstance(operator, str):
        if operator not in UPSAMPLERS:
            raise unknown("operator", operator, UPSAMPLERS)
        return UPSAMPLERS[operator]
    if not (isinstance(operator, type) and issubclass(operator, nn.Module)):
        raise SegkitError(
            f"upsample={operator!r}: give a name ({', '.join(UPSAMPLERS)}) or an nn.Module class (in_channels, out_channels, scale)"
        )
    return operator


__all__ = [
    "CARAFE",
    "FADE",
    "SAPA",
    "UPSAMPLERS",
    "Bicubic",
    "Bilinear",
    "BilinearAdditive",
    "BilinearK1",
    "BlurPixelShuffle",
    "DySample",
    "DySampleDynamic",
    "FCNBilinear",
    "GuidedUpsampler",
    "Nearest",
    "Operator",
    "PixelShuffle",
    "Transpose",
    "TransposeK2",
    "TransposeLarge",
    "TransposeLargeK11",
    "Unpool",
    "Upsampler",
    "build_upsampler",
    "is_guided",
    "operator_class",
    "rewriting",
]
