"""Where data sets come from: what to do when one is not there, and the download of those that torchvision can fetch."""

import contextlib
import os
import shlex
import shutil
import socket
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

from segkit.errors import SegkitError

# below the root, what the archives of a data set unpack to
TOP = {"voc": "VOCdevkit/VOC2012", "pets": "oxford-iiit-pet"}
_BY_HAND = {
    "voc": "fetch https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar elsewhere and unpack it: "
    "tar -xf VOCtrainval_11-May-2012.tar -C {root}",
    "pets": "fetch images.tar.gz and annotations.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/pets elsewhere and unpack them: "
    "mkdir -p {root}/oxford-iiit-pet && for f in images annotations; do tar -xzf $f.tar.gz -C {root}/oxford-iiit-pet; done",
}
_SOURCES = {
    "voc": "get it with: python scripts/train.py --data.kind voc --data.root {root} --data.download true",
    "pets": "get it with: python scripts/train.py --data.kind pets --data.root {root} --data.download true",
    "cityscapes": "register at https://www.cityscapes-dataset.com, fetch leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip and "
    "unpack them: mkdir -p {root} && unzip -o '*_trainvaltest.zip' -d {root}",
    "ade20k": "get it with: mkdir -p {root} && curl -LO http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip && "
    "unzip ADEChallengeData2016.zip -d {root}",
    "cocostuff": "get it with: mkdir -p {root} && curl -L --remote-name-all http://images.cocodataset.org/zips/{{train,val}}2017.zip "
    "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip && "
    "unzip '[tv]*2017.zip' -d {root}/images && unzip stuffthingmaps_trainval2017.zip -d {root}/annotations",
    "folder": "put images in {root}/images, masks of the same names in {root}/masks, both in folders train and val or all together, and a "
    "line per class, id name #rrggbb, in {root}/classes.txt",
    "manifest": "write {root}/manifest.csv with the columns image,mask,split (split may be left out) and paths below {root}, and a line "
    "per class, id name #rrggbb, in {root}/classes.txt",
    "shards": "write them with: python scripts/check_data.py --data.root FOLDER --to_shards {root}",
}


def how_to_get(kind: str, root: str | Path = "DIR") -> str:
    """How a data set of this kind comes to lie in a folder, in half a line."""
    return _SOURCES[kind].format(root=shlex.quote(str(root)))


def missing(kind: str, root: Path, what: Path) -> SegkitError:
    """The error for a file or folder without which a data set is none."""
    inner = {"voc": "VOCdevkit", "pets": "oxford-iiit-pet", "ade20k": "ADEChallengeData2016"}.get(kind)
    for place in (root.resolve(), root.resolve().parent):
        if place.name == inner:
            above = shlex.quote(str(place.parent))
            return SegkitError(f"{what} is missing; give the folder that {inner} lies in: --data.root {above}")
    return SegkitError(f"{what} is missing; {how_to_get(kind, root)}")


def download(kind: str, root: Path) -> None:
    """Fetch a data set into a folder, which is made, unless it is there already.

    All of it is unpacked beside its place and then moved there in one step, so that nothing half-written looks complete. Several processes
    may ask at once: one fetches, the others wait for it.

    Args:
        kind: What `--data.kind` names.
        root: What `--data.root` names.

    Raises:
        SegkitError: Its authors do not allow it, or there is no network or not enough room.
    """
    if kind not in TOP:
        raise SegkitError(f"--data.download: {kind} cannot be fetched; {how_to_get(kind, root)}")
    place = root / TOP[kind]
    if place.is_dir():
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root):
            if place.is_dir():  # fetched by another process meanwhile
                return
            for left in root.glob(".download-*"):  # by a process that was killed
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
                _fetch(kind, folder)
                for archive in Path(folder).rglob("*.tar*"):
                    archive.unlink()
                place.parent.mkdir(exist_ok=True)
                os.rename(Path(folder) / TOP[kind], place)
    except (OSError, RuntimeError, EOFError, HTTPException, tarfile.TarError, zlib.error) as error:  # what torchvision lets through
        reason = " ".join(str(getattr(error, "reason", None) or error).split()) or type(error).__name__
        by_hand = _BY_HAND[kind].format(root=shlex.quote(str(root)))
        raise SegkitError(f"--data.download: {kind} could not be fetched into {root} ({reason}); try again, or {by_hand}") from None


def _fetch(kind: str, folder: str) -> None:
    from torchvision.datasets import OxfordIIITPet, VOCSegmentation  # type: ignore[import-untyped]

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)  # torchvision has none, and would wait for minutes where packets are lost
    try:
        if kind == "voc":
            VOCSegmentation(folder, year="2012", image_set="train", download=True)
        else:
            OxfordIIITPet(folder, target_types="segmentation", download=True)
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; the lock ends with its process, however that ends."""
    import fcntl  # not on Windows, where all else works

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
