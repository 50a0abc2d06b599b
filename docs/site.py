"""``python -m docs.site [FOLDER]``: the documentation as a site, in FOLDER/site (``build/docs/site`` by default).

The pages stay where they read well on GitHub: docs/*.md and those at the root of the repository. This gathers them in
one folder, with the README as the first page and a page of the public Python names. Links to code lead to the
repository. zensical builds the site as mkdocs.yml says. A link that leads nowhere ends the build.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

from docs.build import ROOT

from ultraad import _HOME as HOMES

PAGES = {p: p.name for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]} | {ROOT / "README.md": "index.md"}
PICTURES = ("figures", "images")  # folders of docs/
API = {
    "Adapt and predict": ["adapt", "zero_shot", "load", "predict", "evaluate", "Model"],
    "Data": ["scan", "samples", "draw_support", "load_support", "Sample", "SupportSet"],
    "Results and errors": ["Prediction", "UltraadError"],
    "Backbones": ["load_backbone"],
}
INSIDE = {
    "An exported model": ["ultraad.model.exported.load", "ultraad.model.exported.ExportedModel"],
    "To write a method": ["ultraad.methods._base", "ultraad.types"],
}


def source() -> str:
    """The address of the repository, from pyproject.toml."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Source"])


def gathered(page: Path) -> str:
    """The text of a page with links that fit the folder of all pages; code blocks stay as they are."""
    parts = re.split(r"(^```.*?^```$)", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return "".join(
        part if part.startswith("```") else re.sub(r"(?<=\]\()[^)\s]+(?=\))", lambda m: target(page, m[0]), part)
        for part in parts
    )


def target(page: Path, link: str) -> str:
    """Where a link of a page leads on the site."""
    path, hash_, anchor = link.partition("#")
    if not path or path.startswith(("https://", "mailto:")):
        return link
    file = (page.parent / path).resolve()
    if file in PAGES:
        return f"{PAGES[file]}{hash_}{anchor}"
    inside = file.relative_to(ROOT)
    if inside.parts[:2] in [("docs", name) for name in PICTURES] and file.suffix != ".py":
        return inside.relative_to("docs").as_posix()
    return f"{source()}/blob/main/{inside.as_posix()}{hash_}{anchor}"


def api() -> str:
    """The page of the public names; mkdocstrings fills it from the docstrings."""
    text = "# Python\n\nEach name is imported from `ultraad`, and loads what it needs when it is first used.\n"
    for title, names in API.items():
        text += f"\n## {title}\n\n" + "".join(f"::: {HOMES[name]}.{name}\n\n" for name in names)
    for title, paths in INSIDE.items():
        text += f"\n## {title}\n\n" + "".join(f"::: {path}\n\n" for path in paths)
    return text


class _Fetched(HTMLParser):
    """Addresses that a browser fetches by itself to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        address = given.get("href") if tag == "link" and given.get("rel") != "canonical" else given.get("src")
        self.found += [address] if address else []


def fetched(page: Path) -> list[str]:
    """Scripts, styles and pictures of a built page that come from another host."""
    parser = _Fetched()
    parser.feed(page.read_text(encoding="utf-8"))
    return [address for address in parser.found if re.match(r"(https?:)?//", address)]


def build(folder: Path) -> Path:
    """Write the site.

    Args:
        folder: An older build in it is replaced.

    Returns:
        The folder of the site; index.html is its first page.

    Raises:
        SystemExit: If a link leads nowhere, or a page would fetch something from another host.
    """
    pages = folder / "pages"
    shutil.rmtree(folder, ignore_errors=True)
    pages.mkdir(parents=True)
    for page, name in PAGES.items():
        (pages / name).write_text(gathered(page), encoding="utf-8")
    (pages / "api.md").write_text(api(), encoding="utf-8")
    for name in PICTURES:
        shutil.copytree(ROOT / "docs" / name, pages / name, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", folder)
    here = {**os.environ, "PYTHONPATH": str(ROOT / "src")}  # the docstrings of this tree, whatever is installed
    done = subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=folder, env=here, check=False)
    site = folder / "site"
    elsewhere = {f"{page.name}: {address}" for page in site.glob("*.html") for address in fetched(page)}
    if done.returncode or elsewhere:
        sys.exit("\n".join(["the site was not built; see the messages above", *sorted(elsewhere)]))
    return site


if __name__ == "__main__":
    print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "docs"))
