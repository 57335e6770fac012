"""The formats: what is in the files, what comes out of them, and what is refused."""

import json
import os
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segkit import __version__
from segkit.errors import RunFailed, SegkitError
from segkit.export import SIZES, capture, compare, export, load_program, load_safetensors, write
from segkit.export.parity import Parity, random_images, runner
from segkit.export.table import small_task
from segkit.inference.model import Model
from segkit.models import UNet
from segkit.onnx_model import OnnxModel
from segkit.task import SegmentationTask

ROOT = Path(__file__).parents[2]


class Mine(nn.Module):
    """A network of a user's own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x):
        return self.conv(x)


class Fickle(Mine):
    """One whose computation hangs on what it sees."""

    def forward(self, x):
        return self.conv(x) if x.mean() > 0 else -x[:, :2]


def own(model):
    return SegmentationTask(["a", "b"], [[0, 0, 0], [1, 1, 1]], [0.5] * 3, [0.2] * 3, model=model).eval()


def tiny():
    """A U-Net of one stage, which is exported in half a second."""
    torch.manual_seed(0)
    return own(UNet(2, "plain", decoder_channels=(4,)))


def test_sizes_are_twenty_odd_ones_among_them():
    assert len(set(SIZES)) == 20
    assert sum(h % 2 for h, _ in SIZES) >= 8
    assert {(1, 1), (97, 131)} <= set(SIZES)


def test_an_onnx_file_computes_the_same_at_any_size(unet):
    assert unet.parity.holds
    assert unet.parity.cases == 40
    image = next(iter(random_images(unet.task, [(333, 217)])))  # none of the twenty
    with torch.inference_mode():
        expected = unet.task(image)
    found = runner(unet.path, unet.task, normalize=True)(image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert len(found.argmax(1).unique()) > 1


def test_an_onnx_file_says_all_about_itself(unet):
    import onnx

    model = onnx.load(unet.path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    meta = {p.key: json.loads(p.value) for p in model.metadata_props}
    assert meta == {
        "segkit_version": __version__,
        "decoder": "unet",
        "encoder": "plain",
        "upsample": "nearest",
        "class_names": unet.task.class_names,
        "colors": unet.task.colors,
        "in_channels": 3,
        "white": 255,
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.25, 0.3],
        "normalize": True,
        "step": 0,
    }
    assert [o.version for o in model.opset_import if o.domain == ""] == [20]

    def described(value):
        return value.name, value.type.tensor_type.elem_type, [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

    assert [described(v) for v in model.graph.input] == [("image", onnx.TensorProto.UINT8, ["batch", 3, "height", "width"])]
    assert [described(v) for v in model.graph.output] == [("logits", onnx.TensorProto.FLOAT, ["batch", 4, "height", "width"])]
    kinds = {node.op_type for node in model.graph.node}
    assert "ConvTranspose" in kinds
    assert not {"BatchNormalization", "Resize"} & kinds  # folded, and rewritten
    assert not any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer)
    assert [p.name for p in unet.path.parent.iterdir()] == ["model.onnx"]


def test_files_hold_no_path_of_this_machine(unet, tmp_path):
    export(tiny(), tmp_path / "model.pt2", "torch_export", check=False)
    for path in (unet.path, tmp_path / "model.pt2"):
        assert not re.search(rb"site-packages|[\w/]+\.py\b", path.read_bytes())


def test_images_of_16_bits_and_another_opset(tmp_path):
    torch.manual_seed(0)
    task = SegmentationTask(
        ["a", "b"], [[0, 0, 0], [1, 1, 1]], [0.5] * 2, [0.2] * 2, in_channels=2, white=65535, decoder_channels=[4]
    ).eval()
    assert export(task, tmp_path / "m.onnx", opset=18).holds
    import onnx

    model = onnx.load(tmp_path / "m.onnx")
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT16
    assert model.opset_import[0].version == 18
    deep = OnnxModel(tmp_path / "m.onnx")
    image = np.random.default_rng(0).integers(0, 256, (20, 31, 2), np.uint8)
    expected = Model(task, torch.device("cpu")).probabilities(image * np.uint16(257))
    np.testing.assert_allclose(deep.probabilities(image * np.uint16(257)), expected, atol=1e-5)
    np.testing.assert_allclose(deep.probabilities(image), expected, atol=1e-5)  # 8 bits are scaled up


def test_a_program_is_read_back_with_its_card(tmp_path):
    task = tiny()
    assert export(task, tmp_path / "m.pt2", "torch_export", normalize=False).holds
    program, card = load_program(tmp_path / "m.pt2")
    assert (card["decoder"], card["normalize"], card["class_names"]) == ("unet", False, ["a", "b"])
    x = torch.randn(3, 3, 50, 71)
    with torch.inference_mode():
        torch.testing.assert_close(program.module()(x), task.model(x), rtol=1e-4, atol=1e-4)
    (tmp_path / "bad.pt2").write_bytes(b"PK nothing")
    for name in ("bad.pt2", "none.pt2"):
        with pytest.raises(SegkitError, match=rf"cannot read the program .*{name}") as error:
            load_program(tmp_path / name)
        assert "\n" not in str(error.value)


def test_weights_rebuild_the_task_bit_for_bit(tmp_path):
    task = small_task("fcn8s", "transpose")
    task.step = 7
    parity = export(task, tmp_path / "m.safetensors", "safetensors")
    assert (parity.difference, parity.labels) == (0.0, 0.0)
    (tmp_path / "m.json").rename(tmp_path / "card.json")  # not needed
    again = load_safetensors(tmp_path / "m.safetensors")
    assert not again.training
    assert again.step == 7
    assert dict(again.hparams) == dict(task.hparams)
    for (name, a), (other, b) in zip(task.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b)
    assert json.loads((tmp_path / "card.json").read_text())["task"]["class_names"] == task.class_names


def test_weights_that_are_not_ours_or_damaged_are_one_line(tmp_path):
    save_file({"w": torch.zeros(2)}, tmp_path / "other.safetensors")
    card = {"task": {**small_task("unet", "transpose").hparams}, "step": 0, "segkit_version": "9.9"}
    save_file({"w": torch.zeros(2)}, tmp_path / "newer.safetensors", metadata={"segkit": json.dumps(card)})
    (tmp_path / "bad.safetensors").write_bytes(b"1234567890")
    for name, match in (
        ("other", "has no card of segkit"),
        ("newer", "written by segkit 9.9 and does not fit this version"),
        ("bad", "cannot read the weights"),
        ("none", "cannot read the weights"),
    ):
        with pytest.raises(SegkitError, match=match) as error:
            load_safetensors(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(error.value)


def test_a_network_of_ones_own(tmp_path):
    task = own(Mine())
    assert export(task, tmp_path / "m.onnx").holds
    with pytest.raises(SegkitError, match="network Mine is a class of your own"):
        export(task, tmp_path / "m.safetensors", "safetensors")
    with pytest.raises(SegkitError, match="the network Fickle cannot be exported for images of any size") as error:
        export(own(Fickle()), tmp_path / "f.onnx")
    assert "\n" not in str(error.value)
    assert {p.name for p in tmp_path.iterdir()} == {"m.onnx"}


@pytest.mark.slow
def test_an_encoder_that_no_graph_expresses_is_refused_by_its_name(tmp_path, capfd):
    with pytest.raises(SegkitError, match="encoder 'swin_tiny_patch4_window7_224' cannot be exported"):
        export(small_task("unet", "transpose", "swin_tiny_patch4_window7_224"), tmp_path / "m.onnx")
    assert len(capfd.readouterr().err) < 500  # not the graph


def test_what_computes_something_else_is_not_written(tmp_path, monkeypatch):
    task = own(Mine())
    (tmp_path / "m.pt2").write_text("the one before")

    def wrong(task, normalize):
        torch.nn.init.constant_(task.model.conv.bias, 0.1)
        program = capture(task, normalize)
        torch.nn.init.constant_(task.model.conv.bias, 0.0)
        return program

    torch.nn.init.constant_(task.model.conv.bias, 0.0)
    monkeypatch.setattr(write, "capture", wrong)
    with pytest.raises(RunFailed, match=r"computes something else, and .*m\.pt2 is not written: .*differ by 1.0e-01"):
        export(task, tmp_path / "m.pt2", "torch_export")
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt2"]
    assert (tmp_path / "m.pt2").read_text() == "the one before"
    assert export(task, tmp_path / "m.pt2", "torch_export", check=False) is None


def test_comparison_by_hand():
    logits = torch.tensor([[1.0, -4.0], [0.0, 0.0]])[None, :, None]  # [1, 2, 1, 2]: classes by pixels
    other = logits + torch.tensor([[-1.5, 0.0], [0.0, 0.0]])[None, :, None]
    found = compare(lambda x: logits, lambda x: other, [torch.zeros(1, 3, 1, 2)] * 2)
    assert found == Parity(difference=1.5, largest=4.0, labels=0.5, cases=2)
    assert not found.holds
    assert Parity(0.003, 4.0, 0.0, 1).holds
    assert not compare(lambda x: logits, lambda x: logits * np.nan, [torch.zeros(1, 3, 1, 2)]).holds
    with pytest.raises(RunFailed, match=r"gives logits \[1, 2, 1, 1\], the original \[1, 2, 1, 2\]"):
        compare(lambda x: logits, lambda x: logits[..., :1], [torch.zeros(1, 3, 1, 2)])


def test_missing_packages_and_wrong_suffixes_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(SegkitError, match=r"--out .*m\.pt: a file of --format onnx ends in \.onnx"):
        export(own(Mine()), tmp_path / "m.pt")
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(SegkitError, match=r'needs the package onnxscript.*pip install "segkit\[export\]"'):
        export(own(Mine()), tmp_path / "m.onnx")


def test_a_traced_network_is_wrong_for_other_sizes():
    """Why there is no TorchScript; docs/export.md says so."""
    network = UNet(4, "plain", decoder_channels=(8, 8)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated, and that it may be wrong
        traced = torch.jit.trace(network, torch.randn(1, 3, 7, 9), check_trace=False)
    assert traced(torch.zeros(1, 3, 30, 50)).shape[-2:] != (30, 50)


def test_a_full_disk_is_an_error_and_leaves_the_file_that_was_there(tmp_path):
    """Files may not grow beyond 20 kB in a process of its own: torch's writer of archives once ended it."""
    path = tmp_path / "m.pt2"
    path.write_text("the one before")
    code = f"""
import resource, signal
from pathlib import Path
from segkit.export import export
from segkit.export.table import small_task
task = small_task("fcn32s", "transpose_k2")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    export(task, {str(path)!r}, "torch_export", check=False)
except OSError as error:
    print("refused:", error.strerror)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert (done.returncode, done.stdout.split(":")[0]) == (0, "refused"), done.stderr
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "the one before"


def test_what_a_killed_export_has_left_goes_with_the_next_one(tmp_path):
    path = tmp_path / "m.safetensors"
    code = f"""
import os, signal
from segkit.export import export, write
from segkit.export.table import small_task
write.compare = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
export(small_task("fcn32s", "transpose_k2"), {str(path)!r}, "safetensors")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    assert [p.name for p in (tmp_path / ".m.safetensors.tmp").iterdir()] != []
    export(small_task("fcn32s", "transpose_k2"), path, "safetensors")
    assert {p.name for p in tmp_path.iterdir()} == {"m.safetensors", "m.json"}


def test_an_opset_that_torch_does_not_write_is_no_other_one(tmp_path):
    with pytest.raises(SegkitError, match="--opset 16: torch writes this network as 18"):
        export(tiny(), tmp_path / "m.onnx", opset=16)
