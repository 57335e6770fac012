"""The page of one operator: the worked example against numbers worked out by hand, the responses against their definitions."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from segkit.config import OperatorFigureConfig
from segkit.figures import ResponseRow, build_variants, draw_page, measure_responses
from segkit.figures.worked import INPUT, work_example
from segkit.upsampling import UPSAMPLERS

# the nine numbers 1..9 under a kernel of ones, k 3, s 2, p 1, o 1
ODD = [[1, 3, 2, 5, 3, 3], [5, 12, 7, 16, 9, 9], [4, 9, 5, 11, 6, 6], [11, 24, 13, 28, 15, 15], [7, 15, 8, 17, 9, 9], [7, 15, 8, 17, 9, 9]]
# the same, k 4, s 2, p 1
EVEN = [[1, 3, 3, 5, 5, 3], [5, 12, 12, 16, 16, 9], [5, 12, 12, 16, 16, 9], [11, 24, 24, 28, 28, 15], [11, 24, 24, 28, 28, 15]]
EVEN += [[7, 15, 15, 17, 17, 9]]


def test_the_worked_example_of_an_odd_kernel():
    example = work_example(nn.ConvTranspose2d(1, 1, 3, stride=2, padding=1, output_padding=1))
    assert example.output.tolist() == ODD
    assert example.counts.tolist() == np.outer([1, 2, 1, 2, 1, 1], [1, 2, 1, 2, 1, 1]).tolist()
    assert example.index == pytest.approx(0.19)
    assert example.size == "(3 - 1)·2 - 2·1 + 3 + 1 = 6"
    # the matrix is that of the convolution back, entry by entry
    for (i, j), (m, n) in itertools.product(np.ndindex(3, 3), np.ndindex(6, 6)):
        assert example.matrix[6 * m + n, 3 * i + j] == (0 <= m - 2 * i + 1 < 3 and 0 <= n - 2 * j + 1 < 3)


@pytest.mark.parametrize(("name", "output"), [
    ("transpose", EVEN),
    ("transpose_k2", np.kron(INPUT, np.ones((2, 2))).tolist()),
    ("pixel_shuffle", np.kron([[12, 21, 16], [27, 45, 33], [24, 39, 28]], np.ones((2, 2))).tolist()),
    ("nearest", [[4, 6, 9, 12, 15, 10], [9, 13, 18, 23, 28, 18.5], *[[0] * 6] * 4]),
])  # fmt: skip
def test_the_worked_examples_of_operators(name, output):
    if name == "nearest":  # sums over 3 x 3 of 1 1 2 2 3 3 / 1 1 2 2 3 3 / 4 4 5 5 6 6 / ...
        big = np.pad(np.kron(INPUT, np.ones((2, 2))), 1)
        output = [[big[m : m + 3, n : n + 3].sum() for n in range(6)] for m in range(6)]
    example = work_example(UPSAMPLERS[name](1, 1, 2))
    assert example.output.tolist() == output
    assert example.index == 0
    assert example.transposed == name.startswith("transpose")


def test_bilinear_interpolation_reproduces_the_mean_inside():
    example = work_example(UPSAMPLERS["bilinear"](1, 1, 2))
    assert example.counts[1:-1, 1:-1].tolist() == [[9] * 4] * 4
    up = np.array([1, 1.25, 1.75, 2.25, 2.75, 3])  # 1 2 3 with half-pixel centres; rows add 3 to each
    rows = (up - 1) * 3
    big = np.pad(rows[:, None] + up, 1)
    np.testing.assert_allclose(example.output, [[big[m : m + 3, n : n + 3].sum() for n in range(6)] for m in range(6)], rtol=1e-6)


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("name", ["transpose", "pixel_shuffle"])
def test_responses(name, scale):
    variants = build_variants(name or "nearest", OperatorFigureConfig(scale=scale), channels=8)
    for init, responses in measure_responses(variants).items():
        assert responses.impulse.shape == (5 * scale, 5 * scale)
        assert responses.step.shape == (scale, 6 * scale)
        assert responses.spectrum.sum() == pytest.approx(1)
        assert responses.index == pytest.approx(1 - responses.spectrum[0, 0])
        assert np.abs(responses.step[:, :scale]).max() == 0  # nothing before the edge
        np.testing.assert_allclose(responses.step[:, -scale:], responses.gains, atol=1e-5)  # far behind it, a constant
        if init == "smooth":
            assert np.ptp(responses.step, axis=0) == pytest.approx(0, abs=1e-6)
    impulse = torch.from_numpy(measure_responses(variants)["standard"].impulse)
    phases = impulse.view(5, scale, 5, scale).sum((0, 2))  # the taps of a phase add up to its gain
    gains = torch.from_numpy(measure_responses(variants)["standard"].gains).float()
    torch.testing.assert_close(phases / phases.abs().max(), gains / gains.abs().max(), rtol=1e-4, atol=1e-5)


def test_before_and_after_show_the_same_kernel():
    before, after = (build_variants("transpose_k2", OperatorFigureConfig(seed=seed), channels=4)["standard"] for seed in (0, 1))
    responses = measure_responses({"before": before, "after": after}, same_kernel=True)
    shown = {}
    for name, operator in (("before", before), ("after", after)):
        weights = operator.conv.weight.detach().numpy()
        scaled = weights / np.abs(weights).max((2, 3), keepdims=True)
        distance = np.minimum(*(np.abs(scaled - sign * responses[name].gains).sum((2, 3)) for sign in (1, -1)))
        shown[name] = np.unravel_index(distance.argmin(), distance.shape)
        assert distance.min() < 1e-5
    assert shown["before"] == shown["after"]


@pytest.mark.parametrize(
    ("name", "scale", "axes"), [("transpose", 2, 10 + 8), ("bilinear", 3, 5 + 8), ("transpose_k2", 8, 10 + 8), (None, 2, 8)]
)
def test_the_page(name, scale, axes):
    responses = measure_responses(build_variants(name or "nearest", OperatorFigureConfig(scale=scale), channels=4))
    figure = draw_page(name, [ResponseRow("stage 1\nwords", scale, responses)], "about")
    assert len([ax for part in figure.subfigs for ax in part.axes]) == axes
    figure.draw_without_rendering()
    assert len(figure.subfigs) == 1 + (name is not None)
    texts = [text.get_text() for ax in figure.subfigs[0].axes for text in ax.texts]
    assert ("28" in texts) == (name is not None and scale < 8)  # numbers are written where they can be read


def test_a_kernel_that_was_empty_before_is_not_the_one_to_show():
    before, after = (build_variants("transpose", OperatorFigureConfig(init="bilinear"), channels=4)["bilinear"] for _ in range(2))
    with torch.no_grad():
        after.conv.weight += 0.05 * torch.randn(after.conv.weight.shape, generator=torch.Generator().manual_seed(0))
    responses = measure_responses({"before": before, "after": after}, same_kernel=True)
    np.testing.assert_allclose(responses["before"].flat, 1, atol=1e-6)  # a kernel of the diagonal: bilinear interpolation
