"""YAML that others wrote: values and nothing else, and none that grows, before a parser sees it. Standard library and YAML."""

from pathlib import Path
from typing import TypeVar

import yaml

from segkit.errors import SegkitError

LARGEST = 2**20  # bytes of a file
LONGEST = 2048  # characters of a value: Python writes no whole number of more than 4300 digits, and 2048 of base 16 have fewer
DEEPEST = 32  # lists and tables in one another: each parser above this one calls itself for each
MOST = 50_000  # values, those that aliases repeat counted each time: nine aliases of nine aliases ... are a file of 1 KB and 10^9 values
_ALLOWED = "\t\n\r"
Kind = TypeVar("Kind")


def check_yaml(text: str) -> None:
    """Refuse what would exhaust memory, time or the stack of whoever builds values from it.

    Raises:
        yaml.YAMLError: It is no YAML, or larger, deeper or longer than anything that a person writes, or has characters of no text.
    """
    if len(text) > LARGEST:
        raise yaml.YAMLError(f"{len(text)} characters; {LARGEST} are the most")
    total, open_at, sizes = 0, [], dict[str | None, int | None]()  # the last: of what an anchor names, None while it is being read
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(event.anchor, 0)  # of an unknown one the parser says so
            if size is None:
                raise yaml.YAMLError(f"the alias *{event.anchor} is a part of what it stands for")
            total += size
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            _check_value(event.value)
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            total += 1
            open_at.append((event.anchor, total))
            if len(open_at) > DEEPEST:
                raise yaml.YAMLError(f"more than {DEEPEST} lists or tables in one another")
            if event.anchor:
                sizes[event.anchor] = None
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, start = open_at.pop()
            if anchor:
                sizes[anchor] = total - start + 1
        if total > MOST:
            raise yaml.YAMLError(f"more than {MOST} values, those that aliases repeat included")


def _check_value(value: str) -> None:
    if len(value) > LONGEST:
        raise yaml.YAMLError(f"a value of {len(value)} characters, {value[:20]!r}...; {LONGEST} are the most")
    if any((character < " " and character not in _ALLOWED) or "\ud800" <= character <= "\udfff" for character in value):
        raise yaml.YAMLError(f"{value[:40]!r} has a character that is none of a text")


def read_yaml(path: Path, broken: str, kind: type[Kind]) -> Kind:
    """The plain values in a YAML file; no tag of it makes an object.

    Args:
        path: The file.
        broken: Begins the error: what the file should have been, and what to do.
        kind: What it holds as a whole.

    Raises:
        SegkitError: It is missing, no YAML, or not to be trusted.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe that nobody writes to has no end
            raise OSError(0, "a pipe or device, no file")
        with path.open("rb") as file:
            text = file.read(LARGEST + 1).decode("utf-8-sig")
        check_yaml(text)
        values = yaml.safe_load(text)
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:  # a ValueError: a day that no month has; a TypeError: a key
        raise SegkitError(f"{broken} ({reason(error)})") from error
    if not isinstance(values, kind):
        raise SegkitError(f"{broken} (it holds a {type(values).__name__})")
    return values


def reason(error: Exception) -> str:
    """What a parser says, on one line and short."""
    said = error.strerror if isinstance(error, OSError) else str(error)
    text = " ".join((said or type(error).__name__).split())
    return text if len(text) <= 200 else f"{text[:200]} ..."
