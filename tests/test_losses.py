"""The oracles are float64 loops over pixels, written from the papers' formulas; nothing in them comes from the code under test."""

import math
from typing import get_args

import numpy as np
import pytest
import segmentation_models_pytorch.losses as smp
import torch
from torch.nn import functional as F

from segkit import config
from segkit.errors import SegkitError
from segkit.losses import LOSSES, SMOOTHABLE, WEIGHTABLE, SegmentationLoss, _lovasz_weights, build_loss

K = 5
WEIGHTS = [0.5, 1.0, 0.25, 2.0, 4.0]  # dyadic: exact in float32
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))]


def case(seed=0, present=(0, 1, 3), ignored=0.2, size=(2, 7, 9)):
    """Logits `[B, K, H, W]` in float64 and labels with ignored pixels and absent classes."""
    random = np.random.default_rng(seed)
    target = random.choice(present, size=size)
    target[random.random(size) < ignored] = 255
    return torch.from_numpy(random.normal(0, 2, (size[0], K, *size[1:]))), torch.from_numpy(target)


def valid_pixels(logits, target, ignore_index=255):
    """The softmax probabilities `[P, K]` and labels `[P]` of the pixels that are not ignored, by loops."""
    p, t = [], []
    for b, row, column in np.ndindex(*target.shape):
        if target[b, row, column] != ignore_index:
            z = logits[b, :, row, column].numpy().astype(np.float64)
            e = np.exp(z - z.max())
            p.append(e / e.sum())
            t.append(int(target[b, row, column]))
    return np.array(p), np.array(t)


def oracle_ce(p, t, weights=(1,) * K, smoothing=0.0):
    total = sum(
        (1 - smoothing) * weights[c] * -math.log(q[c]) + smoothing / K * sum(w * -math.log(r) for w, r in zip(weights, q, strict=True))
        for q, c in zip(p, t, strict=True)
    )
    return total / sum(weights[c] for c in t)


def oracle_focal(p, t, weights=(1,) * K):
    total = sum(weights[c] * (1 - q[c]) ** 2 * -math.log(q[c]) for q, c in zip(p, t, strict=True))
    return total / sum(weights[c] for c in t)


def oracle_tversky(p, t, alpha=0.3, beta=0.7):
    losses = []
    for c in set(t.tolist()):
        tp = sum(q[c] for q, label in zip(p, t, strict=True) if label == c)
        fp = sum(q[c] for q, label in zip(p, t, strict=True) if label != c)
        fn = sum(1 - q[c] for q, label in zip(p, t, strict=True) if label == c)
        losses.append(1 - tp / (tp + alpha * fp + beta * fn))
    return sum(losses) / len(losses)


def oracle_lovasz(p, t):
    """Definition of the extension: Σ errors in falling order times the growth of the Jaccard loss of the set of wrong pixels."""
    losses = []
    for c in set(t.tolist()):
        truth, errors = t == c, np.where(t == c, 1 - p[:, c], p[:, c])
        wrong, before, loss = np.zeros(len(t), bool), 0.0, 0.0
        for i in np.argsort(-errors):
            wrong[i] = True
            jaccard_loss = 1 - (truth & ~wrong).sum() / (truth | wrong).sum()
            loss += errors[i] * (jaccard_loss - before)
            before = jaccard_loss
        losses.append(loss)
    return sum(losses) / len(losses)


ORACLES = {
    "ce": oracle_ce,
    "dice": lambda p, t: oracle_tversky(p, t, 0.5, 0.5),
    "ce_dice": lambda p, t: oracle_ce(p, t) + oracle_tversky(p, t, 0.5, 0.5),
    "focal": oracle_focal,
    "lovasz": oracle_lovasz,
    "tversky": oracle_tversky,
}


def test_names_are_the_configuration_s():
    assert set(LOSSES) == set(get_args(config.Loss)) == set(ORACLES)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("seed", "present", "ignored", "size"),
    [
        (0, (0, 1, 3), 0.2, (2, 7, 9)),
        (1, range(K), 0.0, (1, 8, 8)),
        (2, (4,), 0.5, (3, 4, 5)),
        (3, (0, 2), 0.9, (2, 6, 6)),
        (4, (1,), 0, (1, 1, 1)),
    ],
)
def test_value_is_the_oracle_s(name, seed, present, ignored, size):
    logits, target = case(seed, tuple(present), ignored, size)
    expected = ORACLES[name](*valid_pixels(logits, target))
    loss = build_loss(name, num_classes=K)
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-12)
    assert loss(logits, target.byte()).item() == pytest.approx(expected, rel=1e-12)
    assert loss(logits.float(), target).item() == pytest.approx(expected, rel=1e-5)
    assert loss(logits.to(memory_format=torch.channels_last), target).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("band", [1, 2 * K * 9, 2 * K * 9 * 3])
def test_bands_of_rows_add_up(name, band, monkeypatch):
    """Of 2 images of 7 x 9: bands of one row, of one row again, and of 3, 3 and 1; with gradients there are none."""
    logits, target = case()
    expected = build_loss(name, num_classes=K)(logits.clone().requires_grad_(), target).item()
    monkeypatch.setattr("segkit.losses.BAND", band)
    loss, seen = build_loss(name, num_classes=K), []
    monkeypatch.setattr(loss, "_sums", lambda *arguments: seen.append(arguments[1].shape[1]) or SegmentationLoss._sums(loss, *arguments))
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-12)
    assert seen == ([7] if name == "lovasz" else [3, 3, 1] if band == 2 * K * 9 * 3 else [1] * 7)
    logits[1, 0, 6, 8] = math.inf
    assert math.isnan(loss(logits, target).item())


@pytest.mark.parametrize("name", LOSSES)
def test_ignore_index_can_be_a_class(name):
    logits, target = case(present=(0, 1, 3), ignored=0)
    expected = ORACLES[name](*valid_pixels(logits, target, ignore_index=0))
    assert build_loss(name, num_classes=K, ignore_index=0)(logits, target).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient(name):
    logits, target = case(size=(2, 3, 4))
    assert torch.autograd.gradcheck(lambda x: build_loss(name, num_classes=K)(x, target), logits.requires_grad_())


@pytest.mark.parametrize(("name", "smoothing"), [("ce", 0.0), ("ce", 0.1), ("ce_dice", 0.1), ("focal", 0.0)])
def test_class_weights_and_smoothing(name, smoothing):
    logits, target = case()
    p, t = valid_pixels(logits, target)
    expected = oracle_focal(p, t, WEIGHTS) if name == "focal" else oracle_ce(p, t, WEIGHTS, smoothing)
    expected += oracle_tversky(p, t, 0.5, 0.5) if name == "ce_dice" else 0
    loss = build_loss(name, num_classes=K, class_weights=WEIGHTS, label_smoothing=smoothing)
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-12)
    assert loss.state_dict() == {}


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_is_torch_s(weights, smoothing):
    logits, target = case()
    theirs, ours = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected = F.cross_entropy(theirs, target, weights and torch.tensor(weights).double(), ignore_index=255, label_smoothing=smoothing)
    value = build_loss("ce", num_classes=K, class_weights=weights, label_smoothing=smoothing)(ours, target)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(value, ours)[0], torch.autograd.grad(expected, theirs)[0], rtol=1e-10, atol=1e-15)


def test_smp_agrees_where_it_is_right():
    """Its Dice and Tversky divide by all classes, so that absent ones dilute the loss; its Lovász takes float32 only."""
    logits, target = case(present=(0, 1, 3))
    theirs = {
        "dice": smp.DiceLoss("multiclass", ignore_index=255)(logits, target) * K / 3,
        "tversky": smp.TverskyLoss("multiclass", ignore_index=255, alpha=0.3, beta=0.7)(logits, target) * K / 3,
        "lovasz": smp.LovaszLoss("multiclass", ignore_index=255)(logits.float(), target),
    }
    for name, value in theirs.items():
        assert build_loss(name, num_classes=K)(logits, target).item() == pytest.approx(value.item(), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_hand_values(name):
    """Two pixels, two classes: probabilities 3/4 and 1/2 of the true class; a third pixel is ignored."""
    logits = torch.tensor([[[[math.log(3), 0.0, 7.0]], [[0.0, 0.0, -9.0]]]], dtype=torch.float64)
    target = torch.tensor([[[0, 1, 255]]])
    dice = (1 - 2 * 0.75 / (0.75 + 0.5 + 1) + 1 - 2 * 0.5 / (0.25 + 0.5 + 1)) / 2
    ce = (math.log(4 / 3) + math.log(2)) / 2
    expected = {
        "ce": ce,
        "dice": dice,
        "ce_dice": ce + dice,
        "focal": (math.log(4 / 3) / 16 + math.log(2) / 4) / 2,
        # class 0: TP 3/4, FP 1/2, FN 1/4; class 1: TP 1/2, FP 1/4, FN 1/2
        "tversky": (1 - 0.75 / (0.75 + 0.15 + 0.175) + 1 - 0.5 / (0.5 + 0.075 + 0.35)) / 2,
        # class 0: errors 1/2 (false: union 2, loss 1/2), then 1/4 (true: 1/2 more); class 1: 1/2 (true: loss 1), then nothing more
        "lovasz": (0.5 / 2 + 0.25 / 2 + 0.5) / 2,
    }
    assert build_loss(name, num_classes=2)(logits, target).item() == pytest.approx(expected[name], rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_ignored_pixels_have_no_part(name, dtype):
    options = {"class_weights": WEIGHTS} if name in WEIGHTABLE else {}
    options |= {"label_smoothing": 0.1} if name in SMOOTHABLE else {}
    loss = build_loss(name, num_classes=K, **options)
    logits, target = case()
    ignored = (target == 255).unsqueeze(1).expand_as(logits)
    plain, wild = logits.to(dtype), torch.where(ignored, 1e4 * logits.sign(), logits).to(dtype)
    values, gradients = [], []
    for x in (plain, wild):
        x.requires_grad_()
        values.append(loss(x, target))
        gradients.append(torch.autograd.grad(values[-1], x)[0])
        assert gradients[-1][ignored].abs().max() == 0
        assert gradients[-1][~ignored].abs().max() > 0
    assert values[0] == values[1]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_ignored_is_zero_with_a_gradient(name, dtype):
    options = {"label_smoothing": 0.1} if name in SMOOTHABLE else {}
    logits = case()[0].to(dtype).requires_grad_()
    value = build_loss(name, num_classes=K, **options)(logits, torch.full((2, 7, 9), 255, dtype=torch.uint8))
    value.backward()
    assert value.shape == ()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_classes_without_weight_only():
    logits, target = case(present=(0,))
    assert build_loss("ce", num_classes=K, class_weights=[0, 1, 1, 1, 1])(logits, target).item() == 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(name, dtype):
    logits, target = case()
    logits = logits.to(dtype)
    value = build_loss(name, num_classes=K)(logits, target)
    assert value.dtype == torch.float32
    assert value == build_loss(name, num_classes=K)(logits.float(), target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert value == build_loss(name, num_classes=K)(logits, target)


@pytest.mark.parametrize("name", LOSSES)
def test_huge_logits(name):
    """At ±10⁴ softmax is 0 or 1: the right pixel costs nothing, the wrong one 2 x 10⁴ in cross-entropy."""
    logits = torch.tensor([[[[1e4, -1e4]], [[-1e4, 1e4]]]], requires_grad=True)
    loss = build_loss(name, num_classes=2)
    assert loss(logits, torch.tensor([[[0, 1]]])).item() == 0
    value = loss(logits, torch.tensor([[[0, 0]]]))
    value.backward()
    # class 0 has TP 1, FN 1
    region = {"dice": 1 / 3, "ce_dice": 1e4 + 1 / 3, "tversky": 1 - 1 / 1.7, "lovasz": 1 / 2}
    assert value.item() == pytest.approx(region.get(name, 1e4), rel=1e-6)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("label", [K, 7, 254, -1])
def test_a_label_outside_the_classes_never_trains(name, label):
    logits, target = case()
    target[0, 3, 3] = label
    with pytest.raises(RuntimeError, match="out of bounds"):
        build_loss(name, num_classes=K)(logits, target)


def test_lovasz_weights_are_exact_at_size():
    random = np.random.default_rng(0)
    truth, error = random.random(2**17) < 0.3, random.random(2**17).astype(np.float32)
    order = np.argsort(-error, kind="stable")
    missed = np.cumsum(truth[order], dtype=np.float64)
    jaccard_loss = 1 - (missed[-1] - missed) / (missed[-1] + np.arange(1, 2**17 + 1) - missed)
    expected = np.empty(2**17)
    expected[order] = np.diff(jaccard_loss, prepend=0)
    shape = (2, 256, 256)
    found = _lovasz_weights(torch.from_numpy(error).view(shape), torch.from_numpy(truth).view(shape), torch.ones(shape, dtype=torch.bool))
    distinct = np.bincount(np.unique(error, return_inverse=True)[1])[np.unique(error, return_inverse=True)[1]] == 1
    np.testing.assert_allclose(found.flatten().numpy()[distinct], expected[distinct], rtol=1e-4)


def test_region_sums_keep_float32_precision():
    """4 million pixels of one class with p = 0.3: one running float32 sum would be 1 % off."""
    logits = torch.tensor([math.log(3), math.log(7)]).view(1, 2, 1, 1).expand(1, 2, 2048, 2048)
    value = build_loss("dice", num_classes=2)(logits, torch.zeros(1, 2048, 2048, dtype=torch.uint8))
    assert value.item() == pytest.approx(1 - 0.6 / 1.3, rel=1e-4)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", LOSSES)
def test_deterministic_algorithms(name, device):
    logits, target = (x.to(device) for x in case())
    results = []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            x = logits.float().requires_grad_()
            value = build_loss(name, num_classes=K).to(device)(x, target)
            results.append((value.item(), torch.autograd.grad(value, x)[0]))
    finally:
        torch.use_deterministic_algorithms(False)
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dise", {}, "unknown loss 'dise'; did you mean 'dice'"),
        ("dice", {"class_weights": WEIGHTS}, "--class_weights has no effect on --loss dice; use it with ce, ce_dice, focal"),
        ("lovasz", {"class_weights": WEIGHTS}, "--class_weights has no effect on --loss lovasz"),
        ("tversky", {"class_weights": WEIGHTS}, "--class_weights has no effect on --loss tversky"),
        ("ce", {"class_weights": [1, 2]}, "--class_weights has 2 values for 5 classes"),
        ("ce", {"class_weights": [1, 2, 3, 4, -5]}, "--class_weights .* must be finite and >= 0"),
        ("ce", {"class_weights": [1, 2, 3, 4, math.nan]}, "--class_weights .* must be finite and >= 0"),
        ("ce", {"class_weights": [0] * K}, "one at least > 0"),
        ("ce", {"label_smoothing": 1.0}, r"--label_smoothing 1.0 must be in \[0, 1\)"),
        ("ce", {"label_smoothing": -0.1}, r"--label_smoothing -0.1 must be in \[0, 1\)"),
        ("focal", {"label_smoothing": 0.1}, "--label_smoothing has no effect on --loss focal; use it with ce, ce_dice, or set it to 0"),
    ],
)
def test_mistakes(name, options, message):
    with pytest.raises(SegkitError, match=message) as error:
        build_loss(name, num_classes=K, **options)
    assert "\n" not in str(error.value)
