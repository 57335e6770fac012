"""Pretrained weights: strict, adapted, never guessed."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from segkit.errors import SegkitError
from segkit.models import UNet, encoders
from segkit.models.encoders import build_encoder, normalization


def resnet18_state():
    """A torchvision-style file: the names that torchvision, timm and smp share, classifier included."""
    torch.manual_seed(5)
    return timm.create_model("resnet18").state_dict()


def saved(tmp_path, state, suffix="pt"):
    path = tmp_path / f"weights.{suffix}"
    torch.save(state, path) if suffix == "pt" else save_file(state, path)
    return str(path)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("name", ["resnet18", "tu-resnet18"])
def test_a_local_file_gives_the_features_of_the_network_it_came_from(tmp_path, suffix, name):
    state = resnet18_state()
    oracle = timm.create_model("resnet18").eval()
    oracle.load_state_dict(state)
    encoder = build_encoder(name, weights=saved(tmp_path, state, suffix)).eval()
    x = torch.randn(1, 3, 64, 64)
    expected = oracle.forward_intermediates(x, intermediates_only=True)
    for feature, wanted in zip(encoder(x)[2:], expected[1:], strict=True):
        torch.testing.assert_close(feature, wanted)


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_the_first_layer_is_adapted_so_that_grey_images_keep_their_response(tmp_path, channels):
    path = saved(tmp_path, resnet18_state())
    rgb, other = (build_encoder("resnet18", c, weights=path).eval() for c in (3, channels))
    grey = torch.rand(1, 1, 64, 64)
    expected = rgb(grey.expand(1, 3, 64, 64))[1]
    if channels in (1, 6):  # whole multiples of three input slices, or their sum
        torch.testing.assert_close(other(grey.expand(1, channels, 64, 64))[1], expected, rtol=1e-4, atol=1e-5)
    weight, original = other.state_dict()["network.conv1.weight"], rgb.state_dict()["network.conv1.weight"]
    if channels > 1:
        for c in range(channels):
            torch.testing.assert_close(weight[:, c], original[:, c % 3] * 3 / channels)


def test_what_does_not_fit_is_refused_with_the_reason(tmp_path):
    state = resnet18_state()
    lacking = {k: v for k, v in state.items() if k != "layer2.0.conv1.weight"}
    with pytest.raises(SegkitError, match=r"it lacks layer2.0.conv1.weight \(1 tensors\)"):
        build_encoder("resnet18", weights=saved(tmp_path, lacking))
    with pytest.raises(SegkitError, match="has more than this encoder: layer3.9.conv1.weight"):
        build_encoder("resnet18", weights=saved(tmp_path, {**state, "layer3.9.conv1.weight": torch.zeros(1)}))
    with pytest.raises(SegkitError, match="has another shape for layer1.0.bn1.bias"):
        build_encoder("resnet18", weights=saved(tmp_path, {**state, "layer1.0.bn1.bias": torch.zeros(3)}))
    with pytest.raises(SegkitError, match="no such file"):
        build_encoder("resnet18", weights=str(tmp_path / "none.pt"))
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    with pytest.raises(SegkitError, match="cannot be read"):
        build_encoder("resnet18", weights=str(tmp_path / "broken.safetensors"))
    with pytest.raises(SegkitError, match="holds no state dict"):
        build_encoder("resnet18", weights=saved(tmp_path, {"epoch": 3}))


def test_a_failed_download_is_one_line_and_no_silent_random_start(monkeypatch):
    import segmentation_models_pytorch as smp

    def unreachable(*args, **kwargs):
        raise OSError("first line\nsecond line")

    monkeypatch.setattr(encoders, "_no_network", lambda: "")  # the network is there, and the download fails
    monkeypatch.setattr(smp.encoders, "get_encoder", unreachable)
    with pytest.raises(SegkitError, match="could not be downloaded or loaded .*first line.*give a local") as error:
        UNet(2, "resnet18", "imagenet")
    assert "\n" not in str(error.value)


def test_real_imagenet_weights_equal_timms_network(shared):
    path = str(shared / "weights" / "tf_efficientnet_lite0.safetensors")
    encoder = build_encoder("tu-tf_efficientnet_lite0", weights=path).eval()
    oracle = timm.create_model("tf_efficientnet_lite0", checkpoint_path=path).eval()
    x = torch.randn(1, 3, 96, 64)
    for feature, wanted in zip(encoder(x)[1:], oracle.forward_intermediates(x, intermediates_only=True), strict=True):
        torch.testing.assert_close(feature, wanted)


def test_normalisation_belongs_to_the_weights():
    assert normalization("tu-tf_efficientnet_lite0") == ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    assert normalization("plain")[0] == [0.485, 0.456, 0.406]
    assert normalization("resnet34", 4)[0] == [pytest.approx((0.485 + 0.456 + 0.406) / 3)] * 4
