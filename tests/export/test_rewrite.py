"""Operators rewritten for inference: equal in float64 for every size, at the borders too."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from segkit.export import rewrite_operators
from segkit.export.rewrite import NestedGroupNorm, PoolByShares, as_transposed, rewrite_group_norms, rewrite_pools
from segkit.models import build_model
from segkit.upsampling import UPSAMPLERS, Bilinear, Nearest


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 7), (97, 13)])
def test_nearest_and_its_convolution_are_one_transposed_convolution(scale, size):
    operator = Nearest(3, 5, scale).double()
    operator.reset_parameters("standard")
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(as_transposed(operator)(x), operator(x), rtol=0, atol=1e-13)


def test_the_kernel_by_hand():
    operator = Nearest(1, 1, 2)
    with torch.no_grad():
        operator.conv.weight.copy_(torch.tensor([[1.0, 2, 4]]).T @ torch.tensor([[0.0, 1, 0]]))
    kernel = as_transposed(operator).weight[0, 0]
    assert kernel.tolist() == [[0, w, w, 0] for w in (4, 6, 3, 1)]  # w2, w1 + w2, w0 + w1, w0


def test_every_nearest_of_a_network_and_nothing_else():
    torch.manual_seed(0)
    network = (
        build_model("unet", 3, decoder_channels=(8, 8), encoder="plain", upsample=["nearest", "bilinear"], upsample_width=[4, 4])
        .double()
        .eval()
    )
    x = torch.randn(1, 3, 9, 14, dtype=torch.float64)
    with torch.no_grad():
        before = network(x)
        assert rewrite_operators(network) == 1
        torch.testing.assert_close(network(x), before, rtol=0, atol=1e-12)
    assert isinstance(network.stages[0].upsample.operator, nn.ConvTranspose2d)
    assert isinstance(network.stages[1].upsample.operator, Bilinear)
    assert rewrite_operators(network) == 0


def test_an_operator_of_ones_own_that_derives_from_nearest_keeps_its_forward():
    class Mine(UPSAMPLERS["nearest"]):
        def forward(self, x):
            return super().forward(x) + 1

    assert rewrite_operators(nn.Sequential(Mine(2, 2))) == 0


def test_every_block_of_smps_unet_with_its_batch_norm():
    torch.manual_seed(0)
    network = build_model("smp:Unet", 3, encoder="resnet18").double().eval()
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    x = torch.randn(1, 3, 70, 50, dtype=torch.float64)
    with torch.no_grad():
        before = network(x)
        assert rewrite_operators(network) == 5
        torch.testing.assert_close(network(x), before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (33, 16)])
def test_a_group_norm_of_nested_means_is_a_group_norm(size, affine):
    norm = nn.GroupNorm(4, 12, affine=affine).double()
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = torch.randn(3, 12, *size, dtype=torch.float64) * 5 + 2
    with torch.no_grad():
        torch.testing.assert_close(NestedGroupNorm(norm).double()(x), norm(x), rtol=0, atol=1e-12)


def test_group_norms_are_exact_in_onnxruntime_on_a_dark_and_even_image(tmp_path):
    x = 3 + 0.05 * torch.randn(1, 8, 640, 640, generator=torch.Generator().manual_seed(0))
    errors = []
    for rewrite in (False, True):
        network = nn.Sequential(nn.Sequential(nn.GroupNorm(1, 8))).eval()
        with torch.no_grad():
            exact = network.double()(x.double()).numpy()
            assert not rewrite or rewrite_group_norms(network.float()) == 1
            torch.onnx.export(network.float(), (x,), tmp_path / "a.onnx", dynamo=True, input_names=["x"], verbose=False)
        errors.append(np.abs(onnxruntime.InferenceSession(tmp_path / "a.onnx").run(None, {"x": x.numpy()})[0] - exact).max())
    own, nested = errors
    assert nested < 5e-5
    assert nested < own / 5  # else the rewriting is of no more use


@pytest.mark.parametrize("cells", [(1, 1), (2, 2), (3, 3), (6, 6), (2, 5)])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 7), (12, 31)])
def test_pooling_by_shares_is_adaptive_pooling(cells, size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(PoolByShares(*cells)(x), nn.AdaptiveAvgPool2d(cells)(x), rtol=0, atol=1e-12)


def test_pools_to_more_than_one_cell_are_rewritten_and_no_others():
    network = nn.Sequential(*(nn.AdaptiveAvgPool2d(size) for size in (1, (1, 1), 3, (2, 6), (None, 4))))
    assert rewrite_pools(network) == 2
    assert [type(layer) is PoolByShares for layer in network] == [False, False, True, True, False]
    assert [(layer.rows, layer.columns) for layer in network[2:4]] == [(3, 3), (2, 6)]


def test_pools_of_any_size_reach_onnxruntime(tmp_path):
    network = nn.Sequential(nn.AdaptiveAvgPool2d(6)).eval()
    x = torch.randn(1, 2, 9, 13)
    expected = [network(x), network(x[..., :4, :5])]
    assert rewrite_pools(network) == 1
    sizes = {2: torch.export.Dim("height", min=1), 3: torch.export.Dim("width", min=1)}
    torch.onnx.export(network, (x,), tmp_path / "a.onnx", dynamo=True, input_names=["x"], dynamic_shapes=(sizes,), verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    for image, wanted in zip((x, x[..., :4, :5]), expected, strict=True):
        np.testing.assert_allclose(session.run(None, {"x": image.contiguous().numpy()})[0], wanted, atol=1e-6)
