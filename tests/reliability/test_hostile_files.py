"""Archives, lists, pictures and networks that were made to do harm: they lead nowhere else, run nothing and do not become large."""

import io
import json
import os
import pickle
import random
import re
import shutil
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from segkit.config import DataConfig
from segkit.data.check import check_sources
from segkit.data.download import download
from segkit.data.open import open_sources
from segkit.data.shards import INDEX, write_shards
from segkit.errors import SegkitError
from segkit.inference.inputs import find_jobs

MIB = 350  # that a command may take beside what it takes anyhow


class Runs:
    """What a pickle turns into a call."""

    def __init__(self, function, *words):
        self.call = function, words

    def __reduce__(self):
        return self.call


def tiny_folder(root, images=2):
    """A data set of the folder layout."""
    for split in ("train", "val"):
        for kind, mode in (("images", "RGB"), ("masks", "L")):
            (root / kind / split).mkdir(parents=True)
            for number in range(images):
                Image.new(mode, (24, 16), number).save(root / kind / split / f"{split}{number}.png")
    (root / "classes.txt").write_text("0 a\n1 b\n")
    return root


def opened(kind, root):
    return open_sources(DataConfig(kind=kind, root=str(root)))


def line(function, *words):
    """The one line of an error."""
    with pytest.raises(SegkitError) as error:
        print(words, function(*words))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_index_of_shards_leads_nowhere_else(tmp_path):
    (tmp_path / "secret.tar").write_bytes(bytes(4096))
    root = tmp_path / "shards"
    write_shards(opened("folder", tiny_folder(tmp_path / "data")), root, 2**20)
    index = json.loads((root / INDEX).read_text())
    shard = index["splits"]["train"]["shards"][0]["file"]
    assert len(opened("shards", root)["train"]) == 2

    def with_value(value, *rooms):
        changed = json.loads(json.dumps(index))
        inner = changed
        for room in rooms[:-1]:
            inner = inner[room]
        inner[rooms[-1]] = value
        (root / INDEX).write_text(json.dumps(changed))
        return line(opened, "shards", root)

    first = ("splits", "train", "shards", 0)
    for name in ("../secret.tar", str(tmp_path / "secret.tar"), "a/../../secret.tar", "/dev/zero", "", ".", None, 5, ["a"]):
        assert "no index of shards" in with_value(name, *first, "file")
    place = ("splits", "train", "places", 0, 0)
    for value in ([-1, 5, 0], [0, -1, 0], [2**62, 2**62, 0], [0, 10**9, 0], [10**30, 1, 1], ["a", 1, 1], [1, 2], None):
        assert "no index of shards" in with_value(value, *place)
    for value in (-1, 10**12, "x", None, [], 3):
        assert "no index of shards" in with_value(value, *first, "images")
    for rooms in (
        ("splits",),
        ("splits", "train"),
        ("splits", "train", "names"),
        ("splits", "train", "sizes"),
        ("classes",),
        ("colors",),
        ("bits",),
    ):
        for value in (None, 5, "x", [], [[]], {"a": 1}):
            assert "shards.json: no index of shards" in with_value(value, *rooms)
    for text in ("[" * 10**5, '{"format": 1e999}', "\0", "[]", "1", '{"format": ' + "9" * 5000 + "}"):
        (root / INDEX).write_text(text)
        assert "no index of shards" in line(opened, "shards", root)
    (root / INDEX).write_text(json.dumps(index))
    for special in ("link", "pipe"):
        (root / shard).rename(tmp_path / "kept.tar")
        os.symlink("/dev/zero", root / shard) if special == "link" else os.mkfifo(root / shard)
        assert "shards are missing or cut short" in line(opened, "shards", root)
        (root / shard).unlink()
        (tmp_path / "kept.tar").rename(root / shard)


def special_members(target):
    """Members of an archive that lead out of a folder, or are no files."""
    for name in ("../canary", "/canary", "a/../../canary", f"{target}/canary"):
        member = tarfile.TarInfo(name)
        member.size = 4
        yield member
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        for link in ("../../canary", f"{target}/canary", "/etc/passwd"):
            member = tarfile.TarInfo("link")
            member.type, member.linkname = kind, link
            yield member
    for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
        member = tarfile.TarInfo("device")
        member.type, member.devmajor, member.devminor = kind, 1, 5
        yield member


def test_members_of_a_shard_are_bytes_whatever_they_call_themselves(tmp_path):
    """Nothing is unpacked: the index says where bytes lie, and their checksum."""
    root = tmp_path / "shards"
    write_shards(opened("folder", tiny_folder(tmp_path / "data")), root, 2**20)
    index = json.loads((root / INDEX).read_text())
    part = index["splits"]["train"]
    for member in special_members(tmp_path):
        with tarfile.open(root / "train-000000.tar", "w") as archive:
            archive.addfile(member, io.BytesIO(b"evil"))
        with tarfile.open(root / "train-000000.tar") as archive:
            start = next(iter(archive)).offset_data
        part["shards"][0]["bytes"] = (root / "train-000000.tar").stat().st_size
        part["places"] = [[[start, 4, zlib.crc32(b"evil")]] * 2] * 2
        (root / INDEX).write_text(json.dumps(index))
        assert re.search("not an image|is damaged", line(opened("shards", root)["train"].read, 0))
    assert {path.name for path in tmp_path.iterdir()} == {"data", "shards"}


def test_an_archive_that_is_fetched_unpacks_below_its_folder(tmp_path, monkeypatch):
    from torchvision.datasets import voc
    from torchvision.datasets.utils import extract_archive

    packed = tmp_path / "packed.tar"
    monkeypatch.setattr(voc, "download_and_extract_archive", lambda url, root, **other: extract_archive(str(packed), root))
    for number, member in enumerate(special_members(tmp_path)):
        with tarfile.open(packed, "w") as archive:
            archive.addfile(member, io.BytesIO(b"evil"))
        root = tmp_path / f"root{number}"
        assert "voc could not be fetched" in line(download, "voc", root)
        assert not list(root.iterdir())
    assert not list(tmp_path.rglob("canary"))
    assert not Path("/canary").exists()


def test_a_manifest_stays_below_its_root(tmp_path):
    root = tiny_folder(tmp_path / "data")
    Image.new("RGB", (24, 16)).save(tmp_path / "secret.png")
    os.symlink(tmp_path / "secret.png", root / "link.png")
    os.symlink(tmp_path, root / "up")
    os.symlink("/dev/zero", root / "zero.png")
    os.mkfifo(root / "pipe.png")
    for path in (
        "../secret.png",
        str(tmp_path / "secret.png"),
        "images/../../secret.png",
        "link.png",
        "up/secret.png",
        "/dev/zero",
        "zero.png",
        "pipe.png",
    ):
        (root / "manifest.csv").write_text(
            f"image,mask,split\n{path},masks/train/train0.png,train\nimages/val/val0.png,masks/val/val0.png,val\n"
        )
        (problem,) = opened("manifest", root)["train"].problems
        assert problem.startswith(("path that leaves the data set's folder: ", "file that does not exist: "))
    for text in (
        "image,mask\n\0,\0\n",
        "image,mask\n" + "a" * 10**6 + ",b\n",
        '"' * 1000,
        "image,mask\nimages,masks\n",
        "image,mask,split\nx,y,\x1b[31m\n",
    ):
        (root / "manifest.csv").write_text(text)
        with pytest.raises(SegkitError, match=r"manifest|problem"):
            check_sources(opened("manifest", root))
    for text in ("0 a\n" * 2, "0 " + "#" * 10**5, "9" * 5000 + " a", "-1 a", "0 a #zzzzzz", "\0", "0 a\n2 b", "255 a", "0 a\x1b[31m"):
        (root / "classes.txt").write_text(text)
        assert "classes.txt" in line(opened, "folder", root)[:400]


def test_links_in_ones_own_folder_are_followed_and_have_an_end(tmp_path, serve, lair):
    """A folder is the user's own: large images lie elsewhere and are linked. Loops end; what is no file is named."""
    root, elsewhere = tiny_folder(tmp_path / "data"), tmp_path / "elsewhere"
    for kind in ("images", "masks"):
        (root / kind / "train").rename(elsewhere.with_name(f"elsewhere-{kind}"))
        os.symlink(tmp_path / f"elsewhere-{kind}", root / kind / "train")
        for number in range(20):  # 2 ^ 20 ways down, and each of them back
            below = root / kind / "val" / f"n{number}"
            below.mkdir()
            for link in "ab":
                os.symlink(root / kind / "val" / f"n{(number + 1) % 20}", below / link)
        os.symlink(root / kind, root / kind / "val" / "up")
    sources = opened("folder", root)
    assert [sources["train"].name(index) for index in range(2)] == ["train0", "train1"]
    assert {"val0", "val1"} <= {sources["val"].name(index) for index in range(len(sources["val"]))}
    check_sources(sources)
    root = tiny_folder(tmp_path / "other")
    for number in range(2):
        (root / f"images/val/val{number}.png").unlink()
    os.symlink("/dev/zero", root / "images/val/val0.png")
    os.mkfifo(root / "images/val/val1.png")
    with pytest.raises(SegkitError) as error:
        check_sources(opened("folder", root))
    report = error.value
    assert "2 problems in the data" in str(report)
    for name in ("val0.png", "val1.png"):
        assert f"cannot read {root}/images/val/{name}: a folder, pipe or device, no file" in str(report)
    for command in (
        ("check_data", "--data.root", root),
        ("train", "--trainer.accelerator", "cpu", "--wandb.mode", "disabled", "--data.root", root),
    ):
        done = serve(*command, cwd=tmp_path, limit=60, memory=3000)
        assert done.code == (1 if command[0] == "check_data" else 2), done.err
        assert "Traceback" not in done.err
    done = serve(
        "predict", lair / "runs/a/b", root / "images/val/val0.png", root / "images/val/val1.png", cwd=tmp_path, limit=60, memory=3000
    )
    assert done.code in (1, 2)
    assert "Traceback" not in done.err


NAMES = ["\x1b[31mred", "[bold]b", "<script>x", "a\x07", "a\rb", "\udcff\udcfe"]  # the last: bytes that are no UTF-8


def test_no_name_steers_a_terminal_or_a_page(tmp_path, serve, lair):
    root = tiny_folder(tmp_path / "data")
    for number, name in enumerate(NAMES):
        for kind, folder in (("images", "images/val"), ("masks", "masks/val")):
            shutil.copy(root / folder / "val0.png", root / folder / f"{number}{name}.png")
            if number % 2 == 0 and kind == "images":
                (root / folder / f"{number}{name}.png").write_bytes(b"no image")
    steps = [
        "--trainer.accelerator",
        "cpu",
        "--trainer.max_steps",
        1,
        "--decoder_channels",
        "[8,8]",
        "--data.crop",
        16,
        "--data.batch_size",
        2,
    ]
    for code, *words in (
        (1, "check_data", "--data.root", root, "--out", "report"),
        (1, "predict", lair / "runs/a/b", root / "images", "--out", "out", "--device", "cpu"),
        (2, "train", *steps, "--wandb.mode", "disabled", "--data.root", root),
    ):
        done = serve(*words, cwd=tmp_path)
        assert done.code == code, done.err
        assert "Traceback" not in done.err
        assert not [sign for sign in done.out + done.err if ord(sign) < 32 and sign != "\n"], words
        if words[0] != "train":  # which names the first file alone
            assert "\\x1b[31mred" in done.out + done.err
    page = (tmp_path / "report/report.html").read_text()
    assert "<script" not in page
    assert "\x1b" not in page


@pytest.mark.parametrize("name", ["config.yaml", "checkpoints/last.ckpt", "metrics.csv", "metrics.json"])
def test_no_pipe_or_device_in_a_run_folder_is_read(tmp_path, serve, lair, name):
    for put in (os.mkfifo, lambda path: os.symlink("/dev/zero", path)):
        run = tmp_path / put.__name__ / "run"
        shutil.copytree(lair / "runs/a/b", run)
        (run / name).unlink()
        (run / "checkpoints/best.ckpt").unlink(missing_ok=True)  # which the run would go on from
        put(run / name)
        done = serve("train", "--resume", run, "--trainer.max_steps", 2, cwd=tmp_path, limit=30, memory=3000)
        assert done.mib < 1000
        if name.startswith("metrics"):
            assert done.code == 0, done.err
            assert (run / name).is_file()
        else:
            assert Path(name).name in done.refused()


def test_no_result_lies_outside_the_folder_of_results(tmp_path):
    for place in ("in/a/x.png", "secret/x.png", "in/b.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / place)
    out = tmp_path / "out/deep"
    for pattern in (f"{tmp_path}/in/*/../../secret/*.png", f"{tmp_path}/*/../secret/x.png"):
        assert "its result would lie outside --out" in line(find_jobs, [pattern], out)
    words = [f"{tmp_path}/in/../in/a/*.png", f"{tmp_path}/in/../in/b.png"]
    (tmp_path / "list.txt").write_text("\n".join(words))
    for jobs in (find_jobs(words, out), find_jobs([], out, str(tmp_path / "list.txt"))):
        assert [str(job.name) for job in jobs] == ["x", "b"]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *chunks, bits=8, kind=2):
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
        + b"".join(chunks)
        + chunk(b"IEND", b"")
    )


def bombs(folder):
    """Small files that claim, or unpack to, far more; name -> what is said of it, or None where the picture in it is sound and small."""
    packed = zlib.compress(bytes(600 * 2**20), 1)
    pixels = chunk(b"IDAT", zlib.compress(bytes(8 * 25)))
    jpeg = io.BytesIO()
    Image.new("RGB", (64, 64)).save(jpeg, "JPEG", progressive=True)
    large = bytearray(jpeg.getvalue())
    place, scans = large.find(b"\xff\xc2"), large.find(b"\xff\xda")
    large[place + 5 : place + 9] = struct.pack(">HH", 65000, 65000)
    slow = bytearray(jpeg.getvalue())
    slow[place + 5 : place + 9] = struct.pack(">HH", 8100, 8100)
    files = {
        "claims.png": (png(60000, 60000, chunk(b"IDAT", zlib.compress(bytes(10**6)))), "images may have 67 megapixels"),
        "pixels.png": (png(8, 8, chunk(b"IDAT", packed)), None),
        "text.png": (png(8, 8, chunk(b"zTXt", b"k\0\0" + packed), pixels), "cannot read"),
        "profile.png": (png(8, 8, chunk(b"iCCP", b"p\0\0" + packed), pixels), "cannot read"),
        "claims.jpg": (bytes(large), "images may have 67 megapixels"),
        "scans.jpg": (bytes(slow[:-2]) + bytes(slow[scans:-2]) * 2000 + b"\xff\xd9", "scans; a JPEG may have 100"),
        "claims.ppm": (b"P6\n99999 99999\n255\n", "images may have 67 megapixels"),
        "head.npy": (b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31 - 1) + b"{", "cannot read"),
        "code.npy": (
            b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + f"__import__('os').system('touch {folder}/canary')".ljust(117).encode() + b"\n",
            "cannot read",
        ),
        "deep.npy": (b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 8999 + b"\n", "cannot read"),
        "pickle.npy": (pickle.dumps(Runs(os.system, f"touch {folder}/canary")), "it holds Python objects"),
    }
    for name, shape, kind in (
        ("huge.npy", (10**6, 10**6, 3), "|u1"),
        ("over.npy", (2**40, 2**40, 3), "|u1"),
        ("objects.npy", (4, 4, 3), "|O"),
    ):
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": kind, "fortran_order": False, "shape": shape})
        files[name] = head.getvalue() + pickle.dumps(Runs(os.system, f"touch {folder}/canary")), "cannot read"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packer:
        packer.writestr("a.npy", head.getvalue() + bytes(200 * 2**20))
    files["archive.npy"] = archive.getvalue(), "cannot read"
    for compression in (None, "zlib", "lzw"):
        for change, what in (
            ({256: 60000, 257: 60000}, "strips or tiles|incorrect|cannot read|megapixels"),
            ({322: 60000, 323: 60000}, "cannot read|tiles"),
        ):
            tiles = {"tile": (32, 32)} if 322 in change else {}
            tifffile.imwrite(folder / "a.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb", compression=compression, **tiles)
            with tifffile.TiffFile(folder / "a.tif") as file:
                tags = {tag.code: tag.valueoffset for tag in file.pages.first.tags}
            data = bytearray((folder / "a.tif").read_bytes())
            for code, value in change.items():
                data[tags[code] : tags[code] + 2] = struct.pack("<H", value)
            files[f"{compression}{next(iter(change))}.tif"] = bytes(data), what
    for bits in (8, 16):  # a strip that unpacks to much more than its page
        tifffile.imwrite(folder / "a.tif", np.zeros((64, 64, 3), f"u{bits // 8}"), photometric="rgb", compression="zlib", rowsperstrip=64)
        with tifffile.TiffFile(folder / "a.tif") as file:
            tags = {tag.code: tag.valueoffset for tag in file.pages.first.tags}
        data = bytearray((folder / "a.tif").read_bytes())
        data[tags[279] - 6 : tags[279] - 4] = struct.pack("<H", 4)
        data[tags[279] : tags[279] + 4] = struct.pack("<I", len(packed))
        data[tags[273] - 6 : tags[273] - 4] = struct.pack("<H", 4)
        data[tags[273] : tags[273] + 4] = struct.pack("<I", len(data))
        files[f"strip{bits}.tif"] = bytes(data) + packed, None if bits == 8 else "cannot read|16 bits"
    (folder / "a.tif").unlink()
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    for name in ("sparse.png", "sparse.tif", "sparse.npy"):
        with (folder / name).open("wb") as file:
            file.write(b"II*\0\x08\0\0\0")
            file.truncate(60 * 2**30)
        files[name] = b"", "cannot read"
    return {name: what for name, (_, what) in files.items()}


def test_small_files_do_not_become_large(lair, serve, tmp_path):
    usual = serve("predict", lair / "runs/a/b", lair / "a.png", "--out", "usual", "--device", "cpu", cwd=tmp_path).mib
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, what in bombs(folder).items():
        done = serve("predict", lair / "runs/a/b", folder / name, "--out", f"out-{name}", "--device", "cpu", cwd=tmp_path, limit=30)
        assert "Traceback" not in done.err
        assert (done.code, done.mib < usual + MIB, done.seconds < 10) == (1 if what else 0, True, True), (name, done)
        if what:
            assert re.search(f"^skipped .*{name}.*({what})|^skipped .*({what}).*{name}", done.err, re.MULTILINE), (name, done.err)
            assert f"1 of 1 images could not be predicted: {folder / name}" in done.err
    assert not list(tmp_path.rglob("canary"))


def onnx_model(external=None, node=("Conv", ""), names='["a", "b"]'):
    """A network of segkit's form with one convolution, whose weights may lie in another file."""
    weights = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")
    if external:
        weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 3, 1, 1], data_location=TensorProto.EXTERNAL)
        for key, value in external.items():
            weights.external_data.add(key=key, value=str(value))
    kind, domain = node
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
        helper.make_node(kind, ["f", "w"], ["logits"], domain=domain),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["b", 3, "h", "w"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 2, "h", "w"])
    versions = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(helper.make_graph(nodes, "g", [image], [logits], [weights]), opset_imports=versions, ir_version=9)
    card = {"segkit_version": '"0"', "class_names": names, "colors": "[[0, 0, 0], [9, 9, 9]]", "mean": "[0, 0, 0]", "std": "[1, 1, 1]"}
    helper.set_model_props(model, card | {"white": "255", "in_channels": "3", "normalize": "true"})
    return model.SerializeToString()


def test_no_network_reads_elsewhere(lair, serve, tmp_path):
    place = tmp_path / "network"
    place.mkdir()
    for file in (tmp_path / "secret.bin", place / "beside.bin"):
        file.write_bytes(bytes(100))
    os.symlink(tmp_path / "secret.bin", place / "link.bin")
    os.symlink("/dev/zero", place / "zero.bin")
    sound = onnx_model()
    elsewhere = ("../secret.bin", tmp_path / "secret.bin", "/etc/passwd", "link.bin", "zero.bin", "none.bin", "a/../../secret.bin")
    files = {f"outside {path}": onnx_model({"location": path}) for path in elsewhere}
    for key, value in (("offset", 2**60), ("offset", -5), ("length", 2**60)):
        files[f"{key} {value}"] = onnx_model({"location": "beside.bin", key: value})
    files["memory"] = onnx_model({"location": "*/_ORT_MEM_ADDR_/*", "offset": 4096, "length": 24})
    files |= {
        "cut": sound[: len(sound) // 2],
        "noise": random.Random(0).randbytes(500),
        "empty": b"",
        "pickle": pickle.dumps(Runs(os.system, "true")),
    }
    files |= {"custom": onnx_model(node=("Evil", "evil")), "python": onnx_model(node=("PyOp", "com.microsoft.python"))}
    files |= {"card": onnx_model(names="[" * 10**5), "names": onnx_model(names='["a", 5]')}
    for name, content in files.items():
        (place / "a.onnx").write_bytes(content)
        done = serve("predict", place / "a.onnx", lair / "a.png", "--out", "out", cwd=tmp_path, limit=30, memory=3000)
        assert f"{place}/a.onnx" in done.refused(), name
    for name, content in {"sound": sound, "beside": onnx_model({"location": "beside.bin"})}.items():
        (place / "a.onnx").write_bytes(content)
        assert serve("predict", place / "a.onnx", lair / "a.png", "--out", name, cwd=tmp_path).code == 0
