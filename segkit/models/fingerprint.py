"""A proof that two networks differ in nothing but their operators."""

import hashlib

from torch import nn


def initial_hash(model: nn.Module) -> str:
    """sha256 over names, shapes and values of all parameters and buffers outside the upsampling operators.

    Equal for two networks of one seed that differ in `upsample` only. The operators are the modules named `upsample` or `upsamplers`.
    """
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        if not {"upsample", "upsamplers"} & set(name.split(".")):
            digest.update(f"{name}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
