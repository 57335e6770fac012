"""How far the confidence of a segmentation is from its accuracy: reliability over bins of confidence, Brier score, log-likelihood.

    B  images in the batch    K  classes    H W  rows, columns    M  bins

Confidence is a softmax probability. Bin m of M holds the probabilities in (m/M, (m+1)/M], the first one 0 too (Guo et al. 2017). All
pixels of a data set that are not ignored count alike; what is summed over them adds up over batches and processes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from segkit.config import IGNORE_INDEX
from segkit.errors import RunFailed
from segkit.metrics.confusion import check_labels

PIECE = 2**19  # logits at a time on a CPU, whose cache holds what is made of them: up to three times as fast as whole images
BINS = 15  # of Guo et al. and of most papers since


@dataclass(frozen=True)
class Reliability:
    """What the bins hold, float64 but for the counts; NaN where a bin is empty.

    Args:
        count: Pixels per bin, int64 `[..., M]`.
        confidence: Their mean probability, in [0, 1].
        accuracy: The share of them for which it came true, in [0, 1].
        error: Mean of |accuracy - confidence| over the pixels, `[...]`: the expected calibration error.
        largest: The largest of |accuracy - confidence| over the bins: the maximum calibration error.
    """

    count: Tensor
    confidence: Tensor
    accuracy: Tensor
    error: Tensor
    largest: Tensor

    @classmethod
    def of(cls, count: Tensor, confidence: Tensor, correct: Tensor) -> "Reliability":
        """From pixels, summed confidence and number of hits per bin, `[..., M]` each."""
        pixels = count.double()
        confidence, accuracy = confidence / pixels, correct / pixels
        gap = (accuracy - confidence).abs()
        error = (gap.nan_to_num() * pixels).sum(-1) / pixels.sum(-1)
        largest = torch.where(pixels > 0, gap, -1).amax(-1)
        return cls(count, confidence, accuracy, error, torch.where(largest < 0, torch.nan, largest))


class Calibration:
    """Sums over the pixels of a data set, from which all scores follow.

    Args:
        num_classes: K.
        bins: M.
        ignore_index: The label of pixels that do not count.
    """

    def __init__(self, num_classes: int, bins: int = BINS, ignore_index: int = IGNORE_INDEX) -> None:
        self.num_classes, self.bins, self.ignore_index = num_classes, bins, ignore_index
        self.count = torch.zeros(2, bins, dtype=torch.int64)  # wrong, right
        self.confidence = torch.zeros(bins, dtype=torch.float64)
        self.class_count = torch.zeros(num_classes, bins, dtype=torch.int64)
        self.class_correct = torch.zeros(num_classes, bins, dtype=torch.int64)
        self.class_confidence = torch.zeros(num_classes, bins, dtype=torch.float64)
        self.losses = torch.zeros(2, dtype=torch.float64)  # squared error, negative log-likelihood

    def tensors(self) -> list[Tensor]:
        """What several processes add up, in place."""
        return [self.count, self.confidence, self.class_count, self.class_correct, self.class_confidence, self.losses]

    @torch.no_grad()
    def update(self, logits: Tensor, prediction: Tensor, target: Tensor) -> None:
        """Adds a batch.

        Args:
            logits: `[B, K, H, W]`, of any float type, whose softmax are the probabilities.
            prediction: Their `segkit.metrics.labels`, integer `[B, H, W]`.
            target: Integer `[B, H, W]`, values 0..K-1 or the ignore index.

        Raises:
            RunFailed: A logit is not finite.
            SegkitError: A label is outside 0..K-1.
        """
        assert logits.shape[1] == self.num_classes, logits.shape
        valid = check_labels(prediction, target, self.num_classes, self.ignore_index)
        step = max(1, PIECE // self.num_classes) if logits.device.type == "cpu" else logits[0, 0].numel()
        for image, found, truth, counts in zip(logits, prediction, target.long(), valid, strict=True):
            flat = (image.flatten(1), found.flatten(), truth.flatten(), counts.flatten())
            for piece in zip(*(tensor.split(step, -1) for tensor in flat), strict=True):
                self._add(*piece)

    def _add(self, logits: Tensor, found: Tensor, truth: Tensor, counts: Tensor) -> None:
        """Adds P pixels: logits `[K, P]`, predicted and true classes `[P]`, and which of them count."""
        bins, classes = self.bins, self.num_classes
        wide = torch.float32 if logits.device.type == "mps" else torch.float64  # which has no float64
        scores = logits.float().contiguous()
        highest = scores.amax(0)
        powers = (scores - highest).exp_()
        total = powers.sum(0)
        if not total.sum().isfinite():
            raise RunFailed("the logits contain NaN or infinity: confidence cannot be measured; take an earlier checkpoint")
        own = torch.where(counts, truth, 0)[None]
        likelihood = highest + total.log() - scores.gather(0, own)[0]
        weight = counts / total
        probability = powers.mul_(weight)  # 0 for every class where the truth is ignored
        true = probability.gather(0, own)[0]
        squares = probability.square().sum(0) - 2 * true + counts
        self.losses += torch.stack([squares.sum(dtype=wide), (likelihood * counts).sum(dtype=wide)]).cpu()

        right = (found == truth) & counts
        bin_ = self._bin(weight)  # the most likely class has power 1: its probability is 1 / total
        cell = (bin_ + 1 + bins * right) * counts  # 0 takes what is ignored
        self.count += torch.bincount(cell, minlength=2 * bins + 1)[1:].view(2, bins).cpu()
        self.confidence += torch.bincount(bin_, weight.to(wide), minlength=bins).cpu()

        cell = (truth * bins + self._bin(true) + 1) * counts
        self.class_correct += torch.bincount(cell, minlength=classes * bins + 1)[1:].view(classes, bins).cpu()
        # Almost all probabilities are in the first bin: the others are looked up and counted, and the first takes what is left.
        place = (probability > 1 / bins).flatten().nonzero()[:, 0]
        above = probability.flatten()[place]
        cell = place.div(probability.shape[1], rounding_mode="floor") * bins + self._bin(above)
        count = torch.bincount(cell, minlength=classes * bins).view(classes, bins)
        confidence = torch.bincount(cell, above.to(wide), minlength=classes * bins).to(wide).view(classes, bins)  # of nothing: integers
        count[:, 0] += counts.sum() - count.sum(1)
        confidence[:, 0] += probability.sum(1).to(wide) - confidence.sum(1)
        self.class_count += count.cpu()
        self.class_confidence += confidence.cpu()

    def _bin(self, probability: Tensor) -> Tensor:
        return (probability * self.bins).ceil_().int().sub_(1).clamp_(0, self.bins - 1)

    def overall(self) -> Reliability:
        """Of the predicted class, whatever it is (Guo et al. 2017): bins `[M]`; `error` is ECE, `largest` MCE."""
        return Reliability.of(self.count.sum(0), self.confidence, self.count[1])

    def per_class(self) -> Reliability:
        """Of every class's probability, predicted or not (Kull et al. 2019): bins `[K, M]`; the mean of `error` is the class-wise ECE."""
        return Reliability.of(self.class_count, self.class_confidence, self.class_correct)

    def mean_confidence(self) -> float:
        """Mean probability of the predicted class, in [0, 1]; accuracy is what it should be."""
        return (self.confidence.sum() / self.count.sum()).item()

    def brier(self) -> float:
        """Mean squared distance of the probabilities from the truth, summed over the classes, in [0, 2] (Brier 1950)."""
        return (self.losses[0] / self.count.sum()).item()

    def log_likelihood(self) -> float:
        """Mean negative log-likelihood of the truth, in nats: the cross-entropy without weights or smoothing."""
        return (self.losses[1] / self.count.sum()).item()
