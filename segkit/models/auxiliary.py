"""Deep supervision: in training, coarse stages of a decoder are told the classes too.

Shapes: B batch, C channels, K classes, H W rows/columns, s stride of a stage.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from segkit.errors import SegkitError
from segkit.models.unet import UNet


class DeepSupervision(nn.Module):
    """A 1x1 classifier behind each decoder stage but the finest two, and the sum of their losses.

    Without it a coarse stage learns from what is left of the gradient after all finer ones, which start from random weights as well.
    The classifiers are no part of the network: nothing of them is left in a prediction. A stage of stride s is held to the pixel in the
    middle of each of its s x s cells.

    Sources: Lee et al., "Deeply-supervised nets", 2015; masks reduced for each stage as in Isensee et al., "nnU-Net", 2021.

    Args:
        network: A U-Net of three stages or more.
        num_classes: K.

    Raises:
        SegkitError: It is none.
    """

    def __init__(self, network: nn.Module, num_classes: int) -> None:
        super().__init__()
        if not isinstance(network, UNet) or len(network.stages) < 3:
            raise SegkitError("deep supervision is for a UNet with 3 decoder_channels or more; leave it out")
        self.strides = [2 ** (len(network.stages) - i) for i in range(1, len(network.stages) - 1)]
        self.classifiers = nn.ModuleList(nn.Conv2d(channels, num_classes, 1) for channels in network.channels[: len(self.strides)])

    def forward(self, stages: Sequence[Tensor], masks: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """The sum over the stages of the loss of their logits.

        Args:
            stages: Outputs of the decoder's stages, `[B, C, H / s, W / s]` rounded up, deepest first; the finest two may be there.
            masks: `[B, H, W]`.
            loss: Logits and masks to a scalar.
        """
        losses = []
        for stage, classifier, stride in zip(stages, self.classifiers, self.strides, strict=False):
            reduced = masks[:, stride // 2 :: stride, stride // 2 :: stride]
            losses.append(loss(classifier(stage)[..., : reduced.shape[1], : reduced.shape[2]], reduced))
        return torch.stack(losses).sum()
