import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segkit.errors import SegkitError
from segkit.inference import infer
from segkit.inference.augment import resize


def picture(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 5, padding=2)
    return lambda images: conv(images.float() / 255)


def test_flips_average_the_probabilities_of_every_combination(network):
    images = picture(2, 3, 9, 14)
    with torch.no_grad():
        turned = [(), (3,), (2,), (2, 3)]
        expected = sum(network(images.flip(d)).softmax(1).flip(d) for d in turned) / 4
        one = (network(images).softmax(1) + network(images.flip(2)).softmax(1).flip(2)) / 2
    both = infer(network, images, tta=["hflip", "vflip"])
    torch.testing.assert_close(both.softmax(1), expected)
    torch.testing.assert_close(both.exp(), expected)
    torch.testing.assert_close(infer(network, images, tta=["vflip"]).softmax(1), one)
    torch.testing.assert_close(infer(network, images, tta=["hflip", "hflip"]), infer(network, images, tta=["hflip"]))


def test_a_flipped_image_has_the_flipped_scores(network):
    images = picture(1, 3, 12, 10)
    scores = infer(network, images, tta=["hflip", "vflip"])
    assert (infer(network, images) - infer(network, images.flip(3)).flip(3)).abs().max() > 0.01
    for dims in ((2,), (3,), (2, 3)):
        torch.testing.assert_close(infer(network, images.flip(dims), tta=["hflip", "vflip"]).flip(dims), scores)


def test_a_network_that_flips_with_its_input_gains_nothing():
    def mirror_symmetric(images):
        x = F.avg_pool2d(images.float(), 3, 1, 1) / 64
        return torch.cat([x, -x[:, :1]], 1)

    images = picture(1, 3, 20, 30)
    plain = infer(mirror_symmetric, images).softmax(1)
    torch.testing.assert_close(infer(mirror_symmetric, images, tta=["hflip", "vflip"]).softmax(1), plain, atol=1e-6, rtol=1e-5)


def test_sizes_average_probabilities_that_are_resized_back(network):
    images = picture(1, 3, 20, 31)
    with torch.no_grad():
        total = network(images).softmax(1)
        for size in ((10, 16), (30, 46)):  # round(15.5) = 16, round(46.5) = 46: halves to even
            small = F.interpolate(images.float(), size, mode="bilinear", antialias=True).round()
            total += F.interpolate(network(small).softmax(1), (20, 31), mode="bilinear", antialias=True)
    got = infer(network, images, scales=[0.5, 1.0, 1.5])
    torch.testing.assert_close(got.exp(), total / 3)
    torch.testing.assert_close(got.exp().sum(1), torch.ones(1, 20, 31))


def test_resized_images_keep_their_type_a_constant_its_value_and_shrink_without_aliasing():
    for dtype, value in ((torch.uint8, 200), (torch.uint16, 51234)):
        images = torch.full((1, 1, 9, 7), value, dtype=torch.int32).to(dtype)
        out = resize(images, 0.5)
        assert out.dtype == dtype
        assert out.shape == (1, 1, 4, 4)
        assert (out.int() == value).all()
    lines = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    lines[..., ::4] = 200  # thin lines: a sampler without a filter would drop them or keep them, not fade them
    inside = resize(lines, 0.25)[..., 2:-2].float()
    assert inside.min() >= 40  # 200 / 4 = 50
    assert inside.max() <= 60
    assert resize(torch.zeros(1, 3, 1, 1, dtype=torch.uint8), 0.1).shape == (1, 3, 1, 1)


def test_certain_classes_stay_finite():
    scores = infer(lambda x: torch.stack([x[:, 0].float() * 1e4, -x[:, 0].float() * 1e4], 1), picture(1, 3, 8, 8), tta=["hflip"])
    assert scores.isfinite().all()


def test_an_unknown_flip_is_named():
    with pytest.raises(SegkitError, match="unknown flip 'hfilp'; did you mean 'hflip'"):
        infer(lambda x: x, picture(1, 3, 4, 4), tta=["hfilp"])
