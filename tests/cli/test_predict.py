"""`predict.py` as it is used: folders in, masks out, gone on with, shared."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path, PurePath

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import segkit
from segkit.checkpoint import save_checkpoint
from segkit.cli import predict as command
from segkit.errors import RunFailed, RunStopped, SegkitError
from segkit.inference.bands import Band
from segkit.inference.files import Picture, open_picture
from segkit.inference.inputs import Job
from segkit.inference.results import open_folder
from segkit.inference.tiff import nodata
from segkit.task import SegmentationTask

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
COLORS = [[0, 0, 0], [255, 200, 0], [0, 90, 255]]


def write_run(folder, seed=0, channels=3):
    torch.manual_seed(seed)
    task = SegmentationTask(
        ["a", "b", "c"], COLORS, [0.5] * channels, [0.25] * channels, decoder_channels=(8, 8), in_channels=channels, seed=seed
    )
    state = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams), "global_step": 7, "config": None}
    save_checkpoint(state, folder / "checkpoints" / "last.ckpt")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A PNG, a JPEG in a sub-folder, a georeferenced TIFF and a .npy."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in/sub").mkdir(parents=True)
    Image.fromarray(RNG.integers(0, 256, (40, 57, 3), np.uint8)).save("in/a.png")
    Image.fromarray(RNG.integers(0, 256, (33, 20, 3), np.uint8)).save("in/sub/b.jpg")
    pixels = RNG.integers(1, 256, (90, 70, 3), np.uint8)
    pixels[:5] = 0
    tags = [(33550, "d", 3, (0.5, 0.5, 0.0), True), (42113, "s", 0, "0", True)]
    tifffile.imwrite("in/c.tif", pixels, photometric="rgb", extratags=tags)
    np.save("in/d.npy", RNG.integers(0, 256, (50, 60, 3), np.uint8))
    return tmp_path / "in"


def files(folder="out"):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def read(path):
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".tif":
        return tifffile.imread(path)
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_folder_becomes_masks_overlays_and_probabilities(run, images, capsys):
    command.main([str(run), "in", "--out", "out", "--overlays", "--probabilities", "--device", "cpu"])
    names = ["a", "c", "d", "sub/b"]
    masks = ["a.png", "c.tif", "d.npy", "sub/b.png"]
    extra = [f"{name}{kind}" for name in names for kind in (".overlay.jpg", ".probabilities.npy")]
    assert files() == sorted(["predictions.json", *masks, *extra])
    assert "4 predicted" in capsys.readouterr().out
    model = segkit.load(run, device="cpu")
    for image, mask in zip(["a.png", "c.tif", "d.npy", "sub/b.jpg"], masks, strict=True):
        expected = model.predict(images / image)
        got = read(Path("out") / mask)
        hole = np.zeros(got.shape, bool)
        hole[:5] = mask == "c.tif"  # the image names 0 as the value of what was not recorded
        assert (got[hole] == 255).all()
        np.testing.assert_array_equal(got[~hole], expected[~hole])
        shares = np.load(Path("out") / mask.replace(Path(mask).suffix, ".probabilities.npy"))
        assert np.abs(shares - 255 * model.probabilities(images / image))[:, ~hole].max() <= 0.5001
        assert (shares[:, hole] == 0).all()
    with Image.open("out/a.png") as mask:
        assert (mask.mode, mask.getpalette()[:9]) == ("P", [c for color in COLORS for c in color])
    with tifffile.TiffFile("out/c.tif") as mask:
        assert mask.pages[0].tags[33550].value == (0.5, 0.5, 0.0)
    assert nodata("out/c.tif") == 255
    overlay, picture, mask = (np.asarray(Image.open(p), float) for p in ("out/a.overlay.jpg", "in/a.png", "out/a.png"))
    painted = np.where((mask == 0)[..., None], picture, (picture + np.array(COLORS)[mask.astype(int)]) / 2)
    assert np.abs(overlay.mean((0, 1)) - painted.mean((0, 1))).max() < 3  # JPEG


def test_tiles_flips_and_sizes_reach_the_masks(run, images):
    words = ["--tile", "32", "--overlap", "0.5", "--tta", "hflip", "vflip", "--tta_scales", "[0.75,1]", "--batch_size", "2"]
    command.main([str(run), "in/c.tif", "--out", "out", "--device", "cpu", *words])
    model = segkit.load(run, device="cpu", tile=32, overlap=0.5, tta=["hflip", "vflip"], scales=[0.75, 1.0])
    assert (tifffile.imread("out/c.tif")[5:] == model.predict("in/c.tif")[5:]).mean() > 0.999


def test_a_second_call_does_what_is_left_and_only_that(run, images, capsys):
    words = [str(run), "in", "--out", "out", "--device", "cpu"]
    command.main(words)
    before = {name: (Path("out") / name).stat().st_mtime_ns for name in files()}
    (Path("out") / "sub/b.png").unlink()
    capsys.readouterr()
    command.main(words)
    assert "1 predicted, 3 finished before" in capsys.readouterr().out
    after = {name: (Path("out") / name).stat().st_mtime_ns for name in files()}
    assert {name for name in after if after[name] != before[name]} == {"sub/b.png"}
    command.main([*words, "--overlays"])  # a mask without its overlay is not finished
    assert "4 predicted" in capsys.readouterr().out
    command.main([*words, "--overwrite"])
    assert "4 predicted" in capsys.readouterr().out


def test_masks_of_another_model_or_other_options_are_never_taken_for_finished(run, images, tmp_path, capsys):
    words = ["in", "--out", "out", "--device", "cpu"]
    command.main([str(run), *words])
    other = write_run(tmp_path / "other", seed=1)
    with pytest.raises(SegkitError, match="--out out: holds predictions of another model; give another folder, or --overwrite"):
        command.main([str(other), *words])
    with pytest.raises(SegkitError, match="holds predictions of tile 1024, not 64"):
        command.main([str(run), *words, "--tile", "64"])
    capsys.readouterr()
    command.main([str(other), "in/a.png", *words[1:], "--overwrite"])
    assert "1 predicted" in capsys.readouterr().out
    command.main([str(other), *words])  # the other three are the first model's still
    assert "3 predicted, 1 finished before" in capsys.readouterr().out
    np.testing.assert_array_equal(np.load("out/d.npy"), segkit.load(other, device="cpu").predict("in/d.npy"))


def test_what_is_no_prediction_is_never_replaced(run, images, capsys):
    words = [str(run), "in/a.png", "--device", "cpu", "--overlays", "--out"]
    Path("masks").mkdir()
    Path("masks/a.png").write_text("drawn by hand")
    with pytest.raises(SegkitError, match="--out masks: masks/a.png is there and no prediction; give another folder, or --overwrite"):
        command.main([*words, "masks"])
    assert files("masks") == ["a.png"]
    assert Path("masks/a.png").read_text() == "drawn by hand"
    command.main([str(run), "in/d.npy", "--out", "masks", "--device", "cpu"])  # beside it, and after that it is still no prediction
    with pytest.raises(SegkitError, match="masks/a.png is there and no prediction"):
        command.main([*words, "masks"])
    Path("out").mkdir()
    Path("out/a.overlay.jpg").touch()
    with pytest.raises(SegkitError, match="out/a.overlay.jpg is there and no prediction"):
        command.main([*words, "out"])
    command.main([*words, "masks", "--overwrite"])
    assert read(Path("masks/a.png")).shape == (40, 57)
    capsys.readouterr()
    command.main([*words, "masks"])
    assert "1 finished before" in capsys.readouterr().out


def test_overlays_of_sixteen_bits_are_stretched_to_what_is_there(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.linspace(100, 4000, 64 * 64 * 3).astype(np.uint16).reshape(64, 64, 3)  # of a camera of 12 bits
    bands = iter([Band(0, np.zeros((40, 64), np.uint8)), Band(40, np.zeros((24, 64), np.uint8))])
    folder = open_folder(Path("out"), {}, COLORS, overlays=True)
    folder.write(Job(Path("a.png"), PurePath("a")), Picture((64, 64), lambda start, stop: pixels[start:stop]), bands, lambda rows: None)
    shown = read(Path("out/a.overlay.jpg"))
    assert shown.min() < 10
    assert shown.max() > 245


def test_the_value_of_what_was_not_recorded_is_scaled_with_the_pixels(tmp_path):
    pixels = np.full((20, 30, 3), 9, np.uint8)
    pixels[:5] = 7
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=[(42113, "s", 0, "7", True)])
    job = Job(tmp_path / "a.tif", PurePath("a"))
    with open_picture(job.image, 3, 65535) as picture:
        bands = iter([Band(0, np.zeros((20, 30), np.uint8))])
        open_folder(tmp_path / "out", {}, COLORS).write(job, picture, bands, lambda rows: None)
    labels = tifffile.imread(tmp_path / "out/a.tif")
    assert (labels[:5] == 255).all()
    assert (labels[5:] == 0).all()


def test_bad_files_are_named_and_skipped_and_the_others_done(run, images, capsys):
    (images / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    (images / "cut.jpg").write_bytes((images / "sub/b.jpg").read_bytes()[:400])
    np.save(images / "grey.npy", np.zeros((9, 9), np.uint8))
    Path("list.txt").write_text("gone.png\n")
    with pytest.raises(RunFailed, match=r"4 of 8 images could not be predicted: .*broken.png.*gone.png; the others are done"):
        command.main([str(run), "in", "--images_from", "list.txt", "--out", "out", "--device", "cpu"])
    out, err = capsys.readouterr()
    assert "4 predicted, 4 bad" in out
    assert [line for line in err.splitlines() if "grey.npy has the shape [9, 9]; the model takes [rows, columns, 3]" in line]
    assert files() == sorted(["predictions.json", "a.png", "c.tif", "d.npy", "sub/b.png"])


def test_an_interrupt_or_a_signal_leaves_no_claim_and_no_half_mask(run, images, monkeypatch):
    from segkit.inference.model import Model

    whole = Model.bands

    def interrupted(how):
        def bands(self, picture, probabilities=False):
            yield from [next(iter(whole(self, picture, probabilities)))]
            how()

        return bands

    def interrupt():
        raise KeyboardInterrupt

    for how, error in ((interrupt, KeyboardInterrupt), (lambda: os.kill(os.getpid(), signal.SIGTERM), RunStopped)):
        monkeypatch.setattr(Model, "bands", interrupted(how))
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(error):
            command.main([str(run), "in", "--out", "out", "--device", "cpu", "--probabilities", "--overlays"])
        assert signal.getsignal(signal.SIGTERM) == before
        assert files() == ["predictions.json"]
        assert not (Path("out") / ".claims").exists()


def test_a_signal_while_a_file_is_read_is_no_damage_of_the_file(run, images, monkeypatch):
    monkeypatch.setattr("segkit.data.files.ImageOps.exif_transpose", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(RunStopped):
        command.main([str(run), "in", "--out", "out", "--device", "cpu"])


def test_a_disk_that_is_full_stops_the_run(run, images, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("segkit.inference.results.save_png", full)
    with pytest.raises(RunFailed, match=r"cannot write the results of in/a.png to out \(No space left on device\)"):
        command.main([str(run), "in", "--out", "out", "--device", "cpu"])


def test_weights_that_have_diverged_stop_the_run(images, tmp_path):
    broken = write_run(tmp_path / "broken")
    path = broken / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)
    state["state_dict"]["model.classifier.bias"][:] = float("nan")
    save_checkpoint(state, path)
    with pytest.raises(RunFailed, match="a.png: the logits contain NaN"):
        command.main([str(broken), "in/a.png", "--out", "out", "--device", "cpu"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "in"], "'nowhere' does not exist; give a run folder"),
        (["nowhere.onnx", "in"], "'nowhere.onnx' does not exist"),
        (["RUN"], "no images; name files"),
        (["RUN", "in", "--device", "gpu7"], "--device gpu7: .*; choose from auto, cpu, cuda"),
        (["RUN", "in", "--device", "cpu", "--precision", "16-mixed"], "a CPU has no such arithmetic"),
        (["RUN", "in", "--tile", "3"], "--tile 3: give a number from 32 to 65536"),
        (["RUN", "in/d.npy", "--out", "in"], "--out in: in/d.npy is an image to predict and would be replaced"),
        (["RUN", "in", "--out", "in/a.png/x"], "--out in/a.png/x: cannot write there"),
    ],
)
def test_what_cannot_be_done_is_one_line(run, images, words, message):
    with pytest.raises(SegkitError, match=message) as error:
        command.main([str(run) if word == "RUN" else word for word in words])
    assert "\n" not in str(error.value)
    assert not Path("predictions").exists() or not files("predictions")


def test_an_exported_network_takes_the_options_that_it_can_follow(images, monkeypatch):
    Path("model.onnx").write_bytes(b"stand-in")
    for words, message in (
        (["--tta_scales", "0.5", "1"], "--tta_scales .*: an exported network is predicted at its own size"),
        (["--precision", "32-true"], "has the arithmetic that it was exported with"),
        (["--device", "cuda"], "runs where onnxruntime runs it"),
        (["--checkpoint", "best"], "holds one checkpoint"),
        (["--batch_size", "2"], "takes one tile at a time"),
    ):
        with pytest.raises(SegkitError, match=message):
            command.main(["model.onnx", "in", *words])

    class OnnxModel:
        def __init__(self, path, *, tile, overlap, tta):
            assert (path.read_bytes(), tile, overlap, tta) == (b"stand-in", 32, 0.25, ["hflip"])
            self.class_names, self.colors, self.white, self.in_channels = ["a", "b"], COLORS[:2], 255, 3

        def bands(self, picture, probabilities=False):
            for top in range(0, picture.size[0], 10):
                yield Band(top, (picture.read(top, min(top + 10, picture.size[0]))[..., 0] > 127).astype(np.uint8))

    stand_in = type(sys)("segkit.onnx_model")
    stand_in.OnnxModel = OnnxModel
    monkeypatch.setitem(sys.modules, "segkit.onnx_model", stand_in)
    command.main(["model.onnx", "in", "--out", "out", "--tile", "32", "--tta", "hflip"])
    red = np.asarray(Image.open("in/a.png"))[..., 0]
    np.testing.assert_array_equal(np.asarray(Image.open("out/a.png")), red > 127)
    assert files() == ["a.png", "c.tif", "d.npy", "predictions.json", "sub/b.png"]


def test_the_command_needs_neither_torch_nor_jsonargparse_to_be_understood():
    code = "import sys; sys.argv = ['predict.py']\nfrom segkit.cli.predict import main\n"
    code += "try: main(['--help'])\nexcept SystemExit as left: assert left.code == 0\n"
    code += "import segkit.inference.arrays, segkit.inference.results, segkit.inference.claims\n"
    code += "heavy = {'torch', 'jsonargparse', 'rich', 'yaml', 'cv2', 'pytorch_lightning', 'tifffile'}\n"
    code += "heavy &= {name.split('.')[0] for name in sys.modules}\n"
    code += "assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--tta_scales" in done.stdout


@pytest.mark.slow
def test_two_processes_predict_twenty_images_once_each(run, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(20):
        Image.fromarray(RNG.integers(0, 256, (300, 300, 3), np.uint8)).save(tmp_path / f"in/{i:02}.png")
    words = [sys.executable, str(ROOT / "scripts/predict.py"), str(run), "in", "--out", "out", "--device", "cpu"]
    both = [subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    counts = [int(output.split(" predicted")[0]) if " predicted" in output else 0 for output in outputs]
    assert sum(counts) == 20
    assert len(files(tmp_path / "out")) == 21


@pytest.mark.slow
def test_a_killed_process_is_replaced_by_the_next_and_a_stopped_one_says_so(run, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(6):
        Image.fromarray(RNG.integers(0, 256, (1500, 1500, 3), np.uint8)).save(tmp_path / f"in/{i}.png", compress_level=1)
    words = [sys.executable, str(ROOT / "scripts/predict.py"), str(run), "in", "--out", "out", "--device", "cpu", "--tta", "hflip"]

    def claims():
        return list(tmp_path.glob("out/.claims/*.claim"))

    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 130)):
        process = subprocess.Popen(words, cwd=tmp_path)
        end = time.monotonic() + 60
        while not any(f'"pid": {process.pid},' in path.read_text() for path in claims()) and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait() == code
        assert bool(claims()) == (number == signal.SIGKILL)
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "predicted" in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"predictions.json", *(f"{i}.png" for i in range(6))}
    assert not (tmp_path / "out/.claims").exists()
