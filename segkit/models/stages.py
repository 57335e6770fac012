"""One operator per stage of a decoder."""

from collections.abc import Sequence

from torch import nn

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
