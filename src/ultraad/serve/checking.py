"""The data check of a project: the same findings as ``ultraad data check``, for the images and marks it has now."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ultraad.data.audit.measure import Measured
from ultraad.data.audit.run import findings_of
from ultraad.serve.project import Picture
from ultraad.serve.schemas_work import CheckFinding
from ultraad.types import Sample

_ID = re.compile(r"\b[0-9a-f]{16}\b")
_NOT_HERE = {"no_class", "no_mask", "unused_files", "no_normal_class"}  # findings about a data set, not about a project
_PAIRED = ("duplicate", "near_duplicate")
_SIDE = 32


def check(images: Sequence[Mapping[str, Any]], *, normal_class: str) -> dict[str, Any]:
    """Findings and similar pictures.

    Args:
        images: Each with ``picture``, ``tiny`` (hex), ``label`` and ``split`` (its role).
        normal_class: The class that means "no lesion".

    Returns:
        ``findings`` as JSON of :class:`~ultraad.serve.schemas.CheckFinding`, and ``alike``, pairs of images that show
        the same scene.
    """
    names: dict[str, str] = {}
    measured = []
    for image in images:
        picture = Picture.model_validate(image["picture"])
        names[picture.id] = picture.name
        measured.append(_measured(picture, image, normal_class))
    findings, alike = [], []
    for finding in findings_of(measured):
        ids = [[id_ for id_ in _ID.findall(item) if id_ in names] for item in finding.items]
        if finding.kind.startswith(_PAIRED):
            alike += [pair for pair in ids if len(pair) > 1]
        if finding.kind in _NOT_HERE:
            continue
        found = CheckFinding(
            severity=finding.severity,
            kind=finding.kind,
            message=finding.message,
            images=list(dict.fromkeys(id_ for group in ids for id_ in group))[:1000],
            items=[_ID.sub(lambda m: names.get(m[0], m[0]), item) for item in finding.items[:200]],
        )
        findings.append(found.model_dump(mode="json"))
    return {"findings": findings, "alike": alike}


def _measured(picture: Picture, image: Mapping[str, Any], normal_class: str) -> Measured:
    """What was measured when the image was imported."""
    label, tiny = image["label"], bytes.fromhex(image["tiny"])
    sample = Sample(
        picture.id,
        Path(picture.name),
        label=label,
        anomalous=None if label is None else label != normal_class,
        group=picture.patient,
        split=image["split"],
        device=picture.device,
        tags=frozenset(picture.tags),
    )
    if picture.failed or len(tiny) != _SIDE * _SIDE:
        return Measured(sample, error=picture.failed or "it has no thumbnail")
    return Measured(
        sample,
        hash=picture.sha256,
        coloured=picture.coloured,
        two_valued=picture.two_valued,
        flat=picture.flat,
        thumbnail=np.frombuffer(tiny, np.uint8).reshape(_SIDE, _SIDE),
    )
