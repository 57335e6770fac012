"""Encoders: images to features at strides 1, 2, 4, ... The only place, beside `smp_networks.py`, that builds smp or timm networks.

Shapes: B batch, C channels, H W rows/columns.
"""

import contextlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from segkit.errors import SegkitError, unknown
from segkit.models.blocks import double_conv
from segkit.models.recompute import run
from segkit.models.weight_files import load_weights

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALLEST = 64  # pixels a side; smaller images are padded to it, whatever depth of an smp or timm network is used
PATIENCE = 3.0  # seconds for the hub of the weights to answer, before there counts as no network


class PlainEncoder(nn.Module):
    """The contracting path of the 2015 U-Net (Ronneberger et al.): two convolutions per level, max-pooling
    between, here padded and normalised.

    Every encoder has `channels`, one number per stride 1, 2, 4, ..., and `smallest`, the least height and width that it takes.

    Args:
        in_channels: Channels of the images.
        widths: Channels at strides 1, 2, 4, ...
        norm: Normalisation layers.
    """

    def __init__(self, in_channels: int, widths: Sequence[int], norm: str = "batch") -> None:
        super().__init__()
        self.channels = list(widths)
        self.smallest = 2 ** len(widths)
        self.recompute = False  # `segkit.models.recompute`
        self.levels = nn.ModuleList(double_conv(c, d, norm) for c, d in zip([in_channels, *widths], widths, strict=False))

    def forward(self, images: Tensor) -> list[Tensor]:
        """`[B, C, H, W]` -> features at strides 1, 2, 4, ...; H and W divisible by the last stride."""
        features = [run(self.levels[0], images, again=self.recompute)]
        for level in self.levels[1:]:
            features.append(run(level, max_pool2d(features[-1], 2), again=self.recompute))
        return features


class PretrainedEncoder(nn.Module):
    """An smp or timm network as an encoder; `channels` is 0 at a stride where the network has no features of its own.

    Args:
        network: What `smp.encoders.get_encoder` returns.
        in_channels: Channels of the images.
        depth: Number of halvings.
    """

    def __init__(self, network: nn.Module, in_channels: int, depth: int) -> None:
        super().__init__()
        self.network = network
        channels: list[int] = list(network.out_channels)  # type: ignore[arg-type]
        self.smallest = SMALLEST
        self.channels = [0 if channels[0] == in_channels else channels[0], *channels[1 : depth + 1]]

    def forward(self, images: Tensor) -> list[Tensor]:
        """`[B, C, H, W]` -> features at strides 1, 2, 4, ...; H and W divisible by the last stride."""
        features: list[Tensor] = self.network(images)
        return features[: len(self.channels)]


Encoder = PlainEncoder | PretrainedEncoder


def network_name(name: str) -> str:
    """Smp's name of an encoder: its own where it has one, `tu-` and timm's name otherwise.

    Raises:
        SegkitError: If neither library knows `name`; the nearest names are in the message.
    """
    import segmentation_models_pytorch as smp
    import timm

    own, bare = smp.encoders.get_encoder_names(), name.removeprefix("tu-")
    if name in own and not name.startswith("timm-"):
        return name
    if timm.is_model(bare):
        return f"tu-{bare}"
    raise unknown("encoder", name, {"plain", *(n for n in own if not n.startswith("timm-")), *timm.list_models()})


def normalization(name: str, in_channels: int = 3) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, of pixel values in [0, 1], that the weights of encoder `name` were trained with.

    ImageNet's where the encoder states none; other than three channels take their average.
    """
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    if name != "plain" and network_name(name).startswith("tu-"):
        import timm

        bare = network_name(name).removeprefix("tu-")
        if timm.is_model_pretrained(bare):
            settings = timm.get_pretrained_cfg(bare)
            mean, std = settings.mean, settings.std
    if in_channels != 3:
        mean, std = ((sum(values) / 3,) * in_channels for values in (mean, std))
    return list(mean), list(std)


def build_encoder(
    name: str, in_channels: int = 3, depth: int = 5, weights: str | None = None, widths: Sequence[int] = (), norm: str = "batch"
) -> Encoder:
    """Builds an encoder.

    Args:
        name: `plain`, any smp encoder, or any timm model that gives feature maps (with or without smp's prefix `tu-`).
        in_channels: Channels of the images. Pretrained first layers are adapted: their three input slices are repeated in turn and
            scaled by 3 / in_channels, so that the response to a grey image stays what it was.
        depth: Number of halvings, 1 to 5 (more for `plain`).
        weights: None (random), "imagenet" (downloaded by smp or timm), or a `.safetensors` / `.pt` file.
        widths: `plain` only: channels at strides 1, 2, 4, ..., `depth + 1` numbers.
        norm: `plain` only: normalisation layers.

    Raises:
        SegkitError: If the name is unknown, the depth does not fit, or the weights cannot be had or do not fit strictly.
    """
    if name == "plain":
        if weights is not None:
            raise SegkitError(
                f"encoder_weights={weights!r}: the plain encoder has no pretrained weights; leave them out or choose another encoder"
            )
        assert len(widths) == depth + 1
        return PlainEncoder(in_channels, widths, norm)
    if not 1 <= depth <= 5:
        raise SegkitError(f"encoder {name!r} has 1 to 5 stages, not {depth}: give as many decoder_channels")
    network = _network(name, in_channels, depth, download=weights == "imagenet")
    if weights not in (None, "imagenet"):
        load_weights(network, Path(weights), name)
    freeze_unused(network, lambda: _features(network, name, in_channels, depth))
    return PretrainedEncoder(network, in_channels, depth)


def build_around(build: Callable[..., nn.Module], decoder: str, name: str, in_channels: int, depth: int, weights: str | None) -> nn.Module:
    """A whole network of smp, whose `encoder` gets its weights as those of `build_encoder` do.

    Args:
        build: Called as `build(smp's name of the encoder, in_channels, depth, smp's word for its weights, **options)`.
        decoder: Names it in errors.
        name: Any smp encoder, or any timm model that gives feature maps.
        in_channels: Channels of the images.
        depth: Number of halvings of the encoder.
        weights: None (random), "imagenet", or a `.safetensors` / `.pt` file.

    Raises:
        SegkitError: If the name is unknown or does not go with the decoder, or the weights cannot be had or do not fit strictly.
    """
    whole = _network(name, in_channels, depth, weights == "imagenet", build=build, decoder=decoder)
    if weights not in (None, "imagenet"):
        assert isinstance(whole.encoder, nn.Module)
        load_weights(whole.encoder, Path(weights), name)
    return whole


def fix_padding(network: nn.Module) -> None:
    """Gives timm's convolutions that pad by the size of their input (`same`) the padding that it comes to in a decoder's encoder, in place.

    There, strides divide the sizes that they meet, and the padding is a constant. As a function of the size it would keep an exported
    network from taking images of any size.
    """
    from timm.layers.conv2d_same import Conv2dSame

    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if type(layer) is Conv2dSame:
                conv = layer
                assert isinstance(conv, nn.Conv2d)
                sizes = zip(conv.kernel_size, conv.dilation, conv.stride, strict=True)
                height, width = (max((k - 1) * d + 1 - s, 0) for k, d, s in sizes)
                border = nn.ZeroPad2d((width // 2, width - width // 2, height // 2, height - height // 2))
                setattr(parent, name, nn.Sequential(border, _unpadded(conv)))


def _unpadded(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution with the same weights and no padding."""
    c, d, k = conv.in_channels, conv.out_channels, conv.kernel_size
    plain = nn.Conv2d(c, d, k, conv.stride, 0, conv.dilation, conv.groups, device="meta")  # type: ignore[arg-type]
    plain.weight, plain.bias = conv.weight, conv.bias
    return plain


def _network(
    name: str,
    in_channels: int,
    depth: int,
    download: bool,
    lacking: str | None = None,
    build: Callable[..., nn.Module] | None = None,
    decoder: str | None = None,
) -> nn.Module:
    """The encoder of smp, or what `build` puts around it; `lacking` is why nothing can be downloaded, where that is known already."""
    import segmentation_models_pytorch as smp

    full_name = network_name(name)
    for library in ("huggingface_hub", "timm"):  # a line per retry, before the one line that counts; a line on the head that is not used
        logging.getLogger(library).setLevel(logging.ERROR)
    # windowed transformers are built for one size unless told otherwise
    flexible = {"strict_img_size": False} if "swin" in name and full_name.startswith("tu-") else {}
    if download and lacking is None:
        lacking = _no_network()
    try:
        with warnings.catch_warnings(), _cache_only() if lacking else contextlib.nullcontext():
            warnings.simplefilter("ignore")  # timm's notes on renamed models and unexpected keys of the dropped head
            network: nn.Module = (build or smp.encoders.get_encoder)(
                full_name, in_channels, depth, ("imagenet" if not full_name.startswith("tu-") else True) if download else None, **flexible
            )
    except Exception as error:  # the hub's client raises a dozen unrelated types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if lacking and isinstance(error, OSError):  # what the cache, and addresses, are missed by
            raise SegkitError(
                f"encoder_weights='imagenet' for {name!r}: the weights are not in the local cache, and {lacking}; "
                "give a local .safetensors or .pt file, or leave encoder_weights out to start from random weights"
            ) from error
        if download:
            raise SegkitError(
                f"encoder_weights='imagenet' for {name!r} could not be downloaded or loaded ({type(error).__name__}: {reason}); "
                "give a local .safetensors or .pt file, or leave encoder_weights out to start from random weights"
            ) from error
        what = f"does not go with decoder {decoder!r}" if decoder else f"gives no feature pyramid of depth {depth}"
        raise SegkitError(f"encoder {name!r} {what} ({type(error).__name__}: {reason}); choose another") from error
    return network


def check_weights(name: str, weights: str | None, depth: int = 5) -> None:
    """Says at once, before hours of data are read, that weights can neither be downloaded nor are in the cache.

    Raises:
        SegkitError: They cannot be had.
    """
    if name != "plain" and weights == "imagenet" and 1 <= depth <= 5 and (lacking := _no_network()):
        _network(name, 3, depth, True, lacking)  # only then is it worth building the network twice


def _no_network() -> str:
    """Why nothing can be downloaded; empty where it can."""
    from huggingface_hub import constants, get_session

    answers: list[Any] = []

    def ask() -> None:
        with contextlib.suppress(Exception):
            answers.append(get_session().head(constants.ENDPOINT, timeout=PATIENCE))

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids to download them"
    thread = threading.Thread(target=ask, daemon=True)  # looking up a name knows no time-out
    thread.start()
    thread.join(PATIENCE)
    return "" if answers else f"there is no network ({constants.ENDPOINT} does not answer)"


@contextlib.contextmanager
def _cache_only() -> Iterator[None]:
    """Keeps the hub's client to its cache; where there is no network it would repeat its attempts for half a minute."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def freeze_unused(network: nn.Module, outputs: Callable[[], Sequence[Tensor]]) -> None:
    """Freezes what no output depends on (heads, stages that nobody reads): DistributedDataParallel would wait for its gradients.

    Args:
        network: Left in training mode.
        outputs: What it gives for some image, in evaluation mode.
    """
    network.eval()
    parameters = [p for p in network.parameters() if p.requires_grad]
    with torch.enable_grad():
        gradients = torch.autograd.grad(torch.stack([f.sum() for f in outputs()]).sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
    network.train()


def _features(network: nn.Module, name: str, in_channels: int, depth: int) -> list[Tensor]:
    """The feature maps of an empty image, at strides 2, 4, ..."""
    try:
        features: list[Tensor] = network(torch.zeros(1, in_channels, SMALLEST, SMALLEST))[1 : depth + 1]
    except (AssertionError, RuntimeError, ValueError) as error:
        raise SegkitError(f"encoder {name!r} does not take images of any size ({str(error).splitlines()[0]}); choose another") from error
    if any(f.shape[-1] != SMALLEST >> i for i, f in enumerate(features, start=1)):
        raise SegkitError(f"encoder {name!r} does not halve the image from stage to stage; choose another")
    return features
