"""The page of a review without a server: every picture with numbered boxes, to be read beside ``boxes.csv``."""

from __future__ import annotations

import html
from collections.abc import Iterable

from ultraad.dicom.deidentify.decision import Looked, Settings

_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Review: text in the pixels</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
svg{display:block;max-width:100%;height:auto;background:#000;margin:.3rem 0}rect{fill:none;stroke:#e6a000}
.read rect{stroke:#dc2828}text{font:11px sans-serif;fill:#e6a000}.read text{fill:#dc2828}
table{border-collapse:collapse}td,th{padding:.1rem .8rem .1rem 0;text-align:left}
section{border-top:1px solid #ccc;padding:1rem 0}.warn{color:#a00000;font-weight:600}
h2{font-size:1.05rem;overflow-wrap:anywhere}</style>
"""
_NO_TEXT = "<p>No text was found.</p>", "<p>No text was searched for.</p>"


def page(rows: Iterable[Looked], settings: Settings) -> str:
    """The page.

    Args:
        rows: Every file that was looked at.
        settings: Of the search.
    """
    rows = list(rows)
    boxes = sum(len(row.texts) for row in rows)
    open_ = sum(not row.keep and row.mask_of is None for row in rows)
    masks = sum(row.mask_of is not None for row in rows)
    parts = [
        _HEAD,
        "<h1>Look at every picture before you confirm</h1>",
        "<p class=warn>This page shows patient data. Do not pass it on.</p>",
        f"<p>{len(rows)} files, {boxes} boxes around what looks like text. Pictures are shown as they will be written, "
        "but for the boxes. Of each box, <code>boxes.csv</code> says what happens: <code>blank</code> (the default) "
        "or <code>leave</code>. Add a line with <code>blank</code> for text that was missed; write <code>drop</code> "
        "to leave out a file. The same command with <code>--page</code> lets you click instead. The search misses "
        "text. What you confirm, you answer for.</p>",
        f"<p>Of a cine, {settings.frames} frames were searched, and the brightest value of each pixel over all frames; "
        "boxes are blanked in every frame.</p>",
    ]
    if open_:
        parts.append(
            f"<p class=warn>{open_} file(s) have no usable ultrasound regions and no --keep: nothing around the image "
            "is blanked there, and they are not declared free of text.</p>"
        )
    if masks:
        parts.append(
            f"<p>{masks} of the files are lesion masks. They are written pixel by pixel if their image is, and were "
            "not searched for text: look that they hold none. Here, lesions are white.</p>"
        )
    parts += map(_section, rows)
    return "\n".join(parts) + "</html>\n"


def where(row: Looked) -> str:
    """Which pixels of a file stay, in words."""
    if row.mask_of is not None:
        return f"a mask of {row.mask_of}, written as it is"
    if not row.keep:
        return "no regions: the whole picture stays"
    return "the given rectangle stays" if row.given else f"{len(row.keep)} ultrasound region(s) stay"


def _section(row: Looked) -> str:
    kept = html.escape(where(row))
    kept = kept if row.keep or row.mask_of is not None else f"<span class=warn>{kept}</span>"
    pictures = "".join(_picture(row, name, size) for name, size in zip(row.pictures, row.sizes, strict=True))
    lines = "".join(
        f"<tr><td>{number}<td>{html.escape(text.text) or '?'}<td>{text.score:.2f}"
        for number, text in enumerate(row.texts, start=1)
    )
    table = f"<table><tr><th>box<th>read as<th>score{lines}</table>" if lines else _NO_TEXT[row.mask_of is not None]
    return f"<section><h2>{html.escape(row.file)}</h2><p>{row.frames} frame(s); {kept}.</p>{pictures}{table}</section>"


def _picture(row: Looked, name: str, size: tuple[int, int]) -> str:
    width, height = size
    boxes = "".join(
        f'<g class="{"read" if one.is_read else ""}"><rect x="{x + 0.5}" y="{y + 0.5}" width="{w - 1}" '
        f'height="{h - 1}"/><text x="{x}" y="{max(10, y - 2)}">{number}</text></g>'
        for number, one in enumerate(row.texts, start=1)
        for x, y, w, h in [one.box]
    )
    picture = f'<image href="{html.escape(name)}" width="{width}" height="{height}"/>'
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}">{picture}{boxes}</svg>'
