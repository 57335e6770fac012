"""The numpy path against the torch path: another implementation of the same definition."""

import numpy as np
import pytest
import torch
from torch import nn

from segkit.errors import RunFailed
from segkit.inference import arrays, infer

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (150, 190, 3), np.uint8)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 5, padding=2).requires_grad_(False)
    return lambda images: conv(images.float() / 255)


@pytest.mark.parametrize("tta", [(), ("hflip",), ("hflip", "vflip")])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_labels_and_probabilities_are_those_of_tensors(network, tta, batch_size):
    expected = infer(network, torch.from_numpy(IMAGE.transpose(2, 0, 1).copy())[None], tile=64, overlap=0.3, tta=tta)[0]
    found = list(
        arrays.bands(
            lambda x: network(torch.from_numpy(x)).numpy(),
            lambda a, b: IMAGE[a:b],
            (150, 190),
            tile=64,
            overlap=0.3,
            tta=tta,
            batch_size=batch_size,
            probabilities=True,
        )
    )
    assert [band.top for band in found] == list(np.cumsum([0, *(len(band.labels) for band in found[:-1])]))
    labels = np.concatenate([band.labels for band in found])
    sure = expected.topk(2, dim=0).values
    sure = (sure[0] - sure[1]).numpy() > 1e-4
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(labels[sure], expected.argmax(0).numpy()[sure])
    shares = np.concatenate([band.probabilities for band in found], axis=1)
    assert np.abs(shares - 255 * expected.softmax(0).numpy()).max() < 0.51


def test_a_score_that_is_no_number_is_no_label():
    def broken(images):
        scores = np.zeros((len(images), 2, *images.shape[2:]), np.float32)
        scores[0, 1, 0, 0] = np.nan
        return scores

    with pytest.raises(RunFailed, match="NaN"):
        list(arrays.bands(broken, lambda a, b: IMAGE[a:b], (150, 190), tile=64, overlap=0.0))
