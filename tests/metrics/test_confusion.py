"""The oracles: a loop over pixels, torchmetrics, and matrices small enough to score by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix, multiclass_jaccard_index
from torchmetrics.functional.segmentation import dice_score

from segkit.errors import RunFailed, SegkitError
from segkit.metrics import confusion_matrices, confusion_matrix, labels, scores

MAPS = st.tuples(st.integers(2, 9), st.integers(1, 4), st.integers(1, 12), st.integers(1, 12), st.floats(0, 1), st.integers(0, 2**32 - 1))


def draw(maps):
    """Prediction and truth `[B, H, W]`, some classes rare or absent, some pixels ignored."""
    classes, images, height, width, ignored, seed = maps
    random = np.random.default_rng(seed)
    share = random.dirichlet(np.full(classes, 0.4))
    prediction, target = random.choice(classes, (2, images, height, width), p=share)
    target[random.random(target.shape) < ignored] = 255
    return classes, prediction, target


def loop(prediction, target, classes, ignore_index=255):
    matrix = [[0] * classes for _ in range(classes)]
    for p, t in zip(prediction.ravel().tolist(), target.ravel().tolist(), strict=True):
        if t != ignore_index:
            matrix[t][p] += 1
    return matrix


@settings(max_examples=150, deadline=None, database=None)
@given(MAPS, st.sampled_from([np.uint8, np.int16, np.int64]))
def test_counts_are_the_loop_s(maps, dtype):
    classes, prediction, target = draw(maps)
    p, t = torch.from_numpy(prediction.astype(np.uint8)), torch.from_numpy(target.astype(dtype))
    per_image = confusion_matrices(p, t, classes)
    assert per_image.dtype == torch.int64
    assert per_image.tolist() == [loop(a, b, classes) for a, b in zip(prediction, target, strict=True)]
    total = confusion_matrix(p, t, classes)
    assert total.dtype == torch.int64
    assert total.tolist() == per_image.sum(0).tolist()
    assert total.tolist() == multiclass_confusion_matrix(p.long(), t.long(), classes, ignore_index=255).tolist()


@settings(max_examples=100, deadline=None, database=None)
@given(MAPS)
def test_scores_are_the_oracles(maps):
    classes, prediction, target = draw(maps)
    p, t = torch.from_numpy(prediction), torch.from_numpy(target)
    found = scores(confusion_matrix(p, t, classes))
    valid = target != 255
    iou, dice, absent = [], [], []
    for c in range(classes):
        a, b = (prediction == c) & valid, (target == c) & valid
        if (a | b).any():
            iou.append((a & b).sum() / (a | b).sum())
            dice.append(2 * (a & b).sum() / (a.sum() + b.sum()))
        else:
            absent.append(c)
    assert found.absent == tuple(absent)
    assert [x for c, x in enumerate(found.iou) if c not in absent] == pytest.approx(iou, rel=1e-12)
    assert [x for c, x in enumerate(found.dice) if c not in absent] == pytest.approx(dice, rel=1e-12)
    assert all(math.isnan(found.iou[c]) and math.isnan(found.dice[c]) for c in absent)
    if not valid.any():
        assert all(math.isnan(x) for x in (found.miou, found.mean_dice, found.accuracy))
        return
    assert found.miou == pytest.approx(np.mean(iou), rel=1e-12)
    assert found.mean_dice == pytest.approx(np.mean(dice), rel=1e-12)
    assert found.accuracy == pytest.approx((prediction == target)[valid].mean(), rel=1e-12)
    # torchmetrics scores an absent class 0, but leaves it out of its mean as well
    theirs = multiclass_jaccard_index(p, t, classes, average="none", ignore_index=255)
    assert [x for c, x in enumerate(found.iou) if c not in absent] == pytest.approx(
        [x for c, x in enumerate(theirs.tolist()) if c not in absent], abs=1e-6
    )
    assert found.miou == pytest.approx(multiclass_jaccard_index(p, t, classes, ignore_index=255).item(), abs=1e-6)
    assert found.accuracy == pytest.approx(multiclass_accuracy(p, t, classes, average="micro", ignore_index=255).item(), abs=1e-6)


@pytest.mark.parametrize("classes", [2, 127, 128, 256])
@pytest.mark.parametrize("ignore_index", [255, 1, -1, 300])
def test_counts_of_bytes_are_those_of_wider_types(classes, ignore_index):
    """On a CPU uint8 maps are counted in a way of their own, in 16 or in 32 bits."""
    random = np.random.default_rng(classes)
    prediction, target = torch.from_numpy(random.integers(0, classes, (2, 3, 40, 50), dtype=np.uint8))
    if ignore_index == 255:
        target[torch.from_numpy(random.random(target.shape)) < 0.3] = 255
    found = confusion_matrices(prediction, target, classes, ignore_index)
    assert found.tolist() == [loop(p, t, classes, ignore_index) for p, t in zip(prediction.numpy(), target.numpy(), strict=True)]
    assert torch.equal(found, confusion_matrices(prediction.long(), target.long(), classes, ignore_index))


def test_no_images_and_no_pixels():
    for shape in ((0, 4, 4), (2, 0, 4)):
        none = torch.zeros(shape, dtype=torch.uint8)
        assert confusion_matrices(none, none, 3).tolist() == torch.zeros(shape[0], 3, 3).tolist()


def test_dice_is_torchmetrics():
    random = np.random.default_rng(0)
    p, t = (torch.from_numpy(random.integers(0, 4, (1, 32, 32))) for _ in range(2))
    theirs = dice_score(p, t, 4, average="none", input_format="index", include_background=True)
    assert scores(confusion_matrix(p, t, 4)).dice == pytest.approx(theirs.flatten().tolist(), abs=1e-6)


def test_by_hand():
    """Truth 0 0 / 0 1, prediction 0 1 / 0 1: class 0 hits 2 of a union of 3, class 1 hits 1 of 2."""
    target, prediction = torch.tensor([[0, 0], [0, 1]], dtype=torch.uint8), torch.tensor([[0, 1], [0, 1]], dtype=torch.uint8)
    matrix = confusion_matrix(prediction, target, 2)
    assert matrix.tolist() == [[2, 1], [0, 1]]
    found = scores(matrix)
    assert found.iou == pytest.approx((2 / 3, 1 / 2), rel=1e-15)
    assert found.dice == pytest.approx((4 / 5, 2 / 3), rel=1e-15)
    assert (found.miou, found.mean_dice, found.accuracy) == pytest.approx((7 / 12, 11 / 15, 3 / 4), rel=1e-15)
    assert found.absent == ()


def test_predicted_but_not_true_counts_as_zero():
    found = scores(torch.tensor([[3, 1, 0], [0, 0, 0], [0, 0, 0]]))
    assert found.iou[:2] == (0.75, 0.0)
    assert found.absent == (2,)
    assert math.isnan(found.iou[2])
    assert found.miou == 0.375


def test_nothing_to_score():
    target = torch.full((2, 3, 4), 255, dtype=torch.uint8)
    matrix = confusion_matrix(torch.zeros_like(target), target, 3)
    assert matrix.tolist() == [[0] * 3] * 3
    found = scores(matrix)
    assert all(math.isnan(x) for x in (*found.iou, *found.dice, found.miou, found.mean_dice, found.accuracy))
    assert found.absent == (0, 1, 2)


def test_big_counts_stay_exact():
    """float32 cannot tell 2**24 from 2**24 + 1."""
    found = scores(torch.tensor([[2**24, 1], [0, 2**40]]))
    assert found.iou[0] == 2**24 / (2**24 + 1)


def test_prediction_under_ignored_truth_is_free():
    for dtype in (torch.int64, torch.uint8):
        target, prediction = torch.tensor([[[255, 0]]], dtype=dtype), torch.tensor([[[200, 1]]], dtype=dtype)
        assert confusion_matrix(prediction, target, 2).tolist() == [[0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("label", "dtype"), [(2, torch.int64), (3, torch.uint8), (254, torch.uint8), (254, torch.int64), (-1, torch.int64)]
)
@pytest.mark.parametrize("side", ["truth", "prediction"])
def test_labels_outside_the_classes(side, label, dtype):
    good, bad = torch.zeros(1, 2, 2, dtype=dtype), torch.tensor([[[0, 0], [label, 0]]], dtype=dtype)
    with pytest.raises(SegkitError, match=rf"the {side} has labels \[{label}\] outside 0\.\.1; the ignore index is 255"):
        confusion_matrix(*((good, bad) if side == "truth" else (bad, good)), 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_labels_are_the_first_argmax(dtype, layout):
    values = np.random.default_rng(0).integers(-3, 4, (2, 5, 9, 7))  # many ties
    found = labels(torch.from_numpy(values).to(dtype, memory_format=layout))
    assert found.dtype == torch.uint8
    assert found.tolist() == values.argmax(1).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bad", [[math.nan], [math.inf], [-math.inf], [math.inf, -math.inf]])
def test_labels_refuse_what_is_not_finite(bad, dtype):
    logits = torch.zeros(2, 3, 5, 5, dtype=dtype)
    logits[1, 2, 4, : len(bad)] = torch.tensor(bad, dtype=dtype)
    with pytest.raises(RunFailed, match="NaN or infinity"):
        labels(logits)


def test_labels_take_huge_logits():
    logits = torch.full((1, 2, 64, 64), 6e4, dtype=torch.float16)  # finite, though their float16 sum is not
    assert labels(logits).sum() == 0
