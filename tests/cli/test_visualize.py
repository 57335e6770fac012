"""`visualize.py` as it is typed."""

import pytest
import torch
from PIL import Image

from segkit.checkpoint import load_checkpoint, save_checkpoint
from segkit.cli import train as training
from segkit.cli.visualize import initial_task, main
from segkit.errors import SegkitError
from segkit.models.fingerprint import initial_hash
from segkit.runs import newest_run
from segkit.task import SegmentationTask

TINY = "--data.batch_size 2 --data.crop 32 --data.scenes_size 64 --data.scenes_train 4 --data.scenes_val 2 --trainer.max_steps 2"
TINY += " --trainer.accelerator cpu --trainer.devices 1 --wandb.mode disabled --wandb.panels 0 --lr 0.1"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three tiny trained runs: two kinds of operators in a U-Net, an FCN-8s, and guided operators behind 1x1 convolutions."""
    patch = pytest.MonkeyPatch()
    patch.chdir(tmp_path_factory.mktemp("runs"))
    found = {}
    for name, words in {
        "unet": "--decoder_channels [8,4] --upsample transpose nearest",
        "fcn": "--decoder fcn8s --seed 3",
        "guided": "--decoder_channels [8,4] --upsample fade unpool --upsample_width [6,3]",
    }.items():
        training.main([*TINY.split(), *words.split(), "--name", name])
        found[name] = newest_run("runs").resolve()
    patch.undo()
    return found


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def draw(capsys, *words):
    capsys.readouterr()
    main([*map(str, words)])
    return capsys.readouterr().out


def test_the_operator_figure(folder, capsys):
    out = draw(capsys, "operator", "--upsample", "transpose", "nearest", "--scale", "3", "--out", "ops.png")
    for expected in ("transpose", "nearest", "CI smooth", "CI standard", "0.00", "figure  ops.png"):
        assert expected in out
    assert f"{64 * 64 * 25 + 64:,}" in out  # kernel 5, 64 to 64 channels, bias
    assert (folder / "ops.png").is_file()


def test_the_page_of_an_operator(folder, capsys):
    out = draw(capsys, "operator", "--upsample", "transpose", "--init", "bilinear", "--out", "page.pdf")
    assert "CI bilinear" in out
    assert f"{64 * 64 * 16 + 64:,}" in out
    assert (folder / "page.pdf").read_bytes().startswith(b"%PDF")


def test_before_and_after_training(folder, capsys, runs):
    out = draw(capsys, "operator", "--checkpoint", runs["fcn"], "--out", "trained.png")
    assert [line.split()[:6] for line in out.splitlines() if line[:1].isdigit()] == [
        [str(i), "transpose", "6", "to", "6", scale] for i, scale in ((1, "2"), (2, "2"), (3, "8"))
    ]
    assert out.count("0.0000") >= 3  # bilinear to start with
    assert (folder / "trained.png").is_file()
    out = draw(capsys, "operator", "--checkpoint", runs["unet"])
    assert [line.split()[1] for line in out.splitlines() if line[:1].isdigit()] == ["transpose", "nearest"]
    out = draw(capsys, "operator", "--checkpoint", runs["unet"] / "checkpoints" / "last.ckpt", "--upsample", "nearest")
    assert [line[0] for line in out.splitlines() if line[:1].isdigit()] == ["2"]


def test_before_and_after_training_of_guided_operators_behind_other_widths(folder, capsys, runs):
    out = draw(capsys, "operator", "--checkpoint", runs["guided"])
    assert [line.split()[:6] for line in out.splitlines() if line[:1].isdigit()] == [
        ["1", "fade", "16", "to", "8", "2"], ["2", "unpool", "8", "to", "4", "2"],
    ]  # fmt: skip
    draw(capsys, "features", runs["guided"], "--out", "maps.png")
    assert (folder / "maps.png").is_file()


@pytest.mark.parametrize("name", ["unet", "fcn"])
def test_before_is_what_training_started_from(runs, name):
    checkpoint = runs[name] / "checkpoints" / "last.ckpt"
    task = SegmentationTask.load(checkpoint)
    before = initial_task(task, checkpoint)
    torch.manual_seed(task.hparams["seed"])
    names = ("class_names", "colors", "mean", "std", "decoder", "decoder_channels", "upsample", "seed")
    fresh = SegmentationTask(**{name: task.hparams[name] for name in names})
    assert initial_hash(before.model) == initial_hash(fresh.model)
    for key, value in fresh.model.state_dict().items():
        torch.testing.assert_close(before.model.state_dict()[key], value, rtol=0, atol=0)
    assert any(not torch.equal(value, task.model.state_dict()[key]) for key, value in fresh.model.state_dict().items())


def test_features_of_an_untrained_network_need_nothing(folder, capsys):
    out = draw(capsys, "features")
    assert "128 x 16 x 16" in out
    assert "16 x 128 x 128" in out
    assert (folder / "features.png").is_file()


def test_features_of_operators_side_by_side(folder, capsys):
    words = ("--upsample", "transpose_k2", "nearest", "--init", "standard", "--crop", "64", "--channels", "2", "--out", "f.pdf")
    out = draw(capsys, "features", *words)
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows if "64" in row and row[-1].startswith("0.")][::3] == ["transpose_k2,", "nearest,"]
    first, second = (float(row[-1]) for row in rows if row and row[0] in ("transpose_k2,", "nearest,"))
    assert first > 0.6
    assert second == 0
    assert (folder / "f.pdf").stat().st_size > 10_000


def test_features_of_runs_on_a_file(folder, capsys, runs):
    Image.new("RGB", (90, 70), (10, 200, 30)).save("photo.jpg")
    out = draw(capsys, "features", runs["unet"], runs["fcn"], "--image", "photo.jpg", "--channels", "3")
    assert "8 x 36 x 46" in out  # 70 x 90 padded to multiples of 4, halved
    assert "6 x 96 x 96" in out  # to multiples of 32
    assert (folder / "features.png").is_file()
    assert "4 x 64 x 64" in draw(capsys, "features", runs["unet"])  # its own first validation image


def test_overlap(folder, capsys):
    out = draw(capsys, "overlap", "--kernel", "3", "4", "--stride", "2")
    assert [line.split() for line in out.splitlines() if line[:1].isdigit()] == [
        ["3", "2", "0", "0", "2H", "+", "1", "no", "2", "1", "0.190", "+0.5"],
        ["3", "2", "1", "0", "2H", "-", "1", "no", "1", "2", "0.190", "-0.5"],
        ["3", "2", "1", "1", "2H", "yes", "1", "2", "0.190", "-0.5"],
        ["4", "2", "1", "0", "2H", "yes", "2", "2", "0.000", "+0.0"],
    ]
    assert "The overlap is even where s divides k" in out
    assert (folder / "overlap.png").is_file()


def test_help_lists_the_figures_and_their_options(capsys):
    out = draw(capsys, "--help")
    assert all(name in out for name in ("operator", "features [RUN ...]", "overlap"))
    with pytest.raises(SystemExit) as left:
        main(["features", "--help"])
    assert left.value.code == 0
    assert "--channels" in capsys.readouterr().out


@pytest.mark.parametrize(("args", "message"), [
    ([], "no figure named; give one first: visualize.py operator"),
    (["--scale", "3"], "no figure named"),
    (["operatr"], "unknown figure 'operatr'; did you mean 'operator'"),
    (["operator", "--scale", "1"], "--scale 1: give a number from 2 to 16"),
    (["operator", "--out", "a.gif"], "--out a.gif: give a file name that ends in .png or .pdf"),
    (["operator", "--upsample", "nearest", "--init", "bilinear"], "transpose and transpose_k2 only, not for Nearest"),
    (["operator", "--checkpoint", "nowhere"], "'nowhere' does not exist"),
    (["operator", "--checkpoint", "a", "--seed", "2"], "leave out --scale, --init and --seed"),
    (["operator", "--checkpoint", "a", "--upsample", "nearest", "bilinear"], "name one of the run's operators"),
    (["operator", "--image", "a.png"], "--image is an option of features, not of operator"),
    (["overlap", "--upsample=nearest"], "--upsample is an option of operator and features, not of overlap"),
    (["overlap", "--kernel", "0"], "--kernel [0]: give numbers from 1 to 16"),
    (["overlap", "--stride", "[]"], "--stride []: give numbers from 2 to 8"),
    (["overlap", "--kernel", "1", "--padding", "8"], "nothing is left of 5 rows"),
    (["features", "--image", "nothing.png"], "nothing.png"),
    (["features", "nowhere"], "'nowhere' does not exist"),
    (["features", "--crop", "20"], "--crop 20: give a multiple of 8"),
    (["features", "--channels", "0"], "--channels 0: give a number from 1 to 16"),
    (["features", "--upsample", "transpose", "--init", "bilinear", "--seed", "-1"], "--seed -1"),
    (["features", "somewhere", "--upsample", "nearest"], "--upsample is for untrained networks, and a run was given"),
])  # fmt: skip
def test_mistakes(args, message):
    with pytest.raises(SegkitError) as error:
        main(args)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_mistakes_about_a_run(runs, folder):
    with pytest.raises(SegkitError, match="--upsample bilinear: the run has transpose only"):
        main(["operator", "--checkpoint", str(runs["fcn"]), "--upsample", "bilinear"])
    state = load_checkpoint(runs["fcn"] / "checkpoints" / "last.ckpt")
    moved = state["config"] | {"data": state["config"]["data"] | {"kind": "folder", "root": "/gone"}}
    save_checkpoint(state | {"config": moved}, "moved.ckpt")
    with pytest.raises(SegkitError, match="cannot be read .*; give an image with --image FILE"):
        main(["features", "moved.ckpt"])
    save_checkpoint(state | {"config": None}, "api.ckpt")
    with pytest.raises(SegkitError, match="does not say how it was started"):
        main(["operator", "--checkpoint", "api.ckpt"])


@pytest.mark.parametrize(("args", "message"), [
    (["operator", "--upsample", "transpose", "nearst"], "--upsample nearst: choose from"),
    (["operator", "transpose"], "unknown option 'transpose'"),
    (["operator", "--sclae", "3"], "did you mean --scale"),
    (["features", "--channels", "many"], "--channels many: expected int"),
])  # fmt: skip
def test_typing_errors_are_one_line(capsys, args, message):
    with pytest.raises(SystemExit) as left:
        main(args)
    assert left.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
