"""A data set as a list: a CSV file with the columns image and mask, and, if you like, split, sha256, mask_sha256 and others to group by."""

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from segkit.config import DataConfig
from segkit.data.classes import Classes, read_classes
from segkit.data.labels import labels_of
from segkit.data.listing import SPLITS
from segkit.data.source import FilePairs, Reading, Source
from segkit.data.splits import refuse_split_options, split_by_group
from segkit.data.verified import Verified
from segkit.errors import SegkitError

FILES, HASHES = ("image", "mask"), ("sha256", "mask_sha256")  # of the files, in the same order


@dataclass(frozen=True)
class Row:
    """One line of a manifest.

    Args:
        line: Its number in the file, for messages.
        cells: What the columns hold, without the blanks around it.
    """

    line: int
    cells: dict[str, str]


def open_manifest(root: Path, config: DataConfig, channels: int = 3) -> dict[str, Source]:
    """The splits that the column split names, or, without that column, those that `split_by_group` makes.

    Paths are relative to the root and stay below it. A hash is compared whenever its file is read, so that the data check finds a file
    that has changed, and so does a run in which it changes. An image is called by its path without the suffix. Rows that cannot be used are
    `problems`.

    Raises:
        SegkitError: The file as a whole is no manifest, a group is missing, or there is no `classes.txt`.
    """
    problems: list[str] = []
    rows = list(_usable(root, read_manifest(root / config.manifest, problems), problems))
    classes = read_classes(root / "classes.txt")
    reading = Reading(channels, config.bits, labels_of(config, classes))
    if named := bool(rows) and "split" in rows[0].cells:
        refuse_split_options(config, f"{config.manifest} has the column split")
        chosen = [row.cells["split"] for row in rows]
    else:
        chosen = split_by_group(_groups(rows, config), config.val_fraction, config.test_fraction)
    if not rows and not problems:
        raise SegkitError(f"{root / config.manifest} has no row below its first line; list an image and its mask in each")
    sources: dict[str, Source] = {}
    for split in SPLITS:
        members = [row for row, its in zip(rows, chosen, strict=True) if its == split]
        # a split that may be missing only because its rows cannot be used is there and empty, so that the check tells what is wrong
        if members or (problems and split != "test" and (named or not rows)):
            first = not sources  # what is wrong is told once
            sources[split] = _source(root, members, classes, reading, problems if first else ())
    return sources


def read_manifest(path: Path, problems: list[str]) -> list[Row]:
    """The rows of a CSV file in UTF-8, with or without byte order mark, of any line ends; empty lines are skipped.

    Args:
        path: The file. Its first line names the columns.
        problems: Takes rows that have more or fewer cells than there are columns.

    Raises:
        SegkitError: The file cannot be read, is no CSV, or lacks a column.
    """
    columns = "write one with the columns image,mask and, if you like, split"
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        others = sorted(p.name for p in path.parent.glob("*.csv"))
        remedy = f"say --data.manifest {others[0]}, which is there, or " if others else ""
        raise SegkitError(f"{path} is missing; {remedy}{columns}") from None
    except UnicodeDecodeError:
        raise SegkitError(f"{path} is not UTF-8; save it as CSV in UTF-8") from None
    except OSError as error:
        raise SegkitError(f"{path} cannot be read ({error.strerror}); {columns}") from None
    first = next((line for line in text.splitlines() if line.strip()), "")
    for mark, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if set(FILES) <= {cell.strip(' "') for cell in first.split(mark)}:
            raise SegkitError(f"{path}: its columns are parted by {name}; save it with commas")
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    rows: list[Row] = []
    header: list[str] = []
    try:
        for values in reader:
            cells = [value.strip() for value in values]
            if not any(cells):
                continue
            if not header:
                header = cells
                _check_header(path, reader.line_num, header)
            elif len(cells) != len(header):
                problems.append(f"row of another length: {path.name}, line {reader.line_num}: {len(cells)} cells, {len(header)} columns")
            else:
                rows.append(Row(reader.line_num, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise SegkitError(f"{path}, line {reader.line_num}: {error}; a cell with a comma or a quote in it stands in quotes") from None
    if not header:
        raise SegkitError(f"{path} is empty; {columns}")
    return rows


def _check_header(path: Path, line: int, header: Sequence[str]) -> None:
    missing = [name for name in FILES if name not in header]
    if missing:
        given = ", ".join(map(repr, header[:8]))
        raise SegkitError(f"{path}, line {line}: no column {missing[0]} among {given}; the first line names the columns: image,mask,split")
    if twice := [name for name in header if header.count(name) > 1]:
        raise SegkitError(f"{path}, line {line}: two columns {twice[0]!r}; give every column a name of its own")


def _usable(root: Path, rows: Sequence[Row], problems: list[str]) -> Iterator[Row]:
    """The rows that name two files below the root and a split, every image once; why the others do not goes to `problems`."""
    inside, lines, names = _Inside(root), dict[str, int](), dict[str, str]()
    for row in rows:
        wrong: list[str] = []
        for name in (*FILES, *(["split"] if "split" in row.cells else [])):
            if not row.cells[name]:
                wrong.append(f"empty cell: {name} (line {row.line})")
        for name in HASHES:
            if not re.fullmatch(r"|[0-9a-fA-F]{64}", row.cells.get(name, "")):
                wrong.append(f"sha256 that is no hash: {name} {row.cells[name]!r} (line {row.line})")
        if row.cells.get("split") and row.cells["split"] not in SPLITS:
            wrong.append(f"split that is none of train, val and test: {row.cells['split']!r} (line {row.line})")
        for name in FILES:
            if path := row.cells[name]:
                real, reason = inside.find(path)
                if reason:
                    wrong.append(f"{reason}: {path} (line {row.line})")
                elif name == "image" and lines.setdefault(real, row.line) != row.line:
                    wrong.append(f"image listed twice: {path} (lines {lines[real]} and {row.line})")
                elif name == "image" and names.setdefault(_name(row), path) != path:
                    wrong.append(f"two files of one name: {names[_name(row)]}, {path} (line {row.line})")
        problems += wrong
        if not wrong:
            yield row


class _Inside:
    """Files below a folder, links resolved; a folder's links are resolved once and not for every file in it."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self.folders: dict[str, str] = {}

    def find(self, cell: str) -> tuple[str, str]:
        """The real path, and what is wrong with it or ""."""
        outside = "path that leaves the data set's folder"
        if os.path.isabs(cell) or ".." in Path(cell).parts:
            return "", outside
        folder, file = os.path.split(os.path.normpath(os.path.join(self.root, cell)))
        if folder not in self.folders:
            self.folders[folder] = os.path.realpath(folder)
        real = os.path.join(self.folders[folder], file)
        if os.path.islink(real):
            real = os.path.realpath(real)
        if not real.startswith(os.path.join(self.root, "")):
            return "", outside
        return (real, "") if os.path.isfile(real) else ("", "file that does not exist")


def _name(row: Row) -> str:
    return Path(row.cells["image"]).with_suffix("").as_posix()


def _groups(rows: Sequence[Row], config: DataConfig) -> list[str]:
    if config.group is None:
        return [_name(row) for row in rows]
    if rows and config.group not in rows[0].cells:
        raise SegkitError(f"--data.group {config.group}: {config.manifest} has no such column, only {', '.join(rows[0].cells)}")
    if empty := [row.line for row in rows if not row.cells[config.group]]:
        raise SegkitError(f"--data.group {config.group}: the column is empty in line {empty[0]} of {config.manifest}; name a group there")
    return [row.cells[config.group] for row in rows]


def _source(root: Path, rows: Sequence[Row], classes: Classes, reading: Reading, problems: Sequence[str]) -> Source:
    images, masks = ([root / row.cells[name] for row in rows] for name in FILES)
    pairs = FilePairs(classes, [_name(row) for row in rows], images, masks, reading, problems)
    hashes = [[row.cells.get(name, "").lower() for row in rows] for name in HASHES]
    return Verified(pairs, *hashes) if any(map(any, hashes)) else pairs
