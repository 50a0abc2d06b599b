"""Who is one patient, and what is one class."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from tests import helpers
from tests.robustness.test_finding import PICTURE, save, words
from ultraad import scan
from ultraad.data.audit import audit
from ultraad.data.samples import samples_of
from ultraad.io.names import is_nobody
from ultraad.runs.judge import in_classes
from ultraad.types import Sample


@pytest.mark.parametrize("name", ["ANONYMOUS", "Anon", "anonymized", "nan", "None", "N/A", "-", "0", "NULL", "no name"])
def test_stock_ids_are_nobody(name):
    assert is_nobody(name)


@pytest.mark.parametrize("name", ["P1", "ANON-0017", "anonymous_3", "10", "ALWI", "patient7", "Nana"])
def test_numbered_ids_are_somebody(name):
    assert not is_nobody(name)


def test_a_stock_id_is_an_unknown_patient(tmp_path, caplog):
    for label in ("normal", "benign"):
        save(tmp_path / label / "anonymous" / "a.png")
        save(tmp_path / label / f"p_{label}" / "b.png")
    assert {s.group for s in scan(tmp_path)} == {None, "p_normal", "p_benign"}
    assert "2 image(s) have the patient ID anonymous, taken as unknown" in words(caplog)


def test_one_patient_with_every_class_is_a_warning(tmp_path):
    for label in ("normal", "benign"):
        save(tmp_path / label / "p1" / "a.png")
    assert "patient_with_all_classes" in {f.kind for f in audit(tmp_path).findings}
    save(tmp_path / "malignant" / "p2" / "c.png", PICTURE[::-1])
    assert "patient_with_all_classes" not in {f.kind for f in audit(tmp_path).findings}


def test_classes_match_without_regard_to_case_and_space(tmp_path, caplog):
    image = save(tmp_path / "a.png")
    model = SimpleNamespace(classes=("normal", "benign", "non mass"), normal_class="normal")
    labels = ("Normal", "benign", "BENIGN ", "Non-Mass", "cyst")
    samples = [Sample(id=str(n), image=image, label=c, anomalous=c != "Normal") for n, c in enumerate(labels)]
    with caplog.at_level(logging.WARNING):
        found = [s.label for s in in_classes(samples, model)]
    assert found == ["normal", "benign", "benign", "non mass", "cyst"]
    assert "Normal as normal, BENIGN  as benign, Non-Mass as non mass" in words(caplog)


def test_a_stock_patient_id_of_dicom_is_a_warning_that_counts_the_files(tmp_path, caplog):
    for n in range(6):
        helpers.write_dicom(tmp_path / "normal" / f"{n}.dcm", patient="ANONYMOUS", seed=n)
    assert {s.group for s in scan(tmp_path)} == {None}
    assert "0.dcm: the PatientID is 'ANONYMOUS', which stands for nobody; the patient is unknown" in words(caplog)
    assert "1.dcm" in words(caplog)
    assert "and 2 more, like" in words(caplog)
    caplog.clear()
    assert {s.group for s in samples_of([tmp_path])} == {None}
    assert "which stands for nobody" in words(caplog)
