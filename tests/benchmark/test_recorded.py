"""What is recorded as CUDA graphs; that it can be is seen on a card, by `benchmark.py train`."""

import pytest
import torch

from segkit.benchmark import train
from segkit.benchmark.bench import Bench
from segkit.benchmark.recorded import NetworkAndLoss
from segkit.config import BenchmarkConfig
from segkit.losses import build_loss
from segkit.models import UNet


def test_what_is_recorded_is_the_network_and_its_loss():
    torch.manual_seed(0)
    network, loss = UNet(3, encoder="plain", decoder_channels=(8, 8)), build_loss("ce_dice", num_classes=3)
    images, masks = torch.randn(2, 3, 16, 16), torch.randint(3, (2, 16, 16))
    passes = NetworkAndLoss(network, loss)
    torch.testing.assert_close(passes(images, masks), loss(network(images), masks))
    assert {id(p) for p in passes.parameters()} == {id(p) for p in network.parameters()}  # all of them get their gradients


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a graphics card, on which it can be recorded")
def test_a_form_that_cannot_be_had_is_a_line_and_the_others_are_timed(monkeypatch):
    monkeypatch.setattr(train, "FORMS", ("eager", "CUDA graphs"))
    config = BenchmarkConfig(seconds=0, size=32, batch=2, upsample=["transpose"], device="cpu")
    rows, failed = train._forms(Bench(config, torch.device("cpu"), frozenset()))
    assert rows == []
    assert len(failed) == 1
    assert failed[0].startswith("CUDA graphs: ")
