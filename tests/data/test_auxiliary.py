from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.helpers import write_bus_uclm, write_busi, write_folder
from ultraad.data.auxiliary import AuxiliaryBatches, AuxiliarySet, load_auxiliary
from ultraad.data.preprocess import Preprocess
from ultraad.data.sources import scan
from ultraad.errors import DataError
from ultraad.types import Batch, PreprocessConfig

HALF = (0.5, 0.5, 0.5)
PREPROCESS = Preprocess(PreprocessConfig(size=32, mean=HALF, std=HALF))


def batches_of(found: AuxiliarySet, *, batch_size: int = 5, seed: int = 0) -> AuxiliaryBatches:
    return AuxiliaryBatches(found, PREPROCESS, batch_size=batch_size, seed=seed)


def ids(batches: list[Batch]) -> list[str]:
    return [id_ for batch in batches for id_ in batch.ids]


def test_every_pass_has_all_images_in_a_new_order(busi_dir: Path) -> None:
    data = batches_of(load_auxiliary(busi_dir))
    assert len(data) == 3
    first, second = list(data), list(data)
    assert [len(b) for b in first] == [5, 5, 2]
    assert sorted(ids(first)) == sorted(ids(second)) == sorted(s.id for s in scan(busi_dir))
    assert ids(first) != ids(second)
    again = batches_of(load_auxiliary(busi_dir))
    assert [ids(list(again)), ids(list(again))] == [ids(first), ids(second)], "the seed fixes all passes"
    assert ids(list(batches_of(load_auxiliary(busi_dir), seed=1))) != ids(first)


def test_batches_have_labels_and_masks(busi_dir: Path) -> None:
    found = load_auxiliary(busi_dir)
    assert found.source == f"busi:{busi_dir.resolve()}"
    truth = {s.id: s.anomalous for s in found.samples}
    for batch in batches_of(found):
        assert batch.anomalous is not None
        assert batch.masks is not None
        assert batch.mask_known is not None
        assert batch.mask_known.all()
        assert batch.anomalous.tolist() == [truth[i] for i in batch.ids]
        assert torch.equal(batch.masks.flatten(1).any(1), batch.anomalous)


def test_class_names_may_differ_from_the_support(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "organ", classes=("healthy", "cyst"))
    (batch,) = batches_of(load_auxiliary(root), batch_size=99)
    assert batch.classes == ("healthy", "cyst")
    assert batch.anomalous is not None
    assert batch.anomalous.sum() == 4


def test_masks_that_do_not_fit_are_unknown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_bus_uclm(tmp_path / "uclm")
    misaligned = {s.id for s in scan(root) if not s.mask_aligned and s.anomalous}
    assert misaligned
    data = batches_of(load_auxiliary(root))
    assert f"{len(misaligned)} mask(s) that do not fit" in caplog.text
    caplog.clear()
    for _ in range(2):
        unknown = {i for b in data for i, known in zip(b.ids, b.mask_known.tolist(), strict=True) if not known}
        assert unknown == misaligned
    assert not caplog.records, "said once, not at every pass"


def test_bad_files_are_skipped_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_busi(tmp_path / "busi")
    bad = root / "benign" / "benign (2).png"
    bad.write_bytes(bad.read_bytes()[:60])
    data = batches_of(load_auxiliary(root))
    with caplog.at_level(logging.WARNING, logger="ultraad"):
        passes = [ids(list(data)) for _ in range(3)]
    assert [len(p) for p in passes] == [11, 11, 11]
    assert caplog.text.count("skipped benign/benign (2).png") == 1
    assert len(data.samples) == 11
    assert len(data) == 3


def test_no_readable_image_is_an_error(tmp_path: Path) -> None:
    root = write_busi(tmp_path / "busi", per_class=1)
    found = load_auxiliary(root)
    for sample in found.samples:
        sample.image.write_bytes(b"")
    with pytest.raises(DataError, match="none of the 3 auxiliary images can be read"):
        list(batches_of(found))


def test_images_not_known_to_be_normal_or_abnormal_are_skipped(
    busi_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    samples = scan(busi_dir)
    mixed = [replace(samples[0], anomalous=None), *samples[1:]]
    monkeypatch.setattr("ultraad.data.auxiliary.sources.scan", lambda *_, **__: mixed)
    assert len(load_auxiliary(busi_dir).samples) == 11
    assert "skipped 1 image(s) not known" in caplog.text


def test_a_set_without_masks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no abnormal one has a mask"):
        load_auxiliary(write_folder(tmp_path / "plain", masks="none"))
    with pytest.raises(DataError, match="does not exist"):
        load_auxiliary(tmp_path / "nowhere")
