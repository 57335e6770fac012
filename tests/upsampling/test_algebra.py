"""The operators against hand-computed values and against their definitions, written out independently."""

import itertools

import pytest
import torch
from torch.nn.functional import conv_transpose2d, interpolate

from segkit.upsampling import Bilinear, Nearest, PixelShuffle, Transpose, TransposeK2
from segkit.upsampling.phases import phase_matrix

X1 = torch.arange(1.0, 10.0).view(3, 3)
X2 = 10 - X1
Y1 = [[1, 3, 2, 5, 3, 3], [5, 12, 7, 16, 9, 9], [4, 9, 5, 11, 6, 6], [11, 24, 13, 28, 15, 15], [7, 15, 8, 17, 9, 9], [7, 15, 8, 17, 9, 9]]
Y2 = [[9, 17, 8, 15, 7, 7], [15, 28, 13, 24, 11, 11], [6, 11, 5, 9, 4, 4], [9, 16, 7, 12, 5, 5], [3, 5, 2, 3, 1, 1], [3, 5, 2, 3, 1, 1]]


def convolution_matrix(kernel, size, out_size, stride, padding):
    """The matrix `[h·w, H·W]` of the strided convolution that maps the large grid (H x W) to the small one (h x w), entry by entry."""
    (h, w), (big_h, big_w), k = size, out_size, kernel.shape[0]
    matrix = torch.zeros(h * w, big_h * big_w, dtype=torch.float64)
    for i, j, a, b in itertools.product(range(h), range(w), range(k), range(k)):
        row, column = stride * i - padding + a, stride * j - padding + b
        if 0 <= row < big_h and 0 <= column < big_w:
            matrix[i * w + j, row * big_w + column] += kernel[a, b]
    return matrix


def transposed_by_matrix(x, weight, out_size, stride, padding):
    """`sum over c of C^T x`, `[C, h, w]` and `[C, D, k, k]` to `[D, H, W]`."""
    out = torch.zeros(weight.shape[1], *out_size, dtype=torch.float64)
    for c, d in itertools.product(range(weight.shape[0]), range(weight.shape[1])):
        matrix = convolution_matrix(weight[c, d], x.shape[1:], out_size, stride, padding)
        out[d] += (matrix.T @ x[c].flatten()).view(out_size)
    return out


@pytest.mark.parametrize("output_padding", [0, 1])
def test_worked_example_by_hand_by_matrix_and_by_pytorch(output_padding):
    size = 5 + output_padding
    expected = torch.tensor([Y1, Y2], dtype=torch.float64)[:, :size, :size]
    x = torch.stack([X1, X2]).double()
    ones = torch.ones(2, 1, 3, 3, dtype=torch.float64)
    by_torch = conv_transpose2d(x[None], ones, stride=2, padding=1, output_padding=output_padding, groups=2)[0]
    by_matrix = torch.cat([transposed_by_matrix(x[c : c + 1], ones[c : c + 1], (size, size), 2, 1) for c in range(2)])
    assert torch.equal(by_torch, expected)
    assert torch.equal(by_matrix, expected)


def test_kernel_overlap_is_the_checkerboard():
    x = torch.stack([X1, X2]).double()[None]
    out = conv_transpose2d(x, torch.ones(2, 2, 3, 3, dtype=torch.float64), stride=2, padding=1, output_padding=1)[0]
    # inside, rows and columns are covered once and twice in turn (the last ones lie outside every kernel's centre)
    assert out[0, :5, :5].tolist() == [[10.0 * (1 + i % 2) * (1 + j % 2) for j in range(5)] for i in range(5)]
    assert torch.equal(out[0], out[1])


@pytest.mark.parametrize("operator", [Transpose, TransposeK2])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_transposed_convolutions_equal_the_matrix_form(operator, scale):
    up = operator(2, 3, scale).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    expected = transposed_by_matrix(x, up.conv.weight.detach(), (3 * scale, 4 * scale), scale, up.conv.padding[0]) + up.conv.bias.view(
        -1, 1, 1
    )
    torch.testing.assert_close(up(x[None])[0], expected)


@pytest.mark.parametrize(("scale", "kernel", "padding"), [(2, 4, 1), (4, 8, 2), (8, 16, 4), (3, 5, 1), (5, 9, 2)])
def test_kernel_and_padding_of_transpose(scale, kernel, padding):
    conv = Transpose(1, 1, scale).conv
    assert (conv.kernel_size, conv.padding, conv.stride) == ((kernel,) * 2, (padding,) * 2, (scale,) * 2)


def test_phase_matrix_by_hand():
    assert phase_matrix(4, 2).tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert phase_matrix(5, 3).tolist() == [[1, 0], [1, 0], [1, 1], [0, 1], [0, 1]]
    assert phase_matrix(3, 3).tolist() == [[1], [1], [1]]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_icnr_shuffle_starts_as_convolution_then_nearest(scale):
    shuffle = PixelShuffle(3, 2, scale).double()
    x = torch.randn(1, 3, 5, 4, dtype=torch.float64)
    one_phase = torch.nn.functional.conv2d(x, shuffle.conv.weight[:: scale**2], padding=1)
    torch.testing.assert_close(shuffle(x), interpolate(one_phase, scale_factor=scale, mode="nearest"))


def test_the_same_shuffle_tiled_instead_of_interleaved_is_a_grid():
    shuffle = PixelShuffle(3, 4, 2).double()
    with torch.no_grad():
        shuffle.conv.weight.copy_(shuffle.conv.weight[::4].repeat(4, 1, 1, 1))
    flat = shuffle(torch.ones(1, 3, 6, 6, dtype=torch.float64))[..., 4:-4, 4:-4]
    assert flat.std(dim=(-1, -2)).min() > 0.01


def identity(operator):
    with torch.no_grad():
        operator.conv.weight.zero_()
        operator.conv.weight[0, 0, 1, 1] = 1
        operator.conv.bias.zero_()
    return operator.double()


def test_bilinear_reproduces_a_ramp_between_pixel_centres():
    x = torch.arange(6, dtype=torch.float64).view(1, 1, 1, 6).expand(1, 1, 6, 6)
    for scale in (2, 3, 4):
        out = identity(Bilinear(1, 1, scale))(x)[0, 0, 0]
        ramp = (torch.arange(6 * scale, dtype=torch.float64) + 0.5) / scale - 0.5
        torch.testing.assert_close(out, ramp.clamp(0, 5))


def test_nearest_repeats_pixels():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)[None, None]
    expected = torch.tensor([[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]], dtype=torch.float64)
    assert torch.equal(identity(Nearest(1, 1, 2))(x)[0, 0], expected)


def test_transpose_k2_equals_a_1x1_convolution_and_a_shuffle():
    up = TransposeK2(3, 2, 2).double()
    x = torch.randn(1, 3, 4, 5, dtype=torch.float64)
    weight = up.conv.weight.permute(1, 2, 3, 0).reshape(8, 3, 1, 1)  # channel d·4 + i·2 + j holds phase (i, j) of output channel d
    torch.testing.assert_close(up(x), torch.nn.functional.pixel_shuffle(torch.nn.functional.conv2d(x, weight), 2))
