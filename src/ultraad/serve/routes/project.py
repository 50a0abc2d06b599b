"""The project, what comes into it and what happens in it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import StreamingResponse
from starlette.datastructures import UploadFile

from ultraad.errors import DataError
from ultraad.serve.project import LIMITS
from ultraad.serve.routes.deps import TheDesk
from ultraad.serve.schemas import Confirmation, Import, ImportRequest, Layout, ProjectChange, Received, Refusal, RowId
from ultraad.serve.schemas_work import Check, ProjectInfo
from ultraad.serve.uploads import accept, receive, refusals

router = APIRouter(tags=["project"])

_CHUNK = 1 << 20
_MOST_FILES = 1000  # in one request


@router.get("/project")
def project(desk: TheDesk) -> ProjectInfo:
    """The project as a whole."""
    return desk.info()


@router.patch("/project")
def change(wanted: ProjectChange, desk: TheDesk) -> ProjectInfo:
    """Change its title, its classes, or the share of marks that is held out."""
    desk.change(wanted)
    return desk.info()


@router.delete("/project", status_code=204)
def delete_all(confirmation: Confirmation, desk: TheDesk) -> None:
    """Delete everything in it; files that were imported by path stay where they are."""
    desk.delete_all(confirmation.confirm)


@router.get("/layouts")
def layouts(desk: TheDesk) -> list[Layout]:
    """The data layouts that are understood."""
    return desk.layouts()


@router.get("/imports")
def imports(desk: TheDesk) -> list[Import]:
    """Every import, newest first."""
    return desk.importer.all()


@router.post("/imports", status_code=202)
def begin_import(wanted: ImportRequest, desk: TheDesk) -> Import:
    """Begin to import a folder of this machine, or the files of an upload."""
    if (wanted.path is None) == (wanted.batch is None):
        raise HTTPException(422, "give either the path of a folder or the batch of an upload")
    if wanted.path is None:
        return desk.importer.uploads(str(wanted.batch), use_marks=wanted.use_marks)
    if not desk.references:
        raise HTTPException(403, "folders are imported by path only on the machine itself; upload the files instead")
    return desk.importer.folder(wanted.path, layout=wanted.layout, use_marks=wanted.use_marks)


@router.post("/uploads")
async def upload(request: Request, batch: Annotated[RowId, Query()], desk: TheDesk) -> Received:
    """Take files (multipart, parts called ``file``); they are imported by ``POST /imports`` with the same batch."""
    used = desk.project.used_bytes()
    folder = receive(desk.project, batch)
    received, refused = 0, []
    async with request.form(max_files=_MOST_FILES, max_fields=10) as form:
        for part in form.getlist("file"):
            if not isinstance(part, UploadFile):
                continue
            name = part.filename or "unnamed"
            if found := refusals([name]):
                refused += found
            elif part.size is not None and part.size > LIMITS.file_bytes:
                refused.append(Refusal(name=name, reason=f"it is larger than {LIMITS.file_bytes >> 30} GB"))
            elif used + (part.size or 0) > LIMITS.disk_bytes:
                raise HTTPException(507, f"the project is full: {LIMITS.disk_bytes >> 30} GB; delete images first")
            else:
                used += await _keep(part, folder, name)
                received += 1
    return Received(received=received, refused=refused)


async def _keep(part: UploadFile, folder: Path, name: str) -> int:
    """Write a part to the batch; its bytes."""
    import secrets

    temporary = folder / f"{secrets.token_hex(8)}.part"
    written = 0
    try:
        with temporary.open("xb") as file:
            while chunk := await part.read(_CHUNK):
                written += file.write(chunk)
        accept(folder, temporary, name)
    except OSError as e:
        with suppress(OSError):
            temporary.unlink()
        msg = "the file cannot be stored; free space on the disk of the project"
        raise DataError(msg) from e
    return written


@router.get("/check")
def check(desk: TheDesk) -> Check:
    """The findings of the data check."""
    return desk.check()


@router.get("/events")
async def events(desk: TheDesk) -> StreamingResponse:
    """What happens, as server-sent events."""
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(desk.hub.listen(desk.hello), media_type="text/event-stream", headers=headers)
