"""docs/methods.md from the methods themselves: ``python -m docs.build.methods`` writes all below the marker."""

from __future__ import annotations

from pathlib import Path

from ultraad.cli import guide
from ultraad.config import Option
from ultraad.methods._base import Method

PAGE = Path(__file__).parents[1] / "methods.md"
MARKER = "<!-- below: written by python -m docs.build.methods; do not edit -->\n"


def text() -> str:
    """The page: its hand-written top as it stands, then one section for each method."""
    top = PAGE.read_text(encoding="utf-8").partition(MARKER)[0]
    parts = [top + MARKER]
    for group, members in guide.grouped().items():
        parts.append(f"## {group}\n")
        parts += [_section(method) for method in members]
    return "\n".join(parts)


def _section(method: type[Method]) -> str:
    info = method.info
    facts = {
        "paper": f"[{info.paper}]({info.url})",
        "reference": f"{info.reference} ({info.licence})",
        "needs": guide.needs(info),
        "gives": guide.gives(info),
        "learned": info.learned,
    }
    parts = [
        f"### {info.name}\n",
        f"{info.title}. It {info.idea}.\n",
        "| | |\n| --- | --- |\n" + "".join(f"| {term} | {_cell(words)} |\n" for term, words in facts.items()),
    ]
    if info.deviations:
        parts.append("What differs from the reference, and the switch:\n")
        parts.append("".join(f"- {_plain(deviation)}\n" for deviation in info.deviations))
    rows = "".join(_row(o) for members in guide.sections(method).values() for o in members)
    parts.append(
        "<details><summary>Options</summary>\n\n"
        f"| option | default | values | meaning |\n| --- | --- | --- | --- |\n{rows}\n</details>\n"
    )
    return "\n".join(parts)


def _row(o: Option) -> str:
    return f"| `{o.key}` | `{guide.value(o.default)}` | {_cell(o.values)} | {_cell(o.description)} |\n"


def _plain(words: str) -> str:
    """No character of these is Markdown or HTML."""
    for character in "\\<*":
        words = words.replace(character, f"\\{character}")
    return words


def _cell(words: str) -> str:
    return words.replace("|", "\\|") if words.startswith("[") else _plain(words).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
