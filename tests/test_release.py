"""What a release is checked for: licences, and a description that works on a package index."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest
from docs.build import ROOT
from release.container import debian_packages
from release.licences import listed, refused
from release.newcomer import first_commands, timed

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


def test_a_newcomer_runs_the_first_commands_of_the_readme_with_the_wheel() -> None:
    lines = first_commands((ROOT / "README.md").read_text(encoding="utf-8"), "/home/new comer/a.whl")
    assert lines == [
        "python3 -m venv .venv && . .venv/bin/activate",
        "pip install '/home/new comer/a.whl'",
        "ultraad demo",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="bash")
def test_lines_are_timed_in_one_shell_that_ends_at_the_first_fault() -> None:
    done = subprocess.run(
        ["bash", "-c", timed(["cd / && export A=1", "pwd; echo $A", "false", "echo never"])],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    told = [re.sub(r"[\d.]+", "0", line) for line in done.stdout.replace("\n1\n", "\none\n").splitlines()]
    assert told == ["took 0 0 0", "/", "one", "took 0 0 0", "took 0 0 0"]
    assert done.returncode == 1


def test_packages_of_debian_are_components_of_a_bill() -> None:
    first, second = debian_packages("libc6 2.36-9+deb12u10 amd64\ntzdata 2025b-0+deb12u2 all\n")
    assert first == {
        "type": "library",
        "bom-ref": "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64",
        "name": "libc6",
        "version": "2.36-9+deb12u10",
        "purl": "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64",
    }
    assert second["name"] == "tzdata"
