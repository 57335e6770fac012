"""Networks of smp: what smp computes, for any size, with an operator in place of an interpolation and nothing else changed."""

import inspect
from functools import cache
from typing import get_args

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.nn.functional import interpolate

from segkit.architectures import ARCHITECTURES, REFUSED
from segkit.config import Decoder, TrainConfig, from_dict
from segkit.errors import SegkitError
from segkit.models import SMPNetwork, build_model
from segkit.models.fingerprint import initial_hash, operators
from segkit.upsampling import UPSAMPLERS, rewriting

TAKING = [name for name, its in ARCHITECTURES.items() if its.operators]
ALL = pytest.mark.parametrize("name", ARCHITECTURES)


def network(name, encoder="resnet18", **options):
    torch.manual_seed(0)
    return build_model(f"smp:{name}", 4, encoder=encoder, **options)


@cache
def plain(name):
    """One network for the tests that do not change it."""
    return network(name).eval()


def test_the_names_are_those_of_smp_but_for_the_refused():
    offered = {name for name, kind in vars(smp).items() if isinstance(kind, type) and issubclass(kind, smp.base.SegmentationModel)}
    assert set(ARCHITECTURES) == offered - set(REFUSED)
    assert {name for name in get_args(Decoder) if ":" in name} == {f"smp:{name}" for name in ARCHITECTURES}


@ALL
def test_the_table_says_what_smp_has(name):
    its, signature = ARCHITECTURES[name], inspect.signature(getattr(smp, name)).parameters
    assert its.depth == signature["encoder_depth"].default
    assert [option for option in signature if "dropout" in option] == [its.dropout] * (its.dropout is not None)


@ALL
def test_any_size(name):
    for size in ((1, 1), (33, 65), (50, 70)):
        with torch.no_grad():
            assert plain(name)(torch.randn(1, 3, *size)).shape == (1, 4, *size)


@ALL
def test_the_values_are_those_of_smps_own_network(name):
    ours = network(name).double().eval()
    for buffer in ours.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    theirs = getattr(smp, name)("resnet18", encoder_weights=None, classes=4).double().eval()
    theirs.load_state_dict(
        {k.replace("encoder.network.", "encoder.").replace(".upsample.", ".0."): v for k, v in ours.state_dict().items()}
    )
    x = torch.randn(1, 3, 128, 160, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-12)


@ALL
def test_every_weight_that_is_trained_gets_a_gradient_and_one_image_is_enough_where_it_is_said(name):
    net = network(name)
    assert net.training
    one, two = torch.randn(1, 3, 64, 64), torch.randn(2, 3, 40, 64)
    net(two).square().sum().backward()
    assert [key for key, p in net.named_parameters() if p.requires_grad and p.grad is None] == []
    assert any(p.requires_grad for p in net.encoder.parameters())
    if ARCHITECTURES[name].pooled:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            net(one)
    else:
        assert net(one).isfinite().all()


@pytest.mark.parametrize("name", TAKING)
def test_every_operator_has_its_place_and_the_rest_starts_alike(name):
    own = network(name)
    hashes, before = {initial_hash(own)}, own.state_dict()
    for operator in ("transpose", "pixel_shuffle"):
        net = network(name, upsample=operator)
        hashes.add(initial_hash(net))
        found = operators(net)
        assert len(found) == ARCHITECTURES[name].operators
        assert {type(module) for module in found.values()} == {UPSAMPLERS[operator]}
        assert all(module.in_channels == module.out_channels for module in found.values())
        assert net(torch.randn(2, 3, 33, 50)).shape == (2, 4, 33, 50)
    assert len(hashes) == 1
    state = network(name, upsample="transpose_k2").state_dict()  # which has seen no image
    assert all(torch.equal(state[key], value) for key, value in before.items() if ".upsample." not in key)


def test_the_faster_form_of_the_unet_is_equal_with_its_gradients():
    net, images, results = network("Unet").double(), torch.randn(2, 3, 64, 96, dtype=torch.float64), []
    for choice in ("on", "off"):
        with rewriting(choice):
            logits = net(images)
        results.append([logits, *torch.autograd.grad(logits.square().sum(), [p for p in net.parameters() if p.requires_grad])])
    for rewritten, own in zip(*results, strict=True):
        torch.testing.assert_close(rewritten, own, rtol=1e-9, atol=1e-9)


def test_the_faster_form_takes_an_encoder_without_features_at_the_finest_strides():
    net = network("Unet", encoder="mit_b0").eval()
    x = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        with rewriting("off"):
            own = net(x)
        torch.testing.assert_close(net(x), own, rtol=1e-4, atol=1e-4)


class Interpolate(nn.Module):
    """What smp's networks do, as an operator."""

    def __init__(self, c, d, scale=2, **how):
        super().__init__()
        assert c == d
        self.in_channels, self.how = c, {"scale_factor": scale, **how}

    def forward(self, x):
        return interpolate(x, **self.how)


class NearestNeighbour(Interpolate):
    def __init__(self, c, d, scale=2):
        super().__init__(c, d, scale, mode="nearest")


class Corners(Interpolate):
    def __init__(self, c, d, scale=2):
        super().__init__(c, d, scale, mode="bilinear", align_corners=True)


@pytest.mark.parametrize("name", [name for name in TAKING if name != "Linknet"])
def test_smps_own_interpolation_as_an_operator_changes_no_value(name):
    own = {"Unet": [NearestNeighbour] * 5, "FPN": [NearestNeighbour] * 3 + [Corners] * 7}
    swapped = network(name, upsample=own.get(name, Corners)).eval()
    x = torch.randn(2, 3, 70, 50)
    with torch.no_grad(), rewriting("off"):
        assert torch.equal(swapped(x), plain(name)(x))
        other = network(name, upsample=NearestNeighbour if name != "Unet" else Corners).eval()
        assert not torch.equal(other(x), plain(name)(x))


def test_the_transposed_convolution_of_linknet_is_our_operator():
    swapped = network("Linknet", upsample="transpose").eval()
    state = plain("Linknet").state_dict()
    swapped.load_state_dict({key.replace(".upsample.", ".upsample.conv."): value for key, value in state.items()})
    x = torch.randn(2, 3, 70, 50)
    with torch.no_grad():
        assert torch.equal(swapped(x), plain("Linknet")(x))


def test_operators_stand_from_coarse_to_fine_and_scores_start_as_interpolation():
    net = network("FPN", upsample=["nearest"] * 9 + ["transpose"], upsample_width=[8] * 10)
    found = operators(net)
    assert [name.split(".")[1] for name in found] == ["p4", "p3", "p2", *["seg_blocks"] * 6, "upsample"]
    kernel = list(found.values())[-1].operator.conv.weight
    assert kernel.count_nonzero() == 4 * 8 * 8  # four classes, each by itself
    assert network("FPN", upsample="transpose", upsample_init="smooth").segmentation_head.upsample.conv.weight.count_nonzero() > 4 * 64


def test_dropout_is_that_of_smp_unless_it_is_said():
    for name, default in (("FPN", 0.2), ("PSPNet", 0.2), ("DeepLabV3Plus", 0.5)):
        rates = [
            [m.p for m in net.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)] for net in (plain(name), network(name, dropout=0.3))
        ]
        assert rates == [[default], [0.3]]


def test_weights_from_a_file_and_other_channels(tmp_path):
    torch.manual_seed(7)
    state = smp.encoders.get_encoder("resnet18", weights=None).state_dict()
    torch.save(state, tmp_path / "weights.pt")
    for name in ("FPN", "DeepLabV3"):
        net = network(name, encoder_weights=str(tmp_path / "weights.pt"), in_channels=5)
        assert torch.equal(net.encoder.network.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
        assert net.encoder.network.conv1.weight.shape[1] == 5
        assert net(torch.randn(2, 5, 40, 70)).shape == (2, 4, 40, 70)
    with pytest.raises(SegkitError, match="no such file"):
        network("FPN", encoder_weights="nowhere.pt")


@pytest.mark.slow
@ALL
@pytest.mark.parametrize("encoder", ["mit_b0", "tu-convnext_atto", "tu-tf_efficientnet_lite0", "tu-swin_tiny_patch4_window7_224"])
def test_other_encoders_fit_or_are_refused_by_name(name, encoder):
    dilated, swin = {"DeepLabV3", "DeepLabV3Plus", "PAN"}, encoder.startswith("tu-swin")
    if (swin and name in dilated) or (encoder == "mit_b0" and name in ("UnetPlusPlus", "Linknet")):
        with pytest.raises(SegkitError, match=f"encoder {encoder!r} does not go with decoder 'smp:{name}'"):
            network(name, encoder)
        return
    net = network(name, encoder)
    net(torch.randn(2, 3, 70, 100)).sum().backward()
    assert [key for key, p in net.named_parameters() if p.requires_grad and p.grad is None] == []
    assert ARCHITECTURES[name].operators == 0 or network(name, encoder, upsample="nearest")(torch.randn(2, 3, 33, 70)).shape[2:] == (33, 70)


class Guided(nn.Module):
    guided = True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": "smp:FPN", "encoder": "plain"}, "encoder 'plain' of decoder 'smp:FPN': .* such as --encoder resnet18"),
        ({"decoder": "smp:MAnet", "upsample": "nearest"}, "upsample nearest of decoder 'smp:MAnet': .*choose one of smp:Unet, smp:Linknet"),
        ({"decoder": "smp:Unet", "upsample": ["nearest", "transpose"]}, "upsample lists 2 operators, the decoder has 5 stages"),
        ({"decoder": "smp:FPN", "upsample_init": "smooth"}, "upsample_init smooth of decoder 'smp:FPN': .*give --upsample too"),
        ({"decoder": "smp:FPN", "upsample_width": [3]}, r"upsample_width \[3\] of decoder 'smp:FPN'"),
        ({"decoder": "smp:Unet", "dropout": 0.1}, "dropout 0.1 of decoder 'smp:Unet': the network has no dropout"),
        ({"decoder": "smp:Unet", "norm": "group"}, "norm group of decoder 'smp:Unet': .*leave --norm out"),
        ({"decoder": "smp:Unet", "decoder_channels": [8, 8]}, r"decoder_channels \[8, 8\] of decoder 'smp:Unet'"),
        ({"decoder": "smp:DPT"}, "decoder 'smp:DPT': it takes a plain vision transformer"),
        ({"decoder": "smp:fpn"}, "unknown architecture of smp 'fpn'"),
        ({"decoder": "smp:Unett"}, "did you mean 'Unet'"),
        ({"decoder": "smp:Linknet", "encoder": "mit_b0"}, "encoder 'mit_b0' does not go with decoder 'smp:Linknet'"),
        ({"decoder": "smp:PAN", "encoder": "densenet121"}, "encoder 'densenet121' does not go with decoder 'smp:PAN'"),
        ({"decoder": "smp:Unet", "upsample": Guided}, "upsample Guided of decoder 'smp:Unet': it wants finer features as its guide"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name_in_one_line(options, message):
    options = {"encoder": "resnet18", **options}
    with pytest.raises(SegkitError, match=message) as error:
        build_model(num_classes=3, **options)
    assert "\n" not in str(error.value)
    if (
        "encoder 'mit" not in message and "densenet" not in message and "lists" not in message and "Guided" not in message
    ):  # before torch is there
        with pytest.raises(SegkitError, match=message):
            TrainConfig(**options)


def test_the_decoder_decides_what_is_not_said():
    ours, fpn = TrainConfig(), TrainConfig(decoder="smp:FPN", encoder="resnet18")
    assert (ours.upsample, ours.dropout) == ("transpose", 0.0)
    assert (fpn.upsample, fpn.dropout) == (None, None)
    assert from_dict(TrainConfig, vars(ours) | {"data": {}, "trainer": {}, "wandb": {}}) == ours
    with pytest.raises(SegkitError, match=r"--data.batch_size 1: smp:PAN normalises maps of one pixel .*give 2 or more"):
        from_dict(TrainConfig, {"decoder": "smp:PAN", "encoder": "resnet18", "data": {"batch_size": 1}})
    from_dict(TrainConfig, {"decoder": "smp:PSPNet", "encoder": "resnet18", "data": {"batch_size": 1}})


def test_the_class_is_what_build_model_gives():
    assert isinstance(plain("FPN"), SMPNetwork)
    assert build_model("unet", 2, encoder="plain", decoder_channels=(4,)).stages[0].upsample.__class__ is UPSAMPLERS["transpose"]
