"""Gradient checkpointing: the same bits, fewer tensors kept."""

import copy

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from segkit.config import TrainConfig
from segkit.errors import SegkitError
from segkit.models import build_model
from segkit.models.recompute import recompute_activations, same_statistics

NETWORKS = {
    "unet": {"decoder_channels": (16, 8, 8), "dropout": 0.5},
    "unet over resnet18": {"encoder": "resnet18", "upsample": "fade", "decoder_channels": (16, 8, 8)},
    "fcn8s": {"decoder": "fcn8s"},
    "smp:FPN": {"decoder": "smp:FPN", "encoder": "resnet18"},
}


def build(name):
    options = NETWORKS[name]
    torch.manual_seed(0)
    return build_model(options.get("decoder", "unet"), 3, **({"encoder": "plain"} | {k: v for k, v in options.items() if k != "decoder"}))


def step(network, images):
    """The gradients of a step and how many values were kept for them."""
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    torch.manual_seed(1)  # of dropout
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = network(images).square().mean()
    loss.backward()
    return [p.grad for p in network.parameters() if p.requires_grad], sum(kept)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_and_statistics_are_equal_to_the_bit_and_less_is_kept(name):
    plain, images = build(name), torch.randn(2, 3, 64, 64)
    again = copy.deepcopy(plain)
    recompute_activations(again)
    for _ in range(2):
        (expected, all_kept), (found, kept) = step(plain, images), step(again, images)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert kept < all_kept
        for (key, a), b in zip(again.state_dict().items(), plain.state_dict().values(), strict=True):
            assert torch.equal(a, b), key
    with torch.no_grad():
        assert torch.equal(again.eval()(images), plain.eval()(images))


def test_with_compilation_it_is_refused():
    with pytest.raises(SegkitError, match="--recompute true with --compile true: .* leave one of them out"):
        TrainConfig(recompute=True, compile=True)


def test_a_network_without_such_parts_says_so():
    with pytest.raises(SegkitError, match="--recompute true: no part of this network"):
        recompute_activations(build_model("fcn8s", 3, encoder="resnet18"))


def test_synchronised_batch_norms_do_not_count_a_batch_twice_either():
    norm = torch.nn.SyncBatchNorm(3)
    norm.num_batches_tracked.fill_(7)
    with same_statistics(torch.nn.Sequential(norm)):
        assert norm.momentum == 0
        norm.num_batches_tracked += 2
    assert (norm.momentum, norm.num_batches_tracked.item()) == (0.1, 7)
