"""The report as one self-contained HTML page: no script, no request, pictures inside."""

import warnings
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from segkit.config import IGNORE_INDEX
from segkit.data.findings import KINDS, Finding
from segkit.data.source import Source
from segkit.doctor.advice import statistics
from segkit.doctor.classes import shares
from segkit.doctor.histogram import histogram
from segkit.doctor.looks import CSS
from segkit.doctor.pictures import file_picture, pair
from segkit.doctor.report import Report
from segkit.web_page import web_page

SHOWN, PICTURED = 12, 4  # findings of a kind that are listed, and that are shown
SIGNS = {"error": "✕", "warning": "!", "note": "i"}


def page(report: Report, sources: Mapping[str, Source], root: str | None = None) -> str:
    """The whole page.

    Args:
        report: What it says.
        sources: The splits, for pictures.
        root: The data set's folder, where files without a partner lie.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # which reading makes an error of
        groups = "".join(_group(kind, group, sources, root) for kind, group in report.groups())
    errors, doubts, notes = (report.count(severity) for severity in ("error", "warning", "note"))
    verdict = "Training would fail, or its scores would lie." if errors else "It can be trained on."
    counts = ", ".join(f"{n} {word}{'s' * (n != 1)}" for n, word in ((errors, "error"), (doubts, "warning"), (notes, "note")))
    parts = {
        "Findings": groups or "<p>Nothing is wrong.</p>",
        "Unexpected values": _values(report),
        "Classes": _classes(report),
        "Images": _images(report),
        "Advice": _advice(report),
    }
    sections = "".join(
        f'<section id="{name.split()[0].lower()}"><h2>{name}</h2>{inner}</section>' for name, inner in parts.items() if inner
    )
    links = "".join(f'<a href="#{name.split()[0].lower()}">{name}</a>' for name, inner in parts.items() if inner)
    body = f"""<header><small>data check</small><h1 class="{"bad" if errors else "good"}">{verdict}</h1>
<p>{escape(report.about)}</p><p>{counts}; {report.rate:.0f} images/s</p></header>
<nav aria-label="Sections">{links}</nav>
<main>{sections}</main>"""
    return web_page(f"Data check: {report.about}", CSS, body, schemes="light")


def _group(kind: str, group: Sequence[Finding], sources: Mapping[str, Source], root: str | None) -> str:
    about = KINDS[kind]
    items = "".join(f"<li>{escape(finding.what)}</li>" for finding in group[:SHOWN])
    more = f"<li>and {len(group) - SHOWN} more, all of them in report.json</li>" if len(group) > SHOWN else ""
    pictures = "".join(_figure(finding, sources, root) for finding in group[:PICTURED])
    return (
        f'<article class="{about.severity}"><h3><b class="chip">{SIGNS[about.severity]} {about.severity}</b> {escape(about.title)} '
        f"<small>{len(group)}</small></h3><p>{escape(about.why)}</p>"
        f'<p class="remedy"><b>Remedy</b> {escape(about.remedy)}</p><ul>{items}{more}</ul>'
        + (f'<div class="pictures">{pictures}</div>' if pictures else "")
        + "</article>"
    )


def _figure(finding: Finding, sources: Mapping[str, Source], root: str | None) -> str:
    shown = [(f"{split}/{sources[split].name(index)}", pair(sources[split], index)) for split, index in finding.images[:2]]
    if not shown and root is not None and (file := Path(root).expanduser() / finding.what).is_file():
        shown = [(finding.what, file_picture(file))]
    parts = []
    for name, pictures in shown:
        images = "".join(f'<img src="{uri}" alt="">' for uri in pictures) or '<span class="none">cannot be shown</span>'
        parts.append(f"<figure><div>{images}</div><figcaption>{escape(name)}</figcaption></figure>")
    return f'<div class="beside">{"".join(parts)}</div>' if parts else ""


def _values(report: Report) -> str:
    rows = [(value.value, f"{value.pixels:,}", f"{value.files:,}", ", ".join(value.first)) for value in report.values[:64]]
    told = f"<p>All of them ignored, for the classes to be filled in in place of {IGNORE_INDEX}:</p><pre>{escape(report.mapping)}</pre>"
    table = _table(("value in mask files", "pixels", "masks", "first masks"), rows, words={3}) if rows else ""
    return table + told * bool(report.mapping)


def _classes(report: Report) -> str:
    used = {split: facts for split, facts in report.splits.items() if facts.usable.any()}
    if not used:
        return ""
    parts = {split: shares(facts.pixels[facts.usable]) for split, facts in used.items()}
    largest = max(float(part.max()) for part in parts.values()) or 1.0
    rows = []
    for k, name in enumerate(report.classes.names):
        red, green, blue = report.classes.colors[k]
        cells = []
        for split, part in parts.items():
            held = int((used[split].pixels[:, k] > 0).sum())
            width = f'style="width:{100 * float(part[k]) / largest:.2f}%;background:rgb({red},{green},{blue})"'
            cells.append(f'<td class="bar"><i {width}></i><span>{part[k]:.2%}</span><small>{held:,} images</small></td>')
        rows.append(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>")
    head = "".join(f"<th class=words>{escape(split)}</th>" for split in parts)
    table = (
        f'<div class="scroll" tabindex="0"><table><thead><tr><th>class</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )
    drifted = [
        (
            one.split,
            f"{one.distance:.1%}",
            f"{one.chance:.1%}",
            f"{one.most}: {one.shares[0]:.1%} of train, {one.shares[1]:.1%} of {one.split}",
        )
        for one in report.drifts
    ]
    told = (
        "<p>Shares of the labelled pixels. The distance of a split from train is half the sum of the absolute differences of the shares "
        "(total variation); beside it, how many of 999 random divisions of the same images differ as much. Frames of a video are alike, "
        "so that chance is larger than this there.</p>"
    )
    return table + told + (_table(("split", "distance", "by chance", "most changed"), drifted, words={0, 3}) if drifted else "")


def _images(report: Report) -> str:
    used = {split: facts for split, facts in report.splits.items() if facts.usable.any()}
    if not used:
        return ""
    rows = []
    for split, facts in used.items():
        sizes = facts.sizes[facts.usable]
        area = sizes.prod(axis=1)
        small, large = sizes[area.argmin()], sizes[area.argmax()]
        mean, deviation = ([" ".join(f"{value:.3f}" for value in values)] for values in statistics(facts))
        ignored = facts.ignored[facts.usable].sum() / area.sum()
        unusable = len(facts.usable) - int(facts.usable.sum())
        rows.append(
            (
                split,
                f"{len(sizes):,}",
                f"{unusable:,}",
                f"{small[1]} x {small[0]}",
                f"{large[1]} x {large[0]}",
                *mean,
                *deviation,
                f"{ignored:.1%}",
            )
        )
    head = ("split", "usable", "not", "smallest", "largest", "mean of the channels", "deviation", "ignored")
    sides = {split: np.sqrt(facts.sizes[facts.usable].prod(axis=1)) for split, facts in used.items()}
    light = {split: facts.mean[facts.usable].mean(axis=1) for split, facts in used.items()}
    held = {split: (facts.pixels[facts.usable] > 0).sum(axis=1) for split, facts in used.items()}
    classes = len(report.classes)
    figures = [
        histogram("size of the images: square root of the pixels", sides),
        histogram("brightness of the images: mean, 1 is white", light, (0.0, 1.0)),
        *([histogram("number of classes in an image", held, (0, classes + 1), min(24, classes + 1))] if classes > 2 else []),
    ]
    return _table(head, rows, words={0}) + f'<div class="figures">{"".join(figures)}</div>'


def _advice(report: Report) -> str:
    items = "".join(f"<dt>--{escape(one.option)} {escape(str(one.value))}</dt><dd>{escape(one.reason)}</dd>" for one in report.advice)
    return (
        (f"<dl>{items}</dl>" if items else "<p>Once the errors are mended.</p>")
        + f"<pre>{escape(report.command)}</pre><p>The same as a file, for <code>train.py --config</code>:</p>"
        + f"<pre>{escape(report.configuration)}</pre>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], words: set[int]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}{' class=words' if place in words else ''}>{escape(cell)}</{tag}>" for place, cell in enumerate(cells))

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{row(head, "th")}</tr></thead><tbody>{body}</tbody></table></div>'
