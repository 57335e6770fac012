"""Layers rewritten as others that compute the same for less, or the same wherever they run.

Shapes: B batch, C/D channels in/out, H W rows/columns, s scale, k kernel size.
"""

import torch
from torch import Tensor, nn

from segkit.upsampling import Nearest
from segkit.upsampling.interpolate import fold_nearest


@torch.no_grad()
def rewrite_operators(network: nn.Module) -> int:
    """Puts a transposed convolution in place of every `Nearest`; in place, for inference.

    Of no other operator is there a form that is both equal for every size, borders included, and cheaper: `transpose_k2` and a 1x1
    convolution with a pixel shuffle cost the same, and `bilinear` has no such form (it repeats the border).

    Returns:
        How many were rewritten.
    """
    found = [(parent, name, m) for parent in network.modules() for name, m in parent.named_children() if type(m) is Nearest]
    for parent, name, operator in found:
        setattr(parent, name, as_transposed(operator))
    return len(found)


class NestedGroupNorm(nn.Module):
    """A group norm (Wu & He 2018) whose means are taken over columns, then rows, then channels.

    onnxruntime adds up all pixels of a group in one float32, which is exact to 2e-3 of a deviation where a megapixel is as dark and even
    as a night sky.

    Args:
        norm: The layer that it stands for.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.eps = norm.num_groups, norm.eps
        ones, zeros = torch.ones(norm.num_channels), torch.zeros(norm.num_channels)
        self.register_buffer("weight", (ones if norm.weight is None else norm.weight.detach().clone()).view(-1, 1, 1))
        self.register_buffer("bias", (zeros if norm.bias is None else norm.bias.detach().clone()).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]`, normalised."""
        assert isinstance(self.weight, Tensor)
        assert isinstance(self.bias, Tensor)
        parts = x.reshape(x.shape[0], self.groups, -1, *x.shape[2:])
        rest = parts - _mean(parts)
        normalised: Tensor = (rest * (_mean(rest.square()) + self.eps).rsqrt()).flatten(1, 2)
        return normalised * self.weight + self.bias


def _mean(parts: Tensor) -> Tensor:
    return parts.mean(4, keepdim=True).mean(3, keepdim=True).mean(2, keepdim=True)


@torch.no_grad()
def rewrite_group_norms(network: nn.Module) -> int:
    """Puts a `NestedGroupNorm` in place of every group norm of images; in place, for inference.

    Returns:
        How many were rewritten.
    """
    found = [(parent, name, m) for parent in network.modules() for name, m in parent.named_children() if type(m) is nn.GroupNorm]
    for parent, name, norm in found:
        setattr(parent, name, NestedGroupNorm(norm))
    return len(found)


@torch.no_grad()
def as_transposed(operator: Nearest) -> nn.ConvTranspose2d:
    """Nearest neighbour and the 3x3 convolution after it as one transposed convolution (`segkit.upsampling.interpolate.fold_nearest`)."""
    s, conv = operator.scale, operator.conv
    kernel = fold_nearest(conv.weight.double(), s)
    transposed = nn.ConvTranspose2d(operator.in_channels, operator.out_channels, s + 2, stride=s, padding=1, device=conv.weight.device)
    transposed.weight = nn.Parameter(kernel.to(conv.weight.dtype).contiguous(), requires_grad=False)
    assert isinstance(conv.bias, Tensor)
    transposed.bias = nn.Parameter(conv.bias.detach().clone(), requires_grad=False)
    return transposed.train(operator.training)
