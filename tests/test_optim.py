import math
from typing import get_args

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from segkit import config
from segkit.errors import SegkitError
from segkit.optim import build_optimizer, learning_rate_factor, parameter_groups


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.decoder = nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.GroupNorm(2, 4), nn.LayerNorm([4, 8, 8]), nn.PReLU())
        self.table_bias = nn.Parameter(torch.zeros(3, 3))
        self.head = nn.Conv2d(4, 2, 1)
        self.tied = self.head
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def names(model, groups):
    known = {id(p): n for n, p in model.named_parameters()}
    return {group["name"]: {known[id(p)] for p in group["params"]} for group in groups}


def test_groups():
    model = Model()
    groups = parameter_groups(model, lr=0.2, weight_decay=0.01, encoder_lr=0.1)
    assert names(model, groups) == {
        "decoder": {"decoder.0.weight", "head.weight"},
        "decoder_no_decay": {f"decoder.{i}.{p}" for i in (1, 2) for p in ("weight", "bias")}
        | {"decoder.3.weight", "table_bias", "head.bias"},
        "encoder": {"encoder.0.weight"},
        "encoder_no_decay": {"encoder.0.bias", "encoder.1.weight", "encoder.1.bias"},
    }
    assert {g["name"]: (g["lr"], g["weight_decay"]) for g in groups} == {
        "decoder": (0.2, 0.01),
        "decoder_no_decay": (0.2, 0.0),
        "encoder": (pytest.approx(0.02), 0.01),
        "encoder_no_decay": (pytest.approx(0.02), 0.0),
    }
    listed = [id(p) for g in groups for p in g["params"]]
    assert sorted(listed) == sorted({id(p) for p in model.parameters() if p.requires_grad})


def test_empty_groups_are_left_out():
    assert [g["name"] for g in parameter_groups(nn.Linear(2, 2, bias=False), 0.1, 0.1)] == ["decoder"]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", get_args(config.Optimizer))
def test_one_step_by_hand(name, fused):
    """w = 2, gradient 3, lr 0.1, decay 0.5. AdamW's first step is lr times the sign after w shrinks by lr x decay; SGD adds decay x w."""
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 2)
    nn.init.constant_(model.bias, 2)
    optimizer = build_optimizer(name, parameter_groups(model, lr=0.1, weight_decay=0.5), 0.1, 0.9, fused)
    for _ in range(2):
        model.weight.grad, model.bias.grad = torch.full((1, 1), 3.0), torch.full((1,), 3.0)
        optimizer.step()
    expected = {
        "adamw": ((2 * 0.95 - 0.1) * 0.95 - 0.1, 2 - 0.1 - 0.1),
        "sgd": (2 - 0.4 - 0.74, 2 - 0.3 - 0.57),  # velocities 4, then 0.9 x 4 + 3 + 0.5 x 1.6 = 7.4; without decay 3, then 5.7
    }[name]
    assert (model.weight.item(), model.bias.item()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("schedule", get_args(config.Schedule))
@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (0, 2), (0, 3), (0, 100), (1, 2), (20, 400), (9, 10)])
def test_defined_and_positive_at_every_step(schedule, warmup, total):
    factor = learning_rate_factor(schedule, warmup, total)
    values = [factor(step) for step in range(total + 1)]
    assert all(isinstance(v, float) and 0 < v <= 1 for v in values[:-1])
    assert 0 <= values[-1] <= 1
    assert factor(total + 5) == values[-1]
    assert values[warmup:-1] == sorted(values[warmup:-1], reverse=True) or (schedule, warmup) == ("onecycle", 0)
    if warmup:
        assert factor(warmup) == 1
        assert values[: warmup + 1] == sorted(values[: warmup + 1])


@pytest.mark.parametrize(
    ("schedule", "warmup", "total", "expected"),
    [
        ("constant", 0, 3, [1, 1, 1, 1]),
        ("constant", 3, 6, [1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1]),
        ("poly", 0, 2, [1, 0.5**0.9, 0]),
        ("poly", 1, 5, [1 / 2, 1, 0.75**0.9, 0.5**0.9, 0.25**0.9, 0]),
        ("cosine", 0, 4, [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]),
        ("cosine", 2, 4, [1 / 3, 2 / 3, 1, 0.5, 0]),
        # up from 1/25 over two steps, down to 1/250000 over the other two
        ("onecycle", 2, 5, [0.04, 0.52, 1, (1 + 4e-6) / 2, 4e-6, 4e-6]),
    ],
)
def test_by_hand(schedule, warmup, total, expected):
    factor = learning_rate_factor(schedule, warmup, total)
    assert [factor(step) for step in range(total + 1)] == pytest.approx(expected, rel=1e-12, abs=1e-15)


def rates(make, steps):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = make(optimizer)
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


@pytest.mark.parametrize(
    ("schedule", "warmup", "theirs"),
    [
        ("poly", 0, lambda o: lr_scheduler.PolynomialLR(o, 50, power=0.9)),
        ("cosine", 0, lambda o: lr_scheduler.CosineAnnealingLR(o, 50)),
        ("constant", 0, lambda o: lr_scheduler.ConstantLR(o, factor=1)),
        ("constant", 9, lambda o: lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=9)),
        ("onecycle", 0, lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.3, total_steps=50, cycle_momentum=False)),
        ("onecycle", 10, lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.3, total_steps=50, pct_start=11 / 50, cycle_momentum=False)),
    ],
)
def test_torch_s_schedulers_agree(schedule, warmup, theirs):
    ours = rates(lambda o: lr_scheduler.LambdaLR(o, learning_rate_factor(schedule, warmup, 50)), 49)
    assert ours == pytest.approx(rates(theirs, 49), rel=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "--lr 0.0 must be finite and > 0"),
        ({"lr": math.nan}, "--lr nan must be"),
        ({"lr": math.inf}, "--lr inf must be"),
        ({"weight_decay": -1.0}, "--weight_decay -1.0 must be finite and >= 0"),
        ({"encoder_lr": -1.0}, "--encoder_lr -1.0 is a factor on --lr"),
        ({"encoder_lr": 0.1, "encoder_prefix": "backbone."}, "--encoder_lr 0.1 has no effect: .* starts with 'backbone.'"),
    ],
)
def test_wrong_groups(options, message):
    with pytest.raises(SegkitError, match=message):
        parameter_groups(Model(), **{"lr": 0.1, "weight_decay": 0.0, **options})


def test_wrong_optimizers():
    groups = parameter_groups(nn.Linear(1, 1), 0.1, 0)
    with pytest.raises(SegkitError, match="unknown optimizer 'adam'; did you mean 'adamw'"):
        build_optimizer("adam", groups, 0.1, 0.9, fused=False)
    with pytest.raises(SegkitError, match=r"--momentum 1.0 must be in \[0, 1\)"):
        build_optimizer("sgd", groups, 0.1, 1.0, fused=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("polly", 0, 10), "unknown schedule 'polly'; did you mean 'poly'"),
        (("poly", 10, 10), "--warmup leaves 10 of 10 steps to the rise; it must be 0 or more and less than all"),
        (("onecycle", -1, 10), "--warmup leaves -1 of 10 steps to the rise; it must be 0 or more and less than all"),
        (("poly", 0, 0), "a training of 0 steps does nothing; --trainer.max_steps must be >= 1"),
    ],
)
def test_wrong_schedules(arguments, message):
    with pytest.raises(SegkitError, match=message):
        learning_rate_factor(*arguments)
