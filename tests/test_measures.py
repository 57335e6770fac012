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
from segkit.measures import BoundaryMeasures, CalibrationMeasures, Extremes, boundary_summary, choose, lines, operator_indices
from segkit.metrics import Calibration, operator_index
from segkit.metrics.artefacts import NetworkIndex, Spectrum
from segkit.metrics.boundary import bf_scores, boundary_counts, trimap_matrices
from segkit.metrics.confusion import scores
from segkit.models import FCN, UNet
from segkit.models.fingerprint import operators
from segkit.results import image_scores
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
        evaluation.main([str(run), "--boundary", "--artefacts", "--calibration", "--images", "2", "--accelerator", "cpu"])
    return run, run / "eval/test-last"


def read(folder):
    return json.loads((folder / "metrics.json").read_text()), dict(np.load(folder / "per_image.npz"))


def test_without_the_options_there_is_nothing_more(evaluated, tmp_path):
    evaluation.main([str(evaluated[0]), "--images", "0", "--out", str(tmp_path)])
    metrics, columns = read(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.json", "per_image.npz", "per_image.csv", "confusion.png"}
    assert set(columns) == {"index", "name", "matrix", "classes"}
    assert not {"boundary", "artefacts", "calibration"} & set(metrics)
    assert 0 < metrics["seconds"] < 600


def test_the_files_hold_what_is_measured_one_image_at_a_time(evaluated):
    run, folder = evaluated
    metrics, columns = read(folder)
    task = SegmentationTask.load(run / "checkpoints/last.ckpt")
    config = task.run_config["data"]
    source = source_of(config)
    index, spectrum, calibration, k = NetworkIndex(6), Spectrum(), Calibration(6), 6
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
        calibration.update(logits, *maps)
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
    found, overall, per_class = metrics["calibration"], calibration.overall(), calibration.per_class()
    assert found["bins"] == 15
    assert (found["ece"], found["mce"]) == pytest.approx((overall.error.item(), overall.largest.item()), rel=1e-5)
    assert list(found["class_ece"].values()) == pytest.approx(per_class.error.tolist(), rel=1e-5)
    assert found["classwise_ece"] == pytest.approx(per_class.error.mean().item(), rel=1e-5)
    assert (found["brier"], found["nll"]) == pytest.approx((calibration.brier(), calibration.log_likelihood()), rel=1e-6)
    bins = np.load(folder / "calibration.npz")
    np.testing.assert_allclose(bins["edges"], np.arange(16) / 15)
    assert bins["count"].tolist() == overall.count.tolist()
    np.testing.assert_allclose(bins["class_accuracy"], per_class.accuracy, rtol=1e-5)
    assert bins["class_count"].shape == bins["class_confidence"].shape == (6, 15)
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
    words = [
        ROOT / "scripts/eval.py",
        run,
        "--boundary",
        "--artefacts",
        "--calibration",
        "--images",
        "2",
        "--accelerator",
        "cpu",
        "--devices",
        "2",
    ]
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
    assert one["calibration"].pop("class_ece") == pytest.approx(two["calibration"].pop("class_ece"), rel=1e-9)
    assert one["calibration"] == pytest.approx(two["calibration"], rel=1e-9)
    for name in ("gallery.html", "per_image.csv"):  # whichever process has seen an image
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()
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
    none = CalibrationMeasures(["a", "b"], 255).summary()
    assert lines({"calibration": none}) == {
        "ECE": "none   MCE none   class-wise none   (15 bins)",
        "Brier score": "none   negative log-likelihood none",
    }


def test_a_second_validation_starts_anew():
    measures = BoundaryMeasures()
    measures.columns = [(torch.zeros(1),)]
    measures.on_validation_epoch_start(None, None)
    assert measures.columns == []
    calibration = CalibrationMeasures(["a", "b"], 255)
    calibration.sums.count += 1
    calibration.on_validation_epoch_start(None, None)
    assert calibration.sums.count.sum() == 0
    extremes = Extremes(2)
    extremes.maps, extremes.scores = {0: np.zeros(1)}, {0: (0.5, np.zeros(2))}
    extremes.on_validation_epoch_start(None, None)
    assert not extremes.maps
    assert not extremes.scores


@pytest.mark.parametrize("world", [1, 3])
def test_what_is_kept_on_the_way_is_what_is_chosen_in_the_end(world):
    rng = np.random.default_rng(0)
    matrices = rng.integers(0, 4, (40, 3, 3)) * (rng.random((40, 1, 1)) > 0.1)  # many equal scores, some images with nothing to score
    found = image_scores(matrices)
    chosen = choose(found.miou, found.wrong, 4)
    kept = {}
    for rank in range(world):
        extremes = Extremes(4)
        for batch in torch.randperm(40, generator=torch.Generator().manual_seed(1))[rank::world].split(3):
            maps = batch.to(torch.uint8).view(-1, 1, 1).expand(-1, 2, 2)
            extremes.on_validation_batch_end(
                None, None, {"prediction": maps, "matrices": torch.from_numpy(matrices[batch.numpy()])}, {"index": batch}, 0
            )
        assert len(extremes.maps) == len(extremes.scores) <= 4 + 4 + 3
        kept |= extremes.gathered(chosen.all())
    assert sorted(kept) == chosen.all()
    assert all((labels == index).all() for index, labels in kept.items())


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
