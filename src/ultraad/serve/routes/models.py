"""Jobs, models and exports."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, Response, StreamingResponse

from ultraad.io.zipped import zipped
from ultraad.serve.routes.deps import TheDesk
from ultraad.serve.schemas_work import (
    BackboneInfo,
    Changes,
    Export,
    Job,
    JobRequest,
    MethodInfo,
    ModelInfo,
    Numbers,
    ThresholdChange,
)

router = APIRouter(tags=["models"])

_REPORT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"


@router.get("/methods")
def methods(desk: TheDesk) -> list[MethodInfo]:
    """The methods with their options, and whether the marks are enough for each."""
    return desk.methods()


@router.get("/backbones")
def backbones(desk: TheDesk) -> list[BackboneInfo]:
    """The backbones that can be chosen by name."""
    return desk.backbones()


@router.post("/jobs", status_code=202)
def submit(wanted: JobRequest, desk: TheDesk) -> Job:
    """Begin a job; one runs at a time."""
    return desk.submit(wanted)


@router.get("/jobs/{number}")
def job(number: int, desk: TheDesk) -> Job:
    """How far a job is."""
    return desk.jobs.jobs[number]


@router.post("/jobs/{number}/cancel")
def cancel(number: int, desk: TheDesk) -> Job:
    """Stop a job."""
    return desk.jobs.cancel(number)


@router.get("/models")
def models(desk: TheDesk) -> list[ModelInfo]:
    """Every model, newest first."""
    return desk.history.all()


@router.get("/models/{number}")
def model(number: int, desk: TheDesk) -> ModelInfo:
    """One model, with its numbers."""
    return desk.history.one(number).model_copy(update={"numbers": desk.history.numbers(number)})


@router.patch("/models/{number}")
def set_thresholds(number: int, wanted: ThresholdChange, desk: TheDesk) -> ModelInfo:
    """Set thresholds by hand; the saved model gets them too."""
    return desk.history.set_thresholds(number, wanted)


@router.post("/models/{number}/use")
def use(number: int, desk: TheDesk) -> ModelInfo:
    """Go back to a model, or forward."""
    return desk.history.use(number)


@router.get("/models/{number}/changes")
def changes(number: int, desk: TheDesk, against: int | None = None) -> Changes:
    """What it says otherwise than another model."""
    return desk.history.changes(number, against)


@router.get("/models/{number}/numbers")
def numbers(number: int, desk: TheDesk) -> Numbers:
    """How good it is on marks that it has not learned from."""
    return desk.history.numbers(number)


@router.get("/exports")
def exports(desk: TheDesk) -> list[Export]:
    """What was taken away, newest first."""
    return desk.exports.all()


@router.delete("/exports/{number}", status_code=204)
def delete_export(number: int, desk: TheDesk) -> None:
    """Delete a folder of results."""
    desk.exports.delete(number)


@router.get("/exports/{number}/archive", response_class=Response)
def archive(number: int, desk: TheDesk) -> StreamingResponse:
    """A folder of results as zip, packed while it is sent."""
    folder = desk.exports.folder(number)
    headers = {"Content-Disposition": f'attachment; filename="ultraad-{number}.zip"'}
    return StreamingResponse(_zipped(folder), media_type="application/zip", headers=headers)


@router.get("/exports/{number}/report", response_class=Response)
def report(number: int, desk: TheDesk) -> FileResponse:
    """The report page, in a sandbox without scripts."""
    folder = desk.exports.folder(number)
    found = [p for p in (folder / "report" / "report.html", folder / "predictions" / "report.html") if p.is_file()]
    if not found:
        raise HTTPException(404, "this export has no report")
    return FileResponse(found[0], media_type="text/html", headers={"content-security-policy": _REPORT_POLICY})


def _zipped(folder: Path) -> Iterator[bytes]:
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    return zipped((zipfile.ZipInfo.from_file(path, path.relative_to(folder).as_posix()), path) for path in paths)
