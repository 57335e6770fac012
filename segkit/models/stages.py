"""One operator per stage of a decoder.

Shapes: B batch, C channels, H W rows/columns.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from segkit.errors import SegkitError
from segkit.upsampling import Operator, operator_class


def per_stage(upsample: Operator | Sequence[Operator], stages: int) -> list[type[nn.Module]]:
    """The operator classes of a decoder with `stages` stages, deepest first; a single operator stands for all of them.

    Raises:
        SegkitError: If a name is unknown or a list has another length.
    """
    if isinstance(upsample, str | type):
        return [operator_class(upsample)] * stages
    if len(upsample) != stages:
        raise SegkitError(
            f"upsample lists {len(upsample)} operators, the decoder has {stages} stages: give one, or one per stage, deepest first"
        )
    return [operator_class(operator) for operator in upsample]


def width_per_stage(width: Sequence[int] | None, stages: int) -> list[int | None]:
    """The channels of the 1x1 convolution before each operator, deepest first; None where there is none.

    Raises:
        SegkitError: If the list has another length or a width is below 1.
    """
    if width is None:
        return [None] * stages
    if len(width) != stages or min(width) < 1:
        raise SegkitError(f"upsample_width {list(width)}: the decoder has {stages} stages: give a width >= 1 for each, deepest first")
    return list(width)


def guide(feature: Tensor | None, images: Tensor, stride: int) -> Tensor:
    """What a guided operator looks at: the encoder's features at the stride that it reaches, or, where there are none, the images reduced.

    Args:
        feature: `[B, C, H / stride, W / stride]`, None where the encoder has none.
        images: `[B, C, H, W]`, padded as the encoder saw them.
        stride: Of the operator's output.
    """
    return avg_pool2d(images, stride) if feature is None else feature
