"""A report as Markdown, with links to its figures."""

import re
from collections.abc import Sequence

from segkit.ablation.document import Block, Document, Facts, Items, Log, Notice, Paragraph, Picture, Table, Verdicts


def markdown(document: Document) -> str:
    """The whole report; figures are `figures/NAME.png`."""
    parts = [f"# {_escape(document.title)}: {_escape(document.kind[0].lower() + document.kind[1:])}", _escape(document.subtitle)]
    for section in document.sections:
        parts += [f"## {_escape(section.title)}", *(_block(block) for block in section.blocks)]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    match block:
        case Paragraph(text):
            return _escape(text)
        case Items(texts):
            return "\n".join(f"- {_escape(text)}" for text in texts)
        case Notice(title, texts, _):
            return "\n".join([f"> **{_escape(title)}**", *(f">\n> {_escape(text)}" for text in texts)])
        case Verdicts(found):
            return "\n".join(f"- **{verdict}**: {_escape(sentence)}" for verdict, sentence in found)
        case Facts(values):
            return _table(["", ""], [[name, value] for name, value in values.items()], left=(1,))
        case Table(header, rows, caption, left):
            return f"{_table(header, rows, left)}\n\n*{_escape(caption)}*"
        case Picture(name, caption, about):
            return f"![{_escape(about)}](figures/{name}.png)\n\n*{_escape(caption)}*"
        case Log(title, lines):
            fence = "`" * max(3, 1 + max((len(run) for line in lines for run in re.findall("`+", line)), default=0))
            return "\n".join([_escape(title), "", f"{fence}text", *lines, fence])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    rule = ["---" if column == 0 or column in left else "---:" for column in range(len(header))]
    cells = [[_escape(cell).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:]))


def _escape(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return re.sub(r"([\\`*_<>\[\]#])", r"\\\1", " ".join(text.split()))
