"""Files that chance has changed, as disks and copies do. No traceback, no crash; what is bad is named, and counted."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segkit.cli.parsing import Parser
from segkit.config import TrainConfig, from_dict
from segkit.errors import SegkitError

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
SCALARS = [
    "",
    "null",
    "true",
    "-1",
    "0",
    "1e400",
    ".nan",
    "9" * 30,
    "'",
    '"',
    "[",
    "{",
    "]",
    "[1, 2]",
    "{a: 1}",
    "[[1]]",
    "&a",
    "*a",
    "!!int x",
]
SCALARS += [
    "!!python/name:os.system",
    "!!binary AAAA",
    "2020-13-45",
    "0x" + "f" * 80,
    "1:2:3",
    "../..",
    "~",
    "|",
    ">",
    "?",
    "- 1",
    "\t",
    "é",
    "\ud800",
]
SCALARS += [
    "{class_path: os.system, init_args: {command: x}}",
    "a: b: c",
    "<<: 1",
    "%YAML 9",
    "---",
    "...",
    "x" * 5000,
    "[" * 100,
    "\0",
    "\x1b[31m",
]


def mutated_yaml(number):
    """A shipped configuration with one to three changes of bytes, lines, keys, values, types or nesting."""
    chance = random.Random(number)
    lines = chance.choice(CONFIGS).read_text().splitlines()
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(lines)) if lines else 0
        lines = lines or [""]
        place = min(place, len(lines) - 1)
        line = lines[place]
        key, colon, _ = line.partition(":")
        kind = chance.randrange(9)
        if kind == 0:
            lines[place] = key + ": " + chance.choice(SCALARS)
        elif kind == 1:
            lines[place] = chance.choice(SCALARS) + line[len(key) :]
        elif kind == 2:
            lines[place] = " " * chance.randrange(9) + line.lstrip()
        elif kind == 3:
            lines.insert(place, chance.choice(lines))
        elif kind == 4:
            del lines[place]
        elif kind == 5:
            lines[place] = key + colon + "\n" + " " * chance.randrange(8) + "a: " + chance.choice(SCALARS)
        elif kind == 6 and line:
            cut = chance.randrange(len(line))
            lines[place] = line[:cut] + chance.choice(SCALARS) + line[cut:]
        elif kind == 7:
            other = chance.randrange(len(lines))
            lines[place], lines[other] = lines[other], lines[place]
        else:
            data = bytearray(line.encode("utf-8", "surrogatepass") or b"x")
            data[chance.randrange(len(data))] = chance.randrange(256)
            lines[place] = data.decode("latin-1")
    return "\n".join([*lines, ""]).encode("utf-8", "replace")  # what is no text becomes a question mark, in YAML a sign of its own


def test_500_mutated_configurations_are_valid_or_one_line_and_exit_code_2(tmp_path, capsys, serve):
    path, asked = tmp_path / "mutated.yaml", []
    for number in range(500):
        path.write_bytes(mutated_yaml(number))
        code, said = 0, ""
        try:
            from_dict(TrainConfig, Parser(TrainConfig, "").read(["--config", str(path)]))
        except SystemExit as left:
            code, said = left.code, capsys.readouterr().err
        except SegkitError as error:  # which the command prints with exit code 2
            code, said = 2, f"{error}\n"
        if code:
            assert (code, said.count("\n"), said[-1:]) == (2, 1, "\n"), (number, said)
            assert len(said) < 1500, number
            asked.append(number)
    for number in asked[::25]:  # by the command itself
        path.write_bytes(mutated_yaml(number))
        done = serve("train", "--config", path, cwd=tmp_path)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), (number, done.err)
        assert done.err.startswith("train.py: error: ")
    assert 250 < len(asked) < 480  # most changes are mistakes, and some are none
    by_command = len(asked[::25])
    print(
        f"500 mutated configurations: {500 - len(asked)} valid, {len(asked)} one line and exit code 2; {by_command} by the command itself"
    )


def originals(folder):
    """One small picture in each way of writing it, all of one scene; as bytes by name."""
    chance = np.random.default_rng(0)
    colors = np.kron(chance.integers(0, 256, (6, 7, 3), np.uint8), np.ones((6, 6, 1), np.uint8)) + chance.integers(
        0, 9, (36, 42, 3), np.uint8
    )
    grey, rgb = colors[..., 0], Image.fromarray(colors)
    turned = Image.Exif()
    turned[274] = 1
    pictures = {
        "rgb.png": (rgb, {}),
        "grey.png": (Image.fromarray(grey), {}),
        "palette.png": (rgb.quantize(17), {}),
        "bits.png": (rgb.convert("1"), {}),
        "alpha.png": (rgb.convert("RGBA"), {}),
        "deep.png": (Image.fromarray(grey.astype(np.uint16) * 257), {}),
        "plain.jpg": (rgb, {"quality": 90, "exif": turned}),
        "progressive.jpg": (rgb, {"progressive": True}),
        "grey.jpg": (Image.fromarray(grey), {}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "plain.tif": (rgb, {}),
        "lzw.tif": (rgb, {"compression": "tiff_lzw"}),
        "deflate.tif": (rgb.quantize(17), {"compression": "tiff_adobe_deflate"}),
        "jpeg.tif": (rgb, {"compression": "jpeg"}),
        "plain.bmp": (rgb, {}),
        "plain.gif": (rgb.quantize(17), {}),
        "lossy.webp": (rgb, {}),
        "lossless.webp": (rgb, {"lossless": True}),
        "plain.ppm": (rgb, {}),
    }
    found = {}
    for name, (picture, options) in pictures.items():
        picture.save(folder / name, **options)
    deep = colors.astype(np.uint16) * 257
    tifffile.imwrite(folder / "deep.tif", deep, photometric="rgb")
    tifffile.imwrite(folder / "tiled.tif", deep, photometric="rgb", tile=(16, 16), compression="zlib", predictor=True)
    tifffile.imwrite(folder / "big.tif", deep, photometric="rgb", bigtiff=True)
    tifffile.imwrite(folder / "planes.tif", colors.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate")
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        found[path.name] = path.read_bytes()
        path.unlink()
    return found


def mutated(data, chance):
    """Bytes with a change: some of them, some of the header, an end cut off, a part lost, twice there, or blank."""
    out, kind = bytearray(data), chance.randrange(6)
    a, b = sorted(chance.randrange(len(out)) for _ in range(2))
    if kind < 2:
        for _ in range(chance.randint(1, 12)):
            place = chance.randrange(min(len(out), 200) if kind else len(out))
            out[place] = chance.choice([0, 1, 127, 128, 255, out[place] ^ 1 << chance.randrange(8), chance.randrange(256)])
    elif kind == 2:
        del out[a:]
    elif kind == 3:
        del out[a : a + chance.randint(1, 50)]
    elif kind == 4:
        out[a:a] = out[a : min(b, a + 2000)]
    else:
        out[a : a + 64] = bytes(len(out[a : a + 64]))
    return bytes(out)


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_mutated_images_are_named_and_counted_by_all_commands(tmp_path, serve, count):
    """Every fifth pair has a mutated mask, the others a mutated image. No command crashes, and all agree which pairs are bad."""
    sound, data, chance = tmp_path / "sound", tmp_path / "mutated", random.Random(count)
    for root in (sound, data):
        for part in ("images/train", "images/val", "masks/train", "masks/val"):
            (root / part).mkdir(parents=True)
        (root / "classes.txt").write_text("0 a\n1 b\n")
    images, mask, masks = originals(tmp_path), Image.fromarray(np.tile(np.array([0, 1], np.uint8), (36, 21))), {}
    for name, options in (("a.png", {}), ("b.png", {"bits": 1}), ("c.tif", {"compression": "tiff_lzw"}), ("d.tif", {}), ("e.bmp", {})):
        mask.save(tmp_path / name, **options)
        masks[name] = (tmp_path / name).read_bytes()
    for name, content in images.items():  # a network is trained on what is not mutated: every picture can be read
        for split in ("train", "val"):
            (sound / "images" / split / name.replace(".", "-", 1)).with_suffix(Path(name).suffix).write_bytes(content)
            mask.save(sound / "masks" / split / f"{name.replace('.', '-')}.png")
    for number in range(count):
        split, image, label = ("train", "val")[number % 2], list(images)[number % len(images)], list(masks)[number // 5 % len(masks)]
        changed = [number % 5 > 0, number % 5 == 0]
        for kind, name, content, mutate in zip(("images", "masks"), (image, label), (images[image], masks[label]), changed, strict=True):
            path = data / kind / split / f"{number:04}{Path(name).suffix}"
            path.write_bytes(mutated(content, chance) if mutate else content)
    run = ["--data.bits", 16, "--data.crop", 32, "--data.batch_size", 2, "--data.workers", 0, "--decoder_channels", "[8,8]"]
    run += ["--trainer.accelerator", "cpu", "--trainer.max_epochs", 1, "--wandb.mode", "disabled", "--wandb.panels", 0]
    options = {"cwd": tmp_path, "limit": 1500}
    trained = serve("train", *run, "--data.root", sound, "--name", "a", "--run_id", "b", **options)
    assert trained.code == 0, trained.err

    checked = serve("check_data", "--data.root", data, "--data.bits", 16, "--out", "report", **options)
    predicted = serve("predict", "runs/a/b", data / "images", "--out", "out", "--device", "cpu", **options)
    refused = serve("train", *run, "--data.root", data, "--name", "c", **options)
    scored = serve("eval", "runs/a/b", "--data_root", data, "--split", "val", "--accelerator", "cpu", **options)
    for done, code in ((checked, 1), (predicted, 1), (refused, 2), (scored, 2)):
        assert done.code == code, (done.words, done.err[-2000:])
        assert "Traceback" not in done.err + done.out, done.err[max(0, done.err.find("Traceback") - 500) :][:9000]
        assert "Warning" not in done.err
    kinds = json.loads((tmp_path / "report/report.json").read_text())["findings"]
    found = [
        (kind["kind"], one["what"]) for kind in kinds for one in kind["found"] if kind["severity"] == "error" and kind["kind"] != "leak"
    ]
    pairs = [re.search(r"(?:train|val)/(\d{4})", what)[1] for _, what in found]  # each named
    assert len(set(pairs)) == len(pairs)
    unread = {pair for pair, (_, what) in zip(pairs, found, strict=True) if re.search(r"images/(train|val)/\d{4}\.", what)}
    skipped = re.findall(r"^skipped .*?images/(?:train|val)/(\d{4})\.", predicted.err, re.MULTILINE)
    assert sorted(skipped) == sorted(unread)
    assert f"{count - len(unread)} predicted, {len(unread)} bad" in predicted.out
    assert f"{len(unread)} of {count} images could not be predicted" in predicted.err
    for done in (refused, scored):
        assert f"error: {len(pairs)} problems in the data (train {count // 2}, val {count // 2} images)" in done.err
    broken = serve("python", PILLOW, str(data / "images"), cwd=tmp_path, limit=600)
    assert broken.code == 0, broken.err
    assert set(broken.out.split()) <= unread  # what another reader cannot decode is not taken for a picture
    assert count * 0.2 < len(broken.out.split())

    unchecked = serve("train", *run, "--data.root", data, "--data.check", "false", "--name", "d", **options)
    assert re.search(r"(images|masks)/(train|val)/\d{4}\.", unchecked.refused())  # the loader meets them instead
    for pair in pairs:
        for path in data.glob(f"*/*/{pair}.*"):
            path.unlink()
    for words in (("train", *run, "--data.root", data, "--name", "e", "--run_id", "f"), ("eval", "runs/e/f", "--accelerator", "cpu")):
        done = serve(*words, *(["--split", "val"] if words[0] == "eval" else []), **options)
        assert (done.code, "Traceback" in done.err) == (0, False), (words, done.err[-2000:])
    scores = json.loads((tmp_path / "runs/e/f/metrics.json").read_text())
    assert scores["images"] == count - len(pairs) - len(list((data / "images/train").iterdir()))
    print(f"{count} mutated files: {len(pairs)} bad pairs, {len(unread)} of them by the image; check_data {checked.seconds:.0f} s")


PILLOW = """
import sys, warnings
from pathlib import Path
from PIL import Image
warnings.simplefilter("ignore")
for path in Path(sys.argv[2]).rglob("*.*"):
    if path.suffix != ".tif":  # of which Pillow knows few kinds
        try:
            Image.open(path).load()
        except Exception:
            print(path.stem)
"""
