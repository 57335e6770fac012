"""From what a command line names to the images to predict and the names of their results. Standard library only."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from segkit.errors import SegkitError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".npy")


@dataclass(frozen=True)
class Job:
    """One image.

    Args:
        image: Its file.
        name: Name of its results below the folder of results, without a suffix; sub-folders of a folder of images are kept.
    """

    image: Path
    name: PurePath


def find_jobs(words: Sequence[str], out: Path, images_from: str | None = None) -> list[Job]:
    """The images that files, folders (searched all the way down, through links too), globs and lists of these mean, each once, in order.

    Results of an earlier call that lie below a folder of images are not images. Two names of one file in a folder are two images.

    Args:
        words: Files, folders, globs.
        out: The folder of results.
        images_from: Text file with one more of these per line; empty lines and lines that start with # are skipped.

    Raises:
        SegkitError: One of them means no image, two images would have the same result, or a result would replace an image.
    """
    for word in words:
        if not Path(word).expanduser().exists() and not glob.has_magic(word):
            raise SegkitError(f"{word}: no such file or folder; name images, folders or globs such as 'photos/*.jpg'")
    if images_from is not None:
        words = [*words, *_lines(images_from)]
    if not words:
        raise SegkitError("no images; name files, folders or globs behind the model, or a list of them with --images_from FILE")
    jobs: dict[Path, Job] = {}
    inside = out.resolve()
    for word in words:
        for job in _expand(word):
            image = _placed(job.image)
            if not image.is_relative_to(inside) or Path(word).is_file():
                jobs.setdefault(image, job)
    if not jobs:
        raise SegkitError(f"{words[0]}: no images in it; they end in {', '.join(SUFFIXES)}")
    _check(jobs, out)
    return list(jobs.values())


def results(job: Job) -> str:
    """Name of the mask: TIFF of a TIFF, .npy of a .npy, else PNG."""
    suffix = job.image.suffix.lower()
    return f"{job.name}{'.tif' if suffix in ('.tif', '.tiff') else '.npy' if suffix == '.npy' else '.png'}"


def _placed(path: Path) -> Path:
    """Where a file lies; a link is a file of its own."""
    return path.parent.resolve() / path.name


def _lines(path: str) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SegkitError(f"--images_from {path}: cannot be read ({error}); give a text file with one image per line") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _expand(word: str) -> list[Job]:
    path = Path(word).expanduser()
    if path.is_dir():
        jobs = _below(path, _walk(path))
        if not jobs:
            raise SegkitError(f"{word}: no images in this folder; they end in {', '.join(SUFFIXES)}")
        return jobs
    if path.is_file() or not glob.has_magic(word):  # one of a list that is missing is reported as unreadable
        return [Job(path, PurePath(path.stem))]
    fixed = Path(*[part for part in _until_magic(path)])
    jobs = _below(fixed, map(Path, glob.glob(str(path), recursive=True)))
    if not jobs:
        raise SegkitError(f"{word}: no image matches; images end in {', '.join(SUFFIXES)}")
    return jobs


def _until_magic(path: Path) -> list[str]:
    parts: list[str] = []
    for part in path.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return parts


def _walk(root: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise SegkitError(f"cannot look into {error.filename} ({error.strerror}); make it readable, or name other folders")

    seen = {root.resolve()}
    for folder, below, names in os.walk(root, onerror=refuse, followlinks=True):
        yield from (Path(folder) / name for name in names)
        places = {name: (Path(folder) / name).resolve() for name in sorted(below)}
        below[:] = [name for name, place in places.items() if place not in seen]  # a link may lead back
        seen.update(places.values())


def _below(root: Path, files: Iterable[Path]) -> list[Job]:
    named = (file for file in files if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
    images = sorted(file for file in named if file.is_file() or (file.is_symlink() and not file.exists()))  # a dead link is a bad image
    if outside := [image for image in images if ".." in image.relative_to(root).parts]:
        raise SegkitError(f"{outside[0]}: its result would lie outside --out; write the pattern without .. behind a * or ?")
    return [Job(image, PurePath(image.relative_to(root)).with_suffix("")) for image in images]


def _check(jobs: dict[Path, Job], out: Path) -> None:
    seen: dict[str, Job] = {}
    for job in jobs.values():
        other = seen.setdefault(str(job.name), job)
        if other.image != job.image:
            raise SegkitError(
                f"{other.image} and {job.image} would both become {out / results(job)}; give each an --out of its own, "
                "or name the folder above them, whose sub-folders are kept"
            )
        if _placed(out / results(job)) in jobs:
            raise SegkitError(f"--out {out}: {out / results(job)} is an image to predict and would be replaced; choose another folder")
