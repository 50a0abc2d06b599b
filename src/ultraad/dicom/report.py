"""Structured reports: Comprehensive SR of TID 1500, one group for each lesion and one for the whole image.

A group of a lesion (TID 1410) stands on the frame of its highest score: outline, area, long and short axis in mm, or in
pixels where the spacing is unknown, certainty, grade. The group of the whole image stands on the frame of the highest
score; its region is the border of the frame, since a viewer that meets a group without a region shows nothing at all.
The report is PRELIMINARY and UNVERIFIED. It gives no BI-RADS category, and no probability of cancer: ultraad measures
neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    SourceImageForRegion,
    TrackingIdentifier,
)

from ultraad.dicom.findings import Findings, Track
from ultraad.dicom.parts import (
    LESION,
    PRIVATE,
    SIDES,
    Code,
    Kind,
    device_uid,
    evidence,
    grade_code,
    organ_code,
    shell,
    uid,
    write,
)
from ultraad.dicom.segmentation import tracking_uid
from ultraad.dicom.source import OURS
from ultraad.metrics.key_frames import KEY_RULE
from ultraad.model.prediction_sets import parse
from ultraad.results.row import ImageRow

KIND = Kind("sr", "1.2.840.10008.5.1.4.1.1.88.33", "SR", 101, "measurements")
_AREA, _LONG, _SHORT = (
    Code("42798000", "SCT", "Area"),
    Code("103339001", "SCT", "Long Axis"),
    Code("103340004", "SCT", "Short Axis"),
)
_MM2, _MM = Code("mm2", "UCUM", "square millimeter"), Code("mm", "UCUM", "millimeter")
_PIXELS, _PERCENT = Code("{pixels}", "UCUM", "pixels"), Code("%", "UCUM", "Percent")
_CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
_GRADE, _STATE = (
    Code("grade", PRIVATE, "Grade by ultraad, research only"),
    Code("state", PRIVATE, "Image state by ultraad, research only"),
)
_SCOPE = Code("scope", PRIVATE, "Image that ultraad can judge, research only")
_IN_SCOPE, _OUT_OF_SCOPE = Code("in-scope", PRIVATE, "In scope"), Code("out-of-scope", PRIVATE, "Out of scope")
_SET = Code("prediction-set", PRIVATE, "Class in the prediction set of ultraad, research only")
_NO_CLASS, _OPEN = Code("no-class", PRIVATE, "None of the classes"), Code("class-open", PRIVATE, "Class left open")
_ABNORMAL, _NORMAL = Code("263654008", "SCT", "Abnormal"), Code("17621005", "SCT", "Normal")
_PROCEDURES = {"breast": Code("47079000", "SCT", "Ultrasonography of breast")}
_RECTANGLE = 4  # corners
_ANY_PROCEDURE = Code("16310003", "SCT", "Ultrasonography")


def write_report(path: Path, found: Findings) -> None:
    """Write the report.

    Raises:
        DataError: If it cannot be written.
    """
    observer = ObserverContext(
        observer_type=_concept(Code("121007", "DCM", "Device")),
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=device_uid(found),
            name=OURS,
            manufacturer_name=OURS,
            model_name=OURS if found.run.model is None else found.run.model.method,
            serial_number=found.model_digest[:16] or "0",
        ),
    )
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=_concept(_PROCEDURES.get(found.organ or "", _ANY_PROCEDURE)),
        imaging_measurements=[*(_lesion(found, track) for track in found.tracks), _whole(found)],
        title=_concept(Code("126000", "DCM", "Imaging Measurement Report")),
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(
            _concept(Code("en-US", "RFC5646", "English (United States)"))
        ),
    )
    ds = shell(found, KIND)
    ds.update(report[0])
    ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "PRELIMINARY"
    ds.PerformedProcedureCodeSequence, ds.ReferencedPerformedProcedureStepSequence = [], []
    ds.CurrentRequestedProcedureEvidenceSequence = evidence(found)
    write(path, ds)


def _lesion(found: Findings, track: Track) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    lesion = track.at[track.best]
    if lesion.area_mm2 is not None and lesion.long_mm is not None and lesion.short_mm is not None:
        sizes = [(_AREA, lesion.area_mm2, _MM2), (_LONG, lesion.long_mm, _MM), (_SHORT, lesion.short_mm, _MM)]
    else:
        sizes = [(_AREA, lesion.area_px, _PIXELS), (_LONG, lesion.long_px, _PIXELS), (_SHORT, lesion.short_px, _PIXELS)]
    points = np.asarray(lesion.outline, dtype=np.float64).reshape(-1, 2)
    return _group(
        found,
        frame=track.best,
        name=track.name,
        identity=tracking_uid(found, track),
        finding=LESION,
        points=points,
        measured=[*sizes, (_CERTAINTY, 100 * lesion.score, _PERCENT)],
        states=[],
    )


def _whole(found: Findings) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    row = found.rows[found.best]
    rows, columns = found.source.size
    return _group(
        found,
        frame=found.best,
        name="whole image",
        identity=uid(found, "track", "whole image"),
        finding=None,
        points=np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], dtype=np.float64),
        measured=[(_CERTAINTY, 100 * row.score, _PERCENT)],
        states=[(_STATE, _ABNORMAL if row.abnormal else _NORMAL), *_scope(row), *_set(row)],
    )


def _scope(row: ImageRow) -> list[tuple[Code, Code]]:
    """Whether the model can judge the frame, if that is known."""
    if row.in_scope is None or row.in_scope.ok is None:
        return []
    return [(_SCOPE, _IN_SCOPE if row.in_scope.ok else _OUT_OF_SCOPE)]


def _set(row: ImageRow) -> list[tuple[Code, Code]]:
    """The prediction set of the frame, one item for each class; empty if none was asked for."""
    if row.prediction_set is None:
        return []
    return [(_SET, grade_code(name)) for name in row.prediction_set] or [(_SET, _NO_CLASS)]


def _group(
    found: Findings,
    *,
    frame: int,
    name: str,
    identity: str,
    finding: Code | None,
    points: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    measured: Sequence[tuple[Code, float, Code]],
    states: Sequence[tuple[Code, Code]],
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    source = found.source
    image = SourceImageForRegion(
        referenced_sop_class_uid=source.sop_class,
        referenced_sop_instance_uid=source.uid,
        referenced_frame_numbers=[frame + 1] if source.multi_frame else None,
    )
    grade, organ = found.grade(frame), organ_code(found.organ)
    graded = [] if grade is None else [(_GRADE, _OPEN if found.rows[frame].unsure else grade_code(grade))]
    side = SIDES.get(source.laterality or "")
    site = organ and FindingSite(anatomic_location=_concept(organ), laterality=side and _concept(side))
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=identity, identifier=name),
        referenced_region=ImageRegion(
            graphic_type=GraphicTypeValues.POLYLINE, graphic_data=_closed(points), source_image=image
        ),
        finding_type=finding and _concept(finding),
        algorithm_id=_algorithm(found),
        finding_sites=[site] if site else None,
        measurements=[
            Measurement(name=_concept(what), value=round(float(value), 2), unit=_concept(unit))
            for what, value, unit in measured
        ],
        qualitative_evaluations=[
            QualitativeEvaluation(name=_concept(what), value=_concept(value)) for what, value in [*states, *graded]
        ],
    )


def _closed(
    points: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """An outline whose last point is its first. A rectangle gets the middles of its sides as points.

    OHIF takes a polyline of 4 or 5 points for a rectangle of its own, offers to make it editable, and loses the report.
    """
    if len(points) <= _RECTANGLE:
        points = np.stack([points, (points + np.roll(points, -1, axis=0)) / 2], axis=1).reshape(-1, 2)
    return np.vstack([points, points[:1]])


def _algorithm(found: Findings) -> AlgorithmIdentification:
    run = found.run
    parameters = [
        f"model sha256 {found.model_digest}",
        f"support set sha256 {run.support_digest or 'none'}",
        f"image threshold {run.thresholds.image}",
        f"pixel threshold {run.thresholds.pixel}",
    ]
    if (region := found.rows[found.best].region) is not None:
        parameters.append("region x {}, y {}, width {}, height {}".format(*region))
    if (fan := found.rows[found.best].fan) is not None and fan.masks:
        parameters.append(f"fan of a {fan.kind}, no lesion outside of it")
    if run.thresholds.sets is not None:
        level, by_class = parse(run.thresholds.sets)
        whose = "of each class" if by_class else "of all images"
        parameters.append(f"prediction sets that hold the true class of {100 * level:g} % {whose} like the support set")
    if run.thresholds.abstain is not None:
        parameters.append(f"class left open by the rule {run.thresholds.abstain}")
    if run.thresholds.smooth is not None:
        parameters.append(f"smoothed over the frames before, time constant {run.thresholds.smooth:g} s")
    if found.source.frames > 1:
        parameters.append(f"{len(found.rows)} of {found.source.frames} frames. {KEY_RULE}")
    return AlgorithmIdentification(name=OURS, version=found.version, parameters=parameters)


def _concept(code: Code) -> CodedConcept:
    return CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)
