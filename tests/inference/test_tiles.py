import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from segkit.inference import infer
from segkit.inference.grid import spans
from segkit.inference.tiles import score_blocks
from segkit.models import UNet


def picture(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def pointwise(images):
    """3 channels to 4 classes, each pixel for itself."""
    x = images.float() / 255
    return torch.stack([x[:, 0], 1 - x[:, 1], x[:, 2] * x[:, 0], x.mean(1)], dim=1)


@pytest.fixture(scope="module")
def convolutions():
    """Sees 2 pixels to each side."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)).double()
    return lambda images: net(images.double() / 255)


def inner(length, tile, overlap, radius):
    """Which pixels lie further than `radius` from the border of every tile that covers them, the image's own aside."""
    found = spans(length, tile, overlap)
    good = np.ones(length, bool)
    for span in found:
        if span.start > 0:
            good[span.start : span.start + radius] = False
        if span.stop < length:
            good[span.stop - radius : span.stop] = False
    return good


@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    tile=st.integers(1, 160),
    overlap=st.floats(0, 0.9),
    batch_size=st.integers(1, 5),
)
@settings(max_examples=40, deadline=None)
def test_a_pointwise_network_scores_as_untiled_at_every_size(height, width, tile, overlap, batch_size):
    tile = max(tile, max(height, width) // 8)
    images = picture(2, 3, height, width)
    got = infer(pointwise, images, tile=tile, overlap=overlap, batch_size=batch_size)
    assert got.shape == (2, 4, height, width)
    torch.testing.assert_close(got, pointwise(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("size", "tile", "overlap"), [((97, 131), 48, 0.25), ((200, 150), 64, 0.5), ((61, 300), 96, 0.0)])
def test_pixels_further_from_tile_borders_than_the_network_sees_score_as_untiled(convolutions, size, tile, overlap):
    images = picture(1, 3, *size)
    with torch.no_grad():
        whole = convolutions(images).float()
    tiled = infer(convolutions, images, tile=tile, overlap=overlap)
    good = torch.from_numpy(np.outer(inner(size[0], tile, overlap, 2), inner(size[1], tile, overlap, 2)))
    assert good.float().mean() > 0.5
    difference = (tiled - whole).abs().amax(1)[0]
    assert difference[good].max() < 1e-6
    assert difference[~good].max() > 1e-4  # the borders do differ: the statement above is no accident


def test_a_network_that_reduces_its_input_sees_the_same_grid_in_tiles_as_in_the_image():
    """U-Net of three stages: reduces 8 times, sees at most 76 pixels to each side, so a tile's middle is untouched by its borders."""
    torch.manual_seed(0)
    net = UNet(3, "plain", decoder_channels=(8, 8, 8)).eval().double()
    images = picture(1, 3, 301, 90)
    with torch.no_grad():
        whole = net(images.double() / 255).float()
    tiled = infer(lambda x: net(x.double() / 255), images, tile=256, overlap=0.6)
    good = torch.from_numpy(inner(301, 256, 0.6, 76))
    assert 20 < good.sum() < 300
    assert (tiled - whole).abs()[:, :, good].max() < 1e-5
    shifted = torch.zeros_like(whole)
    with torch.no_grad():  # the same window, 5 pixels further: another phase of the pooling, another result
        shifted[:, :, 5:] = net(images[:, :, 5:].double() / 255).float()
    assert (shifted - whole).abs()[:, :, good].max() > 1e-3


def test_blocks_and_the_whole_agree_bit_for_bit(convolutions):
    images = picture(1, 3, 150, 190)
    whole = infer(convolutions, images, tile=64, overlap=0.3)
    seen = 0
    for top, left, block in score_blocks(convolutions, lambda a, b: images[:, :, a:b], (150, 190), tile=64, overlap=0.3, batch_size=1):
        assert torch.equal(block, whole[:, :, top : top + block.shape[2], left : left + block.shape[3]])
        seen += block.shape[2] * block.shape[3]
    assert seen == 150 * 190


def test_rows_are_read_once_per_row_of_tiles_and_never_more_than_one_tile_high():
    images, asked = picture(1, 3, 500, 40), []

    def read(a, b):
        asked.append((a, b))
        return images[:, :, a:b]

    heights = [block.shape[2] for _, _, block in score_blocks(pointwise, read, (500, 40), tile=128, overlap=0.25, batch_size=3)]
    assert sum(heights) == 500
    assert max(b - a for a, b in asked) <= 128
    assert asked == [(s.start, s.stop) for s in spans(500, 128, 0.25)]


def test_without_tiles_the_scores_are_the_networks_own(convolutions):
    images = picture(2, 3, 33, 20)
    assert torch.equal(infer(convolutions, images), convolutions(images).float())
    assert torch.equal(infer(convolutions, images, tile=33), convolutions(images).float())
    assert not infer(convolutions, images, tile=16).requires_grad


def test_the_output_of_a_network_is_not_written_to():
    fixed = torch.ones(1, 2, 64, 64)
    infer(lambda x: fixed[..., : x.shape[2], : x.shape[3]], picture(1, 3, 100, 64), tile=64)
    assert (fixed == 1).all()


def test_sixteen_bits_go_through_tiles():
    images = (torch.arange(3 * 70 * 90) % 65536).to(torch.uint16).view(1, 3, 70, 90)
    got = infer(lambda x: x.float(), images, tile=48, tta=["hflip"])
    torch.testing.assert_close(got.softmax(1), images.float().softmax(1), atol=1e-4, rtol=0)
