"""Which parameters are updated how: parameter groups, optimisers, and the learning rate over the steps."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from segkit.errors import SegkitError, unknown

NORMS = (nn.LayerNorm, nn.RMSNorm)  # the only ones whose parameters can have more than one dimension


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float, encoder_lr: float = 1.0, encoder_prefix: str = "encoder."
) -> list[dict[str, Any]]:
    """Optimiser groups that hold every trainable parameter exactly once.

    Norms, biases and everything one-dimensional (scales, say) do not decay: pulling them to 0 regularises nothing. A parameter that
    several modules share counts where `named_parameters` meets it first.

    Args:
        model: The model.
        lr: Peak learning rate, > 0.
        weight_decay: Decay of the other parameters, >= 0.
        encoder_lr: Factor on the learning rate of the encoder, >= 0.
        encoder_prefix: How the names of the encoder's parameters start.

    Returns:
        Dicts with `name`, `params`, `lr` and `weight_decay`, in the order decoder, decoder_no_decay, encoder, encoder_no_decay; empty
        ones are left out.

    Raises:
        SegkitError: A number is out of range, or there is no encoder for a factor that is not 1.
    """
    if not 0 < lr < math.inf:
        raise SegkitError(f"--lr {lr} must be finite and > 0")
    if not 0 <= weight_decay < math.inf:
        raise SegkitError(f"--weight_decay {weight_decay} must be finite and >= 0")
    if not 0 <= encoder_lr < math.inf:
        raise SegkitError(f"--encoder_lr {encoder_lr} is a factor on --lr; it must be finite and >= 0")
    norms = {id(p) for module in model.modules() if isinstance(module, NORMS) for p in module.parameters(recurse=False)}
    groups: dict[str, dict[str, Any]] = {}
    for part, rate in (("decoder", lr), ("encoder", lr * encoder_lr)):
        for suffix, decay in (("", weight_decay), ("_no_decay", 0.0)):
            groups[part + suffix] = {"name": part + suffix, "params": [], "lr": rate, "weight_decay": decay}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = "encoder" if name.startswith(encoder_prefix) else "decoder"
            fixed = parameter.ndim <= 1 or id(parameter) in norms or name.rsplit(".", 1)[-1].endswith("bias")
            groups[part + "_no_decay" * fixed]["params"].append(parameter)
    if encoder_lr != 1 and not groups["encoder"]["params"] + groups["encoder_no_decay"]["params"]:
        raise SegkitError(f"--encoder_lr {encoder_lr} has no effect: no trainable parameter's name starts with {encoder_prefix!r}")
    return [group for group in groups.values() if group["params"]]


def build_optimizer(name: str, groups: list[dict[str, Any]], lr: float, momentum: float, fused: bool) -> torch.optim.Optimizer:
    """AdamW, or SGD with plain momentum: not Nesterov's, as in the published FCN and DeepLab recipes.

    AdamW's weight decay is decoupled (Loshchilov & Hutter, 2019); SGD's is the L2 penalty that those recipes mean.

    Args:
        name: "adamw" or "sgd".
        groups: From `parameter_groups`.
        lr: Learning rate of a group that has none.
        momentum: In [0, 1), for SGD; AdamW keeps its (0.9, 0.999).
        fused: One kernel for the whole update. A fused optimiser unscales float16 gradients itself, which rules out clipping them.

    Raises:
        SegkitError: The name is unknown or the momentum out of range.
    """
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=fused)
    if name == "sgd":
        if not 0 <= momentum < 1:
            raise SegkitError(f"--momentum {momentum} must be in [0, 1)")
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=fused)
    raise unknown("optimizer", name, ("adamw", "sgd"))


def learning_rate_factor(schedule: str, warmup: int, total_steps: int) -> Callable[[int], float]:
    """The factor on the peak learning rate at each optimiser step, for `LambdaLR` stepped once per update.

    Over x, the share of the steps after the warm-up that are done:

    - constant: 1
    - poly: (1 - x)^0.9 (Chen et al., "DeepLab", 2017)
    - cosine: (1 + cos πx) / 2 (Loshchilov & Hutter, "SGDR", 2017, without restarts)
    - onecycle: half a cosine from 1/25 up to 1, then half a cosine down to 1/250000 (Smith & Topin, 2018; torch's form and constants,
      momentum left alone). The rise is its warm-up: over `warmup` steps, or over the first 30 % of all if that is 0.

    The other schedules rise linearly over `warmup` steps from 1 / (warmup + 1); every one of them is 1 at step `warmup`. The factor
    is defined for steps 0..total_steps and > 0 but for the last, which no update uses.

    Args:
        schedule: One of the above.
        warmup: Steps of the rise, 0 <= warmup < total_steps.
        total_steps: Updates of the whole training, >= 1.

    Raises:
        SegkitError: The name is unknown or a number out of range.
    """
    if total_steps < 1:
        raise SegkitError(f"a training of {total_steps} steps does nothing; --trainer.max_steps must be >= 1")
    if not 0 <= warmup < total_steps:
        raise SegkitError(
            f"--warmup leaves {warmup} of {total_steps} steps to the rise; it must be 0 or more and less than all: lower it or train longer"
        )
    if schedule == "onecycle":
        return _one_cycle(warmup, total_steps)
    shapes: dict[str, Callable[[float], float]] = {
        "constant": lambda x: 1.0,
        "poly": lambda x: (1 - x) ** 0.9,
        "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    }
    if schedule not in shapes:
        raise unknown("schedule", schedule, (*shapes, "onecycle"))
    shape = shapes[schedule]

    def factor(step: int) -> float:
        return (step + 1) / (warmup + 1) if step < warmup else shape(min((step - warmup) / (total_steps - warmup), 1.0))

    return factor


def _one_cycle(warmup: int, total_steps: int, first: float = 1 / 25, last: float = 1 / 25e4) -> Callable[[int], float]:
    peak = float(warmup) if warmup else max(0.3 * total_steps - 1, 0.0)  # torch counts from 0: the 30th of 100 steps is step 29
    fall = max(total_steps - 1 - peak, 1)

    def between(start: float, end: float, x: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * x)) / 2

    def factor(step: int) -> float:
        return between(first, 1.0, step / peak) if step < peak else between(1.0, last, min((step - peak) / fall, 1.0))

    return factor
