from __future__ import annotations

from pathlib import Path

import pytest

from ultraad.cli import doctor, main


def test_the_self_test_passes_and_every_line_says_something() -> None:
    found = {c.name: c for c in doctor.checks()}
    assert found["self-test"].status == "ok", found["self-test"].detail
    assert found["packages"].status == "ok"
    assert "torch 2" in found["packages"].detail
    assert "cpu (" in found["devices"].detail
    assert all(c.detail for c in found.values())


def test_missing_weights_and_packages_break_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ultraad.backbones._towers import TOWERS, Tower

    monkeypatch.setitem(TOWERS, "embedded", Tower(str(tmp_path / "gone"), "a tower"))
    monkeypatch.setattr(doctor, "_PACKAGES", ("torch", "a-package-that-is-not-there"))
    found = {c.name: c for c in doctor.checks()}
    assert found["weights"].status == "broken"
    assert "gone.safetensors" in found["weights"].detail
    assert found["packages"].status == "broken"
    assert "a-package-that-is-not-there" in found["packages"].detail
    with pytest.raises(SystemExit) as end:
        main(["doctor"])
    assert end.value.code == 1
    assert "broken  weights" in capsys.readouterr().err


def test_a_full_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_DISK", 1 << 62)
    assert {c.name: c.status for c in doctor.checks()}["disk"] == "warning"


def test_a_build_of_torch_for_gpus_without_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def devices() -> str:
        return {c.name: c.detail for c in doctor.checks()}["devices"]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "pip install" not in devices()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert doctor.CPU_TORCH in devices()
