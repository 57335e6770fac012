"""Feature maps: what is recorded is what passes through the operators, and every pixel shown is a pixel of a map."""

import numpy as np
import pytest
import torch
from torch import nn

from segkit.errors import SegkitError
from segkit.figures import Network, Stage, draw_features, record_stages
from segkit.figures.features import GAP, choose_window, tile_maps
from segkit.metrics import operator_index
from segkit.models import FCN, UNet
from segkit.models.fingerprint import operators


class Float(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images / 255)


def test_the_operators_of_both_decoders_are_found():
    assert list(operators(UNet(2, "plain", decoder_channels=(8, 4)))) == ["stages.0.upsample", "stages.1.upsample"]
    assert list(operators(FCN(2, "16s", "plain"))) == ["upsamplers.0", "upsamplers.1"]


def test_what_is_recorded_has_passed_through_the_operator():
    model = UNet(2, "plain", upsample=["transpose", "nearest"], upsample_init="standard", decoder_channels=(8, 4))
    image = np.random.default_rng(0).integers(0, 256, (30, 42, 3), np.uint8)
    stages = record_stages(model, Float(model), image)
    assert [(tuple(s.before.shape), tuple(s.after.shape)) for s in stages] == [
        ((16, 8, 11), (8, 16, 22)),
        ((8, 16, 22), (4, 32, 44)),
    ]
    for stage, operator in zip(stages, operators(model).values(), strict=True):
        with torch.no_grad():
            torch.testing.assert_close(operator(stage.before[None])[0], stage.after)
        assert stage.index == pytest.approx(operator_index(operator))
        assert not operator._forward_hooks
    assert not model.training


def made(sizes, channels=3):
    return Network("made up", [Stage(torch.rand(channels, n, n), torch.rand(channels, 2 * n, 2 * n), 0.5) for n in sizes])


def test_the_window_falls_between_pixels_of_every_map():
    window = choose_window([made([5, 10])], (20, 20), crop=12)
    assert (window.top, window.left, window.side) == (4, 4, 12)
    maps = torch.arange(100.0).view(1, 10, 10)  # stride 2
    assert window.cut(maps, 2).tolist() == maps[:, 2:8, 2:8].tolist()
    assert choose_window([made([5, 10])], (20, 20)).side == 20
    assert choose_window([made([5, 10]), made([3, 6, 12])], (19, 18)).side == 16  # padded more than shown
    assert choose_window([made([50, 100])], (190, 200)).side == 128
    assert choose_window([made([2, 4])], (3, 2)).side == 4  # less than a coarse pixel
    for crop in (10, 24):
        with pytest.raises(SegkitError, match=f"--crop {crop}: give a multiple of 4, the coarsest stride, up to 20"):
            choose_window([made([5, 10])], (20, 20), crop)


def test_tiles_are_enlarged_maps_in_the_order_of_their_variance():
    step = torch.tensor([[0.0, 1], [0, 1]])
    maps = torch.stack([step, 7 - 2 * step, torch.ones(2, 2)])
    sheet = tile_maps(maps, channels=4, across=2, side=6, cell=1)
    assert sheet.shape == (12 + GAP, 12 + GAP)
    left, right = np.s_[:6, :6], np.s_[:6, -6:]
    assert sheet[left].tolist() == [[1, 1, 1, 0, 0, 0]] * 6  # the second map, of variance 1
    assert sheet[right].tolist() == [[0, 0, 0, 1, 1, 1]] * 6
    assert sheet[-6:, :6].max() == 0  # a constant is black, not noise
    assert sheet[-6:, -6:].min() == 1  # there is no fourth


def test_a_grid_does_not_decide_which_maps_are_shown():
    grid = 10 * (torch.arange(8) % 2).float().expand(8, 8)
    ramp = torch.arange(8.0).expand(8, 8)
    assert tile_maps(torch.stack([grid, ramp]), 1, 1, 8, cell=1)[0].tolist() == [0, 1] * 4
    np.testing.assert_allclose(tile_maps(torch.stack([grid, ramp]), 1, 1, 8, cell=2)[0], np.arange(8) / 7, rtol=1e-6)


@pytest.mark.parametrize("networks", [1, 3])
def test_a_pixel_of_a_map_is_a_whole_number_of_dots(networks):
    figure = draw_features([made([4, 8], channels=5)] * networks, np.zeros((32, 32, 3), np.uint8), "an image", channels=4)
    assert len(figure.axes) == 1 + networks * 4
    for ax in figure.axes[1:]:
        box, pixels = ax.get_window_extent(), ax.images[0].get_array().shape
        assert (box.width, box.height) == pytest.approx((pixels[1], pixels[0]), abs=1e-6)
    texts = [text.get_text() for text in figure.texts]
    assert texts.count("in 5 x 4 x 4") == texts.count("out 5 x 16 x 16, CI 0.50") == networks
    assert "stage 2" in texts
