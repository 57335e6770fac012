"""U-Net against networks built by hand, and what every network promises."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm, conv2d, conv_transpose2d, interpolate, max_pool2d, relu

from segkit.errors import SegkitError
from segkit.models import DECODERS, FCN, UNet, build_model
from segkit.upsampling import UPSAMPLERS, Bilinear

SMALL = (16, 8, 8, 8, 8)


def network(decoder, encoder="plain", upsample="transpose", **options):
    torch.manual_seed(0)
    return build_model(decoder, 4, decoder_channels=SMALL, encoder=encoder, upsample=upsample, **options)


def block(state, name, x):
    """conv-norm-ReLU twice, with the weights of `name`, in evaluation mode."""
    for i in (0, 1):
        x = conv2d(x, state[f"{name}.{i}.0.weight"], padding=1)
        norm = [state[f"{name}.{i}.1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        x = relu(batch_norm(x, *norm))
    return x


def test_unet_equals_the_network_written_out_by_hand():
    torch.manual_seed(0)
    net = UNet(3, "plain", upsample=["transpose_k2", "bilinear"], decoder_channels=(8, 4)).eval()
    for buffer in net.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    s = net.state_dict()
    x = torch.randn(2, 3, 8, 12)
    fine = block(s, "encoder.levels.0", x)
    middle = block(s, "encoder.levels.1", max_pool2d(fine, 2))
    coarse = block(s, "encoder.levels.2", max_pool2d(middle, 2))
    up = conv_transpose2d(coarse, s["stages.0.upsample.conv.weight"], s["stages.0.upsample.conv.bias"], stride=2)
    up = block(s, "stages.0.convs", torch.cat([up, middle], 1))
    up = conv2d(
        interpolate(up, scale_factor=2, mode="bilinear"), s["stages.1.upsample.conv.weight"], s["stages.1.upsample.conv.bias"], padding=1
    )
    up = block(s, "stages.1.convs", torch.cat([up, fine], 1))
    torch.testing.assert_close(net(x), conv2d(up, s["classifier.weight"], s["classifier.bias"], padding=1), rtol=1e-4, atol=1e-5)


def test_fcn8s_equals_the_network_written_out_by_hand():
    torch.manual_seed(0)
    net = FCN(3, "8s", "plain").eval()
    x = torch.randn(1, 3, 64, 96)
    features = net.encoder(x)
    s = net.state_dict()
    scores = [conv2d(f, s[f"scores.{i}.weight"], s[f"scores.{i}.bias"]) for i, f in enumerate(features[:-4:-1])]
    up = [
        lambda z, i=i, c=c: conv_transpose2d(z, s[f"upsamplers.{i}.conv.weight"], s[f"upsamplers.{i}.conv.bias"], stride=c, padding=c // 2)
        for i, c in enumerate((2, 2, 8))
    ]
    torch.testing.assert_close(net(x), up[2](up[1](up[0](scores[0]) + scores[1]) + scores[2]), rtol=1e-4, atol=1e-5)


def double_conv_parameters(c, d):
    return 9 * c * d + 2 * d + 9 * d * d + 2 * d


# of class scores there are no encoder's maxima, and too few to sum
PAIRS = [(d, u) for d in DECODERS for u in sorted(UPSAMPLERS) if d == "unet" or u not in ("unpool", "bilinear_additive")]
every_pair = pytest.mark.parametrize(("decoder", "upsample"), PAIRS)


@pytest.mark.parametrize(
    ("name", "operator_parameters"),
    [
        ("bilinear", lambda c, d: 9 * c * d + d),
        ("nearest", lambda c, d: 9 * c * d + d),
        ("pixel_shuffle", lambda c, d: 4 * (9 * c * d + d)),
        ("transpose", lambda c, d: 16 * c * d + d),
        ("transpose_k2", lambda c, d: 4 * c * d + d),
    ],
)
def test_parameter_count_of_the_unet_of_2015(name, operator_parameters):
    net = UNet(2, "plain", upsample=name, decoder_channels=(512, 256, 128, 64), in_channels=1)
    widths = [64, 128, 256, 512, 1024]
    expected = sum(double_conv_parameters(c, d) for c, d in zip([1, *widths], widths, strict=False))
    expected += sum(operator_parameters(2 * d, d) + double_conv_parameters(2 * d, d) for d in widths[:-1])
    expected += 9 * 64 * 2 + 2
    assert sum(p.numel() for p in net.parameters()) == expected


def test_fcn_starts_as_bilinear_interpolation_of_its_scores():
    net = FCN(3, "32s", "plain", upsample="transpose").eval()
    x = torch.randn(1, 3, 128, 128)
    scores = net.scores[0](net.encoder(x)[-1])
    expected = interpolate(scores, scale_factor=32, mode="bilinear")
    torch.testing.assert_close(net(x)[..., 32:-32, 32:-32], expected[..., 32:-32, 32:-32], rtol=1e-4, atol=1e-5)


@every_pair
def test_any_size_in_any_size_out(decoder, upsample):
    net = network(decoder, upsample=upsample)
    for train, (batch, h, w) in [(False, (1, 97, 131)), (True, (1, 97, 131)), (True, (1, 1, 1)), (False, (2, 64, 64)), (True, (2, 33, 5))]:
        assert net.train(train)(torch.randn(batch, 3, h, w)).shape == (batch, 4, h, w)


@every_pair
def test_every_parameter_gets_a_gradient(decoder, upsample):
    net = network(decoder, upsample=upsample)
    net(torch.randn(2, 3, 64, 64)).square().mean().backward()
    missing = [name for name, p in net.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)]
    assert missing == []


@pytest.mark.parametrize(
    "encoder",
    ["resnet18", "efficientnet-b0", "mit_b0", "vgg11_bn", "tu-tf_efficientnet_lite0", "convnext_atto", "swin_tiny_patch4_window7_224"],
)
@pytest.mark.parametrize("channels", [(16, 8, 8, 8, 8), (16, 8, 8)])
def test_encoders_of_smp_and_timm(encoder, channels):
    net = UNet(3, encoder, decoder_channels=channels, in_channels=2)
    out = net(torch.randn(1, 2, 97, 65))
    assert out.shape == (1, 3, 97, 65)
    out.square().mean().backward()
    assert [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None] == []  # DistributedDataParallel would wait for them


@pytest.mark.parametrize("decoder", DECODERS)
def test_everything_outside_the_operators_starts_the_same_whatever_the_operator(decoder):
    from segkit.models.fingerprint import initial_hash

    hashes = {initial_hash(network(decoder, upsample=name)) for other, name in PAIRS if other == decoder}
    assert len(hashes) == 1
    torch.manual_seed(1)
    assert initial_hash(build_model(decoder, 4, decoder_channels=SMALL, encoder="plain", upsample="nearest")) not in hashes


def test_hash_ignores_the_operators_only():
    from segkit.models.fingerprint import initial_hash

    net = network("unet")
    before = initial_hash(net)
    nn.init.zeros_(net.stages[0].upsample.conv.weight)
    assert initial_hash(net) == before
    nn.init.ones_(net.stages[0].convs[0][0].weight)
    assert initial_hash(net) != before


class Repeat(nn.Module):
    """An operator of a user's own: nearest neighbour after a 1x1 convolution, no base class, no registration."""

    def __init__(self, in_channels, out_channels, scale=2):
        super().__init__()
        self.scale, self.conv = scale, nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x):
        return self.conv(x).repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)


def test_an_operator_of_ones_own_for_all_stages_or_for_some():
    net = UNet(2, "plain", upsample=Repeat, decoder_channels=(8, 4))
    assert all(isinstance(stage.upsample, Repeat) for stage in net.stages)
    net = UNet(2, "plain", upsample=["bilinear", Repeat], decoder_channels=(8, 4))
    assert [type(stage.upsample) for stage in net.stages] == [Bilinear, Repeat]
    assert FCN(2, "8s", "plain", upsample=Repeat)(torch.randn(1, 3, 40, 33)).shape == (1, 2, 40, 33)


class Gate(Repeat):
    guided = True

    def __init__(self, in_channels, out_channels, scale=2, guide_channels=3):
        super().__init__(in_channels, out_channels, scale)
        self.gate = nn.Conv2d(guide_channels, 1, 1)

    def forward(self, x, guide):
        return super().forward(x) * self.gate(guide).sigmoid()


def test_a_guided_operator_of_ones_own_sees_the_encoder_and_at_the_end_the_image():
    guides = []

    class Seeing(Gate):
        def forward(self, x, guide):
            guides.append(guide)
            return super().forward(x, guide)

    images = torch.randn(1, 3, 64, 64)
    net = UNet(2, "resnet18", upsample=Seeing, decoder_channels=(8, 8, 4)).eval()
    features = net.encoder(images)
    assert net(images).shape == (1, 2, 64, 64)
    assert all(torch.equal(guide, feature) for guide, feature in zip(guides, [features[2], features[1], images], strict=True))
    guides.clear()
    net = FCN(2, "8s", "resnet18", upsample=Seeing).eval()
    features = net.encoder(images)
    assert net(images).shape == (1, 2, 64, 64)
    assert all(torch.equal(guide, feature) for guide, feature in zip(guides, [features[4], features[3], images], strict=True))


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: FCN(2, "8s", "plain", upsample="unpool"), "unpool puts 2 channels where the maxima of 256 channels"),
        (lambda: FCN(2, "8s", "plain", upsample="bilinear_additive"), "in_channels=2 of BilinearAdditive: .* a multiple of 4"),
        (lambda: UNet(2, "resnet18", upsample="unpool"), "unpool puts 32 channels where the maxima of 64 .* --encoder plain"),
        (lambda: UNet(2, "plain", upsample=["bilinear"] * 3), "upsample lists 3 operators, the decoder has 5 stages"),
        (lambda: UNet(2, "plain", upsample="linear"), "unknown operator 'linear'; did you mean 'bilinear'"),
        (lambda: UNet(2, "resnet43"), "unknown encoder 'resnet43'; did you mean 'resnet34'"),
        (lambda: UNet(2, "resnet18", decoder_channels=(8,) * 6), "has 1 to 5 stages, not 6"),
        (lambda: UNet(2, "plain", "imagenet"), "the plain encoder has no pretrained weights"),
        (lambda: UNet(2, "plain", norm="layer"), "unknown norm 'layer'; choose from batch, group"),
        (lambda: UNet(2, "vit_tiny_patch16_224"), "no feature pyramid"),
        (lambda: UNet(2, "plain", upsample="nearest", upsample_init="bilinear"), "transpose and transpose_k2 only"),
        (lambda: FCN(2, "4s", "plain"), "unknown FCN variant '4s'"),
        (lambda: build_model("unetpp", 2, decoder_channels=SMALL), "unknown decoder 'unetpp'; did you mean 'unet'"),
    ],
)
def test_mistakes_are_one_line(build, match):
    with pytest.raises(SegkitError, match=match) as error:
        build()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("upsample", sorted(UPSAMPLERS))
def test_group_norm_trains_on_one_image(upsample):
    net = UNet(2, "plain", norm="group", upsample=upsample, decoder_channels=(8, 4))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert net(torch.randn(1, 3, 9, 9)).shape == (1, 2, 9, 9)


@pytest.mark.parametrize("upsample", sorted(UPSAMPLERS))
def test_a_compiled_network_equals_the_eager_one(upsample):
    net, x = UNet(2, "plain", upsample=upsample, decoder_channels=(8, 4)).eval(), torch.randn(1, 3, 17, 20)
    torch.testing.assert_close(torch.compile(net, backend="aot_eager")(x), net(x), rtol=1e-4, atol=1e-5)


def test_the_models_need_neither_lightning_nor_wandb_nor_an_encoder_library():
    heavy = ("pytorch_lightning", "wandb", "timm", "segmentation_models_pytorch")
    code = f"import sys; from segkit.models import UNet; UNet(2, 'plain'); print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
