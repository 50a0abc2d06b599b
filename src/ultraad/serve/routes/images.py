"""Images, frames, thumbnails and maps."""

from __future__ import annotations

import gzip
from typing import Annotated, Literal, get_args

import numpy as np
from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from ultraad.serve.desk import Desk
from ultraad.serve.listing import Sort, State
from ultraad.serve.reasons import ReasonsNow
from ultraad.serve.routes.deps import Frame, Image, TheDesk
from ultraad.serve.schemas import Group, ItemDetail, Items, Share, Suggestions
from ultraad.serve.schemas_work import Queue

router = APIRouter(tags=["images"])

Text = Annotated[str, Query(max_length=300)]


@router.get("/images")
def images(
    desk: TheDesk,
    sort: Sort = "added",
    order: Literal["asc", "desc"] = "asc",
    search: Text = "",
    class_: Annotated[str | None, Query(alias="class", max_length=64)] = None,
    patient: Annotated[str | None, Query(max_length=300)] = None,
    device: Annotated[str | None, Query(max_length=300)] = None,
    state: Annotated[str, Query(max_length=200)] = "",
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ids: Annotated[str | None, Query(max_length=17_000, pattern=r"^[0-9a-f]+(,[0-9a-f]+)*$")] = None,
    model: int | None = None,
    *,
    with_order: bool = False,
) -> Items:
    """A page of the list, and on demand the ids of all of it, so that pages that are asked for later fit together.

    With ``ids``, these images in this order, as ``model`` sees them if one is named; the other parameters do not count.
    """
    if ids is not None:
        return desk.listing.some(ids.split(","), model=model)
    wanted = [s for s in state.split(",") if s]
    unknown = [s for s in wanted if s not in get_args(State)]
    if unknown:
        raise HTTPException(422, f"unknown state {unknown[0]!r}; known: {', '.join(get_args(State))}")
    return desk.listing.page(
        sort=sort,
        descending=order == "desc",
        search=search,
        class_=class_ or None,
        patient=patient or None,
        device=device or None,
        states=wanted,  # type: ignore[arg-type]
        offset=offset,
        limit=limit,
        with_order=with_order,
    )


@router.get("/images/{image}")
def image_detail(image: Image, desk: TheDesk) -> ItemDetail:
    """One image with its frames."""
    return desk.listing.detail(image)


@router.delete("/images/{image}", status_code=204)
def remove(image: Image, desk: TheDesk) -> None:
    """Remove an image and its marks from the project."""
    desk.remove(image)


@router.get("/images/{image}/thumbnail", response_class=Response)
async def thumbnail(
    request: Request, image: Image, frame: Frame = 0, size: Literal["128", "256", "512"] = "256"
) -> Response:
    """A small JPEG of a frame."""
    desk: Desk = request.app.state.desk
    longest = int(size)
    found = desk.kept_thumbnail(image, frame=frame, longest=longest)  # a grid asks for dozens: no thread for each
    if found is None:
        found = await run_in_threadpool(desk.thumbnail, image, frame=frame, longest=longest)
    return Response(found, media_type="image/jpeg")


@router.get("/images/{image}/frames/{frame}", response_class=Response)
def picture(
    image: Image, frame: Frame, desk: TheDesk, longest: Annotated[int | None, Query(ge=16, le=16384)] = None
) -> Response:
    """A frame as PNG, encoded anew."""
    found = desk.project.picture(image, frame)
    data = desk.decoder.picture(desk.project.path(found), frame=frame, longest=longest)
    return Response(data, media_type="image/png")


@router.get("/images/{image}/frames/{frame}/map", response_class=Response)
def map_of(request: Request, image: Image, frame: Frame, desk: TheDesk, model: int | None = None) -> Response:
    """A map: little-endian uint16 (h w), value / 65535, on the model's grid over the whole image."""
    desk.project.picture(image, frame)
    found = desk.outcomes.map_of((image, frame), model)
    if found is None:
        raise HTTPException(404, "there is no map of this frame yet")
    number, grid = found
    body = np.rint(grid * 65535).astype("<u2").tobytes()
    headers = {"X-Height": str(grid.shape[0]), "X-Width": str(grid.shape[1]), "X-Model": str(number)}
    if "gzip" in request.headers.get("accept-encoding", ""):
        body = gzip.compress(body, 1)
        headers["Content-Encoding"] = "gzip"
    return Response(body, media_type="application/octet-stream", headers=headers)


@router.post("/images/{image}/frames/{frame}/why")
def why(image: Image, frame: Frame, desk: TheDesk) -> ReasonsNow:
    """Why the model in use says what it says of a frame; ask again each second while it is ``waiting``."""
    return desk.reasons.of((image, frame))


@router.get("/images/{image}/frames/{frame}/suggestions")
def suggestions(
    image: Image, frame: Frame, desk: TheDesk, model: int | None = None, threshold: Share | None = None
) -> Suggestions:
    """Lesions that the map shows beside the marked ones."""
    found = desk.suggestions((image, frame), model=model, threshold=threshold)
    if found is None:
        raise HTTPException(404, "there is no map of this frame yet")
    return found


@router.get("/groups")
def groups(desk: TheDesk, by: Literal["patient", "device", "site"] = "patient") -> list[Group]:
    """The images by patient, device or site."""
    return desk.listing.groups(by)


@router.get("/queue")
def queue(desk: TheDesk, limit: Annotated[int, Query(ge=1, le=100)] = 12) -> Queue:
    """What to mark next, and why."""
    return desk.upcoming.queue(limit)
