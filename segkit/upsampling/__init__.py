"""The upsampling operators, one family a file. `UPSAMPLERS` is the one list of their names.

An operator of your own is a class with the signature `(in_channels, out_channels, scale=2)` that maps `[B, C, H, W]` to
`[B, D, s*H, s*W]`; pass it where a name is taken: `UNet(11, upsample=MyOperator)`.
"""

from torch import nn

from segkit.errors import SegkitError, unknown
from segkit.upsampling.interpolate import Bilinear, Nearest
from segkit.upsampling.operator import Upsampler, build_upsampler
from segkit.upsampling.shuffle import PixelShuffle
from segkit.upsampling.transpose import Transpose, TransposeK2

UPSAMPLERS: dict[str, type[Upsampler]] = {
    "bilinear": Bilinear,
    "nearest": Nearest,
    "pixel_shuffle": PixelShuffle,
    "transpose": Transpose,
    "transpose_k2": TransposeK2,
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
    "UPSAMPLERS",
    "Bilinear",
    "Nearest",
    "Operator",
    "PixelShuffle",
    "Transpose",
    "TransposeK2",
    "Upsampler",
    "build_upsampler",
    "operator_class",
]
