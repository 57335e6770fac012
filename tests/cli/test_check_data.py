import shlex
import sys

import numpy as np
import pytest
from PIL import Image

from segkit.cli.check_data import main
from segkit.cli.parsing import Parser, run
from segkit.config import CheckConfig, DataConfig, from_dict
from segkit.data.open import open_sources
from segkit.errors import RunFailed, SegkitError


def options(root, out, *more):
    return ["--data.root", str(root), "--data.crop", "32", "--near", "0", "--out", str(out), *more]


def test_sound_data_become_shards(make_folder, tmp_path, capsys):
    root, target = make_folder(train=3, val=2), tmp_path / "shards"
    main(options(root, tmp_path / "out", "--to_shards", str(target), "--shard_size", "3"))
    written, files = (open_sources(DataConfig(kind=kind, root=str(place))) for kind, place in (("shards", target), ("folder", root)))
    assert list(written) == ["train", "val"]
    for split, source in files.items():
        names = [source.name(i) for i in range(len(source))]
        for index in range(len(written[split])):
            image, mask = written[split].read(index)
            original = source.read(names.index(written[split].name(index)))
            assert (image == original[0]).all()
            assert (mask == original[1]).all()
    said = capsys.readouterr().out
    assert f"python scripts/train.py --data.kind shards --data.root {target} --data.crop 64" in said
    assert not said.startswith("\n")
    with pytest.raises(SegkitError, match="shards holds shards already"):  # before the files are read
        main(options(root, tmp_path / "later", "--to_shards", str(target)))
    assert not (tmp_path / "later").exists()


def test_shards_are_trained_on_without_what_only_files_need(make_folder, tmp_path, capsys):
    root, target = make_folder(train=4, val=2, classes=2), tmp_path / "my shards"
    for mask in root.glob("masks/*/*.png"):
        Image.fromarray(np.asarray(Image.open(mask)) * np.uint8(255)).save(mask)
    main(options(root, tmp_path / "out", "--data.masks", "binary", "--data.bits", "16", "--to_shards", str(target)))
    line = capsys.readouterr().out.splitlines()[-1]
    assert f"--data.kind shards --data.root '{target}' --data.bits 16" in line
    assert "--data.masks" not in line
    config = from_dict(CheckConfig, Parser(CheckConfig, "").read(shlex.split(line)[2:8]))
    assert config.data.kind == "shards"


def test_data_with_errors_do_not(make_folder, tmp_path):
    root = make_folder(train=3, val=2)
    (root / "masks/train/train0.png").unlink()
    with pytest.raises(RunFailed, match=r"1 error in the data; no shards were written; .*report.html"):
        main(options(root, tmp_path / "out", "--to_shards", str(tmp_path / "shards")))
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize(
    ("damage", "code"), [(None, 0), ("masks/val/val0.png", 1), ("classes.txt", 2)], ids=["sound", "an error among the findings", "not open"]
)
def test_exit_codes(make_folder, tmp_path, monkeypatch, capsys, damage, code):
    root = make_folder(train=3, val=2)
    if damage:
        (root / damage).unlink()
    monkeypatch.setattr(sys, "argv", ["check_data.py", *options(root, tmp_path / "out")])
    left = 0
    try:
        run(main)
    except SystemExit as leave:
        left = leave.code
    assert left == code
    assert capsys.readouterr().err.count("\n") == (code > 0)


def test_a_wrong_option_is_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--data.mask", "colors"])
    assert "unknown option '--data.mask'; did you mean --data.masks" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--out", "--write_config"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(make_folder, tmp_path, option):
    (tmp_path / "file").write_text("")
    with pytest.raises(SegkitError, match="cannot write to the folder"):
        main(options(make_folder(), tmp_path / "out", option, str(tmp_path / "file/inside/x.yaml")))
