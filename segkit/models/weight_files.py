"""Weights of encoders in files.

Shapes: C/D channels in/out, k kernel size.
"""

from pathlib import Path

from torch import Tensor, nn

from segkit.errors import SegkitError
from segkit.unpickle import load_plain


def load_weights(network: nn.Module, path: Path, name: str) -> None:
    """Loads `path` into `network`; keys as timm, torchvision or smp name them.

    Strict: every tensor of the network must be in the file. Only whole top-level layers that the network does not have (the classifier) may
    be left over. A first layer for other than three channels is adapted (`segkit.models.encoders.build_encoder`).

    Raises:
        SegkitError: The file cannot be read or does not fit.
    """
    wanted, state = network.state_dict(), _read_weights(path)
    for prefix in ("model.", ""):
        found = {prefix + key.removeprefix("module.").removeprefix("encoder."): value for key, value in state.items()}
        if wanted.keys() & found.keys():
            break
    for key, value in found.items():
        if key in wanted and value.shape != wanted[key].shape:
            found[key] = _adapt_input(value, wanted[key]) if value.ndim == 4 else value
    missing = [k for k in wanted if k not in found and not k.endswith("num_batches_tracked")]
    wrong = [k for k in wanted if k in found and found[k].shape != wanted[k].shape]
    layers = {k.removeprefix(prefix).split(".")[0] for k in wanted}
    extra = [k for k in found if k not in wanted and k.removeprefix(prefix).split(".")[0] in layers]
    for problem, keys in (("lacks", missing), ("has another shape for", wrong), ("has more than this encoder:", extra)):
        if keys:
            raise SegkitError(f"encoder_weights={str(path)!r} does not fit encoder {name!r}: it {problem} {keys[0]} ({len(keys)} tensors)")
    network.load_state_dict({k: found.get(k, v) for k, v in wanted.items()}, strict=True)


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise SegkitError(f"encoder_weights={str(path)!r}: no such file; give imagenet, or a .safetensors or .pt file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = load_plain(path)
    except Exception as error:  # torch and safetensors each raise their own types on a broken file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SegkitError(f"encoder_weights={str(path)!r} cannot be read ({reason}); give a .safetensors file or a state dict") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise SegkitError(f"encoder_weights={str(path)!r} holds no state dict; save one with torch.save(model.state_dict(), path)")
    return state


def _adapt_input(weight: Tensor, wanted: Tensor) -> Tensor:
    """First-layer weights `[D, 3, k, k]` for another number of input channels; returned unchanged where that is not the difference."""
    if weight.shape[0] != wanted.shape[0] or weight.shape[2:] != wanted.shape[2:] or weight.shape[1] != 3:
        return weight
    channels = wanted.shape[1]
    return weight[:, [c % 3 for c in range(channels)]] * (3 / channels) if channels != 1 else weight.sum(1, keepdim=True)
