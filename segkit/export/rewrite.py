"""Layers rewritten as others that compute the same for less, or the same wherever they run.

Shapes: B batch, C/D channels in/out, H W rows/columns, s scale, k kernel size.
"""

import torch
from torch import Tensor, nn

from segkit.models.smp_networks import NearestUnetStage
from segkit.upsampling import Nearest
from segkit.upsampling.interpolate import fold_nearest


@torch.no_grad()
def rewrite_operators(network: nn.Module) -> int:
    """Puts a transposed convolution in place of every `Nearest`, and a `FoldedUnetStage` of every decoder block of smp's U-Net; in place.

    For inference. Of no other operator is there a form that is both equal for every size, borders included, and cheaper: `transpose_k2`
    and a 1x1 convolution with a pixel shuffle cost the same, and `bilinear` has no such form (it repeats the border).

    Returns:
        How many were rewritten.
    """
    forms = {Nearest: as_transposed, NearestUnetStage: FoldedUnetStage}
    found = [(parent, name, m) for parent in network.modules() for name, m in parent.named_children() if type(m) in forms]
    for parent, name, layer in found:
        setattr(parent, name, forms[type(layer)](layer))  # type: ignore[operator]
    return len(found)


class FoldedUnetStage(nn.Module):
    """A decoder block of smp's U-Net with its first convolution as the sum of two and the batch norm behind it in their weights.

    Args:
        stage: The block, in evaluation mode.
    """

    def __init__(self, stage: NearestUnetStage) -> None:
        super().__init__()
        conv, norm, self.activation = stage.conv1
        weight = conv.weight.double()
        shift = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.double()
        assert isinstance(norm, nn.BatchNorm2d | nn.Identity), norm
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
            weight, shift = weight * scale.view(-1, 1, 1, 1), (shift - norm.running_mean.double()) * scale + norm.bias.double()
        d, c, *_ = weight.shape
        coarse = c - stage.skip_channels
        self.up = nn.ConvTranspose2d(coarse, d, 4, 2, 1)
        self.up.weight = nn.Parameter(fold_nearest(weight[:, :coarse], 2).to(conv.weight.dtype).contiguous(), requires_grad=False)
        self.up.bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=False)
        self.lateral = nn.Conv2d(stage.skip_channels, d, 3, padding=1, bias=False) if stage.skip_channels else None
        if self.lateral is not None:
            self.lateral.weight = nn.Parameter(weight[:, coarse:].to(conv.weight.dtype).contiguous(), requires_grad=False)
        self.conv2 = stage.conv2

    def forward(self, coarse: Tensor, height: int, width: int, skip_connection: Tensor | None = None) -> Tensor:
        """`[B, C, H, W]` and `[B, S, 2H, 2W]` (or None) -> `[B, D, 2H, 2W]`; height and width are 2H and 2W."""
        x = self.up(coarse)
        if self.lateral is not None:
            x = x + self.lateral(skip_connection)
        out: Tensor = self.conv2(self.activation(x))
        return out


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
    """Nearest neighbour and the 3x3 convolution after it as one transposed convolution (`segkit.upsampling.interpolate.fold_nearest`)."""
    s, conv = operator.scale, operator.conv
    kernel = fold_nearest(conv.weight.double(), s)
    transposed = nn.ConvTranspose2d(operator.in_channels, operator.out_channels, s + 2, stride=s, padding=1, device=conv.weight.device)
    transposed.weight = nn.Parameter(kernel.to(conv.weight.dtype).contiguous(), requires_grad=False)
    assert isinstance(conv.bias, Tensor)
    transposed.bias = nn.Parameter(conv.bias.detach().clone(), requires_grad=False)
    return transposed.train(operator.training)
