"""The oracles: binary masks class by class, eroded step by step; loops over all pairs of pixels; maps small enough to do by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion

from segkit.errors import SegkitError
from segkit.metrics.boundary import bf_scores, boundary_counts, boundary_iou, trimap_matrices
from segkit.metrics.confusion import confusion_matrices, scores

MAPS = st.tuples(
    st.integers(1, 9),  # classes
    st.integers(1, 3),  # images
    st.integers(1, 11),  # rows
    st.integers(1, 11),  # columns
    st.integers(1, 5),  # side of the blocks of one class
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),  # share of ignored blocks
    st.sampled_from([0.0, 0.1, 1.0]),  # share of pixels that are predicted at random, the others right
    st.integers(0, 2**32 - 1),
)


def draw(maps):
    """Prediction and truth `[B, H, W]`: blocks, often of one pixel or the whole image, some classes rare or absent, some blocks ignored."""
    classes, images, height, width, block, ignored, noise, seed = maps
    random = np.random.default_rng(seed)
    share = random.dirichlet(np.full(classes, 0.5))

    def blocks(values):
        return values.repeat(block, 1).repeat(block, 2)[:, :height, :width]

    coarse = (images, height, width)
    target = blocks(random.choice(classes, coarse, p=share))
    prediction = np.where(random.random(coarse) < noise, blocks(random.choice(classes, coarse, p=share)), target)
    target = np.where(blocks(random.random(coarse)) < ignored, 255, target)
    return classes, prediction, target


def tensors(*maps):
    return tuple(torch.from_numpy(m.astype(np.uint8)) for m in maps)


def masks(prediction, target, k):
    """Of one class: truth and prediction, ignored pixels out of both."""
    return (target == k) & (target != 255), (prediction == k) & (target != 255)


def region(mask, d):
    """What d erosions take from a mask that is padded with one pixel of nothing."""
    padded = np.pad(mask, 1)
    eroded = binary_erosion(padded, np.ones((3, 3)), iterations=d)[1:-1, 1:-1]
    return mask & ~eroded


def slow_boundary(prediction, target, classes, ratio):
    d = max(1, round(ratio * math.sqrt(target.shape[0] ** 2 + target.shape[1] ** 2)))
    regions = [[region(m, d) for m in masks(prediction, target, k)] for k in range(classes)]
    return [(int((t & p).sum()), int((t | p).sum())) for t, p in regions]


@settings(max_examples=150, deadline=None, database=None)
@given(MAPS, st.sampled_from([0.001, 0.1, 0.2, 0.6]))
def test_boundary_counts_are_those_of_binary_masks(maps, ratio):
    classes, prediction, target = draw(maps)
    found = torch.stack(boundary_counts(*tensors(prediction, target), classes, ratio=ratio), dim=2)
    assert found.dtype == torch.int64
    assert [[tuple(c) for c in image] for image in found.tolist()] == [
        slow_boundary(p, t, classes, ratio) for p, t in zip(prediction, target, strict=True)
    ]


def slow_trimap(prediction, target, classes, radii):
    matrices = np.zeros((len(radii), classes, classes), int)
    pixels = [(int(i), int(j)) for i, j in np.argwhere(target != 255)]
    for i, j in pixels:
        others = [max(abs(i - a), abs(j - b)) for a, b in pixels if target[a, b] != target[i, j]]
        for n, radius in enumerate(radii):
            if others and min(others) <= radius:
                matrices[n, target[i, j], prediction[i, j]] += 1
    return matrices


@settings(max_examples=100, deadline=None, database=None)
@given(MAPS, st.sampled_from([(1, 2, 4, 8, 16), (1,), (2, 3), (5,)]))
def test_trimap_matrices_are_the_loop_s(maps, radii):
    classes, prediction, target = draw(maps)
    found = trimap_matrices(*tensors(prediction, target), classes, radii)
    assert found.dtype == torch.int64
    assert found.tolist() == [slow_trimap(p, t, classes, radii).tolist() for p, t in zip(prediction, target, strict=True)]


def contour(mask):
    """Pixels of a mask that have a neighbour in the image outside it."""
    h, w = mask.shape
    steps = [s for s in itertools.product((-1, 0, 1), repeat=2) if s != (0, 0)]
    return [
        (i, j) for i, j in np.argwhere(mask).tolist() if any(0 <= i + a < h and 0 <= j + b < w and not mask[i + a, j + b] for a, b in steps)
    ]


def near(these, those, tolerance):
    return sum(any(math.sqrt((i - a) ** 2 + (j - b) ** 2) < tolerance for a, b in those) for i, j in these)


def slow_bf(prediction, target, classes, ratio):
    tolerance = ratio * math.sqrt(target.shape[0] ** 2 + target.shape[1] ** 2)
    values = []
    for k in range(classes):
        t, p = (contour(mask) for mask in masks(prediction, target, k))
        if not t and not p:
            values.append(None)
            continue
        precision = near(p, t, tolerance) / len(p) if p else 0
        recall = near(t, p, tolerance) / len(t) if t else 0
        values.append(2 * precision * recall / (precision + recall) if precision + recall else 0)
    return values


@settings(max_examples=150, deadline=None, database=None)
@given(MAPS, st.sampled_from([0.0075, 0.11, 0.2, 0.31, 0.7]))
def test_bf_scores_are_the_loop_s(maps, ratio):
    classes, prediction, target = draw(maps)
    found = bf_scores(*tensors(prediction, target), classes, ratio=ratio)
    assert found.dtype == torch.float64
    for image, p, t in zip(found.tolist(), prediction, target, strict=True):
        assert [None if math.isnan(x) else pytest.approx(x, rel=1e-12) for x in image] == slow_bf(p, t, classes, ratio)


@pytest.mark.parametrize("classes", [8, 9, 14, 15, 30, 31, 62, 63, 130, 255])
def test_any_number_of_classes(classes):
    """The sets of classes change their integer type at these numbers; the last classes are the ones at stake."""
    random = np.random.default_rng(classes)
    labels = [0, classes // 2, classes - 2, classes - 1]
    prediction, target = random.choice(labels, (2, 1, 12, 12))
    target[0, 3:5, 3:5] = 255
    maps = tensors(prediction, target)
    found = bf_scores(*maps, classes, ratio=0.12)[0].tolist()
    assert [None if math.isnan(x) else pytest.approx(x, rel=1e-12) for x in found] == slow_bf(prediction[0], target[0], classes, 0.12)
    assert torch.stack(boundary_counts(*maps, classes), dim=2)[0].tolist() == [
        list(c) for c in slow_boundary(prediction[0], target[0], classes, 0.02)
    ]
    assert trimap_matrices(*maps, classes, (1, 2))[0].tolist() == slow_trimap(prediction[0], target[0], classes, (1, 2)).tolist()


def test_a_boundary_is_counted_in_the_classes_on_both_sides():
    """Two halves of three columns. The erosion of the label map itself would leave the lower label no boundary at their common edge."""
    target = torch.tensor([[2, 2, 2, 1, 1, 1]] * 6, dtype=torch.uint8)[None]
    both, union = boundary_counts(target, target, 3, ratio=0.1)  # 0.1 * 8.49 rounds to 1
    assert both.tolist() == union.tolist() == [[0, 18 - 4, 18 - 4]]  # of 6 x 3 pixels, 4 x 1 are left


def test_the_image_border_is_contour_for_boundary_iou_and_for_nothing_else():
    whole = torch.zeros(1, 5, 5, dtype=torch.uint8)
    assert [x.tolist() for x in boundary_counts(whole, whole, 2)] == [[[16, 0]], [[16, 0]]]
    assert trimap_matrices(whole, whole, 2).sum() == 0
    assert bf_scores(whole, whole, 2).isnan().all()


def test_boundary_iou_by_hand():
    """A square of 4 x 4 in 10 x 10, predicted one column to the right, d = 1: rings of 12 pixels that share 6.

    Of the outside, 84 pixels, the erosion leaves 64 inside the image border less the 36 of the square and its surroundings.
    """
    target = torch.zeros(1, 10, 10, dtype=torch.uint8)
    target[0, 3:7, 3:7] = 1
    both, union = boundary_counts(target.roll(1, 2), target, 2, ratio=0.02)
    assert (both[0, 1].item(), union[0, 1].item()) == (6, 18)
    assert (both[0, 0].item(), union[0, 0].item()) == (46, 66)  # 84 - (64 - 36) = 56 each; 10 of either are not the other's


def test_a_data_set_is_scored_by_its_sums_and_an_absent_class_is_nan():
    both, union = torch.tensor([[1, 0, 0], [9, 0, 0]]), torch.tensor([[10, 4, 0], [10, 0, 0]])
    found = boundary_iou(both, union)
    assert found[:2].tolist() == [0.5, 0.0]
    assert found[2].isnan()
    assert found.nanmean() == 0.25


def test_trimap_by_hand():
    target, prediction = torch.tensor([[[0, 0, 0, 1, 1, 1]]]), torch.tensor([[[0, 0, 1, 1, 1, 0]]])
    first, second, third = trimap_matrices(prediction, target, 2, (1, 2, 4))[0].tolist()
    assert first == [[0, 1], [0, 1]]
    assert second == [[1, 1], [0, 2]]
    assert third == confusion_matrices(prediction, target, 2)[0].tolist() == [[2, 1], [1, 2]]
    assert scores(torch.tensor(second)).miou == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_ignored_pixels_make_no_boundary_and_do_not_hide_one():
    island = torch.zeros(1, 9, 9, dtype=torch.uint8)
    island[0, 3:6, 3:6] = 255
    assert trimap_matrices(torch.ones_like(island), island, 2).sum() == 0
    strip = torch.tensor([[[0, 0, 255, 1, 1]]])
    first, second = trimap_matrices(strip.clamp(max=1), strip, 2, (1, 2))[0].tolist()
    assert first == [[0, 0], [0, 0]]
    assert second == [[1, 0], [0, 1]]


def test_the_edge_of_what_is_ignored_is_a_contour_of_the_masks_beside_it():
    """As in data whose objects are outlined by an ignored strip: nothing else would be left of their contours."""
    target = torch.tensor([[[0, 0, 0, 0, 255, 1, 1, 1, 1]]])
    assert bf_scores(target.clamp(max=1), target, 2).tolist() == [[1, 1]]
    assert bf_scores(torch.zeros_like(target), target, 2, ratio=0.1).tolist()[0] == [pytest.approx(2 / 3), 0]  # pixels 3 and 5 for pixel 3
    both, union = boundary_counts(torch.zeros_like(target), target, 2)
    assert both.tolist() == [[4, 0]]
    assert union.tolist() == [[8, 4]]


def test_bf_by_hand():
    """An edge predicted one pixel off, in an image of 3 x 4: the diagonal is 5, and a tolerance of exactly one pixel does not reach."""
    target, prediction = torch.tensor([[[0, 0, 1, 1]] * 3]), torch.tensor([[[0, 1, 1, 1]] * 3])
    assert bf_scores(prediction, target, 3, ratio=0.2).tolist()[0][:2] == [0, 0]
    assert bf_scores(prediction, target, 3, ratio=0.21).tolist()[0][:2] == [1, 1]
    assert bf_scores(prediction, target, 3, ratio=0.21)[0, 2].isnan()
    dotted = target.clone()
    dotted[0, 0, 0] = 1  # contour of 1: that pixel, and the column of 3; of 0: the pixel below it, and the column of 3
    assert bf_scores(dotted, target, 2, ratio=0.01).tolist()[0] == pytest.approx([2 * (3 / 4) / (3 / 4 + 1)] * 2)


def test_a_class_that_only_the_prediction_has_scores_zero():
    target = torch.zeros(1, 6, 6, dtype=torch.uint8)
    prediction = target.clone()
    prediction[0, 2, 2] = 1
    assert bf_scores(prediction, target, 3)[0, :2].tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_integer_types_and_batches(dtype):
    prediction, target = tensors(*np.random.default_rng(0).integers(0, 5, (2, 3, 20, 24)))
    target[:, 4:9, 7:9] = 255
    together = measure(prediction, target.to(dtype))
    for i in range(3):
        for found, one in zip(together, measure(prediction[i : i + 1].to(dtype), target[i : i + 1]), strict=True):
            assert torch.equal(found[i : i + 1], one)


def test_another_ignore_index():
    prediction, target = tensors(*np.random.default_rng(0).integers(0, 5, (2, 1, 20, 24)))
    ignored = target == 3
    expected = measure(prediction, target.masked_fill(ignored, 255))
    for found, one in zip(measure(prediction, target.short().masked_fill(ignored, -100), -100), expected, strict=True):
        assert torch.equal(found, one)


def measure(prediction, target, ignore_index=255):
    return (
        *boundary_counts(prediction, target, 5, ignore_index),
        trimap_matrices(prediction, target, 5, ignore_index=ignore_index),
        bf_scores(prediction, target, 5, ignore_index).nan_to_num(-1),
    )


@pytest.mark.parametrize("function", [boundary_counts, trimap_matrices, bf_scores])
@pytest.mark.parametrize("side", ["truth", "prediction"])
def test_labels_outside_the_classes(function, side):
    good, bad = torch.zeros(1, 2, 2, dtype=torch.uint8), torch.full((1, 2, 2), 7, dtype=torch.uint8)
    with pytest.raises(SegkitError, match=rf"the {side} has labels \[7\] outside 0\.\.1"):
        function(*((good, bad) if side == "truth" else (bad, good)), 2)
