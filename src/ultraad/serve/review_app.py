"""The application behind the page of a review."""

from __future__ import annotations

from collections import Counter
from threading import Event
from typing import Annotated

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse, Response
from pydantic import Field

from ultraad import __version__
from ultraad.dicom.deidentify.decision import Decision, Marked, State
from ultraad.dicom.deidentify.review import Review
from ultraad.dicom.deidentify.review_page import where
from ultraad.serve.app import add_errors, add_page
from ultraad.serve.guard import App, Guard, Keys
from ultraad.serve.routes import session
from ultraad.serve.schemas import Problem, Wire

LIMIT = 1 << 20  # bytes of a request
_MOST_BOXES = 1000


class Given(Wire):
    """What a person decides about one file: all of its boxes, as they were seen."""

    boxes: Annotated[list[Marked], Field(max_length=_MOST_BOXES)]
    state: State


class Shown(Given):
    """One file on the page."""

    file: str
    where: str
    whole: bool
    frames: int
    sizes: list[tuple[int, int]]


class Shows(Wire):
    """The whole review."""

    files: list[Shown]
    failed: dict[str, str]
    searched: int


def make_review_app(review: Review, keys: Keys, *, hosts: list[str], done: Event) -> App:
    """The guarded application.

    Args:
        review: Everything was looked at.
        keys: Of this start.
        hosts: Values of the Host header that mean this server, with port.
        done: Set when a person has decided about every file and says so.
    """
    app = FastAPI(
        title="ultraad deidentify",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        responses={422: {"model": Problem}},
    )
    app.state.keys, app.state.hosts = keys, hosts
    app.include_router(session.router, prefix="/api")
    names = [name for name, row in review.looked.items() if row.mask_of is None]  # masks go with their images
    masks = Counter(row.mask_of for row in review.looked.values())

    def shown(name: str, decided: Decision) -> Shown:
        row = review.looked[name]
        return Shown(
            file=name,
            where=where(row) + (f"; {masks[name]} mask(s) of it are written as they are" if masks[name] else ""),
            whole=not row.keep,
            frames=row.frames,
            sizes=list(row.sizes),
            boxes=decided.boxes,
            state=decided.state,
        )

    def name_of(number: int) -> str:
        if not 0 <= number < len(names):
            raise HTTPException(404, "this file is not in the review")
        return names[number]

    @app.get("/api/review")
    def everything() -> Shows:
        now = review.current()
        files = [shown(name, now[name]) for name in names]
        return Shows(files=files, failed=review.failed, searched=review.settings.frames)

    @app.get("/api/review/{number}/pictures/{which}")
    def picture(number: int, which: int) -> Response:
        pictures = review.looked[name_of(number)].pictures
        if not 0 <= which < len(pictures):
            raise HTTPException(404, "this file has no such picture")
        return FileResponse(review.folder / pictures[which])

    @app.post("/api/review/{number}")
    def decide(number: int, given: Given) -> Shown:
        if done.is_set():
            raise HTTPException(409, "everything was confirmed, and the images are being written")
        name = name_of(number)
        return shown(name, review.decide(name, given.boxes, given.state))

    @app.post("/api/confirm", status_code=204)
    def confirm() -> None:
        now = review.current()
        still_open = [name for name in names if now[name].state == "open"]
        if still_open:
            raise HTTPException(409, f"{len(still_open)} file(s) are not decided, such as {still_open[0]}")
        done.set()

    add_page(app, "review.html")
    add_errors(app)
    return Guard(app, keys=keys, hosts=hosts, file_limit=LIMIT)
