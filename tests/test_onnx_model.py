"""An exported network without torch: the same labels as with it, and no import of what is not installed there."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segkit.errors import SegkitError
from segkit.export import export
from segkit.inference.model import Model
from segkit.onnx_model import OnnxModel
from segkit.task import SegmentationTask

ROOT = Path(__file__).parents[1]
HEAVY = "torch pytorch_lightning jsonargparse yaml rich cv2 scipy tifffile timm segmentation_models_pytorch matplotlib onnx"


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    names, colors = ["sky", "road", "pole"], [[70, 130, 180], [128, 64, 128], [220, 220, 0]]
    made = SegmentationTask(names, colors, [0.4, 0.5, 0.6], [0.2] * 3, decoder_channels=[8, 4], upsample="nearest")
    return made.eval()


@pytest.fixture(scope="module")
def file(task, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert export(task, path).holds
    return path


def picture(h, w, seed=0):
    """Smooth colours with noise: several classes in large areas."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((w, h), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(coarse) + rng.normal(0, 10, (h, w, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "options"),
    [((1, 1), {}), ((97, 131), {}), ((150, 211), {"tile": 64, "overlap": 0.25}), ((90, 70), {"tta": ["hflip", "vflip"], "tile": 64})],
)
def test_labels_and_probabilities_are_those_of_torch(task, file, size, options):
    image = picture(*size)
    ours, torchs = OnnxModel(file, threads=1, **options), Model(task, torch.device("cpu"), **options)
    expected = torchs.probabilities(image)
    np.testing.assert_allclose(ours.probabilities(image), expected, atol=1e-4)
    best, second = np.sort(expected, 0)[::-1][:2]
    sure = best - second > 1e-3
    assert sure.mean() > 0.98
    assert (ours.predict(image) == torchs.predict(image))[sure].all()
    if min(size) > 1:
        assert len(np.unique(ours.predict(image))) > 1


def test_what_the_file_says(task, file):
    model = OnnxModel(str(file))
    assert (model.class_names, model.colors) == (task.class_names, task.colors)
    assert (model.mean, model.std, model.white, model.in_channels) == ([0.4, 0.5, 0.6], [0.2] * 3, 255, 3)
    assert model.card["upsample"] == "nearest"


def test_a_graph_without_the_normalisation_is_given_normalised_images(task, file, tmp_path):
    export(task, tmp_path / "bare.onnx", normalize=False, check=False)
    image = picture(40, 50)
    np.testing.assert_allclose(OnnxModel(tmp_path / "bare.onnx").probabilities(image), OnnxModel(file).probabilities(image), atol=1e-5)


def test_files_are_read_as_the_data_are(task, file, tmp_path):
    image = picture(30, 40)
    Image.fromarray(image).save(tmp_path / "rgb.png")
    Image.fromarray(image).convert("L").save(tmp_path / "grey.png")
    model = OnnxModel(file)
    assert (model.predict(tmp_path / "rgb.png") == model.predict(image)).all()
    grey = np.asarray(Image.fromarray(image).convert("L"))
    assert (model.predict(str(tmp_path / "grey.png")) == model.predict(grey[..., None].repeat(3, 2))).all()
    with pytest.raises(SegkitError, match="no such file"):
        model.predict(tmp_path / "none.png")
    with pytest.raises(SegkitError, match="shape"):
        model.predict(grey)


def test_files_that_are_not_ours_are_one_line(file, tmp_path, monkeypatch):
    import onnx
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "other.onnx")
    (tmp_path / "bad.onnx").write_bytes(file.read_bytes()[:2000])
    (tmp_path / "empty.onnx").write_bytes(b"")
    onnx.save(onnx.load(file), tmp_path / "split.onnx", save_as_external_data=True, location="data.bin", size_threshold=0)
    (tmp_path / "data.bin").unlink()
    for name, match in (
        ("none", "does not exist; write it by export.py"),
        ("other", "no network of segkit: its metadata lack class_names"),
        ("bad", "cannot run .*bad.onnx"),
        ("empty", "cannot run|no network of segkit"),
        ("split", "weights are in another file, which is missing"),
    ):
        with pytest.raises(SegkitError, match=match) as error:
            OnnxModel(tmp_path / f"{name}.onnx")
        assert "\n" not in str(error.value)
    with pytest.raises(SegkitError, match="unknown flip 'hflop'; did you mean 'hflip'"):
        OnnxModel(file, tta=["hflop"])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SegkitError, match=r'pip install "segkit\[export\]"'):
        OnnxModel(file)


def foreign(file, path, output="logits", channels=3, rank=4, **metadata):
    """A graph that hands its image on, with the metadata of `file` but for `metadata`."""
    import onnx
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["b", channels, "h", "w"])
    logits = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["b", 3, "h", "w"][:rank])
    nodes = [helper.make_node("Cast", ["image"], ["values"], to=TensorProto.FLOAT)]
    nodes.append(helper.make_node("AveragePool", ["values"], [output], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1))
    model = helper.make_model(helper.make_graph(nodes, "g", [image], [logits]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    kept = {p.key: p.value for p in onnx.load(file).metadata_props}
    helper.set_model_props(model, {**kept, **metadata})
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"class_names": "5"}, "class_names are no list"),
        ({"class_names": "[]"}, "class_names are no list"),
        ({"colors": "[[0, 0]]"}, "colors are not 3 triples"),
        ({"white": '"x"'}, "in_channels, white or normalize"),
        ({"normalize": '"no"'}, "in_channels, white or normalize"),
        ({"mean": "[1]"}, "mean and std are not 3 numbers"),
        ({"std": "[0, 1, 1]"}, "mean and std are not 3 numbers"),
        ({"normalize": "false"}, r"its input is .*uint8.*, not .*float"),
        ({"white": "65535"}, r"its input is .*uint8.*, not .*uint16"),
        ({"channels": 4}, "its input is .*4.*, not .*3"),
        ({"output": "scores"}, "its output is .*scores.*, not .*logits"),
        ({"class_names": '["a", "b"]', "colors": "[[0, 0, 0], [1, 1, 1]]"}, "its output is .*3.*, not .*2"),
    ],
)
def test_metadata_that_are_not_true_of_the_graph_are_one_line(file, tmp_path, change, match):
    foreign(file, tmp_path / "m.onnx", **change)
    with pytest.raises(SegkitError, match=f"does not fit its own metadata: .*{match}") as error:
        OnnxModel(tmp_path / "m.onnx")
    assert "\n" not in str(error.value)


def test_a_graph_that_fails_or_gives_another_size_is_one_line(file, tmp_path):
    foreign(file, tmp_path / "half.onnx")
    with pytest.raises(SegkitError, match=r"gives logits \[1, 3, 4, 5\], not \[1, 3, 8, 9\]"):
        OnnxModel(tmp_path / "half.onnx").predict(picture(8, 9))
    model = OnnxModel(file)
    with pytest.raises(SegkitError, match=r"onnxruntime cannot predict an image \[1, 2, 8, 9\]") as error:
        model.logits(np.zeros((1, 2, 8, 9), np.uint8))
    assert "\n" not in str(error.value)


def test_nothing_is_imported_that_is_not_installed_there(file, tmp_path):
    Image.fromarray(picture(50, 70)).save(tmp_path / "image.png")
    code = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY.split()}:
            raise ImportError(f"{{name}} is not installed here")

sys.meta_path.insert(0, Blocked())
from segkit.onnx_model import OnnxModel
model = OnnxModel({str(file)!r}, threads=1, tile=32)
print(model.predict({str(tmp_path / "image.png")!r}).sum(), model.probabilities({str(tmp_path / "image.png")!r}).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(OnnxModel(file, tile=32).predict(tmp_path / "image.png").sum()), "(3,", "50,", "70)"]


@pytest.mark.slow
def test_predict_py_runs_where_there_is_no_torch(task, file, tmp_path):
    """The script from the source tree, in an environment with onnxruntime, numpy and Pillow and what these bring."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "onnxruntime", "numpy", "Pillow"], check=True)
    listed = subprocess.run([python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True).stdout.lower()
    assert "torch" not in listed
    assert "jsonargparse" not in listed
    (tmp_path / "images").mkdir()
    for i, size in enumerate([(97, 131), (150, 211), (1, 1)]):
        Image.fromarray(picture(*size, seed=i)).save(tmp_path / f"images/{i}.png")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, ROOT / "scripts/predict.py", file, tmp_path / "images", "--out", tmp_path / "masks", "--tile", "64", "--overlays"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model = Model(task, torch.device("cpu"), tile=64)
    for i in range(3):
        with Image.open(tmp_path / f"masks/{i}.png") as mask:
            assert mask.mode == "P"
            found = np.asarray(mask)
        expected = model.probabilities(tmp_path / f"images/{i}.png")
        best, second = np.sort(expected, 0)[::-1][:2]
        sure = best - second > 1e-3
        assert (found == expected.argmax(0))[sure].all()
