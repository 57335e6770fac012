"""CUDA graphs of a training step: refused where they cannot be, and on a card the numbers of plain steps."""

import copy

import pytest
import torch

from segkit.cli.train import main
from segkit.config import TrainConfig, TrainerConfig
from segkit.errors import SegkitError
from segkit.losses import build_loss
from segkit.models import UNet
from segkit.models.recorded import LossAndLogits, record

ON_A_CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: CPUs have no such graphs")


@pytest.mark.parametrize(("options", "other"), [
    ({"compile": True}, "--compile true"),
    ({"recompute": True}, "--recompute true"),
    ({"loss": "lovasz"}, "--loss lovasz"),
    ({"trainer": TrainerConfig(accumulate=2)}, "--trainer.accumulate 2"),
    ({"trainer": TrainerConfig(accelerator="cpu")}, "--trainer.accelerator cpu"),
])  # fmt: skip
def test_what_cannot_be_recorded_is_refused_by_name(options, other):
    with pytest.raises(SegkitError, match=f"--cuda_graphs true with {other}: .* leave one of them out"):
        TrainConfig(cuda_graphs=True, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a graphics card")
def test_without_a_graphics_card_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SegkitError, match="--cuda_graphs true: it is for one graphics card, and this run is on 1 x cpu; leave it out"):
        main(
            ["--cuda_graphs", "--wandb.mode", "disabled", "--trainer.max_steps", "2", "--data.scenes_train", "8", "--data.scenes_val", "2"]
        )


def test_what_is_recorded_is_the_loss_and_the_logits():
    torch.manual_seed(0)
    network, loss = UNet(3, encoder="plain", decoder_channels=(8, 8)), build_loss("ce_dice", num_classes=3)
    images, masks = torch.randn(2, 3, 16, 16), torch.randint(3, (2, 16, 16))
    value, logits = LossAndLogits(copy.deepcopy(network), loss)(images, masks)
    torch.testing.assert_close(logits, network(images))
    torch.testing.assert_close(value, loss(logits, masks))
    assert value.requires_grad
    assert not logits.requires_grad


@ON_A_CARD
@pytest.mark.parametrize("upsample", ["transpose", "nearest", "dysample", "fade", "unpool"])
def test_replayed_steps_are_plain_steps(upsample):
    torch.manual_seed(0)
    plain = UNet(3, encoder="plain", upsample=upsample, decoder_channels=(16, 8), dropout=0.5).cuda()
    loss, recorded = build_loss("ce_dice", num_classes=3, class_weights=[1, 2, 3]).cuda(), copy.deepcopy(plain)
    images, masks = torch.randn(4, 2, 3, 32, 32, device="cuda"), torch.randint(3, (4, 2, 32, 32), device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        passes = record(recorded, loss, images[0], masks[0])
        for (key, a), b in zip(recorded.state_dict().items(), plain.state_dict().values(), strict=True):
            assert torch.equal(a, b), key
        for x, y in zip(images, masks, strict=True):
            results = []
            for network, step in ((plain, LossAndLogits(plain, loss)), (recorded, passes)):
                torch.cuda.manual_seed(5)  # of dropout
                value, logits = step(x, y)
                value.backward()
                with torch.no_grad():
                    for p in network.parameters():
                        p -= 0.1 * p.grad
                        p.grad = None
                results.append((value.detach().clone(), logits.clone()))
            torch.testing.assert_close(*results, rtol=2e-2, atol=2e-2)
    for (key, a), b in zip(recorded.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2, msg=key)


@ON_A_CARD
def test_what_waits_for_the_device_is_one_line():
    network = UNet(3, encoder="plain", decoder_channels=(8, 8)).cuda()
    images, masks = torch.randn(2, 3, 16, 16, device="cuda"), torch.randint(3, (2, 16, 16), device="cuda")
    with pytest.raises(SegkitError, match="cannot be recorded .*; leave the option out"):
        record(network, build_loss("lovasz", num_classes=3).cuda(), images, masks)


@ON_A_CARD
def test_train_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = "--wandb.mode disabled --trainer.max_steps 6 --data.scenes_train 8 --data.scenes_val 2 --trainer.precision bf16-mixed --ema 0.9"
    for more in ([], ["--cuda_graphs"]):
        main([*words.split(), *more])
    losses = [file.read_text() for file in tmp_path.glob("runs/*/*/metrics.csv")]
    assert len(losses) == 2
