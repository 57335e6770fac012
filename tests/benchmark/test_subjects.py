"""Every subject as it is typed, as small as it gets: `--seconds 0` measures once."""

import json
from importlib import util

import pytest
import torch

from segkit.benchmark import bench as benches
from segkit.benchmark import data, infer, scaling, startup
from segkit.cli.benchmark import SUBJECTS, main
from segkit.errors import SegkitError

SMALL = {
    "operators": "--upsample transpose nearest --size 8 --batch 1",
    "train": "--upsample transpose --size 32 --batch 2",
    "fit": "--size 32 --batch 2 --images 4",
    "infer": "--size 32 --batch 1",
    "data": "--images 8 --workers 1",
    "eval": "--size 32 --batch 2 --images 2",
    "tile": "--size 96 --window 64",
    "startup": "",
    "overhead": "",
    "scaling": "--size 32 --batch 2",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(startup, "OWN", {"segkit": "segkit", "pytorch_lightning": "json"})  # the real one takes seconds
    monkeypatch.setattr(infer, "OPERATORS", ("transpose",))
    monkeypatch.setattr(scaling, "COUNTS", (10, 1000))
    monkeypatch.setattr(scaling, "CLASSES", (2, 8))
    return tmp_path


def run(capsys, subject, *words):
    against = ["--against", "smp"] if subject in ("train", "fit", "infer") else ["--against", "[]"] if subject == "startup" else []
    capsys.readouterr()
    main([subject, "--seconds", "0", *against, *SMALL[subject].split(), *words])
    return capsys.readouterr().out


def found(folder, subject):
    return json.loads((folder / f"benchmarks/benchmark-{subject}.json").read_text())


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_measures_prints_and_writes(subject, folder, capsys):
    out = run(capsys, subject)
    assert f"figure  benchmarks/benchmark-{subject}.png" in out
    assert (folder / f"benchmarks/benchmark-{subject}.png").stat().st_size > 5000
    result = found(folder, subject)
    assert result["subject"] == subject
    assert result["rows"]
    for row in result["rows"]:
        assert all(value > 0 for value in (*row["ours"], *row["theirs"]))
        assert len(row["theirs"]) in (0, len(row["ours"]))
        assert (row["goal"] is None) == (row["met"] is None)
        if row["measure"] != "value":
            assert row["theirs"]
            assert row["peer"]
    if any(row["goal"] for row in result["rows"]):
        assert f"of {sum(row['goal'] is not None for row in result['rows'])} met" in out


def test_the_options_arrive(folder, capsys):
    run(capsys, "operators", "--precision", "32-true", "--out", "there", "--threads", "1", "--clock", "cpu", "--device", "cpu")
    result = json.loads((folder / "there/benchmark-operators.json").read_text())
    assert (result["dtype"], result["threads"]) == ("float32", 1)
    assert {row["group"] for row in result["rows"]} == {"contiguous, float32", "channels_last, float32"}
    names = [row["name"] for row in result["rows"]]
    assert names == [name for name in dict.fromkeys(names) for _ in range(2)] or len(names) == 2 * len(set(names))
    assert {row["variant"] for row in result["rows"]} == {"64ch at 8²"}


def test_a_training_has_a_batch_of_images_at_least(folder, capsys):
    run(capsys, "fit", "--images", "1")
    assert {row["peer"] for row in found(folder, "fit")["rows"]} == {
        "smp + Lightning, same format", "smp + Lightning as it comes", "the bare network",
    }  # fmt: skip


def test_operators_are_counted(folder, capsys):
    run(capsys, "operators")
    rows = {row["name"]: row["about"] for row in found(folder, "operators")["rows"]}
    assert rows["transpose"] == {"params": 16 * 64 * 32 + 32, "MACs": 16 * 64 * 32 * 8 * 8}
    assert rows["nearest"]["params"] == 9 * 64 * 32 + 32


def test_what_is_equal_is_said_to_be(capsys):
    out = run(capsys, "operators")
    assert "nearest: equal to its plain form in float64, values and gradients" in out
    assert "the counts of both are identical" in run(capsys, "eval")


def test_a_missing_peer_is_one_line_and_its_rows_are_left_out(folder, capsys, monkeypatch):
    real = util.find_spec
    monkeypatch.setattr(benches, "find_spec", lambda name: None if name in ("monai", "torchmetrics") else real(name))
    out = run(capsys, "tile", "--against", "monai")
    assert out.count("monai is not installed, so its rows are left out; pip install 'segkit[peers]'") == 1
    assert [row["peer"] for row in found(folder, "tile")["rows"]] == ["", ""]
    run(capsys, "eval")
    assert [row["measure"] for row in found(folder, "eval")["rows"]] == ["value"]


def test_tiles_beside_monai(folder, capsys):
    pytest.importorskip("monai")
    out = run(capsys, "tile", "--against", "monai")
    assert "labels equal on" in out
    assert {row["peer"] for row in found(folder, "tile")["rows"]} == {"MONAI gaussian"}


@pytest.mark.parametrize(("words", "message"), [
    (["--against", "keras"], "--against"),
    (["train", "--against", "smpp"], "did you mean smp"),
    (["train", "--secondss", "1"], "did you mean --seconds"),
])  # fmt: skip
def test_what_is_unknown_is_an_error_of_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("words", "message"), [
    (["trian"], "unknown subject 'trian'; did you mean 'train'"),
    (["infer", "--table", "README.md"], "--table is an option of operators, not of infer"),
    (["tile", "--compile"], "--compile is an option of operators, train, infer, not of tile"),
    (["train", "--seconds", "-1"], "--seconds -1"),
    (["train", "--precision", "16-mixed", "--device", "cpu"], "a CPU has no such arithmetic"),
    (["operators", "--table", "nowhere.md"], "--table nowhere.md"),
])  # fmt: skip
def test_mistakes_are_told_with_their_remedy(words, message):
    with pytest.raises(SegkitError, match=message):
        main(words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a graphics card")
def test_no_graphics_card():
    with pytest.raises(SegkitError, match="--device cuda: torch finds no graphics card"):
        main(["infer", "--device", "cuda"])


def test_help_names_subjects_and_options(capsys):
    for words in (["--help"], ["train", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
        out = capsys.readouterr().out
        assert all(f"  {subject} " in out for subject in SUBJECTS)
        assert "--table_steps" in out


def test_the_made_up_photographs_are_as_large_as_real_ones(folder, capsys):
    data.write_photographs(folder / "photographs", 4)
    sizes = {kind: [path.stat().st_size for path in (folder / "photographs" / kind / "train").iterdir()] for kind in ("images", "masks")}
    assert all(30_000 < size < 90_000 for size in sizes["images"])
    assert all(1500 < size < 15_000 for size in sizes["masks"])
    out = run(capsys, "data", "--root", "photographs", "--images", "4")
    assert "4 images of 480 x 360" in out


def test_both_data_sets_see_the_same_pairs(folder):
    data.write_photographs(folder, 1)
    paths = [(str(folder / "images/train/00000.jpg"), str(folder / "masks/train/00000.png"))]
    image, mask = data.Plain(paths, data.DataConfig())[0]
    assert (image.dtype, image.shape) == (torch.float32, (3, 128, 128))
    assert (mask.dtype, mask.shape) == (torch.int64, (128, 128))
    first, second = data.decode_pil(*paths[0]), data.decode_cv2(*paths[0])
    assert (first[1] == second[1]).all()
    assert abs(first[0].astype(int) - second[0][..., ::-1]).mean() < 2
