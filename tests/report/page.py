"""A strict reader of the pages, and what every page must fulfil."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

VOID = {"meta", "img", "br", "link", "input", "wbr"}


class Page(HTMLParser):
    """A strict little reader: tags must nest, and attributes and text are kept."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.headings: list[str] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag in VOID:
            return
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open
        assert self._open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self._open and self._open[-1] in {"h1", "h2", "h3", "h4"}:
            self.headings.append(data.strip())
        if self.rows and {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    def attributes(self, tag: str) -> list[dict[str, str]]:
        return [a for t, a in self.tags if t == tag]

    def row(self, start: str) -> list[str]:
        """The one table row that starts with this cell, or so."""
        found = [r for r in self.rows if r and r[0] == start] or [r for r in self.rows if r and r[0].startswith(start)]
        assert len(found) == 1, f"{len(found)} rows start with {start!r}"
        return found[0]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def check_page(page: Page, folder: Path, *, side: int, shortest_alt: int, script: bool = False) -> None:
    """It needs no network and no other file; every picture is described; headings step down one by one.

    Args:
        page: What was read.
        folder: Where the page is, for its links.
        side: Most pixels of a picture.
        shortest_alt: Least characters of its description.
        script: Whether the page may have a script of its own.
    """
    assert script or not page.attributes("script")
    assert not page.attributes("link")
    assert not re.search(r"@import|url\(|src=\"http", page.source)  # links may lead to papers
    (policy,) = (a["content"] for a in page.attributes("meta") if "http-equiv" in a)
    allowed = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert policy == allowed + ("; script-src 'unsafe-inline'" if script else "")
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for reference in (attributes.get("aria-labelledby"), attributes.get("href", "").removeprefix("#")):
            assert not reference or "://" in reference or reference in ids or (folder / reference).is_file()
    for image in page.attributes("img"):
        assert len(image["alt"]) > shortest_alt
        head, _, data = image["src"].partition(",")
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as opened:
            assert opened.size == (int(image["width"]), int(image["height"]))
            assert max(opened.size) <= side
    for svg in re.findall(r"<svg.*?</svg>", page.source, re.DOTALL):
        assert ElementTree.fromstring(svg).get("viewBox")
        assert not re.search(r"\b(nan|inf|None)\b", svg)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert "Research use only" in page.words
    assert not {cell.strip() for row in page.rows for cell in row} & {"None", "nan"}
    assert len(page.source) < 8_000_000
