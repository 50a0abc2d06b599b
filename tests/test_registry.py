"""Names of methods, layouts and backbones: what is listed, what is found, what the messages suggest."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ultraad import backbones, methods, registry
from ultraad.data import sources
from ultraad.errors import ConfigError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package ``garage`` with one entry, one helper, and one file that should have been a helper."""
    folder = tmp_path / "garage"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "bicycle.py").write_text("BIKE = 'a bicycle'\n")
    (folder / "_wheels.py").write_text("raise RuntimeError\n")
    (folder / "stray.py").write_text("def help(): ...\n")
    (folder / "broken.py").write_text("import garage_needs_this\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for module in [m for m in sys.modules if m.partition(".")[0] == "garage"]:
        del sys.modules[module]


def find(name: str) -> object:
    return registry.find("garage", name, "BIKE", kind="vehicle")


@pytest.mark.usefixtures("package")
def test_an_entry_is_found_and_a_helper_is_not_listed() -> None:
    assert registry.names("garage") == ["bicycle", "broken", "stray"]
    assert find("bicycle") == find("garage.bicycle:BIKE") == "a bicycle"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bycicle", r"unknown vehicle 'bycicle'; did you mean 'bicycle'\? available: bicycle, .*package.module:NAME"),
        ("ufo", r"unknown vehicle 'ufo'; available: bicycle"),
        ("wheels", r"unknown vehicle 'wheels'; available"),
        ("stray", r"stray.py is not a vehicle: it has no BIKE. .* name it _stray.py"),
        ("garage.bicycle:BIKES", r"garage.bicycle has no 'BIKES'; did you mean 'BIKE'\? Wanted 'package.module:NAME'"),
        ("garage.bicycle:", r"garage.bicycle has no ''"),
        ("garage.bycicle:BIKE", r"No module named 'garage.bycicle'; did you mean 'bicycle'\? Wanted"),
        ("garrage.bicycle:BIKE", r"No module named 'garrage'; did you mean 'garage'\? Wanted"),
        ("garage.bicycle.x:BIKE", r"No module named 'garage.bicycle.x'.*\. Wanted"),
        ("bycicle:BIKE", r"No module named 'bycicle'; did you mean 'bicycle'\? Wanted"),
        ("garage.broken:BIKE", r"cannot import the vehicle 'garage.broken:BIKE': .*garage_needs_this'\. Wanted"),
        (":BIKE", r"cannot import the vehicle ':BIKE'"),
    ],
)
def test_a_wrong_name_is_explained(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        find(name)


@pytest.mark.parametrize(
    ("package_of_entries", "attribute"), [(methods, "METHOD"), (sources, "SOURCE"), (backbones, "BACKBONE")]
)
def test_every_listed_file_is_an_entry(package_of_entries: object, attribute: str) -> None:
    name = package_of_entries.__name__  # type: ignore[attr-defined]
    for entry in registry.names(name):
        assert registry.find(name, entry, attribute, kind="entry") is not None


def test_similar_names_ignore_case_and_come_best_first() -> None:
    assert registry.similar("bus_uclm", ["BUS_BRA", "BUS_UCLM", "UDIAT"], count=2, cutoff=0.5) == [
        "BUS_UCLM",
        "BUS_BRA",
    ]
    assert registry.did_you_mean("seedz", ["Seeds", "shots"]) == "; did you mean 'Seeds'?"
    assert registry.did_you_mean("xyz", ["Seeds", "shots"]) == ""
