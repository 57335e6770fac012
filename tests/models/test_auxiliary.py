"""Deep supervision: the losses of coarse stages, in training alone, and nothing of it in the network."""

import math

import pytest
import torch
from torch import nn

from segkit.cli.eval import main as evaluate
from segkit.cli.train import main as train
from segkit.config import TrainConfig
from segkit.errors import SegkitError
from segkit.losses import build_loss
from segkit.models import UNet, build_model
from segkit.models.auxiliary import DeepSupervision
from segkit.task import SegmentationTask

NAMES, COLORS = ["a", "b", "c"], [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
SMALL = """--wandb.mode disabled --decoder_channels [16,8,8,8] --data.crop 32 --data.scenes_size 48 --data.scenes_train 8
--data.scenes_val 4 --trainer.accelerator cpu --trainer.devices 1"""


def make(**options):
    torch.manual_seed(0)
    return SegmentationTask(NAMES, COLORS, [0.5] * 3, [0.25] * 3, **{"decoder_channels": [16, 8, 8, 8], **options})


def test_every_stage_but_the_finest_two_is_held_to_the_middle_pixel_of_its_cells():
    """By hand: classifiers that pass three channels on, one-hot stages, and masks of which one pixel per cell counts."""
    supervision = DeepSupervision(UNet(3, encoder="plain", decoder_channels=(4, 4, 4, 4)), 3)
    assert supervision.strides == [8, 4]
    for classifier in supervision.classifiers:
        nn.init.zeros_(classifier.bias)
        classifier.weight.data = torch.eye(3, 4).view(3, 4, 1, 1)
    masks = torch.full((1, 16, 8), 255)
    masks[0, 4, 4], masks[0, 12, 4] = 1, 2  # the middles at stride 8
    masks[0, 2, 2], masks[0, 10, 6] = 0, 1  # two of the middles at stride 4, whose other cells are ignored
    coarse, fine = torch.zeros(1, 4, 2, 1), torch.zeros(1, 4, 4, 2)
    coarse[0, 1, 0, 0] = 5.0  # right in the first cell, undecided in the second
    fine[0, 0, 0, 0] = fine[0, 2, 2, 1] = 5.0  # right, wrong
    right, wrong = math.log(1 + 2 * math.exp(-5)), math.log(math.exp(5) + 2)
    found = supervision([coarse, fine, torch.zeros(1, 4, 8, 4), torch.zeros(1, 4, 16, 8)], masks, build_loss("ce", num_classes=3))
    assert found.item() == pytest.approx((right + math.log(3)) / 2 + (right + wrong) / 2, rel=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (33, 57), (5, 3)])
def test_the_objective_is_the_loss_and_the_weighted_losses_of_the_stages(size):
    task = make(deep_supervision=0.4, loss="ce").train()
    images, masks = torch.randint(256, (2, 3, *size), dtype=torch.uint8), torch.randint(3, (2, *size), dtype=torch.uint8)
    value, logits = task.objective(images, masks)
    stages = []
    expected = task.model(task.normalize(images), stages)
    assert [stage.shape[1] for stage in stages] == [16, 8, 8, 8]
    torch.testing.assert_close(logits, expected)
    auxiliary = 0
    for stage, classifier, stride in zip(stages, task.deep_supervision.classifiers, (8, 4), strict=False):
        middles = masks[:, stride // 2 :: stride, stride // 2 :: stride].long()
        if middles.numel():
            auxiliary += nn.functional.cross_entropy(classifier(stage)[..., : middles.shape[1], : middles.shape[2]], middles)
    torch.testing.assert_close(value, nn.functional.cross_entropy(expected, masks.long()) + 0.4 * auxiliary)
    value.backward()
    assert task.deep_supervision.classifiers[-1].weight.grad.abs().sum() > 0


def test_the_network_and_its_start_are_those_without_it():
    plain, supervised = make(), make(deep_supervision=0.4)
    assert plain.deep_supervision is None
    assert plain.model.state_dict().keys() == supervised.model.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), supervised.model.parameters(), strict=True))
    images = torch.randint(256, (1, 3, 20, 20), dtype=torch.uint8)
    assert torch.equal(plain.eval()(images), supervised.eval()(images))


def test_a_compiled_network_gives_its_stages_too():
    network, images = UNet(3, encoder="plain", decoder_channels=(8, 8, 8)), torch.randn(2, 3, 32, 32)
    results = []
    for form in (network, torch.compile(network, backend="aot_eager")):
        stages = []
        logits = form(images, stages)
        results.append([logits, *stages])
    assert len(results[1]) == 4
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"decoder": "fcn8s"}, {"decoder": "smp:FPN", "encoder": "resnet18"}, {"decoder_channels": [8, 8]}])
def test_other_networks_are_refused(options):
    channels = {"decoder_channels": options["decoder_channels"]} if "decoder_channels" in options else {}
    network = build_model(options.get("decoder", "unet"), 3, encoder="resnet18", **channels)
    with pytest.raises(SegkitError, match="--deep_supervision 0.4 is for --decoder unet with 3 --decoder_channels or more; give 0"):
        TrainConfig(deep_supervision=0.4, **options)
    with pytest.raises(SegkitError, match="deep supervision is for a UNet with 3 decoder_channels or more; leave it out"):
        DeepSupervision(network, 3)


def test_a_weight_below_zero_is_refused():
    with pytest.raises(SegkitError, match="--deep_supervision -1"):
        TrainConfig(deep_supervision=-1)


def test_a_run_trains_goes_on_and_is_evaluated(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train([*SMALL.split(), "--deep_supervision", "0.4", "--trainer.max_steps", "2", "--run_id", "r", "--ema", "0.9"])
    run = next(tmp_path.glob("runs/*/r"))
    task = SegmentationTask.load(run / "checkpoints/last.ckpt")
    assert len(task.deep_supervision.classifiers) == 2
    before = task.deep_supervision.classifiers[0].weight.clone()
    train(["--resume", str(run), "--trainer.max_steps", "4"])
    assert not torch.equal(before, SegmentationTask.load(run / "checkpoints/last.ckpt").deep_supervision.classifiers[0].weight)
    evaluate([str(run), "--images", "0"])
    assert "mIoU" in capsys.readouterr().out
