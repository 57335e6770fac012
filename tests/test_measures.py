"""What an evaluation leaves on request, against the measures taken one image at a time, in one process and in two."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segkit.cli import eval as evaluation
from segkit.cli import train as training
from segkit.data.scenes import Scenes
from segkit.measures import BoundaryMeasures, boundary_summary, lines, operator_indices
from segkit.metrics import operator_index
from segkit.metrics.artefacts import NetworkIndex, Spectrum
from segkit.metrics.boundary import bf_scores, boundary_counts, trimap_matrices
from segkit.metrics.confusion import scores
from segkit.models import FCN, UNet
from segkit.models.fingerprint import operators
from segkit.runs import newest_run
from segkit.task import SegmentationTask

ROOT = Path(__file__).parents[1]
TINY = "--decoder_channels [8,8] --data.batch_size 2 --data.crop 32 --data.scenes_size 48 --data.scenes_train 6 --data.scenes_val 3"
TINY += " --data.scenes_test 5 --trainer.accelerator cpu --trainer.devices 1 --wandb.mode disabled --wandb.panels 0 --trainer.max_steps 2"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A run and the folder of its complete evaluation."""
    folder = tmp_path_factory.mktemp("measures")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        training.main([*TINY.split(), "--upsample_init", "standard"])
        run = newest_run("runs").resolve()
        evaluation.main([str(run), "--boundary", "--artefacts", "--images", "0", "--accelerator", "cpu"])
    return run, run / "eval/test-last"


def read(folder):
    return json.loads((folder / "metrics.json").read_text()), dict(np.load(folder / "per_image.npz"))


def test_without_the_options_there_is_nothing_more(evaluated, tmp_path):
    evaluation.main([str(evaluated[0]), "--images", "0", "--out", str(tmp_path)])
    metrics, columns = read(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.json", "per_image.npz"}
    assert set(columns) == {"index", "name", "matrix", "classes"}
    assert not {"boundary", "artefacts"} & set(metrics)
    assert 0 < metrics["seconds"] < 600


def test_the_files_hold_what_is_measured_one_image_at_a_time(evaluated):
    run, folder = evaluated
    metrics, columns = read(folder)
    task = SegmentationTask.load(run / "checkpoints/last.ckpt")
    config = task.run_config["data"]
    source = source_of(config)
    index, spectrum, k = NetworkIndex(6), Spectrum(), 6
    assert columns["index"].tolist() == list(range(5))
    assert columns["trimap_radius"].tolist() == [1, 2, 4, 8, 16]
    for name, shape in (("boundary_intersection", (5, k)), ("boundary_union", (5, k)), ("trimap_matrix", (5, 5, k, k))):
        assert (columns[name].shape, columns[name].dtype) == (shape, np.int64)
    assert (columns["bf"].shape, columns["bf"].dtype) == ((5,), np.float64)
    for i in range(5):
        image, mask = source.read(i)
        with torch.inference_mode():
            logits = task(torch.from_numpy(image.transpose(2, 0, 1).copy())[None])
        maps = torch.from_numpy(task.predict(image))[None], torch.from_numpy(mask)[None]
        intersection, union = boundary_counts(*maps, k)
        assert columns["boundary_intersection"][i].tolist() == intersection[0].tolist()
        assert columns["boundary_union"][i].tolist() == union[0].tolist()
        assert columns["trimap_matrix"][i].tolist() == trimap_matrices(*maps, k)[0].tolist()
        assert columns["bf"][i] == pytest.approx(bf_scores(*maps, k).nanmean().item(), nan_ok=True)
        index.update(logits, torch.tensor([i]))
        spectrum.update(logits)
    summed = columns["boundary_intersection"].sum(0) / columns["boundary_union"].sum(0)
    assert list(metrics["boundary"]["iou"].values()) == pytest.approx(summed.tolist())
    assert metrics["boundary"]["miou"] == pytest.approx(summed.mean())
    assert metrics["boundary"]["bf"] == pytest.approx(np.nanmean(columns["bf"]))
    assert list(metrics["boundary"]["trimap"]) == ["1", "2", "4", "8", "16"]
    near = scores(torch.from_numpy(columns["trimap_matrix"].sum(0)[2]))
    assert metrics["boundary"]["trimap"]["4"] == pytest.approx(near.miou)
    artefacts = metrics["artefacts"]
    network = index.compute()
    assert {int(s): x for s, x in (artefacts["ci_net"] | artefacts["null"]).items()} == pytest.approx(network, abs=1e-6)
    assert list(artefacts["ci_net"]) == ["2", "4", "8", "16", "32"]
    assert list(artefacts["null"]) == ["3", "5", "7"]
    expected = {f"stages.{n}.upsample": operator_index(stage.upsample) for n, stage in enumerate(task.model.stages)}
    assert artefacts["ci_op"] == pytest.approx(expected)
    assert min(expected.values()) > 0.5  # untied phases
    arrays = np.load(folder / "artefacts.npz")
    np.testing.assert_allclose(arrays["spectrum_axis"], spectrum.compute()[1], rtol=1e-4)
    np.testing.assert_allclose(arrays["spectrum"], arrays["spectrum_axis"].mean(0))
    np.testing.assert_allclose(arrays["grid_4"], index.grid(4), atol=1e-6)
    assert arrays["frequency"][[0, -1]].tolist() == [0, 0.5]


def source_of(config):
    from segkit.config import DataConfig, from_dict
    from segkit.data.module import SegmentationDataModule

    source = SegmentationDataModule(from_dict(DataConfig, config)).sources["test"]
    assert isinstance(source, Scenes)
    return source


def test_two_processes_measure_the_same(evaluated, tmp_path):
    run, folder = evaluated
    words = [ROOT / "scripts/eval.py", run, "--boundary", "--artefacts", "--images", "0", "--accelerator", "cpu", "--devices", "2"]
    done = subprocess.run(
        [sys.executable, *map(str, words), "--out", str(tmp_path)], capture_output=True, text=True, check=False, timeout=240
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("boundary mIoU") == done.stdout.count("CI_net, null") == 1
    (one, columns), (two, again) = read(folder), read(tmp_path)
    assert set(columns) == set(again)
    for name, column in columns.items():
        np.testing.assert_array_equal(column, again[name])
    assert one["boundary"] == two["boundary"]
    for key in ("ci_op", "ci_net", "null"):
        assert one["artefacts"][key] == pytest.approx(two["artefacts"][key], abs=1e-6)
    np.testing.assert_allclose(np.load(folder / "artefacts.npz")["spectrum"], np.load(tmp_path / "artefacts.npz")["spectrum"], rtol=1e-4)


def test_nothing_to_measure_is_none_in_the_file_and_in_words():
    columns = {
        "boundary_intersection": np.array([[3, 0]]),
        "boundary_union": np.array([[4, 0]]),
        "trimap_radius": np.array([1]),
        "trimap_matrix": np.zeros((1, 1, 2, 2), int),
        "bf": np.array([math.nan]),
    }
    found = boundary_summary(columns, ["all", "nothing"])
    assert (found["miou"], found["iou"]["all"]) == (0.75, 0.75)
    assert all(math.isnan(x) for x in (found["iou"]["nothing"], found["bf"], found["trimap"]["1"]))
    assert lines({"boundary": found}) == {"boundary mIoU": "0.7500   BF score none", "trimap mIoU": "1 px none"}
    assert lines({}) == {}


def test_a_second_validation_starts_anew():
    measures = BoundaryMeasures()
    measures.columns = [(torch.zeros(1),)]
    measures.on_validation_epoch_start(None, None)
    assert measures.columns == []


class Own(nn.Module):
    """An operator that does not say how many channels it takes, and whose parts have names that operators have."""

    def __init__(self, in_channels, out_channels, scale=2):
        super().__init__()
        self.upsample = nn.ConvTranspose2d(in_channels, out_channels, scale, stride=scale)

    def forward(self, x):
        return self.upsample(x)


class Guided(Own):
    def forward(self, x, guide=None):
        if guide is None:
            raise ValueError("an operator that wants more than one tensor")
        return super().forward(x)


def test_operators_are_found_by_their_names():
    assert list(operators(UNet(3, encoder="plain", decoder_channels=(8, 8, 4), upsample=Own))) == [f"stages.{i}.upsample" for i in range(3)]
    assert list(operators(FCN(3, encoder="plain"))) == [f"upsamplers.{i}" for i in range(3)]
    assert operators(nn.Conv2d(1, 1, 1)) == {}


def test_operators_that_do_not_say_their_channels_are_measured_too():
    model = UNet(3, encoder="plain", decoder_channels=(8, 8, 4), upsample=[Own, "bilinear", Own], in_channels=4)
    model.stages[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = operator_indices(model, image_channels=4)
    assert list(found) == [f"stages.{i}.upsample" for i in range(3)]
    assert found["stages.1.upsample"] == pytest.approx(0, abs=1e-10)
    for i in (0, 2):
        kernel = model.stages[i].upsample.upsample.weight.detach().double()  # as large as its stride: the gains are the weights
        expected = 1 - kernel.mean((2, 3)).square().sum() * 4 / kernel.square().sum()
        assert found[f"stages.{i}.upsample"] == pytest.approx(expected.item(), rel=1e-5)
    assert model.training
    assert not model.stages[0].upsample.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_an_operator_that_cannot_be_measured_is_nan():
    model = UNet(3, encoder="plain", decoder_channels=(8, 8), upsample=["nearest", Guided])
    found = operator_indices(model)
    assert found["stages.0.upsample"] == pytest.approx(0, abs=1e-10)
    assert math.isnan(found["stages.1.upsample"])
