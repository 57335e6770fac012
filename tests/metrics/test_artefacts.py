"""The operator index against overlap counts worked out by hand, and against the energy of the spectrum."""

from fractions import Fraction

import pytest
import torch
from torch import nn

from segkit.metrics import checkerboard_index, operator_index, phase_gains
from segkit.upsampling import UPSAMPLERS, build_upsampler


def all_ones(kernel, scale=2, output_padding=0):
    conv = nn.ConvTranspose2d(1, 1, kernel, stride=scale, padding=(kernel - scale + output_padding) // 2, output_padding=output_padding)
    nn.init.ones_(conv.weight)
    return conv  # its bias is random and must not count


@pytest.mark.parametrize("kernel", [3, 5, 7, 11])
def test_an_odd_kernel_of_ones(kernel):
    # along one axis n and n + 1 taps overlap; in two dimensions the gains are n², n(n + 1), n(n + 1), (n + 1)²
    n = kernel // 2
    energy, mean = Fraction((n**2 + (n + 1) ** 2) ** 2), Fraction((2 * n + 1) ** 2, 4)
    expected = 1 - 4 * mean**2 / energy
    assert expected == {3: Fraction(19, 100), 5: Fraction(51, 676), 7: Fraction(99, 2500), 11: Fraction(243, 14884)}[kernel]
    index = operator_index(all_ones(kernel, output_padding=1))
    assert index == pytest.approx(float(expected), rel=1e-6)
    assert round(index, 3) == {3: 0.19, 5: 0.075, 7: 0.04, 11: 0.016}[kernel]


@pytest.mark.parametrize(("kernel", "scale"), [(2, 2), (4, 2), (6, 2), (8, 2), (3, 3), (9, 3), (16, 8)])
def test_a_kernel_of_ones_that_the_scale_divides(kernel, scale):
    assert operator_index(all_ones(kernel, scale)) == 0


def test_gains_are_the_overlap_counts():
    torch.testing.assert_close(phase_gains(all_ones(3, output_padding=1))[0, 0], torch.tensor([[1, 2], [2, 4]], dtype=torch.float64))


def test_gains_of_every_pair_of_channels():
    operator = UPSAMPLERS["transpose_k2"](3, 5, 4).double()  # kernel = scale: the gains are the weights
    torch.testing.assert_close(phase_gains(operator), operator.conv.weight.detach(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["transpose", "transpose_k2", "pixel_shuffle"])
def test_untied_random_phases(name, scale):
    torch.manual_seed(0)
    operator = UPSAMPLERS[name](48, 48, scale)
    operator.reset_parameters("standard")
    assert operator_index(operator) == pytest.approx(1 - 1 / scale**2, abs=0.02)  # 2304 independent pairs: standard error below 0.006


@pytest.mark.parametrize("scale", [2, 3, 8])
@pytest.mark.parametrize("name", sorted(set(UPSAMPLERS) - {"unpool"}))
def test_smooth_initialisation_has_none(name, scale):
    torch.manual_seed(0)
    assert operator_index(build_upsampler(UPSAMPLERS[name], scale**2, 6, scale, guide_channels=6)) < 1e-10


def test_a_guided_operator_is_measured_with_a_flat_guide_under_which_unpooling_is_a_grid():
    for width in (None, 5):
        operator = build_upsampler(UPSAMPLERS["unpool"], 4, 6, 3, width=width, guide_channels=6)
        assert operator_index(operator) == pytest.approx(1 - 1 / 9)  # all in the first pixel of each cell


@pytest.mark.parametrize("name", ["bilinear", "nearest", "bicubic", "dysample", "blur_pixel_shuffle", "carafe"])
def test_interpolation_has_none_whatever_its_weights(name):
    operator = UPSAMPLERS[name](4, 6)
    operator.reset_parameters("standard")
    assert operator_index(operator) < 1e-10


def test_a_tiled_repeat_instead_of_an_interleaved_one_is_found():
    torch.manual_seed(0)
    operator = UPSAMPLERS["pixel_shuffle"](16, 16)
    with torch.no_grad():
        operator.conv.weight.copy_(operator.conv.weight[::4].repeat(4, 1, 1, 1))
    assert operator_index(operator) > 0.5


def test_it_is_the_share_of_the_spectrum_off_zero_frequency():
    gains = torch.randn(3, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    power = torch.fft.fft2(gains).abs().square().sum((0, 1))
    assert checkerboard_index(gains) == pytest.approx((1 - power[0, 0] / power.sum()).item(), rel=1e-12)
    alternating = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert checkerboard_index(alternating) == 1
    assert checkerboard_index(torch.zeros(2, 2)) == 0


class Own(nn.Module):
    """An operator of a user's own, without any attribute, with a norm that behaves differently in training."""

    def __init__(self, in_channels, out_channels, scale=2):
        super().__init__()
        self.up = nn.Upsample(scale_factor=scale)
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x):
        return self.conv(self.norm(self.up(x)))


def test_a_users_own_operator_is_measured_and_left_as_it_was():
    own = Own(100, 2, 3)  # more channels than one pass takes
    own.norm.eval()
    before = {name: value.clone() for name, value in own.state_dict().items()}
    assert phase_gains(own, in_channels=100).shape == (100, 2, 3, 3)
    assert operator_index(own, in_channels=100) == pytest.approx(0, abs=1e-10)
    assert own.training
    assert own.conv.training
    assert not own.norm.training
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())
