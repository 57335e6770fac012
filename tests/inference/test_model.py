import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import segkit
from segkit.checkpoint import save_checkpoint
from segkit.errors import RunFailed, SegkitError
from segkit.inference import infer
from segkit.task import SegmentationTask

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (150, 110, 3), np.uint8)


def write_run(folder, channels=3, **options):
    torch.manual_seed(0)
    mean, std = [0.5, 0.4, 0.3, 0.2][:channels], [0.25, 0.2, 0.3, 0.1][:channels]
    task = SegmentationTask(["a", "b"], [[0, 0, 0], [9, 8, 7]], mean, std, decoder_channels=(8, 8), in_channels=channels, **options)
    with torch.no_grad():  # both classes, on noise
        logits = task.eval()(torch.from_numpy(RNG.integers(0, 256, (1, channels, 64, 64), np.uint8)))
        task.model.classifier.bias[1] -= (logits[:, 1] - logits[:, 0]).median()
    config = {"trainer": {"precision": "bf16-mixed"}}
    state = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams), "global_step": 7, "config": config}
    for name in ("last", "best"):
        save_checkpoint(state, folder / "checkpoints" / f"{name}.ckpt")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


def test_two_lines_predict_what_the_task_predicts(run, tmp_path):
    model = segkit.load(run, device="cpu", precision="32-true")
    mask = model.predict(IMAGE)
    assert (mask.shape, mask.dtype) == ((150, 110), np.uint8)
    np.testing.assert_array_equal(mask, SegmentationTask.load(run / "checkpoints" / "last.ckpt").predict(IMAGE))
    assert set(np.unique(mask)) == {0, 1}
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    np.testing.assert_array_equal(model.predict(tmp_path / "a.png"), mask)
    np.testing.assert_array_equal(model.probabilities(IMAGE).argmax(0), mask)
    np.testing.assert_allclose(model.probabilities(IMAGE).sum(0), 1, atol=1e-6)
    assert (model.class_names, model.colors, model.white, model.in_channels) == (["a", "b"], [[0, 0, 0], [9, 8, 7]], 255, 3)
    assert (model.mean, model.std) == ([0.5, 0.4, 0.3], [0.25, 0.2, 0.3])


def test_a_large_image_goes_through_tiles_and_means_what_infer_says(run):
    options = {"tile": 64, "overlap": 0.5, "tta": ["hflip"], "scales": [1.0, 0.5], "batch_size": 3}
    model = segkit.load(run, device="cpu", precision="32-true", **options)
    task = SegmentationTask.load(run / "checkpoints" / "last.ckpt")
    scores = infer(task, torch.from_numpy(IMAGE.transpose(2, 0, 1).copy())[None], **options)[0]
    np.testing.assert_array_equal(model.predict(IMAGE), scores.argmax(0).numpy())
    np.testing.assert_allclose(model.probabilities(IMAGE), scores.softmax(0).numpy(), rtol=0, atol=1e-6)  # blocks of another shape


def test_streamed_from_a_tiff_and_in_memory_are_equal_bit_for_bit(run, tmp_path, monkeypatch):
    monkeypatch.setattr("segkit.inference.files.MAX_PIXELS", 100)
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, photometric="rgb", tile=(32, 32), compression="zlib")
    np.save(tmp_path / "a.npy", IMAGE)
    model = segkit.load(run, device="cpu", tile=64)
    for name in ("a.tif", "a.npy"):
        np.testing.assert_array_equal(model.predict(tmp_path / name), model.predict(IMAGE))
        np.testing.assert_array_equal(model.probabilities(tmp_path / name), model.probabilities(IMAGE))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (97, 131)])
def test_any_size(run, size):
    assert segkit.load(run, device="cpu", tile=64).predict(np.zeros((*size, 3), np.uint8)).shape == size


def test_arithmetic_is_that_of_training_unless_told_otherwise(run):
    exact = segkit.load(run, device="cpu", precision="64-true").probabilities(IMAGE)
    single = segkit.load(run, device="cpu", precision="32-true").probabilities(IMAGE)
    half = segkit.load(run, device="cpu").probabilities(IMAGE)
    assert 0 < np.abs(single - exact).max() < 1e-5
    assert 1e-4 < np.abs(half - exact).max() < 0.1
    assert segkit.load(run, device="cpu").precision == "bf16-mixed"


def test_other_channels_are_asked_for_by_number(tmp_path):
    model = segkit.load(write_run(tmp_path / "four", channels=4), device="cpu")
    assert model.predict(np.zeros((20, 30, 4), np.uint8)).shape == (20, 30)
    with pytest.raises(SegkitError, match=r"the image has the shape \[150, 110, 3\]; the model takes \[rows, columns, 4\]"):
        model.predict(IMAGE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"run": "nowhere"}, "does not exist; give a run folder"),
        ({"device": "abacus"}, "--device abacus"),
        ({"device": "cpu", "precision": "8-bit"}, "unknown precision '8-bit'"),
        ({"checkpoint": "lst"}, "unknown checkpoint 'lst'; did you mean 'last'"),
        ({"device": "cpu", "tta": ["flip"]}, "unknown flip 'flip'"),
        ({"tile": 0}, "--tile 0"),
        ({"overlap": 1.0}, "--overlap 1.0"),
        ({"scales": ()}, "--tta_scales"),
        ({"scales": (float("nan"),)}, "--tta_scales"),
        ({"batch_size": 0}, "--batch_size 0"),
    ],
)
def test_mistakes_are_one_line(run, arguments, message):
    with pytest.raises(SegkitError, match=message):
        segkit.load(**{"run": run, **arguments})


def test_a_device_without_memory_says_what_to_do(run, monkeypatch):
    def full(self, images):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SegmentationTask, "forward", full)
    with pytest.raises(RunFailed, match="cpu has not enough memory for 1 x 150 x 110 pixels: give a smaller --tile"):
        segkit.load(run, device="cpu").predict(IMAGE)


def test_importing_segkit_stays_light():
    code = "import sys, segkit, segkit.inference\nassert not {'torch', 'numpy', 'pytorch_lightning'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


WIDE = """
import resource, sys
import numpy as np, torch
from segkit.inference.tiles import score_blocks
rows, columns = int(sys.argv[1]), int(sys.argv[2])
network = lambda x: torch.cat([x.float(), -x.float()], 1)
read = lambda a, b: torch.zeros(1, 3, 1, columns, dtype=torch.uint8).expand(1, 3, b - a, columns)
run = lambda h: sum(int(block.max(1).indices.to(torch.uint8).sum()) for *_, block in score_blocks(
    network, read, (h, columns), tile=256, overlap=0.25, batch_size=1))
run(256)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(rows)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_memory_grows_with_the_width_and_not_with_the_height():
    """Six classes, 10,000 columns: the rows kept are 64 x 10,000 x 6 x 4 bytes = 15 MiB; all scores of 1,500 rows would be 343 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", WIDE, "1500", "10000"], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 60
