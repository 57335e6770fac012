"""Which parts of a network are its operators, and a proof that two networks differ in nothing else."""

import hashlib

from torch import nn

NAMES = frozenset({"upsample", "upsamplers"})  # an operator is a module of the first name, or one in a list of the second


def operators(model: nn.Module) -> dict[str, nn.Module]:
    """The upsampling operators of a network by their names, such as `stages.0.upsample`, from coarse to fine."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        *path, last = name.split(".")
        part = "upsample" in path or "upsamplers" in path[:-1]  # of an operator
        if not part and (last == "upsample" or path[-1:] == ["upsamplers"]):
            found[name] = module
    return found


def initial_hash(model: nn.Module) -> str:
    """sha256 over names, shapes and values of all parameters and buffers outside the upsampling operators.

    Equal for two networks of one seed that differ in `upsample` only. The operators are the modules named `upsample` or `upsamplers`.
    """
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        if not NAMES & set(name.split(".")):
            digest.update(f"{name}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
