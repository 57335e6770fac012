"""The operators against hand-computed values and against their definitions, written out independently."""

import itertools

import pytest
import torch
from torch.nn.functional import conv_transpose2d, interpolate, layer_norm, max_pool2d, max_unpool2d, pixel_shuffle, unfold

from segkit.upsampling import (
    CARAFE,
    FADE,
    SAPA,
    Bicubic,
    Bilinear,
    BilinearAdditive,
    BilinearK1,
    BlurPixelShuffle,
    DySample,
    DySampleDynamic,
    FCNBilinear,
    Nearest,
    PixelShuffle,
    Transpose,
    TransposeK2,
    TransposeLarge,
    TransposeLargeK11,
    Unpool,
)
from segkit.upsampling.dysample import bilinear_points, sample, sample_by_index
from segkit.upsampling.interpolate import by_matrices
from segkit.upsampling.phases import phase_matrix
from segkit.upsampling.reassemble import phases_last, reassemble

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


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("scale", [2, 3])
def test_a_1x1_convolution_before_bilinear_interpolation_equals_one_after_it(scale):
    up, x = BilinearK1(5, 3, scale).double(), double(2, 5, 4, 6)
    late = up.conv(interpolate(x, scale_factor=scale, mode="bilinear"))
    torch.testing.assert_close(up(x), late, rtol=0, atol=1e-13)
    for early, other in zip(*(torch.autograd.grad(y.square().sum(), [*up.parameters()]) for y in (up(x), late)), strict=True):
        torch.testing.assert_close(early, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_by_two_matrices_and_by_the_cubic_polynomials(scale):
    x = double(2, 3, 5, 7)
    expected = interpolate(x, scale_factor=scale, mode="bicubic")
    torch.testing.assert_close(by_matrices(x, scale), expected, rtol=0, atol=1e-13)

    def weight(t, a=-0.75):  # Keys 1981
        t = abs(t)
        return (a + 2) * t**3 - (a + 3) * t**2 + 1 if t <= 1 else a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0

    line, centre = x[0, 0, 0], (torch.arange(7 * scale, dtype=torch.float64) + 0.5) / scale - 0.5
    by_hand = [sum(weight(c - j) * line[min(max(j, 0), 6)] for j in range(-3, 11)) for c in centre.tolist()]
    row = interpolate(x[:1, :1, :1].expand(1, 1, 5, 7), scale_factor=scale, mode="bicubic")[0, 0, 2 * scale]
    torch.testing.assert_close(torch.stack(by_hand), row)
    torch.testing.assert_close(identity(Bicubic(1, 1, scale))(x[:, :1]), expected[:, :1])


def test_additive_interpolation_sums_consecutive_channels():
    x = double(1, 8, 3, 4)
    up = BilinearAdditive(8, 2, 2).double()
    with torch.no_grad():
        up.conv.weight.zero_()
        up.conv.weight[[0, 1], [0, 1], 1, 1] = 1
        up.conv.bias.zero_()
    full = interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(up(x), torch.stack([full[:, :4].sum(1), full[:, 4:].sum(1)], 1))


@pytest.mark.parametrize("scale", [2, 3])
def test_the_fixed_bilinear_kernel_interpolates_inside_and_fades_at_the_border(scale):
    up, x = FCNBilinear(1, 1, scale).double(), double(1, 1, 6, 5)
    with torch.no_grad():
        up.conv.weight.fill_(1)
        up.conv.bias.fill_(0.5)
    out, expected = up(x), interpolate(x, scale_factor=scale, mode="bilinear") + 0.5
    torch.testing.assert_close(out[..., scale:-scale, scale:-scale], expected[..., scale:-scale, scale:-scale])
    assert up(torch.ones_like(x))[0, 0, 0, 2 * scale].item() == pytest.approx(0.5 + {2: 0.75, 3: 2 / 3}[scale])
    assert [name for name, _ in up.named_parameters()] == ["conv.weight", "conv.bias"]  # the kernel is not learned


@pytest.mark.parametrize(("operator", "kernel"), [(TransposeLarge, 7), (TransposeLargeK11, 11)])
def test_one_convolution_with_the_sum_of_a_large_and_a_small_kernel(operator, kernel):
    up, x = operator(3, 2).double(), double(2, 3, 4, 5)
    assert (up.conv.kernel_size, up.small.kernel_size) == ((kernel,) * 2, (3, 3))
    large = conv_transpose2d(x, up.conv.weight, up.conv.bias, 2, kernel // 2, 1)
    small = conv_transpose2d(x, up.small.weight, None, 2, 1, 1)
    torch.testing.assert_close(up(x), large + small, rtol=0, atol=1e-13)


@pytest.mark.parametrize("scale", [2, 3])
def test_the_blur_by_hand_and_its_zeros(scale):
    up = BlurPixelShuffle(4, 3, scale).double()
    up.reset_parameters("standard")
    assert up.line.tolist() == pytest.approx({2: [1 / 4, 2 / 4, 1 / 4], 3: [1 / 9, 2 / 9, 3 / 9, 2 / 9, 1 / 9]}[scale])
    frequencies = torch.arange(1, scale) / scale
    taps = torch.arange(1 - scale, scale)
    assert (up.line * torch.cos(2 * torch.pi * frequencies[:, None] * taps)).sum(1).abs().max() < 1e-6
    flat = up(torch.ones(1, 4, 7, 7, dtype=torch.float64))[..., 2 * scale : -2 * scale, 2 * scale : -2 * scale]
    torch.testing.assert_close(flat, flat[..., :1, :1].expand_as(flat), rtol=0, atol=1e-6)  # whatever its weights


@pytest.mark.parametrize("scale", [2, 3])
def test_the_blur_repeats_the_border(scale):
    up, x = BlurPixelShuffle(4, 3, scale).double(), double(2, 4, 5, 6)
    line, border = up.line / up.line.sum(), scale - 1
    padded = torch.nn.functional.pad(PixelShuffle.forward(up, x), (border,) * 4, mode="replicate")
    kernel = torch.outer(line, line).expand(3, 1, -1, -1)
    torch.testing.assert_close(up(x), torch.nn.functional.conv2d(padded, kernel, groups=3))


def by_unfolding(x, kernels, scale):
    """Reassembly as a loop over output pixels of the definition: kernels `[B, 25, s·H, s·W]`."""
    b, c, h, w = x.shape
    padded, out = torch.nn.functional.pad(x, (2,) * 4), x.new_zeros(b, c, scale * h, scale * w)
    for i, j in itertools.product(range(scale * h), range(scale * w)):
        window = padded[..., i // scale : i // scale + 5, j // scale : j // scale + 5].flatten(2)
        out[..., i, j] = (window * kernels[:, None, :, i, j]).sum(-1)
    return out


@pytest.mark.parametrize("scale", [2, 3])
def test_reassembly_by_the_definition(scale):
    x, kernels = double(2, 3, 4, 5), double(2, 25, 4 * scale, 5 * scale)
    torch.testing.assert_close(reassemble(x, phases_last(kernels, scale), scale), by_unfolding(x, kernels, scale))


def test_carafe_by_the_definition():
    up, x = CARAFE(3, 2).double(), double(2, 3, 4, 5)
    up.reset_parameters("standard")
    kernels = pixel_shuffle(up.encode(up.compress(x)), 2).softmax(1)
    torch.testing.assert_close(up(x), up.conv(by_unfolding(x, kernels, 2)))


def test_fade_by_the_definition():
    up, x, guide = FADE(3, 2, 2, 4).double(), double(2, 3, 4, 5), double(2, 4, 8, 10)
    up.reset_parameters("standard")
    coarse, fine = up.compress(x), up.compress_guide(guide)
    shifted, windows = (unfold(t, 3, padding=1).view(2, 64, 9, *t.shape[-2:]) for t in (coarse, fine))
    both = windows + shifted.repeat_interleave(2, -2).repeat_interleave(2, -1)  # coarse pixel (i // 2, j // 2) joins fine pixel (i, j)
    kernels = (torch.einsum("bctij,kct->bkij", both, up.encode.weight.flatten(2)) + up.encode.bias[:, None, None]).softmax(1)
    gate = up.gate(x).sigmoid().repeat_interleave(2, -2).repeat_interleave(2, -1)
    torch.testing.assert_close(up(x, guide), up.conv(gate * by_unfolding(x, kernels, 2) + (1 - gate) * up.match(guide)))


def test_sapa_by_the_definition():
    up, x, guide = SAPA(3, 2, 2, 4).double(), double(2, 3, 4, 5), double(2, 4, 8, 10)
    up.reset_parameters("standard")
    keys = up.key(layer_norm(x.movedim(1, -1), (3,)).movedim(-1, 1))
    queries = up.query(layer_norm(guide.movedim(1, -1), (4,)).movedim(-1, 1))
    near = unfold(keys, 5, padding=2).view(2, 64, 25, 4, 5).repeat_interleave(2, -2).repeat_interleave(2, -1)
    kernels = torch.einsum("bctij,bcij->btij", near, queries).softmax(1)
    torch.testing.assert_close(up(x, guide), up.conv(by_unfolding(x, kernels, 2)))


@pytest.mark.parametrize("operator", [DySample, DySampleDynamic])
@pytest.mark.parametrize("scale", [2, 3])
def test_dysample_without_offsets_is_bilinear_interpolation(operator, scale):
    up, x = operator(8, 2, scale).double(), double(2, 8, 4, 5)
    with torch.no_grad():
        up.offset.weight.zero_()
    torch.testing.assert_close(up(x), up.conv(interpolate(x, scale_factor=scale, mode="bilinear")))


@pytest.mark.parametrize("operator", [DySample, DySampleDynamic])
def test_dysample_by_the_definition(operator):
    up, x = operator(8, 2).double(), double(1, 8, 3, 4)
    up.reset_parameters("standard")
    moved = up.offset(x) * (0.25 if operator is DySample else 0.5 * up.scope(x).sigmoid())
    offsets = pixel_shuffle(moved, 2)[0].view(4, 2, 6, 8)
    read = torch.zeros(1, 8, 6, 8, dtype=torch.float64)
    for group, i, j in itertools.product(range(4), range(6), range(8)):
        column = min(max((j + 0.5) / 2 - 0.5 + offsets[group, 0, i, j].item(), 0), 3)
        row = min(max((i + 0.5) / 2 - 0.5 + offsets[group, 1, i, j].item(), 0), 2)
        r, c = min(int(row), 1), min(int(column), 2)
        a, b = row - r, column - c
        part = x[0, 2 * group : 2 * group + 2]
        upper, lower = ((1 - b) * part[:, k, c] + b * part[:, k, c + 1] for k in (r, r + 1))
        read[0, 2 * group : 2 * group + 2, i, j] = (1 - a) * upper + a * lower
    torch.testing.assert_close(up(x), up.conv(read))


def test_reading_by_index_equals_grid_sampling_with_its_gradients():
    x = double(3, 2, 4, 5).requires_grad_()
    points = (bilinear_points(4, 5, 2, x.device, x.dtype) + double(3, 2, 8, 10)).requires_grad_()
    by_grid, by_index = sample(x, points), sample_by_index(x, points)
    torch.testing.assert_close(by_index, by_grid)
    for one, other in zip(*(torch.autograd.grad(y.square().sum(), [x, points]) for y in (by_grid, by_index)), strict=True):
        torch.testing.assert_close(one, other)


def test_points_keep_their_halves_in_bfloat16_where_images_are_large():
    up, x = DySample(4, 1).bfloat16(), torch.arange(400.0).bfloat16().view(1, 1, 1, 400).expand(1, 4, 2, 400)
    with torch.no_grad():
        for parameter in up.parameters():
            parameter.zero_()
        up.conv.weight[0, 0, 1, 1] = 1
    expected = interpolate(x.float()[:, :1], scale_factor=2, mode="bilinear")
    torch.testing.assert_close(up(x).float(), expected, rtol=2**-8, atol=0)


@pytest.mark.parametrize("scale", [2, 3])
def test_unpooling_is_that_of_pytorch_with_the_indices_of_the_pooling(scale):
    up, x, features = Unpool(5, 3, scale, 3).double(), double(2, 5, 4, 6), double(2, 3, 4 * scale, 6 * scale)
    _, indices = max_pool2d(features, scale, return_indices=True)
    torch.testing.assert_close(up(x, features), max_unpool2d(up.conv(x), indices, scale))
    ties = torch.zeros(2, 3, 4 * scale, 6 * scale, dtype=torch.float64)  # after a ReLU most cells have many maxima: the first counts
    _, indices = max_pool2d(ties, scale, return_indices=True)
    torch.testing.assert_close(up(x, ties), max_unpool2d(up.conv(x), indices, scale))
