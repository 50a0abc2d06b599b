"""The documentation as a site: every page has its place, links fit, nothing comes from another host."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from docs import site

import ultraad


def placed(nav: object) -> list[str]:
    """The pages of a part of the navigation, in order."""
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in placed(part)]  # type: ignore[attr-defined]


def navigation() -> list[dict[str, object]]:
    text = (site.ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    found: list[dict[str, object]] = yaml.safe_load(text.replace("!!python/object/apply:pymdownx.slugs.slugify", ""))[
        "nav"
    ]
    return found


def test_every_page_has_one_place_in_the_navigation() -> None:
    assert [next(iter(group)) for group in navigation()] == ["Home", "Tutorials", "How-to", "Reference", "Explanation"]
    assert sorted(placed(navigation())) == sorted([*site.PAGES.values(), "api.md"])


def test_every_public_name_is_on_the_page_of_python() -> None:
    listed = [name for names in site.API.values() for name in names]
    assert sorted(["__version__", *listed]) == sorted(ultraad.__all__)


def test_links_fit_the_site() -> None:
    page = site.ROOT / "docs" / "x.md"
    for link, wanted in {
        "../README.md#status": "index.md#status",
        "../CONTRIBUTING.md": "CONTRIBUTING.md",
        "methods.md#coop": "methods.md#coop",
        "#here": "#here",
        "https://arxiv.org": "https://arxiv.org",
        "figures/page/look.webp": "figures/page/look.webp",
        "../src/ultraad/types.py": f"{site.source()}/blob/main/src/ultraad/types.py",
    }.items():
        assert site.target(page, link) == wanted


def test_code_is_not_taken_for_a_link(tmp_path: Path) -> None:
    page = site.ROOT / "docs" / "tutorial.md"
    (tmp_path / "x.md").write_text("```\n[a](../src)\n```\n")
    assert "[a](../src)" in site.gathered(tmp_path / "x.md")
    assert "(../" in page.read_text(encoding="utf-8")
    assert "](../" not in site.gathered(page)


def test_what_a_page_fetches_from_another_host_is_found(tmp_path: Path) -> None:
    page = tmp_path / "x.html"
    page.write_text('<a href="https://a.org"></a><script src="//cdn.org/x.js"></script><img src="b.png">')
    assert site.fetched(page) == ["//cdn.org/x.js"]


@pytest.mark.slow
def test_the_site_is_built(tmp_path: Path) -> None:
    pytest.importorskip("zensical")
    pytest.importorskip("mkdocstrings_handlers.python")
    built = site.build(tmp_path)
    api = (built / "api.html").read_text(encoding="utf-8")
    assert re.search(r'id="ultraad\.model\.model\.Model\.is_abnormal"', api), "what a model inherits is there, too"
    assert "BUS-UCLM" in json.dumps(json.loads((built / "search.json").read_text(encoding="utf-8")))
