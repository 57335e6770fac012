"""Calibration against hand-computed values, a float64 loop over pixels, and torchmetrics."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from segkit.errors import RunFailed, SegkitError
from segkit.metrics import Calibration, labels


def measured(logits, target, **options):
    sums = Calibration(logits.shape[1], **options)
    sums.update(logits, labels(logits), target)
    return sums


def made(images=3, classes=4, size=(9, 7), seed=0, ignored=0.2):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(images, classes, *size, generator=generator)
    target = torch.randint(classes, (images, *size), generator=generator)
    target[torch.rand(target.shape, generator=generator) < ignored] = 255
    return logits, target.to(torch.uint8)


def by_pixel(logits, target, bins):
    """The definitions, a pixel at a time in float64."""
    classes = logits.shape[1]
    top, every = np.zeros((3, bins)), np.zeros((3, classes, bins))
    brier, nll, pixels = 0.0, 0.0, 0
    x, y = logits.double().permute(0, 2, 3, 1).reshape(-1, classes).numpy(), target.flatten().tolist()
    for scores, truth in zip(x, y, strict=True):
        if truth == 255:
            continue
        p = np.exp(scores - scores.max())
        p /= p.sum()
        place = [max(math.ceil(v * bins) - 1, 0) for v in p]
        best = int(p.argmax())
        top[:, place[best]] += 1, p[best], best == truth
        for k in range(classes):
            every[:, k, place[k]] += 1, p[k], k == truth
        brier += sum((p[k] - (k == truth)) ** 2 for k in range(classes))
        nll -= math.log(p[truth])
        pixels += 1
    return top, every, brier / pixels, nll / pixels, pixels


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_sums_are_those_of_a_loop_over_pixels(bins, layout):
    logits, target = made()
    sums = measured(logits.contiguous(memory_format=layout), target, bins=bins)
    top, every, brier, nll, pixels = by_pixel(logits, target, bins)
    overall, classes = sums.overall(), sums.per_class()
    assert overall.count.tolist() == top[0].tolist()
    assert classes.count.tolist() == every[0].tolist()
    assert sums.count[1].tolist() == top[2].tolist()
    assert sums.class_correct.tolist() == every[2].tolist()
    np.testing.assert_allclose(sums.confidence, top[1], rtol=1e-6)
    np.testing.assert_allclose(sums.class_confidence, every[1], rtol=1e-5, atol=1e-6)
    ece = np.abs(top[2] - top[1]).sum() / pixels
    assert overall.error.item() == pytest.approx(ece, rel=1e-5)
    filled = top[0] > 0
    assert overall.largest.item() == pytest.approx((np.abs(top[2] - top[1])[filled] / top[0][filled]).max(), rel=1e-5)
    np.testing.assert_allclose(classes.error, np.abs(every[2] - every[1]).sum(1) / pixels, rtol=1e-5)
    assert (sums.brier(), sums.log_likelihood()) == pytest.approx((brier, nll), rel=1e-6)
    assert sums.mean_confidence() == pytest.approx(top[1].sum() / pixels, rel=1e-6)


def test_the_errors_are_those_of_torchmetrics():
    logits, target = made(images=2, classes=5, size=(40, 30), seed=1)
    sums = measured(logits, target)
    for norm, mine in (("l1", sums.overall().error), ("max", sums.overall().largest)):
        oracle = MulticlassCalibrationError(num_classes=5, n_bins=15, norm=norm, ignore_index=255)
        assert mine.item() == pytest.approx(oracle(logits, target.long()).item(), rel=1e-5)
    assert sums.log_likelihood() == pytest.approx(torch.nn.functional.cross_entropy(logits, target.long(), ignore_index=255).item())


def test_by_hand():
    p = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.4, 0.6], [0.8, 0.2]])  # four pixels of two classes, the last one ignored
    logits = p.log().T.reshape(1, 2, 1, 4)
    sums = measured(logits, torch.tensor([[[0, 1, 1, 255]]]), bins=10)
    overall = sums.overall()
    assert overall.count.tolist() == [0, 0, 0, 0, 0, 1, 0, 2, 0, 0]  # (0.5, 0.6] and (0.7, 0.8]
    assert overall.confidence[[5, 7]].tolist() == pytest.approx([0.6, 0.8])
    assert overall.accuracy[[5, 7]].tolist() == [1, 0.5]
    assert overall.confidence.isnan().sum() == overall.accuracy.isnan().sum() == 8
    assert overall.error.item() == pytest.approx((0.4 + 2 * 0.3) / 3)
    assert overall.largest.item() == pytest.approx(0.4)
    # class 0 has 0.8, 0.8, 0.4 and is true once: |1 - 1.6| + |0 - 0.4|; class 1 the same seen from the other side
    assert sums.per_class().error.tolist() == pytest.approx([1 / 3, 1 / 3])
    assert sums.brier() == pytest.approx(2 * (0.2**2 + 0.8**2 + 0.4**2) / 3)
    assert sums.log_likelihood() == pytest.approx(-math.log(0.8 * 0.2 * 0.6) / 3)


def test_certainty_is_in_the_last_bin_and_impossibility_in_the_first():
    logits = torch.tensor([200.0, 0.0, -200.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    sums = measured(logits, torch.zeros(1, 2, 2, dtype=torch.uint8))
    assert sums.overall().count.tolist() == [0] * 14 + [4]
    assert sums.overall().error == sums.brier() == sums.log_likelihood() == 0
    assert sums.per_class().count[:, [0, 14]].tolist() == [[0, 4], [4, 0], [4, 0]]
    wrong = measured(logits, torch.full((1, 2, 2), 2))
    assert (wrong.overall().error, wrong.brier(), wrong.log_likelihood()) == (1, 2, 400)  # no underflow of the likelihood


def test_batches_and_processes_add_up():
    logits, target = made(images=4)
    whole, parts = measured(logits, target), [measured(logits[i : i + 2], target[i : i + 2]) for i in (0, 2)]
    for total, *pieces in zip(whole.tensors(), *(part.tensors() for part in parts), strict=True):
        np.testing.assert_allclose(total, sum(pieces), rtol=1e-13)
    for name in ("count", "class_count", "class_correct"):
        assert (getattr(whole, name) == sum(getattr(part, name) for part in parts)).all()


def test_half_precision_is_measured_in_single():
    logits, target = made()
    half = logits.bfloat16()
    assert measured(half, target).brier() == pytest.approx(measured(half.float(), target).brier(), rel=1e-12)


def test_nothing_to_score_is_nan():
    sums = measured(torch.zeros(1, 2, 3, 3), torch.full((1, 3, 3), 255))
    overall = sums.overall()
    assert all(math.isnan(x) for x in (overall.error, overall.largest, sums.brier(), sums.log_likelihood(), sums.mean_confidence()))
    assert overall.count.sum() == sums.class_count.sum() == 0


def test_what_cannot_be_measured_is_refused():
    logits, target = made()
    prediction = labels(logits)
    with pytest.raises(SegkitError, match="the truth has labels \\[9\\]"):
        Calibration(4).update(logits, prediction, target.masked_fill(target == 1, 9))
    for value in (math.nan, math.inf):
        broken = logits.clone()
        broken[1, 2, 3, 3] = value
        with pytest.raises(RunFailed, match="NaN or infinity"):
            Calibration(4).update(broken, prediction, target)
