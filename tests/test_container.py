"""The Containerfile says what docs/container.md promises; ``python -m release.container`` tries it."""

from __future__ import annotations

import re
import tomllib

from docs.build import ROOT

TEXT = (ROOT / "Containerfile").read_text(encoding="utf-8")


def test_the_container_runs_as_a_user_without_rights_and_has_a_health_check() -> None:
    last = TEXT.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001:10001$", last, flags=re.M)
    assert 'ENTRYPOINT ["ultraad"]' in last
    assert all(re.search(rf"^EXPOSE .*\b{port}\b", last, flags=re.M) and f"{port}" in last for port in (8417, 11112))
    assert "HEALTHCHECK" in last


def test_what_is_copied_and_installed_exists() -> None:
    (copied,) = re.findall(r"^COPY (.+) /source/$", TEXT, flags=re.M)
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".containerignore").read_text(encoding="utf-8"), flags=re.M)
    assert sorted([*copied.split(), "src"]) == sorted(allowed)
    assert all((ROOT / name).exists() for name in allowed)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r"'\.\[([\w,-]+)\]'", TEXT)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    needed = {re.split(r"[<>=\[]", line)[0] for line in project["optional-dependencies"]["dicom"]}
    (light,) = re.findall(r"requirements-edge\.txt (onnxruntime .*?) \\$", TEXT, flags=re.M)
    assert needed <= set(light.split())
