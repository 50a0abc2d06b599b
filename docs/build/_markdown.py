"""Tables and marked regions, for all generated pages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a ``|`` inside a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def plain(words: str) -> str:
    """Words in which no character has a meaning in Markdown or HTML."""
    return re.sub(r"[\\<*]", r"\\\g<0>", words)


def filled(page: str, regions: dict[str, str]) -> str:
    """The page with the text between ``<!-- name -->`` and ``<!-- /name -->`` replaced, wherever the pair is.

    Raises:
        ValueError: If a region is not on the page.
    """
    for name, text in regions.items():
        pattern = rf"(<!-- {name} -->\n?).*?(<!-- /{name} -->)"
        found = re.findall(pattern, page, flags=re.S)
        page = re.sub(pattern, rf"\g<1>{text.replace(chr(92), chr(92) * 2)}\g<2>", page, flags=re.S)
        if not found:
            msg = f"the page has no region '<!-- {name} --> ... <!-- /{name} -->'; add it where the text belongs"
            raise ValueError(msg)
    return page
