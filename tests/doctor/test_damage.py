import json
import shlex
from collections import Counter

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

from segkit.cli.check_data import main
from segkit.data.findings import KINDS
from segkit.errors import RunFailed, SegkitError


def found(out):
    """Kind -> what is said of each finding, as the report has it."""
    report = json.loads((out / "report.json").read_text())
    return {group["kind"]: [finding["what"] for finding in group["found"]] for group in report["findings"]}


def test_a_clean_set_has_no_finding(clean_set, tmp_path, capsys):
    root, out = clean_set(), tmp_path / "out"
    main(["--data.root", str(root), "--data.crop", "64", "--out", str(out)])
    assert found(out) == {}
    said = capsys.readouterr().out
    assert "nothing is wrong" in said
    assert "24 train, 12 val, 12 test images, 3 classes" in said


def test_every_damage_is_found_and_named_and_nothing_else(clean_set, plant, tmp_path, capsys):
    root, out = clean_set(lengths=(30, 12, 12)), tmp_path / "out"
    planted = plant(root, crop=64)
    assert len(planted) >= 25
    with pytest.raises(RunFailed, match=r"errors in the data; .*report.html shows each with its remedy"):
        main(["--data.root", str(root), "--data.crop", "64", "--out", str(out), "--write_config", str(out / "c.yaml")])
    seen = found(out)
    for kind, part in planted.items():
        assert any(part in what for what in seen.get(kind, [])), (kind, part, seen.get(kind))
    counts = Counter({kind: len(whats) for kind, whats in seen.items()})
    # an image with another mask in another split is in two splits
    assert counts == Counter(planted.keys()) + Counter(["leak"]) + Counter(["unscored"] * counts["unscored"])
    said, page = capsys.readouterr().out, (out / "report.html").read_text()
    for kind in planted:
        assert KINDS[kind].title in said
        assert KINDS[kind].remedy in said
        assert KINDS[kind].title in page
    values = json.loads((out / "report.json").read_text())["unexpected_values"]
    assert [(v["value"], v["pixels"], v["files"]) for v in values] == [("77", 35, 1)]


def test_masks_of_0_and_255_are_told_from_masks_of_ids(clean_set, tmp_path):
    root, out = clean_set(classes=2), tmp_path / "out"
    for mask in root.glob("masks/*/*.png"):
        Image.open(mask).point([0, 255] + [0] * 254).save(mask)
    options = ["--data.root", str(root), "--data.crop", "64", "--out", str(out), "--write_config", str(out / "c.yaml")]
    with pytest.raises(RunFailed, match="1 error in the data"):
        main(options)
    assert list(found(out)) == ["binary"]
    assert KINDS["binary"].remedy == "--data.masks binary"
    assert "  masks: binary  # " in (out / "c.yaml").read_text()
    main([*options, "--data.masks", "binary"])
    assert found(out) == {}


def test_ids_of_16_bits_are_listed_with_the_mapping_as_remedy(clean_set, tmp_path):
    root, out = clean_set(), tmp_path / "out"
    for mask in root.glob("masks/train/*.png"):
        labels = Image.open(mask)
        Image.fromarray(np.asarray(labels, np.uint16) * 700).save(mask)
    with pytest.raises(RunFailed):
        main(["--data.root", str(root), "--data.crop", "64", "--out", str(out)])
    report = json.loads((out / "report.json").read_text())
    assert {value["value"] for value in report["unexpected_values"]} == {"700", "1400"}
    assert "--data.mapping" in report["findings"][0]["remedy"]
    assert report["findings"][0]["count"] == 24
    option, value = shlex.split(report["mapping"])
    assert (option, yaml.safe_load(value)) == ("--data.mapping", {0: 0, 1: 1, 2: 2, 700: 255, 1400: 255})
    filled = value.replace("700: 255", "700: 1").replace("1400: 255", "1400: 2")  # as its reader will
    main(["--data.root", str(root), "--data.crop", "64", "--out", str(out), option, filled])
    assert "labels" not in found(out)


def test_the_images_of_16_bits_and_many_bands_are_told_at_once(tmp_path):
    (tmp_path / "classes.txt").write_text("0 a\n1 b\n")
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 9999, (40, 40, 5), np.uint16)
        tifffile.imwrite(tmp_path / f"images/{i}.tif", pixels, photometric="minisblack", planarconfig="contig")
        Image.fromarray((pixels[..., 0] > 5000).astype(np.uint8)).save(tmp_path / f"masks/{i}.png")
    with pytest.raises(RunFailed):
        main(["--data.root", str(tmp_path), "--out", str(tmp_path / "out")])
    command = json.loads((tmp_path / "out/report.json").read_text())["command"]
    words = shlex.split(command.removeprefix("python scripts/train.py "))
    assert words[-4:] == ["--data.bits", "16", "--in_channels", "5"]
    main([*words, "--data.crop", "32", "--out", str(tmp_path / "out")])


def test_what_cannot_be_opened_at_all_is_one_line(tmp_path):
    (tmp_path / "images/train").mkdir(parents=True)
    with pytest.raises(SegkitError, match="masks is missing"):
        main(["--data.root", str(tmp_path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_set_without_val_cannot_be_trained_on(clean_set, tmp_path):
    root, out = clean_set(lengths=(8, 0, 4)), tmp_path / "out"
    (root / "images/val").rmdir()
    with pytest.raises(RunFailed):
        main(["--data.root", str(root), "--data.crop", "64", "--out", str(out)])
    assert found(out)["no_split"] == ["val"]


def test_built_in_scenes_are_sound(tmp_path):
    sizes = ["--data.scenes_size", "64", "--data.scenes_train", "30", "--data.scenes_val", "12", "--data.scenes_test", "12"]
    main([*sizes, "--data.crop", "32", "--out", str(tmp_path / "out")])
    assert not any(KINDS[kind].severity == "error" for kind in found(tmp_path / "out"))


def test_an_empty_split_is_found(clean_set, tmp_path):
    root, out = clean_set(), tmp_path / "out"
    for file in root.glob("*/test/*"):
        file.unlink()
    with pytest.raises(RunFailed):
        main(["--data.root", str(root), "--data.crop", "64", "--out", str(out)])
    assert found(out)["empty_split"] == ["test"]
