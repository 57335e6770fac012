"""Image files and mask files that belong together by their names."""

import os
from collections.abc import Sequence
from pathlib import Path

from segkit.data.classes import Classes
from segkit.data.files import SUFFIXES
from segkit.data.source import FilePairs, Reading

SPLITS = ("train", "val", "test")


def list_images(root: Path, folder: Path, problems: list[str], end: str = "") -> dict[str, Path]:
    """Name -> file, for the image files below a folder; hidden files and other kinds of files are passed over.

    Links are followed wherever they lead, since it is the user's own folder and large images are often kept elsewhere; a folder that was
    met already is not met again, or links that lead back would have no end. (A manifest comes from others: its paths stay below the root.)

    Args:
        root: What the paths in `problems` are relative to.
        folder: Where to look; a file's name is its path below it, without `end` and the suffix.
        problems: Takes two files of one name.
        end: Only files whose name ends so, before the suffix.
    """
    found: dict[str, Path] = {}
    seen = {os.path.realpath(folder)}
    for place, inner, files in os.walk(folder, followlinks=True):
        real = {name: os.path.realpath(os.path.join(place, name)) for name in sorted(inner) if not name.startswith(".")}
        inner[:] = [name for name, path in real.items() if not (path in seen or seen.add(path))]  # type: ignore[func-returns-value]
        below = Path(place).relative_to(folder)
        for file in sorted(files):
            stem, suffix = os.path.splitext(file)
            if file.startswith(".") or suffix.lower() not in SUFFIXES or not stem.endswith(end):
                continue
            name, path = (below / stem.removesuffix(end)).as_posix(), Path(place, file)
            if name in found:
                problems.append(f"two files of one name: {found[name].relative_to(root)}, {path.relative_to(root)}")
            found.setdefault(name, path)
    return found


def pair(root: Path, images: dict[str, Path], masks: dict[str, Path], problems: list[str]) -> list[str]:
    """The names that an image and a mask have; files without a partner go to `problems`."""
    problems += [f"image without mask: {images[n].relative_to(root)}" for n in images if n not in masks]
    problems += [f"mask without image: {masks[n].relative_to(root)}" for n in masks if n not in images]
    return sorted(images.keys() & masks.keys())


def open_pairs(
    root: Path, images: Path, masks: Path, classes: Classes, reading: Reading, ends: tuple[str, str] = ("", ""), known: Sequence[str] = ()
) -> FilePairs:
    """A split whose images lie below one folder and whose masks lie below another.

    Args:
        root: The data set's folder, for messages.
        images: Where the images are.
        masks: Where the masks are.
        classes: The classes of the masks.
        reading: How the files are read.
        ends: What the names of images and of masks have behind the part that they share.
        known: Problems that were found before.
    """
    problems = list(known)
    found = list_images(root, images, problems, ends[0])
    partners = list_images(root, masks, problems, ends[1])
    names = pair(root, found, partners, problems)
    return FilePairs(classes, names, [found[n] for n in names], [partners[n] for n in names], reading, problems)
