"""The networks and training steps that are compared, ours and the peers', each as its users have it.

Shapes: B batch, K classes, H W rows/columns.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from segkit.architectures import PREFIX
from segkit.benchmark.recorded import NetworkAndLoss, Passes, record_passes
from segkit.losses import build_loss
from segkit.models import FCN, UNet, build_model
from segkit.models.recompute import recompute_activations
from segkit.optim import build_optimizer, parameter_groups

CLASSES, BATCH, SIDE = 11, 4, 256
FORMS = ("eager", "compiled", "compiled, CUDA graphs", "CUDA graphs")  # of a network in training; the last two are for graphics cards


def build(name: str, encoder: str = "resnet18", classes: int = CLASSES) -> nn.Module:
    """A network with random weights.

    Args:
        name: `smp` (its U-Net), `torchvision` (fcn_resnet50), `fcn8s` (ours, resnet50), `smp:Unet` (smp's in our form), or an operator: our
            U-Net with it.
        encoder: Of a U-Net.
        classes: K.
    """
    torch.manual_seed(0)
    if name == "smp":
        import segmentation_models_pytorch as smp

        network: nn.Module = smp.Unet(encoder, encoder_weights=None, classes=classes)
        return network
    if name == "torchvision":
        from torchvision.models.segmentation import fcn_resnet50  # type: ignore[import-untyped]

        return Unwrapped(fcn_resnet50(weights=None, weights_backbone=None, num_classes=classes))
    if name == "fcn8s":
        return FCN(classes, "8s", encoder="resnet50")
    if name.startswith(PREFIX):
        return build_model(name, classes, encoder=encoder)
    return UNet(classes, encoder=encoder, upsample=name)


class Unwrapped(nn.Module):
    """A network of torchvision, which returns a dictionary, as one that returns logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """`[B, 3, H, W] -> [B, K, H, W]`."""
        logits: Tensor = self.network(images)["out"]
        return logits


def objective(name: str, classes: int = CLASSES) -> Callable[[Tensor, Tensor], Tensor]:
    """Logits and masks uint8 `[B, H, W]` to a loss: cross-entropy and Dice, ours, or those of torch and smp where the network is a peer's.

    torchvision's reference trains with cross-entropy alone, and so does our FCN beside it.
    """
    if name == "torchvision":
        entropy = nn.CrossEntropyLoss(ignore_index=255)
        return lambda logits, masks: entropy(logits, masks.long())
    if name == "smp":
        import segmentation_models_pytorch as smp

        parts = nn.CrossEntropyLoss(ignore_index=255), smp.losses.DiceLoss("multiclass", ignore_index=255)
        return lambda logits, masks: sum(part(logits, masks.long()) for part in parts)
    return build_loss("ce" if name == "fcn8s" else "ce_dice", num_classes=classes)


class Training:
    """A training step: forward, objective, backward, AdamW.

    Args:
        name: Network, as in `build`; segkit's own have segkit's objective, parameter groups and fused update, a peer torch's AdamW as it
            comes.
        device: Hardware.
        low: The type that autocast computes in; None: contiguous float32.
        batch: B.
        side: H and W.
        classes: K.
        encoder: Of a U-Net.
        form: One of `FORMS`.
        recompute: Keep few activations and compute the others again (`segkit.models.recompute`).
    """

    def __init__(
        self,
        name: str,
        device: torch.device,
        low: torch.dtype | None,
        batch: int = BATCH,
        side: int = SIDE,
        classes: int = CLASSES,
        encoder: str = "resnet18",
        form: str = "eager",
        recompute: bool = False,
    ) -> None:
        layout = torch.contiguous_format if low is None else torch.channels_last
        self.network = build(name, encoder, classes).to(device, memory_format=layout)  # type: ignore[call-overload]
        if recompute:
            recompute_activations(self.network)
        if form.startswith("compiled"):
            self.network.compile(mode="reduce-overhead" if form.endswith("graphs") else None)
        self.loss = objective(name, classes)
        if name in ("smp", "torchvision"):
            self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4)
        else:
            groups = parameter_groups(self.network, 1e-4, 1e-2)
            self.optimizer = build_optimizer("adamw", groups, 1e-4, 0.9, fused=low != torch.float16)
        self.device, self.low, self.classes, self.layout = device, low, classes, layout
        self.images, self.masks = self.example(batch, side)
        passes = NetworkAndLoss(self.network, self.loss)
        self.passes: Passes = passes
        if form == "CUDA graphs":
            with self.arithmetic():
                self.passes = record_passes(passes, self.images, self.masks)

    def arithmetic(self) -> Any:
        """The context of a forward pass: autocast to the precision asked for, or none."""
        return nullcontext() if self.low in (None, torch.float32) else torch.autocast(self.device.type, self.low)

    def example(self, batch: int, side: int) -> tuple[Tensor, Tensor]:
        """Random normalised images float32 `[B, 3, side, side]` and masks uint8 `[B, side, side]`."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(batch, 3, side, side, generator=generator).to(self.device).contiguous(memory_format=self.layout)
        return images, torch.randint(self.classes, (batch, side, side), generator=generator, dtype=torch.uint8).to(self.device)

    def __call__(self) -> None:
        """One step."""
        with self.arithmetic():
            loss = self.passes(self.images, self.masks)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
