"""`same` padding as a constant: what timm pads by where strides divide sizes."""

import copy

import pytest
import torch
from torch import nn

from segkit.models.encoders import build_encoder, fix_padding


@pytest.mark.parametrize("kernel", [1, 3, 5, (3, 7)])
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("dilation", [1, 2])
def test_it_is_what_timm_computes(kernel, stride, dilation):
    from timm.layers.conv2d_same import Conv2dSame

    same = nn.Sequential(Conv2dSame(4, 6, kernel, stride, dilation=dilation, groups=2))
    fixed = copy.deepcopy(same)
    fix_padding(fixed)
    assert not isinstance(fixed[0], Conv2dSame)
    x = torch.randn(1, 4, 8, 20)
    assert torch.equal(fixed(x), same(x))


def test_a_whole_encoder_keeps_its_features_and_weights():
    encoder = build_encoder("tf_efficientnet_lite0", 3, 5).eval()
    fixed = copy.deepcopy(encoder)
    fix_padding(fixed)
    x = torch.randn(1, 3, 64, 96)
    for a, b in zip(encoder(x), fixed(x), strict=True):
        assert torch.equal(a, b)
    assert sum(p.numel() for p in fixed.parameters()) == sum(p.numel() for p in encoder.parameters())
