"""Batch norms folded into convolutions: equal in float64, and only where nothing else reads the convolution."""

import pytest
import torch
from torch import nn

from segkit.export import capture, fold_batch_norms
from segkit.export.table import small_task


def randomize(network):
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.1, 3.0)
            if norm.affine:
                nn.init.normal_(norm.weight)
                nn.init.normal_(norm.bias)
    return network.double().eval()


def folded(network, x):
    """How many norms were folded, what it computes then, and what it computed before."""
    graph = torch.export.export(network, (x,)).module(check_guards=False)
    count = fold_batch_norms(graph)
    torch.export.export(graph, (x,))  # still a graph
    return count, graph(x), network(x)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    "conv",
    [
        lambda bias: nn.Conv2d(6, 4, 3, stride=2, padding=1, bias=bias),
        lambda bias: nn.Conv2d(6, 4, 3, padding=2, dilation=2, groups=2, bias=bias),
        lambda bias: nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1, bias=bias),
        lambda bias: nn.ConvTranspose2d(6, 4, 3, stride=2, output_padding=1, groups=2, bias=bias),
    ],
)
def test_a_norm_behind_a_convolution_is_folded(conv, affine, bias):
    network = randomize(nn.Sequential(conv(bias), nn.BatchNorm2d(4, affine=affine), nn.ReLU()))
    count, after, before = folded(network, torch.randn(2, 6, 7, 9, dtype=torch.float64))
    assert count == 1
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)


def test_the_weights_by_hand():
    conv, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0)
    for value, number in zip(
        (conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias), (3, 5, 1, 4, 6, 7), strict=True
    ):
        nn.init.constant_(value, number)
    network = nn.Sequential(conv, norm).eval()
    graph = torch.export.export(network, (torch.zeros(1, 1, 2, 2),)).module(check_guards=False)
    assert fold_batch_norms(graph) == 1
    assert {name: value.item() for name, value in graph.state_dict().items()} == {
        "0.weight": 9.0,
        "0.bias": 19.0,
    }  # 6 (3 x + 5 - 1) / 2 + 7


class Twice(nn.Module):
    """A convolution whose result is read beside the norm, and one layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.read_twice, self.called_twice = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, x):
        y = self.read_twice(x)
        y = y + self.norms[0](y)
        return self.norms[1](self.called_twice(y)) + self.called_twice(x) + self.norms[2](y + x)


def test_where_folding_would_be_wrong_nothing_is_folded():
    count, after, before = folded(randomize(Twice()), torch.randn(1, 3, 5, 6, dtype=torch.float64))
    assert count == 0
    assert torch.equal(after, before)


def proven(decoder, operator, encoder="plain"):
    """Largest difference in float64 between the task and its graph, both rewritten and folded, relative to the largest logit."""
    task = small_task(decoder, operator, encoder).double()
    task.mean, task.scale = task.mean.double(), task.scale.double()
    program = capture(task)
    assert not any("batch_norm" in str(node.target) for node in program.graph.nodes)
    run, worst = program.module(), 0.0
    for batch, h, w in ((1, 1, 1), (1, 97, 131), (2, 64, 96)):
        image = torch.randint(256, (batch, 3, h, w), dtype=torch.uint8)
        with torch.no_grad():
            expected = task(image)
            worst = max(worst, ((run(image) - expected).abs().max() / expected.abs().max()).item())
    return worst


@pytest.mark.parametrize(("decoder", "operator"), [("unet", "transpose"), ("fcn8s", "nearest")])
def test_whole_networks_are_equal_in_float64(decoder, operator):
    assert proven(decoder, operator) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["plain", "resnet18", "efficientnet-b0", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("decoder", ["unet", "fcn8s", "fcn16s", "fcn32s"])
@pytest.mark.parametrize("operator", ["bilinear", "nearest", "pixel_shuffle", "transpose", "transpose_k2"])
def test_every_network_is_equal_in_float64(decoder, operator, encoder):
    assert proven(decoder, operator, encoder) < 1e-12
