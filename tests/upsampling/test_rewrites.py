"""Equal and faster forms of operators: values and gradients in float64, and which form is taken."""

from types import SimpleNamespace

import pytest
import torch

from segkit.errors import SegkitError
from segkit.models import UNet
from segkit.models.smp_networks import NearestUnetStage
from segkit.upsampling import UPSAMPLERS, Nearest, rewriting
from segkit.upsampling.interpolate import fold_nearest
from segkit.upsampling.rewrite import FASTER, _large


@pytest.mark.parametrize("scale", [2, 3, 4, 5])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 7)])
def test_nearest_and_its_convolution_as_one_transposed_convolution(scale, size):
    operator = Nearest(3, 4, scale).double()
    operator.reset_parameters("standard")
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    results = []
    for choice in ("on", "off"):
        with rewriting(choice):
            out = operator(x)
        results.append([out, *torch.autograd.grad(out.square().sum(), [x, *operator.parameters()])])
    for rewritten, plain in zip(*results, strict=True):
        torch.testing.assert_close(rewritten, plain, rtol=1e-12, atol=1e-11)
    assert torch.equal(results[1][0], operator.plain(x))


def test_the_folded_kernel_by_hand():
    weight = (torch.tensor([[1.0, 2, 4]]).T @ torch.tensor([[0.0, 1, 0]])).view(1, 1, 3, 3)
    assert fold_nearest(weight, 2)[0, 0].tolist() == [[0, w, w, 0] for w in (4, 6, 3, 1)]  # w2, w1 + w2, w0 + w1, w0


def test_a_whole_network_has_the_same_logits_and_gradients_either_way():
    torch.manual_seed(0)
    network, x = UNet(3, "plain", upsample="nearest", decoder_channels=(8, 8)).double(), torch.randn(2, 3, 20, 12, dtype=torch.float64)
    results = []
    for choice in ("on", "off"):
        with rewriting(choice):
            logits = network(x)
        results.append([logits, *torch.autograd.grad(logits.square().sum(), list(network.parameters()))])
    for rewritten, plain in zip(*results, strict=True):
        torch.testing.assert_close(rewritten, plain, rtol=1e-9, atol=1e-9)


def test_the_faster_form_is_taken_where_it_was_measured(monkeypatch):
    operator, x, taken = Nearest(2, 2), torch.randn(4, 2, 8, 8), []
    monkeypatch.setattr(operator, "plain", lambda x: taken.append("plain"))
    for kinds, autocast, expected in (((torch.float32,), False, []), ((), False, ["plain"]), ((torch.float32,), True, ["plain"])):
        monkeypatch.setitem(FASTER, "nearest", {"cpu": kinds})
        taken.clear()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):  # the type of the arithmetic counts, not that of the input
            operator(x)
        assert taken == expected
    taken.clear()
    monkeypatch.setitem(FASTER, "nearest", {"cpu": (torch.float32,)})
    operator(x[:3])  # too few pixels for folding to pay
    assert taken == ["plain"]
    with rewriting("on"):
        operator(x)
        with rewriting("off"):
            operator(x)
        operator(x)
    assert taken == ["plain"] * 2


def test_a_graphics_card_takes_it_for_large_batches_and_in_graphs(monkeypatch):
    """Starting the kernels that fold the weights costs a card more than folding them."""
    small, large = (SimpleNamespace(device=torch.device("cuda"), numel=lambda n=n: n) for n in (2**24 - 1, 2**24))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert (_large(small), _large(large)) == (False, True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert _large(small)


def test_what_is_rewritten_has_a_plain_form_beside_it():
    forms = {**UPSAMPLERS, "smp:Unet": NearestUnetStage}
    assert all(hasattr(forms[name], "plain") for name in FASTER)


def test_an_unknown_choice_is_named():
    with pytest.raises(SegkitError, match="unknown rewriting 'never'; choose from auto, off, on"), rewriting("never"):
        raise AssertionError
