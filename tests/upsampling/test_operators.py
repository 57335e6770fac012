"""What every operator promises, over the whole of UPSAMPLERS."""

from typing import get_args

import pytest
import torch
from torch.nn.functional import interpolate

from segkit import config
from segkit.errors import SegkitError
from segkit.upsampling import UPSAMPLERS, Upsampler, build_upsampler, operator_class
from segkit.upsampling.operator import INITS

NAMES = sorted(UPSAMPLERS)
TRANSPOSED = {"transpose", "transpose_k2"}

every_operator = pytest.mark.parametrize("name", NAMES)


def uniform(operator):
    """All weights of the convolution equal: what remains is where the operator puts things."""
    with torch.no_grad():
        operator.conv.weight.fill_(1.0)
        operator.conv.bias.zero_()
    return operator


def test_the_command_line_knows_exactly_these_names_and_initialisations():
    assert set(get_args(config.Upsample)) == set(UPSAMPLERS)
    assert get_args(config.UpsampleInit) == INITS


@every_operator
@pytest.mark.parametrize("scale", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (6, 4)])
def test_output_is_exactly_scale_times_the_input(name, scale, size):
    out = UPSAMPLERS[name](3, 5, scale)(torch.randn(2, 3, *size))
    assert out.shape == (2, 5, scale * size[0], scale * size[1])


@every_operator
@pytest.mark.parametrize("scale", [2, 3])
def test_gradients_in_float64(name, scale):
    operator = UPSAMPLERS[name](2, 3, scale).double()
    x = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    weights = [p.detach().requires_grad_() for p in operator.parameters()]
    names = [n for n, _ in operator.named_parameters()]

    def run(x, *weights):
        return torch.func.functional_call(operator, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *weights))


@every_operator
@pytest.mark.parametrize("scale", [2, 3, 4, 5])
def test_smooth_initialisation_keeps_a_constant_interior_constant(name, scale):
    torch.manual_seed(scale)
    operator = UPSAMPLERS[name](3, 4, scale).double()
    interior = operator(torch.randn(1, 3, 1, 1, dtype=torch.float64).expand(1, 3, 7, 7))[
        ..., 2 * scale : -2 * scale, 2 * scale : -2 * scale
    ]
    torch.testing.assert_close(interior, interior[..., :1, :1].expand_as(interior), rtol=0, atol=1e-6)
    assert interior.abs().max() > 0.01


@every_operator
@pytest.mark.parametrize("scale", [2, 4])
def test_smooth_initialisation_has_kaiming_variance(name, scale):
    torch.manual_seed(0)
    x = torch.randn(1, 256, 24, 24).relu()  # E[x²] = 1/2, so a variance of 2 / fan-in gives unit variance
    power = UPSAMPLERS[name](256, 64, scale)(x)[..., 16:-16, 16:-16].square().mean().item()
    low, high = (0.4, 1.0) if name == "bilinear" else (0.8, 1.25)  # interpolation itself averages neighbours
    assert low < power < high


@every_operator
def test_standard_initialisation_is_what_pytorch_draws(name):
    torch.manual_seed(7)
    operator = UPSAMPLERS[name](4, 6, 2)
    torch.manual_seed(7)
    operator.reset_parameters("standard")
    drawn = operator.conv.weight.clone()
    torch.manual_seed(7)
    operator.conv.reset_parameters()
    torch.testing.assert_close(drawn, operator.conv.weight, rtol=0, atol=0)
    flat = operator(torch.ones(1, 4, 6, 6))[..., 4:-4, 4:-4]
    assert (flat.std(dim=(-1, -2)).max() > 1e-3) == (name in {*TRANSPOSED, "pixel_shuffle"})  # their phases are untied


@every_operator
def test_bilinear_initialisation_is_for_transposed_convolution_only(name):
    operator = UPSAMPLERS[name](2, 2, 2)
    if name in TRANSPOSED:
        operator.reset_parameters("bilinear")
        x = torch.rand(1, 2, 6, 6)
        expected = interpolate(x, scale_factor=2, mode="bilinear" if name == "transpose" else "nearest")
        torch.testing.assert_close(operator(x)[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2])
    else:
        with pytest.raises(SegkitError, match="transposed convolution only"):
            operator.reset_parameters("bilinear")
    with pytest.raises(SegkitError, match="unknown upsample_init 'zero'; choose from smooth, standard, bilinear"):
        operator.reset_parameters("zero")


@every_operator
@pytest.mark.parametrize("scale", [2, 3, 4, 5])
def test_nothing_is_shifted(name, scale):
    operator = uniform(UPSAMPLERS[name](1, 1, scale)).double()
    x = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    x[..., 4, 4] = 1
    response = operator(x)[0, 0].detach()
    position = torch.arange(9 * scale, dtype=torch.float64)
    centre = scale * 4 + (scale - 1) / 2  # of the s x s cell that the pixel becomes
    for axis in (0, 1):
        assert (response.sum(1 - axis) * position).sum() / response.sum() == pytest.approx(centre, abs=1e-9)


@every_operator
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtype_is_kept(name, dtype):
    operator = UPSAMPLERS[name](2, 3, 2)
    x = torch.randn(1, 2, 4, 4)
    out = operator.to(dtype)(x.to(dtype))
    assert out.dtype == dtype
    assert torch.isfinite(out).all()


@every_operator
def test_autocast_runs_in_bfloat16_close_to_float32(name):
    operator, x = UPSAMPLERS[name](16, 8, 2), torch.randn(1, 16, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = operator(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), operator(x), rtol=0.05, atol=0.1)


@every_operator
def test_compiled_equals_eager(name):
    operator, x = UPSAMPLERS[name](3, 4, 2), torch.randn(1, 3, 5, 7)
    torch.testing.assert_close(torch.compile(operator, fullgraph=True, backend="aot_eager")(x), operator(x))


@pytest.mark.slow
@every_operator
def test_compiled_to_machine_code_equals_eager_forward_and_backward(name):
    operator, x = UPSAMPLERS[name](3, 4, 2), torch.randn(2, 3, 5, 7)
    plain = torch.autograd.grad(operator(x).square().sum(), list(operator.parameters()))
    compiled = torch.autograd.grad(torch.compile(operator, fullgraph=True)(x).square().sum(), list(operator.parameters()))
    for a, b in zip(plain, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@every_operator
def test_channels_last_equals_contiguous(name):
    operator, x = UPSAMPLERS[name](8, 4, 2), torch.randn(2, 8, 6, 5)
    expected = operator(x)
    operator.to(memory_format=torch.channels_last)
    torch.testing.assert_close(operator(x.contiguous(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-5)


def test_building_an_operator_takes_one_draw_from_the_global_stream_whatever_it_is():
    class Mine(torch.nn.Module):
        def __init__(self, in_channels, out_channels, scale=2):
            super().__init__()
            self.noise = torch.nn.Parameter(torch.randn(1000))

    states = set()
    for operator in [*UPSAMPLERS.values(), Mine]:
        torch.manual_seed(3)
        build_upsampler(operator, 3, 4, 2)
        states.add(torch.randn(4).numpy().tobytes())
    assert len(states) == 1


def test_an_operator_repeats_for_one_seed_and_differs_for_another():
    def weights(seed):
        torch.manual_seed(seed)
        return build_upsampler(UPSAMPLERS["transpose"], 3, 4, 2).conv.weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


@every_operator
@pytest.mark.parametrize(
    ("arguments", "match"), [((0, 1, 2), "in_channels=0"), ((1, 1.5, 2), "out_channels=1.5"), ((1, 1, 1), "scale=1 .*>= 2")]
)
def test_bad_arguments_are_named(name, arguments, match):
    with pytest.raises(SegkitError, match=match):
        UPSAMPLERS[name](*arguments)


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(SegkitError, match="unknown operator 'transpos'; did you mean 'transpose'"):
        operator_class("transpos")
    with pytest.raises(SegkitError, match="give a name"):
        operator_class(3)


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Upsampler(1, 1)
