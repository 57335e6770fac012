"""A report as one self-contained HTML page: no script, no request; figures inline as SVG that follows the page's colours and fonts."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby

from segkit.ablation.document import Block, Document, Facts, Items, Log, Notice, Paragraph, Picture, Section, Table, Verdicts
from segkit.ablation.numbers import MINUS
from segkit.ablation.stylesheet import CSS
from segkit.figures.report import LOOKS
from segkit.figures.style import GREY, INK
from segkit.web_page import web_page

SIGNS = {"better": "▲", "worse": "▼", "equivalent": "≈", "unresolved": "?", "withheld": "✕", "noise": "±"}  # told apart without colour
WHOLE = re.compile(r"\S[\d.]+ to \S[\d.]+|\[[^\]]*\]|p (?:=|&lt;) [\de.-]*\d|--\w+|[\d.]+ (?:%|points?|seeds?|images|steps|pixels)")
SIGNED = re.compile("[▲▼]$")
WIDE = {"images"}


def html(document: Document, figures: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        document: What it says.
        figures: SVG of every picture, by name.
    """
    links = "".join(f'<a href="#{_id(section)}">{escape(section.title)}</a>' for section in document.sections)
    sections = "\n".join(_section(section, figures) for section in document.sections)
    body = f"""<header><small>{escape(document.kind)}</small><h1>{escape(document.title)}</h1><p>{escape(document.subtitle)}</p></header>
<nav aria-label="Sections">{links}</nav>
<main>
{sections}
</main>"""
    return web_page(document.title, CSS, body)


def _id(section: Section) -> str:
    return re.sub("[^a-z]+", "-", section.title.lower())


def _section(section: Section, figures: Mapping[str, str]) -> str:
    parts = []
    for pictures, blocks in groupby(section.blocks, key=lambda block: isinstance(block, Picture)):  # those in a row stand side by side
        inner = "\n".join(_block(block, figures) for block in blocks)
        parts.append(f'<div class="figures">\n{inner}\n</div>' if pictures else inner)
    return f'<section id="{_id(section)}">\n<h2>{escape(section.title)}</h2>\n' + "\n".join(parts) + "\n</section>"


def _block(block: Block, figures: Mapping[str, str]) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{_text(text)}</p>"
        case Items(texts):
            return _list(texts)
        case Notice(title, texts, kind):
            return f'<div class="notice {kind}" role="note"><strong>{escape(title)}</strong>{_list(texts)}</div>'
        case Verdicts(found):
            return f'<ul class="verdicts">{"".join(f"<li>{_chip(verdict)}<span>{_text(told)}</span></li>" for verdict, told in found)}</ul>'
        case Facts(values):
            return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{_text(value)}</dd>' for name, value in values.items())}</dl>"
        case Table():
            return _table(block)
        case Picture(name, caption, about):
            wide = ' class="wide"' if name in WIDE else ""
            drawing = f'<div class="scroll" tabindex="0">{inline(figures[name], name, about)}</div>'
            return f"<figure{wide}>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"
        case Log(title, lines):
            return f"<details><summary>{escape(title)}</summary><pre>{escape(chr(10).join(lines))}</pre></details>"


def _list(texts: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(text)}</li>' for text in texts)}</ul>"


def _text(text: str) -> str:
    """Running text; numbers stay with what belongs to them, on one line."""
    text = re.sub(r"(?<![\w.-])-(?=\d)", MINUS, escape(text))
    return WHOLE.sub(r'<span class="whole">\g<0></span>', text)


def _chip(verdict: str) -> str:
    sign = f"{SIGNS[verdict]} " if verdict in SIGNS else ""
    return f'<b class="chip {verdict.replace(" ", "-")}">{sign}{escape(verdict)}</b>'


def _table(table: Table) -> str:
    words = {0, *table.left}

    def row(cells: Sequence[str], tag: str) -> str:
        told = [_chip(cell) if tag == "td" and cell in SIGNS else SIGNED.sub(_signed, escape(cell)) for cell in cells]
        named = [("th" if column == 0 else tag, ' class="words"' if column in words else "") for column in range(len(cells))]
        return f"<tr>{''.join(f'<{t}{c}>{cell}</{t}>' for (t, c), cell in zip(named, told, strict=True))}</tr>"

    body = "".join(row(cells, "td") for cells in table.rows)
    inner = f"<table><thead>{row(table.header, 'th')}</thead><tbody>{body}</tbody></table>"
    label = escape(table.caption)
    box = f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{inner}</div>'
    return f'<figure class="table">{box}<figcaption>{label}</figcaption></figure>'


def _signed(found: re.Match[str]) -> str:
    return f'<b class="chip {"better" if found[0] == "▲" else "worse"}">{found[0]}</b>'


def inline(svg: str, name: str, about: str) -> str:
    """A figure's SVG for the page: names of its own, the page's fonts and colours, no size but its shape.

    Args:
        svg: As `segkit.figures.report.svg` writes it.
        name: Put before every identifier in it, which several figures share otherwise.
        about: Read out in its place.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>|\s*<style type=\"text/css\">.*?</style>", "", svg, flags=re.S)
    width = float(re.search(r'width="([\d.]+)pt"', svg)[1])  # type: ignore[index]
    svg = re.sub(r'(<svg[^>]*?) height="[\d.]+pt"| width="[\d.]+pt"', r"\1", svg, count=2)
    meant = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))  # the rest of the identifiers name nothing that is used
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in meant else "", svg)
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = svg.replace(INK, "currentColor").replace(GREY, "var(--soft)")
    if name not in WIDE:  # where colours are those of classes
        svg = svg.replace("#ffffff", "var(--paper)")
        for place, look in enumerate(LOOKS[1:], 1):
            svg = svg.replace(look.color, f"var(--arm{place})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(about)}" style="--width: {width:g}"', 1)
