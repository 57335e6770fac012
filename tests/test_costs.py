"""What networks cost, against counts by hand."""

import time

import pytest
import torch
from torch import nn

from segkit.cli.costs import run_length
from segkit.config import DataConfig, TrainConfig
from segkit.costs import TOLERANCE, count, latency, match_widths, measure, peak_memory
from segkit.data.module import SegmentationDataModule
from segkit.errors import SegkitError
from segkit.models import FCN, UNet
from segkit.upsampling import UPSAMPLERS

SIZE = (64, 96)
PER_PIXEL = {"transpose": 16, "transpose_k2": 4, "bilinear": 9, "nearest": 9, "pixel_shuffle": 36}  # weights per pair of channels
MACS = {**PER_PIXEL, "bilinear": 36, "nearest": 36}  # per pair of channels and input pixel


@pytest.mark.parametrize("name", UPSAMPLERS)
def test_costs_of_operators_are_those_of_the_formulas(name):
    model = UNet(4, encoder="plain", upsample=name, decoder_channels=[16, 8])
    counts = count(model, SIZE)
    for i, (c, d, pixels) in enumerate(((32, 16, 16 * 24), (16, 8, 32 * 48))):
        entry = counts[f"stages.{i}.upsample"]
        bias = 4 * d if name == "pixel_shuffle" else d
        assert entry == {"params": PER_PIXEL[name] * c * d + bias, "macs": MACS[name] * c * d * pixels}
    assert counts[""]["params"] == sum(p.numel() for p in model.parameters())


def test_the_whole_network_is_counted_by_hand_too():
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 2, 1))
    assert count(model, (4, 6)) == {"": {"params": 3 * 5 * 9 + 5 + 5 * 2 + 2, "macs": 4 * 6 * (3 * 5 * 9 + 5 * 2)}}


def test_counting_changes_nothing():
    model = UNet(4, encoder="plain", decoder_channels=[8, 8]).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count(model, SIZE)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("what", ["params", "macs"])
@pytest.mark.parametrize("name", UPSAMPLERS)
@pytest.mark.parametrize("decoder", ["unet", "fcn16s"])
def test_matched_operators_cost_the_same_and_nothing_else_changes(decoder, name, what):
    def build(**options):
        torch.manual_seed(0)
        if decoder == "unet":
            return UNet(4, encoder="plain", decoder_channels=[64, 32, 16], **options)
        return FCN(16, "16s", encoder="plain", **options)

    native = build(upsample="transpose")
    widths = match_widths(lambda w: build(upsample=name, upsample_width=w), native, what, SIZE)
    matched, goal = (count(model, SIZE) for model in (build(upsample=name, upsample_width=widths), native))
    cost, budget = (sum(values[what] for key, values in counts.items() if key) for counts in (matched, goal))
    assert abs(cost / budget - 1) <= TOLERANCE
    assert matched[""][what] - cost == goal[""][what] - budget


def test_a_budget_that_cannot_be_met_is_said():
    def build(widths):
        return UNet(2, encoder="plain", decoder_channels=[2, 2], upsample="pixel_shuffle", upsample_width=widths)

    with pytest.raises(SegkitError, match=r"--match params: the operators cannot cost \d+ within 2 %.*or use --match native"):
        match_widths(build, UNet(2, encoder="plain", decoder_channels=[2, 2], upsample="transpose_k2"), "params", SIZE)


def test_latency_is_a_median_between_its_quartiles():
    calls = []
    median, low, high = latency(lambda: (calls.append(0), time.sleep(0.01)), seconds=0)
    assert len(calls) == 7  # two that do not count, five that do
    assert 10 <= low <= median <= high


def test_peak_memory_sees_what_is_allocated_and_freed():
    code = (
        "import torch; from segkit.costs import peak_memory; cpu = torch.device('cpu'); peak_memory(lambda: torch.ones(1), cpu); "
        "print(peak_memory(lambda: torch.ones(300, 2**20).sum(), cpu))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # a fresh process: one peak each
    assert 1150 < float(result.stdout) < 1300  # 1200 MiB


def test_a_measurement_holds_every_cost():
    model = UNet(4, encoder="plain", decoder_channels=[8, 8])
    image = torch.zeros(1, 3, 32, 48)
    result = measure(model, model, lambda: model(image).sum().backward(), image, torch.device("cpu"))
    counts = count(model, (32, 48))
    assert (result["parameters"], result["macs"], result["image"]) == (counts[""]["params"], counts[""]["macs"], [32, 48])
    assert result["operator_macs"] == sum(values["macs"] for name, values in counts.items() if name)
    assert result["latency_iqr_ms"][0] <= result["latency_ms"] <= result["latency_iqr_ms"][1]
    assert result["step_ms"] > 0
    assert result["memory_mib"] >= 0


def test_the_length_of_a_run_that_favours_rare_classes_is_measured():
    data = DataConfig(scenes_train=9, scenes_val=2, scenes_test=0, scenes_size=48, crop=32, batch_size=4, rare_crops=0.5)
    length = run_length(TrainConfig(data=data), SegmentationDataModule(data))
    assert length["images"] == {"train": 9, "val": 2}
    assert length["augment_ms"] > length["read_ms"] > 0
