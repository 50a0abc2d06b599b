"""What a release is checked for: licences, and a description that works on a package index."""

from __future__ import annotations

import re
import tomllib

import pytest
from docs.build import ROOT
from release.licences import listed, refused

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("licence", "fine"),
    [
        ("MIT", True),
        ("LGPL-2.1-or-later", True),
        ("GNU Lesser General Public License v3", True),
        ("GPL-3.0-only", False),
        ("AGPL-3.0", False),
        ("License :: OSI Approved :: GNU Affero General Public License v3", False),
        ("GNU General Public License (GPL)", False),
        ("MIT AND GPLv2", False),
    ],
)
def test_only_the_gpl_and_the_agpl_are_refused(licence: str, *, fine: bool) -> None:
    assert (refused([("a", "1", licence)]) == []) == fine


def test_a_package_without_a_licence_is_refused() -> None:
    bill = {
        "components": [
            {
                "name": "b",
                "version": "2",
                "licenses": [{"license": {"id": "MIT"}}, {"license": {"name": "a\nlong text"}}],
            },
            {"name": "A", "version": "1", "licenses": [{"expression": "MIT OR Apache-2.0"}]},
            {"name": "c", "version": "3"},
        ]
    }
    packages = listed(bill)
    assert packages == [("A", "1", "MIT OR Apache-2.0"), ("b", "2", "MIT; a"), ("c", "3", "unknown")]
    assert refused(packages) == ["c: unknown"]


def test_the_description_on_the_package_index_has_whole_addresses() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for rule in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        assert rule["replacement"].startswith(rf"\1{PROJECT['project']['urls']['Source']}/"), "one address, three times"
        text = re.sub(rule["pattern"], rule["replacement"], text)
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) > 30
    assert all(target.startswith(("https://", "#")) for target in targets)
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert len(pictures) == 2
    assert all("/raw/main/docs/" in picture for picture in pictures)
