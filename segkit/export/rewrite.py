"""Operators rewritten as others that compute the same for less.

Shapes: C/D channels in/out, s scale, k kernel size.
"""

import torch
from torch import Tensor, nn

from segkit.upsampling import Nearest


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


@torch.no_grad()
def as_transposed(operator: Nearest) -> nn.ConvTranspose2d:
    """Nearest neighbour and the 3x3 convolution after it as one transposed convolution, k = s + 2, stride s, padding 1.

    Along one axis: Y[m] = sum over t of w[t] U[m + t - 1], where U[n] = X[n // s] inside the image and 0 outside. X[i] reaches Y[m] with
    the sum of those w[t] for which m + t - 1 lies in s i .. s i + s - 1: a kernel over m - s i + 1 of s + 2 taps, each the sum of up to s
    weights. What is zero outside U is zero outside X, so that borders are equal too. It takes (s + 2)² multiply-adds per input pixel and
    pair of channels where the two steps take 9 s².
    """
    s, conv = operator.scale, operator.conv
    weight = conv.weight.double()
    spread = torch.zeros(s + 2, 3, dtype=weight.dtype, device=weight.device)
    for t in range(3):
        spread[2 - t : 2 - t + s, t] = 1
    kernel = (spread @ weight @ spread.T).transpose(0, 1)
    transposed = nn.ConvTranspose2d(operator.in_channels, operator.out_channels, s + 2, stride=s, padding=1, device=weight.device)
    transposed.weight = nn.Parameter(kernel.to(conv.weight.dtype).contiguous(), requires_grad=False)
    assert isinstance(conv.bias, Tensor)
    transposed.bias = nn.Parameter(conv.bias.detach().clone(), requires_grad=False)
    return transposed.train(operator.training)
