"""The application: routes that check what was sent and call the desk."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from starlette.exceptions import HTTPException

from ultraad import __version__
from ultraad.errors import ConfigError, DataError, UltraadError
from ultraad.serve.desk import Desk
from ultraad.serve.guard import KINDS, App, Guard, Keys, error_body
from ultraad.serve.jobs import NotReadyError
from ultraad.serve.project import LIMITS
from ultraad.serve.routes import images, marks, models, project, session, voice
from ultraad.serve.schemas import Problem

_PAGE_MISSING = (
    "<!doctype html><meta charset=utf-8><title>ultraad</title><p>The page was not built into this installation. "
    "The API works; see docs/page.md."
)


def page_folder() -> Path:
    """The built page."""
    return Path(str(files("ultraad.serve"))) / "static"


def make_app(desk: Desk, keys: Keys, *, hosts: list[str], api_docs: bool = False) -> App:
    """The guarded application.

    Args:
        desk: Of the open project.
        keys: Of this start.
        hosts: Values of the Host header that mean this server, with port; the first is the one that is printed.
        api_docs: Describe the API at ``/api/openapi.json``.
    """
    app = FastAPI(
        title="ultraad serve",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json" if api_docs else None,
        responses={422: {"model": Problem}},
    )
    app.state.desk, app.state.keys, app.state.hosts = desk, keys, hosts
    for routes in (session, project, images, marks, models, voice):
        app.include_router(routes.router, prefix="/api")
    add_page(app, "index.html")
    add_errors(app)
    return Guard(app, keys=keys, hosts=hosts, file_limit=LIMITS.request_bytes, file_paths=["/api/uploads"])


def add_page(app: FastAPI, first: str) -> None:
    """The built files of the pages, ``first`` at the root; nothing else is served from the disk by name."""
    folder = page_folder()
    served = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()} if folder.is_dir() else {}

    @app.get("/", include_in_schema=False)
    def index() -> Response:
        if first not in served:
            return Response(_PAGE_MISSING, media_type="text/html")
        return FileResponse(served[first])

    @app.get("/{name:path}", include_in_schema=False)
    def file(name: str) -> Response:
        if name not in served:
            raise HTTPException(404, "there is nothing at this address")
        return FileResponse(served[name])


def add_errors(app: FastAPI) -> None:
    """Errors as JSON with their words (:class:`~ultraad.serve.schemas.Problem`)."""

    def answer(status: int, message: str, **more: Any) -> Response:  # noqa: ANN401
        headers = {"Retry-After": "1"} if status == 503 else None
        return Response(error_body(status, message, **more), status, headers, media_type="application/json")

    def handle(kind: type[Exception]) -> Callable[[Callable[..., Response]], Callable[..., Response]]:
        def register(call: Callable[..., Response]) -> Callable[..., Response]:
            app.add_exception_handler(kind, call)
            return call

        return register

    @handle(HTTPException)
    def http(_: Request, error: HTTPException) -> Response:
        known = error.status_code in KINDS
        return answer(error.status_code, str(error.detail) if known else "something went wrong")

    @handle(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> Response:
        fields = [".".join(map(str, e["loc"])) for e in error.errors()[:8]]
        reasons = [f"{field}: {e['msg']}" for field, e in zip(fields, error.errors(), strict=False)]
        return answer(422, f"the request does not fit: {'; '.join(reasons)}", fields=fields)

    @handle(KeyError)
    def absent(_: Request, __: KeyError) -> Response:
        return answer(404, "this is not in the project; it may have been removed")

    @handle(NotReadyError)
    def busy(request: Request, error: NotReadyError) -> Response:
        return answer(503 if request.method == "GET" else 409, str(error))

    @handle(ConfigError)
    def config(_: Request, error: ConfigError) -> Response:
        return answer(422, str(error))

    @handle(DataError)
    def data(_: Request, error: DataError) -> Response:
        full = isinstance(error.__cause__, OSError)
        return answer(507 if full else 422, str(error))

    @handle(UltraadError)
    def ours(_: Request, error: UltraadError) -> Response:
        return answer(422, str(error))

    @handle(Exception)
    def unknown(_: Request, __: Exception) -> Response:  # the guard logs it
        return answer(500, "something went wrong on the server; nothing that was saved is lost")
