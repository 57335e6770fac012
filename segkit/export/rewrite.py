"""Layers rewritten as others that compute the same for less, or the same wherever they run.

Shapes: B batch, C/D channels in/out, H W rows/columns, s scale, k kernel size.
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


class PoolByShares(nn.Module):
    """Adaptive average pooling to a fixed number of cells as two products of matrices, which ONNX has for images of any size.

    Cell i of s averages the rows floor(i n / s) .. ceil((i + 1) n / s) - 1 of n, as torch's layer does.

    Args:
        rows: Cells from top to bottom.
        columns: Cells from left to right.
    """

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, C, rows, columns]`."""
        return _shares(self.rows, x.shape[-2], x) @ x @ _shares(self.columns, x.shape[-1], x).T


def _shares(cells: int, n: int, like: Tensor) -> Tensor:
    """What each of n pixels contributes to each cell: `[cells, n]`, of the type of `like`."""
    cell, pixel = torch.arange(cells, device=like.device)[:, None], torch.arange(n, device=like.device)
    first, end = cell * n // cells, ((cell + 1) * n + cells - 1) // cells
    return ((pixel >= first) & (pixel < end)).to(like.dtype) / (end - first).to(like.dtype)


def rewrite_pools(network: nn.Module) -> int:
    """Puts a `PoolByShares` in place of every adaptive average pooling to more than one cell; in place.

    Returns:
        How many were rewritten.
    """
    found = [(parent, name, m) for parent in network.modules() for name, m in parent.named_children() if type(m) is nn.AdaptiveAvgPool2d]
    sizes = [m.output_size if isinstance(m.output_size, tuple) else (m.output_size, m.output_size) for _, _, m in found]
    rewritten = 0
    for (parent, name, _), (rows, columns) in zip(found, sizes, strict=True):
        if rows and columns and (rows, columns) != (1, 1):
            setattr(parent, name, PoolByShares(rows, columns))
            rewritten += 1
    return rewritten


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
