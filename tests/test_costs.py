"""What networks cost, against counts by hand."""

import re
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from segkit.cli.costs import run_length
from segkit.config import DataConfig, TrainConfig
from segkit.costs import TOLERANCE, count, latency, match_widths, measure, peak_memory
from segkit.data.module import SegmentationDataModule
from segkit.errors import SegkitError
from segkit.models import FCN, UNet
from segkit.upsampling import UPSAMPLERS, build_upsampler

SIZE = (64, 96)
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def formula(name, column, **values):
    """What the README's table says of an operator (column 2: parameters, 3: multiply-adds), in numbers."""
    row = next(line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
    text = row.strip("|").split("|")[column].strip().replace("²", "**2").replace(",", "")
    terms = re.sub(r"(?<=[\w)])(?=[A-Zks(])", "*", text)
    return eval(terms, {}, values)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("name", UPSAMPLERS)
def test_costs_of_operators_are_those_of_the_formulas(name, scale):
    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.upsample = build_upsampler(UPSAMPLERS[name], 32, 12, scale, guide_channels=12)
            self.guide = nn.Conv2d(32, 12, 1) if self.upsample.guided else None

        def forward(self, x):
            guide = [] if self.guide is None else [self.guide(x).repeat_interleave(scale, -1).repeat_interleave(scale, -2)]
            return self.upsample(x, *guide)

    model = Alone()
    entry = count(model, (4, 6), in_channels=32)["upsample"]
    kernel = {"transpose": 2 * scale, "transpose_k2": scale, "transpose_large": 4 * scale - 1, "transpose_large_k11": 6 * scale - 1}
    values = {"C": 32, "D": 12, "G": 12, "s": scale, "k": kernel.get(name, 2 * scale)}
    weights = sum(p.numel() for key, p in model.upsample.named_parameters() if not key.endswith("bias"))
    assert entry["params"] == sum(p.numel() for p in model.upsample.parameters())
    assert weights == formula(name, 2, **values)
    assert entry["macs"] == formula(name, 3, **values) * 4 * 6


def test_the_whole_network_is_counted_by_hand_too():
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 2, 1))
    assert count(model, (4, 6)) == {"": {"params": 3 * 5 * 9 + 5 + 5 * 2 + 2, "macs": 4 * 6 * (3 * 5 * 9 + 5 * 2)}}


def test_counting_changes_nothing():
    model = UNet(4, encoder="plain", decoder_channels=[8, 8]).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count(model, SIZE)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# Where the budget of transposed convolutions lies below what an operator costs with the narrowest input, or between two of its steps
OUT_OF_REACH = {("unet", name, "macs") for name in ("carafe", "fade")}
OUT_OF_REACH |= {("fcn16s", name, "macs") for name in ("blur_pixel_shuffle", "dysample", "dysample_dynamic", "fade", "sapa")}
OUT_OF_REACH |= {("fcn16s", name, what) for name in ("carafe", "transpose_large_k11") for what in ("params", "macs")}
OUT_OF_REACH |= {("fcn16s", "unpool", what) for what in ("params", "macs")}  # whose channels are not those of the encoder


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
    if (decoder, name, what) in OUT_OF_REACH:
        with pytest.raises(SegkitError, match=f"--match {what}: .*(use --match native|another operator|a multiple of)"):
            match_widths(lambda w: build(upsample=name, upsample_width=w), native, what, SIZE)
        return
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


def test_peak_memory_sees_what_is_allocated_and_freed_each_time():
    for mebibytes in (800, 400):  # the second is below the record that the first has left
        grown = peak_memory(lambda size=mebibytes: torch.ones(size, 2**18).sum(), torch.device("cpu"))
        assert mebibytes - 20 < grown < mebibytes + 100


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
