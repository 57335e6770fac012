import io
import re
import socket
import tarfile
import threading
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets.oxford_iiit_pet as pets
import torchvision.datasets.voc as voc
from PIL import Image

from segkit.config import DataConfig
from segkit.data.download import download
from segkit.data.open import open_sources
from segkit.errors import SegkitError


def picture(mode, value):
    out = io.BytesIO()
    Image.fromarray(np.full((4, 5, 3) if mode == "RGB" else (4, 5), value, np.uint8)).save(out, "JPEG" if mode == "RGB" else "PNG")
    return out.getvalue()


VOC = {"Annotations/2007_000001.xml": b"<annotation/>"}
for part, member in (("train", "2007_000001"), ("val", "2007_000002")):
    VOC |= {f"ImageSets/Segmentation/{part}.txt": f"{member}\n".encode(), f"JPEGImages/{member}.jpg": picture("RGB", 9)}
    VOC[f"SegmentationClass/{member}.png"] = picture("L", 15)
VOC = {f"VOCdevkit/VOC2012/{name}": content for name, content in VOC.items()}
PETS = {
    "images.tar.gz": {f"images/Siamese_{i}.jpg": picture("RGB", 9) for i in range(40)},
    "annotations.tar.gz": {f"annotations/trimaps/Siamese_{i}.png": picture("L", 2) for i in range(40)}
    | {
        "annotations/trainval.txt": "".join(f"Siamese_{i} 1 1 1\n" for i in range(39)).encode(),
        "annotations/test.txt": b"Siamese_39 1 1 1\n",
    },
}


def unpack(root, files):
    """What torchvision does with an archive once it has it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    packed.seek(0)
    with tarfile.open(fileobj=packed) as archive:
        archive.extractall(root, filter="data")


@pytest.fixture
def network(monkeypatch):
    """In place of torchvision's downloader: unpacks small archives and leaves them there; returns the addresses asked for."""
    asked = []

    def fetch(url, download_root, extract_root=None, filename=None, md5=None, remove_finished=False):
        asked.append(url)
        name = url.rsplit("/", 1)[1]
        Path(download_root).mkdir(parents=True, exist_ok=True)
        Path(download_root, name).write_bytes(b"the archive")
        unpack(download_root, VOC if "VOC" in name else PETS[name])

    for module in (voc, pets):
        monkeypatch.setattr(module, "download_and_extract_archive", fetch)
    return asked


@pytest.mark.parametrize(
    ("kind", "addresses"),
    [
        ("voc", ["https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"]),
        ("pets", [f"https://www.robots.ox.ac.uk/~vgg/data/pets/data/{part}.tar.gz" for part in ("images", "annotations")]),
    ],
)
def test_what_torchvision_can_fetch_is_fetched_once_into_a_new_folder(tmp_path, network, kind, addresses):
    root = tmp_path / "not" / "yet"
    config = DataConfig(kind=kind, root=str(root), download=True)
    sources = open_sources(config)
    assert network == addresses
    assert list(sources) == ["train", "val"] if kind == "voc" else ["train", "val", "test"]
    assert (sources["val"].read(0)[1] == {"voc": 15, "pets": 1}[kind]).all()
    assert [p.name for p in root.iterdir()] == [{"voc": "VOCdevkit", "pets": "oxford-iiit-pet"}[kind]]  # no archive, nothing hidden
    assert not list(root.rglob("*.tar*"))
    open_sources(config)
    assert network == addresses
    assert socket.getdefaulttimeout() is None


def test_another_year_of_voc_beside_it_does_no_harm(tmp_path, network):
    (tmp_path / "VOCdevkit/VOC2007").mkdir(parents=True)
    download("voc", tmp_path)
    assert sorted(p.name for p in (tmp_path / "VOCdevkit").iterdir()) == ["VOC2007", "VOC2012"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path, network):
    unpack(tmp_path / ".download-0815", VOC)
    download("voc", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["VOCdevkit"]


@pytest.mark.parametrize("kind", ["voc", "pets"])
@pytest.mark.parametrize(
    "error",
    [
        URLError(socket.gaierror(-2, "Name or service not known")),
        TimeoutError("timed out"),
        RuntimeError("File not found or corrupted."),
        OSError(28, "No space left on device"),
        tarfile.ReadError("unexpected end of data"),
        EOFError("Compressed file ended before the end-of-stream marker was reached"),
    ],
)
def test_a_failure_is_one_line_and_leaves_nothing_that_looks_complete(tmp_path, monkeypatch, kind, error):
    def fetch(url, download_root, **options):
        unpack(download_root, dict(list((VOC if kind == "voc" else PETS["images.tar.gz"]).items())[:3]))  # and then it breaks
        raise error

    for module in (voc, pets):
        monkeypatch.setattr(module, "download_and_extract_archive", fetch)
    reason = re.escape(str(getattr(error, "reason", error)))
    with pytest.raises(SegkitError, match=rf"--data.download: {kind} could not be fetched into .* \({reason}\); .* unpack") as caught:
        open_sources(DataConfig(kind=kind, root=str(tmp_path / "data"), download=True))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "data") in str(caught.value).split("unpack")[1]
    assert list((tmp_path / "data").iterdir()) == []
    with pytest.raises(SegkitError, match="is missing; get it with"):
        open_sources(DataConfig(kind=kind, root=str(tmp_path / "data")))


def test_without_a_network_the_real_downloader_gives_up_at_once(tmp_path, monkeypatch):
    def nowhere(*args, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    with pytest.raises(SegkitError, match=r"voc could not be fetched .*Name or service not known"):
        download("voc", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_answers_is_not_waited_for(tmp_path, monkeypatch):
    seen = []

    def fetch(url, download_root, **options):
        seen.append(socket.getdefaulttimeout())
        raise TimeoutError("timed out")

    monkeypatch.setattr(voc, "download_and_extract_archive", fetch)
    with pytest.raises(SegkitError, match=r"\(timed out\)"):
        download("voc", tmp_path)
    assert seen == [10]
    assert socket.getdefaulttimeout() is None


def test_processes_that_start_together_fetch_once(tmp_path, network):
    # a lock of the file system excludes threads with handles of their own as it does processes
    threads = [threading.Thread(target=download, args=("voc", tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(network) == 1


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("cityscapes", "register at"),
        ("ade20k", "curl -LO"),
        ("cocostuff", "curl -L"),
        ("folder", "put images"),
        ("manifest", "write"),
    ],
)
def test_what_cannot_be_fetched_says_where_it_comes_from(tmp_path, kind, advice):
    with pytest.raises(SegkitError, match=f"--data.download: {kind} cannot be fetched; .*{advice}") as caught:
        open_sources(DataConfig(kind=kind, root=str(tmp_path), download=True))
    assert "\n" not in str(caught.value)


def test_scenes_are_not_fetched():
    with pytest.raises(SegkitError, match="--data.download: the built-in scenes are computed"):
        open_sources(DataConfig(download=True))


def test_a_root_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SegkitError, match=r"voc could not be fetched into .*Not a directory"):
        download("voc", tmp_path / "file" / "data")
