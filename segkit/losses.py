"""Training objectives, and what the ignore index means for them.

    B  images in the batch    K  classes    H W  rows, columns

A pixel whose label is the ignore index has no part in any of them: the value does not depend on its logits, and its gradient is
exactly 0. Means go over the other, *valid* pixels; a batch without one gives 0 with a gradient of 0. A label outside 0..K-1 that is
not the ignore index is never trained on: the `gather` of its probability raises.

The `gather` is also what lets one form of cross-entropy serve everywhere. On a CPU it is as fast as the fused one (within 10 %), and on
CUDA it has a deterministic implementation, which `nll_loss2d` has not.

Every objective is a function of sums over pixels. So processes that share a batch can add their sums up, in one small all-reduce,
and all have the objective of the whole batch: no mean of means, whatever part of each one's pixels is ignored.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from segkit.config import IGNORE_INDEX
from segkit.errors import SegkitError, unknown
from segkit.ranks import PADDING, Ranks

ALONE = Ranks()
BAND = 2**18  # logits; larger temporaries go back to the system each time, whose new pages cost more than the arithmetic


@dataclass(frozen=True)
class Pixels:
    """What an objective sees.

    Args:
        logits: Float `[B, K, H, W]`, float32 or float64, contiguous.
        target: int64 `[B, H, W]`, 0 where the pixel is ignored.
        valid: bool `[B, H, W]`, False where the pixel is ignored.
        class_weights: Float `[K]`, or None for equal weights; only cross-entropy and focal look at it.
        label_smoothing: Share of the target spread over all classes, in [0, 1); only cross-entropy looks at it.
        ranks: The processes that share the batch; only Lovász, which has to sort the pixels of all, looks at it.
    """

    logits: Tensor
    target: Tensor
    valid: Tensor
    class_weights: Tensor | None
    label_smoothing: float
    ranks: Ranks = ALONE

    def of_truth(self, scores: Tensor) -> Tensor:
        """The score of each pixel's true class: `[B, K, H, W] -> [B, H, W]` (class 0 where the pixel is ignored)."""
        return scores.gather(1, self.target.unsqueeze(1)).squeeze(1)

    def class_sums(self, values: Tensor) -> Tensor:
        """The sum of `values` `[B, H, W]` over each class's valid true pixels, `[K]`.

        Rows are added up first: beside a running float32 sum of 10⁶, each further probability would keep four bits.
        """
        rows = values.new_zeros(*values.shape[:2], self.logits.shape[1])
        return rows.scatter_add(2, self.target, values * self.valid).sum((0, 1))

    def weights(self) -> Tensor:
        """The weight of each pixel, that of its true class or 0 where it is ignored, `[B, H, W]`."""
        return self.valid.to(self.logits.dtype) if self.class_weights is None else self.class_weights[self.target] * self.valid


@dataclass(frozen=True)
class Objective:
    """A function of sums over pixels, so that what several processes have of one batch adds up.

    Args:
        sums: Of a process's own pixels, float `[n]`.
        value: Of the sums over all pixels, `[n]`, the objective: a scalar.
        additive: The sums over two parts of an image add up to those over the whole.
    """

    sums: Callable[[Pixels], Tensor]
    value: Callable[[Tensor], Tensor]
    additive: bool = True


def _mean(sums: Tensor) -> Tensor:
    """The weighted mean as torch's losses take it, Σ w v / Σ w, but 0 and not NaN where no weight is left."""
    weighted, total = sums
    mean: Tensor = weighted / total.where(total > 0, 1)
    return mean


def _cross_entropy_sums(pixels: Pixels) -> Tensor:
    """Cross-entropy with class weights and label smoothing, equal to `torch.nn.functional.cross_entropy`: Σ w v and Σ w."""
    log_p, weights, share = pixels.logits.log_softmax(1), pixels.weights(), pixels.label_smoothing
    loss = -pixels.of_truth(log_p) * weights
    if share > 0:  # what is spread carries the weight of the class that receives it
        spread = log_p if pixels.class_weights is None else log_p * pixels.class_weights.view(1, -1, 1, 1)
        loss = (1 - share) * loss - share * spread.mean(1) * pixels.valid
    return torch.stack([loss.sum(), weights.sum()])


def _focal_sums(pixels: Pixels, gamma: float = 2.0) -> Tensor:
    """Focal loss, -(1 - p)^γ log p of the true class's softmax probability p, averaged as cross-entropy is (which γ = 0 gives).

    Source: Lin et al., "Focal Loss for Dense Object Detection", 2017, with the softmax in place of independent sigmoids.
    """
    log_p, weights = pixels.of_truth(pixels.logits.log_softmax(1)), pixels.weights()
    return torch.stack([(-((-log_p.expm1()) ** gamma) * log_p * weights).sum(), weights.sum()])


def _region_sums(pixels: Pixels) -> Tensor:
    """Of every class the probability on its true pixels, that on all pixels, and the number of its true pixels, `[3 K]`."""
    p = pixels.logits.softmax(1)
    hit = pixels.class_sums(pixels.of_truth(p))
    predicted = (p * pixels.valid.unsqueeze(1)).sum((0, 2, 3))
    return torch.cat([hit, predicted, pixels.class_sums(torch.ones_like(p[:, 0]))])


def _tversky(sums: Tensor, alpha: float, beta: float) -> Tensor:
    """One minus the soft Tversky index TP / (TP + α FP + β FN), which for α = β = 1/2 is the soft Dice coefficient.

    The counts of a class go over the whole batch, and the mean over the classes that are present in its truth.

    Sources: Salehi et al., "Tversky loss function for image segmentation using 3D fully convolutional deep networks", 2017; Milletari et
    al., "V-Net", 2016, with probabilities that are not squared.
    """
    hit, predicted, truth = sums.view(3, -1)
    present = truth > 0
    # A class that is present has a denominator of at least min(1, β); the others are left out of the mean, and 0 / 0 out of them.
    index = hit / (hit + alpha * (predicted - hit) + beta * (truth - hit)).where(present, 1)
    loss: Tensor = ((1 - index) * present).sum() / present.sum().clamp(min=1)
    return loss


def _lovasz_sums(pixels: Pixels) -> Tensor:
    """Lovász-Softmax: the piecewise linear extension of 1 - IoU over the whole batch, for each class that is present in its truth.

    The extension is Σ w error, and its weights depend on the order of all errors: what a process's own pixels have of it is a sum.

    Source: Berman et al., "The Lovász-Softmax loss", 2018.
    """
    p = pixels.logits.softmax(1)
    count = pixels.ranks.sum(pixels.class_sums(torch.ones_like(p[:, 0]))).tolist()
    present = [label for label in range(len(count)) if count[label] > 0]
    labels = pixels.target.where(pixels.valid, PADDING).flatten()
    errors = [torch.where(labels == label, 1 - q, q) for label, q in ((label, p[:, label].flatten()) for label in present)]
    weights = pixels.ranks.rows(
        lambda place, error, labels: _lovasz_weights(error, labels == present[place], labels != PADDING),
        [error.detach() for error in errors],
        labels,
    )
    losses = [(error * weight).sum() for error, weight in zip(errors, weights, strict=True)]
    return torch.stack(losses) if losses else 0 * p.sum().view(1)


def _lovasz_weights(error: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """The derivative of the Lovász extension by each pixel's error, all of any shape.

    In the order of falling errors, it is by how much 1 - IoU grows when the pixel joins those that are wrong. With `missed` true and
    `extra` false pixels wrong so far out of T true ones, IoU = (T - missed) / (T + extra). The differences are written out: those of
    the published code, taken between float32 numbers near 1, are off by 4 % at 2 x 10⁶ pixels, and a tenth of them are 0.
    """
    order = error.masked_fill(~valid, -1).flatten().argsort(descending=True)  # the ignored ones last, where kept is 0 and their step too
    is_true = truth.flatten()[order]
    missed = is_true.cumsum(0)
    extra = torch.arange(1, len(order) + 1, device=order.device) - missed
    kept, union = (missed[-1] - missed).to(error.dtype), (missed[-1] + extra).to(error.dtype)
    steps = torch.where(is_true, 1 / union, kept / (union * (union - 1)))
    return torch.empty_like(steps).scatter_(0, order, steps).view_as(error)


cross_entropy = Objective(_cross_entropy_sums, _mean)
focal = Objective(_focal_sums, _mean)
dice = Objective(_region_sums, partial(_tversky, alpha=0.5, beta=0.5))
tversky = Objective(_region_sums, partial(_tversky, alpha=0.3, beta=0.7))  # β > α asks for recall
lovasz = Objective(_lovasz_sums, Tensor.mean, additive=False)
LOSSES: dict[str, tuple[Objective, ...]] = {
    "ce": (cross_entropy,),
    "dice": (dice,),
    "ce_dice": (cross_entropy, dice),
    "focal": (focal,),
    "lovasz": (lovasz,),
    "tversky": (tversky,),
}
WEIGHTABLE = ("ce", "ce_dice", "focal")
SMOOTHABLE = ("ce", "ce_dice")


class SegmentationLoss(nn.Module):
    """The sum of some objectives; computed in float32 (float64 for float64 logits) whatever the precision of the logits.

    Args:
        terms: The objectives, as in `LOSSES`.
        num_classes: K.
        class_weights: One weight per class, or None.
        label_smoothing: In [0, 1).
        ignore_index: The label of pixels that do not train.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        terms: Sequence[Objective],
        num_classes: int,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        super().__init__()
        self.terms, self.num_classes = tuple(terms), num_classes
        self.label_smoothing, self.ignore_index = label_smoothing, ignore_index
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)  # a hyper-parameter, not a state

    def forward(self, logits: Tensor, target: Tensor, ranks: Ranks = ALONE) -> Tensor:
        """The objective, a scalar; NaN if any logit is not finite, even one of an ignored pixel or one that costs nothing.

        Args:
            logits: Float `[B, K, H, W]`, any precision and layout.
            target: Integer `[B, H, W]` (uint8 or int64): labels 0..K-1 or the ignore index.
            ranks: The processes whose batches are parts of one; all of them call this, and all have its objective. B, H, W may differ.

        Raises:
            RuntimeError: A label is neither (on CUDA as an assertion on the device).
        """
        images, classes, *size = logits.shape
        assert classes == self.num_classes, (classes, self.num_classes)
        assert target.shape == (images, *size), (logits.shape, target.shape)
        bands = [self._sums(*band, ranks) for band in self._bands(logits, target)]
        parts = [torch.stack(band).sum(0) if len(bands) > 1 else band[0] for band in zip(*bands, strict=True)]
        *parts, finite = torch.split(ranks.sum(torch.cat(parts)), [len(part) for part in parts])
        values = torch.stack([term.value(sums) for term, sums in zip(self.terms, parts, strict=True)])
        return values.sum() + finite[0]

    def _sums(self, logits: Tensor, target: Tensor, ranks: Ranks) -> list[Tensor]:
        """The sums of each term, and one that is 0, or NaN where a logit is not finite."""
        # once for all terms; contiguous too, because every softmax over channels_last logits would copy them
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32), memory_format=torch.contiguous_format)
        target = target.long()
        valid = target != self.ignore_index
        pixels = Pixels(logits, target.where(valid, 0), valid, self.class_weights, self.label_smoothing, ranks)
        return [*(term.sums(pixels) for term in self.terms), (0 * logits.detach().sum()).view(1)]

    def _bands(self, logits: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Bands of rows, which on a CPU take less than half the time of the whole; all rows where gradients would keep them anyway."""
        whole = logits.requires_grad or logits.device.type != "cpu" or not all(term.additive for term in self.terms)
        height = logits.shape[2]
        rows = max(height if whole else BAND * height // max(logits.numel(), 1), 1)
        return zip(torch.split(logits, rows, 2), torch.split(target, rows, 1), strict=True)


def build_loss(
    name: str,
    *,
    num_classes: int,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = IGNORE_INDEX,
) -> SegmentationLoss:
    """The objective of that name: `forward(logits [B, K, H, W], target [B, H, W]) -> scalar`.

    Args:
        name: One of `LOSSES`.
        num_classes: K.
        class_weights: One weight per class, for `WEIGHTABLE` objectives; None: all equal.
        label_smoothing: Share of the target spread over all classes, in [0, 1), for `SMOOTHABLE` objectives.
        ignore_index: The label of pixels that do not train.

    Raises:
        SegkitError: The name is unknown, or an option is out of range or does nothing for this objective.
    """
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    if class_weights is not None:
        if name not in WEIGHTABLE:
            raise SegkitError(f"--class_weights has no effect on --loss {name}; use it with {', '.join(WEIGHTABLE)}, or set it to none")
        if len(class_weights) != num_classes:
            raise SegkitError(f"--class_weights has {len(class_weights)} values for {num_classes} classes; give one per class")
        if not all(math.isfinite(w) and w >= 0 for w in class_weights) or not any(class_weights):
            raise SegkitError(f"--class_weights {list(class_weights)} must be finite and >= 0, and one at least > 0")
    if not 0 <= label_smoothing < 1:
        raise SegkitError(f"--label_smoothing {label_smoothing} must be in [0, 1)")
    if label_smoothing and name not in SMOOTHABLE:
        raise SegkitError(f"--label_smoothing has no effect on --loss {name}; use it with {', '.join(SMOOTHABLE)}, or set it to 0")
    return SegmentationLoss(LOSSES[name], num_classes, class_weights, label_smoothing, ignore_index)
