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
UNTIED = {*TRANSPOSED, "pixel_shuffle", "transpose_large", "transpose_large_k11"}  # phases that may differ
SHIFT = {"transpose_large": -0.5, "transpose_large_k11": -0.5}  # output pixels at an even scale, as published

every_operator = pytest.mark.parametrize("name", NAMES)
every_but_unpool = pytest.mark.parametrize("name", [name for name in NAMES if name != "unpool"])  # which puts values where a guide says


def channels(name, least, scale=2):
    """So many input channels that the operator can have them."""
    return least * scale**2 if name == "bilinear_additive" else least


def build(name, in_channels, out_channels, scale=2):
    if UPSAMPLERS[name].guided:
        return UPSAMPLERS[name](in_channels, out_channels, scale, guide_channels=out_channels)
    return UPSAMPLERS[name](in_channels, out_channels, scale)


def run(operator, x):
    """The operator's output, of a guided one with a guide that is always the same."""
    if not operator.guided:
        return operator(x)
    shape = len(x), operator.guide_channels, operator.scale * x.shape[-2], operator.scale * x.shape[-1]
    return operator(x, torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(x.dtype))


def uniform(operator):
    """Equal weights in the convolution, none in what predicts kernels or points: what remains is where the operator puts things."""
    with torch.no_grad():
        for parameter in operator.parameters():
            parameter.zero_()
        operator.conv.weight.fill_(1.0)
    return operator


def test_the_command_line_knows_exactly_these_names_and_initialisations():
    assert set(get_args(config.Upsample)) == set(UPSAMPLERS)
    assert get_args(config.UpsampleInit) == INITS


@every_operator
@pytest.mark.parametrize("scale", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (6, 4)])
def test_output_is_exactly_scale_times_the_input(name, scale, size):
    c = channels(name, 3, scale)
    out = run(build(name, c, 5, scale), torch.randn(2, c, *size))
    assert out.shape == (2, 5, scale * size[0], scale * size[1])


@every_operator
@pytest.mark.parametrize("scale", [2, 3])
def test_gradients_in_float64(name, scale):
    c = channels(name, 2, scale)
    operator = build(name, c, 3, scale).double()
    operator.reset_parameters("standard")  # far from where softmax and offsets are flat
    x = torch.randn(1, c, 3, 2, dtype=torch.float64, requires_grad=True)
    guide = torch.randn(1, 3, 3 * scale, 2 * scale, dtype=torch.float64)
    if operator.guided and name != "unpool":  # whose choice has no gradient
        guide.requires_grad_()
    inputs = (x, guide) if operator.guided else (x,)
    weights = [p.detach().requires_grad_() for p in operator.parameters()]
    names = [n for n, _ in operator.named_parameters()]

    def call(*values):
        return torch.func.functional_call(operator, dict(zip(names, values[len(inputs) :], strict=True)), values[: len(inputs)])

    assert torch.autograd.gradcheck(call, (*inputs, *weights), fast_mode=len(weights) > 2)


@every_but_unpool
@pytest.mark.parametrize("scale", [2, 3, 4, 5])
def test_smooth_initialisation_keeps_a_constant_interior_constant(name, scale):
    torch.manual_seed(scale)
    c = channels(name, 3, scale)
    operator = build(name, c, 4, scale).double()
    x = torch.randn(1, c, 1, 1, dtype=torch.float64).expand(1, c, 11, 11)
    guide = [torch.ones(1, 4, 11 * scale, 11 * scale, dtype=torch.float64)] if operator.guided else []
    interior = operator(x, *guide)[..., 4 * scale : -4 * scale, 4 * scale : -4 * scale]
    torch.testing.assert_close(interior, interior[..., :1, :1].expand_as(interior), rtol=0, atol=1e-6)
    assert interior.abs().max() > 0.01


# What interpolation leaves of the power of white noise x = relu(normal): 2 (Var[x] * the sum of its squared weights + E[x]²).
POWER = {"bilinear": 0.58, "bilinear_k1": 0.58, "fcn_bilinear": 0.58, "dysample": 0.58, "dysample_dynamic": 0.58, "bicubic": 0.81}
POWER |= {"blur_pixel_shuffle": 0.58, "carafe": 0.35, "sapa": 0.35}
POWER |= {"bilinear_additive": 1.54, "fade": 0.59, "unpool": 0.25}  # four channels summed; halves of input and guide; one pixel in four


@every_operator
def test_smooth_initialisation_has_kaiming_variance(name):
    torch.manual_seed(0)
    x = torch.randn(1, 256, 24, 24).relu()  # E[x²] = 1/2, so a variance of 2 / fan-in gives unit variance
    power = run(build(name, 256, 256), x)[..., 16:-16, 16:-16].square().mean().item()
    assert power == pytest.approx(POWER.get(name, 1), rel=0.25)


@every_operator
def test_standard_initialisation_is_what_pytorch_draws(name):
    operator = build(name, 4, 6)
    layers = [m for m in operator.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)]
    start = operator.conv.weight.clone()
    operator.reset_parameters("standard")
    assert not torch.equal(operator.conv.weight, start)
    for layer in layers:
        bound = layer.weight[0].numel() ** -0.5  # 1 / sqrt(fan-in) as PyTorch counts it
        assert bound / 2 < layer.weight.abs().max() <= bound
        assert layer.bias is None or 0 < layer.bias.abs().max() <= bound
    if not operator.guided:
        flat = operator(torch.ones(1, 4, 10, 10))[..., 8:-8, 8:-8]
        assert (flat.std(dim=(-1, -2)).max() > 1e-3) == (name in UNTIED)


@every_operator
def test_bilinear_initialisation_is_for_transposed_convolution_only(name):
    operator = build(name, channels(name, 2), 2)
    if name in TRANSPOSED:
        operator.reset_parameters("bilinear")
        x = torch.rand(1, 2, 6, 6)
        expected = interpolate(x, scale_factor=2, mode="bilinear" if name == "transpose" else "nearest")
        torch.testing.assert_close(operator(x)[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2])
    else:
        with pytest.raises(SegkitError, match="transpose and transpose_k2 only"):
            operator.reset_parameters("bilinear")
    with pytest.raises(SegkitError, match="unknown upsample_init 'zero'; choose from smooth, standard, bilinear"):
        operator.reset_parameters("zero")


@every_but_unpool
@pytest.mark.parametrize("scale", [2, 3, 4, 5])
def test_nothing_is_shifted_but_by_odd_kernels_at_an_even_scale(name, scale):
    c = channels(name, 1, scale)
    operator = uniform(build(name, c, 1, scale)).double()
    x = torch.zeros(1, c, 13, 13, dtype=torch.float64)
    x[..., 6, 6] = 1
    response = run(operator, x)[0, 0].detach()
    position = torch.arange(13 * scale, dtype=torch.float64)
    centre = scale * 6 + (scale - 1) / 2  # of the s x s cell that the pixel becomes
    for axis in (0, 1):
        shift = (response.sum(1 - axis) * position).sum() / response.sum() - centre
        assert shift == pytest.approx(SHIFT.get(name, 0) if scale % 2 == 0 else 0, abs=1e-9)


@every_operator
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtype_is_kept(name, dtype):
    operator = build(name, channels(name, 2), 3)
    x = torch.randn(1, operator.in_channels, 4, 4)
    out = run(operator.to(dtype), x.to(dtype))
    assert out.dtype == dtype
    assert torch.isfinite(out).all()


@every_operator
def test_autocast_runs_in_bfloat16_close_to_float32(name):
    operator, x = build(name, 16, 8), torch.randn(1, 16, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = run(operator, x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), run(operator, x), rtol=0.05, atol=0.1)


@every_operator
def test_compiled_equals_eager(name):
    operator = build(name, channels(name, 3), 4)
    inputs = [torch.randn(2, operator.in_channels, 5, 7), *([torch.randn(2, 4, 10, 14)] if operator.guided else [])]
    torch.testing.assert_close(torch.compile(operator, fullgraph=True, backend="aot_eager")(*inputs), operator(*inputs))


@pytest.mark.slow
@every_operator
def test_compiled_to_machine_code_equals_eager_forward_and_backward(name):
    operator = build(name, channels(name, 3), 4)
    inputs = [torch.randn(2, operator.in_channels, 5, 7), *([torch.randn(2, 4, 10, 14)] if operator.guided else [])]
    plain = torch.autograd.grad(operator(*inputs).square().sum(), list(operator.parameters()))
    compiled = torch.autograd.grad(torch.compile(operator, fullgraph=True)(*inputs).square().sum(), list(operator.parameters()))
    for a, b in zip(plain, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@every_operator
def test_channels_last_equals_contiguous(name):
    operator, x = build(name, 8, 4), torch.randn(2, 8, 6, 5)
    expected = run(operator, x)
    operator.to(memory_format=torch.channels_last)
    torch.testing.assert_close(run(operator, x.contiguous(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-5)


def test_building_an_operator_takes_one_draw_from_the_global_stream_whatever_it_is():
    class Mine(torch.nn.Module):
        def __init__(self, in_channels, out_channels, scale=2):
            super().__init__()
            self.noise = torch.nn.Parameter(torch.randn(1000))

    states = set()
    for operator in [*UPSAMPLERS.values(), Mine]:
        torch.manual_seed(3)
        build_upsampler(operator, 4, 4, 2, guide_channels=4)
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
    ("arguments", "match"), [((0, 1, 2), "in_channels=0"), ((4, 1.5, 2), "out_channels=1.5"), ((4, 1, 1), "scale=1 .*>= 2")]
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


@every_operator
def test_it_repeats_bit_for_bit_in_deterministic_mode_forward_and_backward(name):
    torch.use_deterministic_algorithms(True)
    try:
        results = []
        for _ in range(2):
            torch.manual_seed(0)
            operator, x = build(name, 8, 4), torch.randn(2, 8, 6, 5, requires_grad=True)
            out = run(operator, x)
            results.append([out, *torch.autograd.grad(out.square().sum(), [x, *operator.parameters()])])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", [name for name in NAMES if UPSAMPLERS[name].guided])
def test_a_guided_operator_without_a_guide_is_refused_and_its_guide_is_checked(name):
    with pytest.raises(SegkitError, match="needs a guide"):
        build_upsampler(UPSAMPLERS[name], 4, 4)
    with pytest.raises(SegkitError, match="guide_channels=0"):
        UPSAMPLERS[name](4, 4, 2, 0)
