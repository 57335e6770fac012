"""How good a segmentation is where classes meet: boundary IoU, trimap matrices, BF score.

    B  images in the batch    K  classes    R  radii    H W  rows, columns

All classes are measured together on label maps, exactly as class by class on binary masks: the masks of the classes do not overlap, so a
window lies in one of them where the smallest and the largest label in it agree. Counts are per image; those of a data set are their sums.

Ignored pixels are in no mask and count nowhere. They are not alike to the three measures, which ask different questions:

    boundary IoU  the edge of an ignored region is contour of the masks beside it, in truth and prediction, as the image border is
    BF score      so it is here (in many data sets an ignored strip takes the place of the contour), but the image border is not
    trimap        neither is a boundary: a pixel lies near one if a pixel of another class is near, also beyond an ignored strip
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from segkit.config import IGNORE_INDEX
from segkit.metrics.confusion import check_labels

RADII = (1, 2, 4, 8, 16)  # of the trimap, in pixels


def boundary_counts(
    prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int = IGNORE_INDEX, ratio: float = 0.02
) -> tuple[Tensor, Tensor]:
    """Intersection and union of the boundary regions of every class: two int64 `[B, K]` (boundary IoU, Cheng et al. 2021).

    The boundary region of a mask is what d erosions by 3 x 3 pixels take from it, d = max(1, round(ratio * diagonal)): its pixels within
    Chebyshev distance d of what is outside. Outside the image is outside every mask.

    Args:
        prediction: Integer `[B, H, W]`, values 0..K-1 (any, where the truth is ignored).
        target: Integer `[B, H, W]`, values 0..K-1 or `ignore_index`.
        num_classes: K <= 255.
        ignore_index: The label of pixels that are in no mask.
        ratio: d as a share of the image diagonal; 0.02, and 0.005 for Cityscapes, are the paper's.

    Raises:
        SegkitError: A label of the truth or the prediction is outside 0..K-1.
    """
    truth, found = _marked(prediction, target, num_classes, ignore_index)
    d = max(1, round(ratio * math.hypot(*truth.shape[-2:])))
    t, p = (m * (_extreme(m, d, torch.minimum, 0) != _extreme(m, d, torch.maximum, 0)) for m in (truth, found))
    truths, founds, both = _per_class(torch.stack([t, p, t * (t == p)]), num_classes)
    return both, truths + founds - both


def boundary_iou(intersection: Tensor, union: Tensor) -> Tensor:
    """Boundary IoU of every class, float64 `[K]`, from the counts `[N, K]` of a data set; NaN for a class that is nowhere.

    Its mean over the other classes (`nanmean`) is the boundary mIoU.
    """
    return intersection.sum(0).double() / union.sum(0).double()


def trimap_matrices(
    prediction: Tensor, target: Tensor, num_classes: int, radii: Sequence[int] = RADII, ignore_index: int = IGNORE_INDEX
) -> Tensor:
    """Confusion matrices of the pixels near a boundary of the truth: int64 `[B, R, K, K]`, rows truth, columns prediction.

    A pixel is within r of a boundary if a pixel of another class is at most r rows and r columns away; r = 1 are the pixels on both sides
    of it. The mIoU of the summed matrices over r is the trimap curve (Kohli et al. 2009).

    Args:
        prediction: As in `boundary_counts`.
        target: As in `boundary_counts`.
        num_classes: K <= 255.
        radii: Increasing radii r >= 1 in pixels.
        ignore_index: The label of pixels that are not counted and make no boundary.

    Raises:
        SegkitError: A label of the truth or the prediction is outside 0..K-1.
    """
    assert list(radii) == sorted(set(radii)), radii
    assert radii[0] >= 1, radii
    truth, found = _marked(prediction, target, num_classes, ignore_index)
    low, high, done = truth - 1, truth, 0  # 0, the mark of ignored pixels, wraps to 255: neither the smallest nor the largest of any window
    near = torch.zeros_like(truth, dtype=torch.int32)  # how many of the radii reach a boundary
    for radius in radii:
        low, high = _extreme(low, radius - done, torch.minimum, 255), _extreme(high, radius - done, torch.maximum, 0)
        near += low + 1 != high
        done = radius
    cells, images = num_classes**2, len(truth)
    cell = (near - 1) * cells + (truth.int() - 1) * num_classes + found.int()  # 1.. where it counts
    cell *= (near > 0) & (truth > 0)
    matrices = _histogram(cell, len(radii) * cells + 1)[:, 1:].view(images, len(radii), num_classes, num_classes)
    return matrices.flip(1).cumsum(1)  # what the smallest radius reaches, all do


def bf_scores(prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int = IGNORE_INDEX, ratio: float = 0.0075) -> Tensor:
    """BF score of every class in every image: float64 `[B, K]` in [0, 1] (Csurka et al. 2013).

    The contour of a mask are its pixels with one outside it among their eight neighbours in the image. Precision is the share of the
    predicted contour whose Euclidean distance to the true one is below ratio * diagonal, recall the share of the true contour near the
    predicted one, the score their harmonic mean: 0 where only one of the two contours exists, NaN where neither does. The score of an
    image is the mean over the classes that have one, the score of a data set the mean over its images (`nanmean` both times).

    Args:
        prediction: As in `boundary_counts`.
        target: As in `boundary_counts`.
        num_classes: K <= 255.
        ignore_index: The label of pixels that are in no mask.
        ratio: Tolerance as a share of the image diagonal.

    Raises:
        SegkitError: A label of the truth or the prediction is outside 0..K-1.
    """
    marked = torch.stack(_marked(prediction, target, num_classes, ignore_index))
    mixed = (_extreme(marked, 1, torch.minimum, 255) != marked) | (_extreme(marked, 1, torch.maximum, 0) != marked)
    contours = marked * mixed
    near = torch.zeros_like(mixed)
    tolerance = ratio * math.hypot(*marked.shape[-2:])
    for first in range(0, num_classes, 62):
        sets = _class_sets(contours, first, min(num_classes - first, 62))
        near |= (_disc(sets, tolerance).flip(0) & sets) != 0
    true, predicted = _per_class(contours, num_classes).double()
    recalled, precise = _per_class(contours * near, num_classes).double()
    precision, recall = precise / predicted, recalled / true
    scores = 2 * precision * recall / (precision + recall)
    return torch.where((true + predicted > 0) & (recalled + precise == 0), 0.0, scores)  # 0 / 0: one contour only, or none near


def _marked(prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Truth and prediction as uint8 `[B, H, W]`: label + 1, and 0 where the truth is ignored."""
    assert num_classes <= 255, num_classes
    valid = check_labels(prediction, target, num_classes, ignore_index)
    truth, found = ((labels.to(torch.uint8) + 1) * valid for labels in (target, prediction))
    return truth, found


def _extreme(values: Tensor, radius: int, pick: Callable[[Tensor, Tensor], Tensor], outside: int) -> Tensor:
    """The smallest or largest value in the window of (2 radius + 1)² pixels around each: `[..., H, W]` to the same.

    Windows that double in size, and a last one that overlaps: 2 log2(radius) passes of the widest vector instructions there are.
    """
    values = pad(values, (radius,) * 4, value=outside)
    for dim in (-2, -1):
        size, length = 1, values.shape[dim] - 2 * radius
        while size < 2 * radius + 1:
            step = min(size, 2 * radius + 1 - size)
            rest = values.shape[dim] - step
            values = pick(values.narrow(dim, 0, rest), values.narrow(dim, step, rest))
            size += step
        assert values.shape[dim] == length
    return values


def _class_sets(contours: Tensor, first: int, count: int) -> Tensor:
    """Marked labels as sets of classes, a bit for each of `count` classes from `first` on; sets of several pixels unite by `|`."""
    dtype = next(d for d, bits in ((torch.uint8, 8), (torch.int16, 14), (torch.int32, 30), (torch.int64, 62)) if count <= bits)
    position = contours.to(dtype if dtype != torch.uint8 else torch.int16) - (first + 1)
    inside = (position >= 0) & (position < count)
    return torch.bitwise_left_shift(inside.to(dtype), (position * inside).to(dtype))


def _disc(sets: Tensor, radius: float) -> Tensor:
    """The union of the sets at Euclidean distance below `radius`: `[..., H, W]` to the same, in 4 radius passes."""
    reach = max(math.ceil(radius) - 1, 0)
    widths = [max(w for w in range(reach + 1) if w == 0 or math.hypot(dy, w) < radius) for dy in range(reach + 1)]
    h, w = sets.shape[-2:]
    padded = pad(sets, (reach,) * 4)
    row = padded[..., reach : reach + w].clone()
    union = torch.zeros_like(sets)
    for width in range(reach + 1):
        for shift in {reach - width, reach + width}:
            row |= padded[..., shift : shift + w]
        for dy in (dy for dy, widest in enumerate(widths) if widest == width):
            for shift in {reach - dy, reach + dy}:
                union |= row[..., shift : shift + h, :]
    return union


def _per_class(marked: Tensor, num_classes: int) -> Tensor:
    """Pixels of every class in marked labels `[..., H, W]`: int64 `[..., K]`."""
    counts = _histogram(marked.flatten(0, -3).int(), num_classes + 1)[:, 1:]
    return counts.reshape(*marked.shape[:-2], num_classes)


def _histogram(cells: Tensor, bins: int) -> Tensor:
    """How often each of `bins` values occurs in each map of int32 `[M, H, W]`: int64 `[M, bins]`."""
    offset = torch.arange(len(cells), dtype=torch.int32, device=cells.device).view(-1, 1, 1) * bins
    return torch.bincount((cells + offset).flatten(), minlength=len(cells) * bins).view(len(cells), bins)
