"""Key Object Selection (PS3.3 A.35.4): the frames that a reader should see first."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from ultraad.dicom.findings import Findings
from ultraad.dicom.parts import Code, Kind, evidence, item, reference, shell, write
from ultraad.metrics.key_frames import KEY_RULE

KIND = Kind("ko", "1.2.840.10008.5.1.4.1.1.88.59", "KO", 104, "key images")


def write_key_objects(path: Path, found: Findings) -> bool:
    """Write the selection of the key frames (TID 2010).

    Returns:
        False if no frame is abnormal.

    Raises:
        DataError: If it cannot be written.
    """
    if not found.key_frames:
        return False
    ds = shell(found, KIND)
    for name in ("SeriesDate", "SeriesTime"):
        delattr(ds, name)
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.CurrentRequestedProcedureEvidenceSequence = evidence(found)
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    ds.ConceptNameCodeSequence = [item(Code("113000", "DCM", "Of Interest"))]
    ds.ContentTemplateSequence = [template]
    ds.ContentSequence = Items([_text(found), *(_image(found, frame) for frame in found.key_frames)])
    write(path, ds)
    return True


def _text(found: Findings) -> Dataset:
    out = Dataset()
    out.RelationshipType, out.ValueType = "CONTAINS", "TEXT"
    out.ConceptNameCodeSequence = [item(Code("113012", "DCM", "Key Object Description"))]
    scores = ", ".join(f"{100 * found.rows[frame].score:.0f} %" for frame in found.key_frames)
    rule = f" {KEY_RULE}." if found.source.frames > 1 else ""
    out.TextValue = f"Abnormal for ultraad (research only), scores {scores}.{rule}"
    return out


def _image(found: Findings, frame: int) -> Dataset:
    out = Dataset()
    out.RelationshipType, out.ValueType = "CONTAINS", "IMAGE"
    out.ReferencedSOPSequence = [reference(found, [frame])]
    return out
