"""What a report says, apart from how it looks: sections of a few kinds of blocks, which `markdown` and `html` write out.

All strings are plain text; whoever writes them out escapes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Notice:
    """What the reader must not overlook.

    Args:
        title: In a few words.
        texts: The lines below it.
        kind: `error` takes conclusions away, `note` qualifies them.
    """

    title: str
    texts: Sequence[str]
    kind: Literal["error", "note"]


@dataclass(frozen=True)
class Verdicts:
    """Findings, each a word and the sentence behind it.

    Args:
        found: Pairs of a verdict (better, worse, equivalent, unresolved, withheld, ...) and its sentence.
    """

    found: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Facts:
    """Names and values in two columns."""

    values: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Args:
        header: A name per column; columns after the first hold numbers or words to be set right-aligned.
        rows: Cells as text.
        caption: What it shows.
        left: Columns of words, aligned left like the first.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    left: Sequence[int] = ()


@dataclass(frozen=True)
class Picture:
    """A figure.

    Args:
        name: Of its files in `figures/`, without a suffix.
        caption: Below it.
        about: What is to be seen, for who cannot see it.
    """

    name: str
    caption: str
    about: str


@dataclass(frozen=True)
class Log:
    """Lines of a program's output."""

    title: str
    lines: Sequence[str]


Block = Paragraph | Items | Notice | Verdicts | Facts | Table | Picture | Log


@dataclass(frozen=True)
class Section:
    """A heading and what is below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A report.

    Args:
        kind: What it is, above the title.
        title: Of the page.
        subtitle: One line below it.
        sections: In order.
    """

    kind: str
    title: str
    subtitle: str
    sections: Sequence[Section]
