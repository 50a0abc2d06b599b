"""Sign in and out."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request, Response

from ultraad.serve.routes.deps import TheKeys
from ultraad.serve.schemas import Address, Code

router = APIRouter(tags=["session"])


@router.post("/session", status_code=204)
def enter(code: Code, request: Request, response: Response, keys: TheKeys) -> None:
    """Exchange the code of a printed address for the cookie; with a valid cookie, do nothing."""
    if keys.opens(request.headers.get("cookie", "")):
        return
    token = keys.exchange(code.code)
    if token is None:
        raise HTTPException(401, "this address was used before or is of an earlier start; open the one printed last")
    response.set_cookie(keys.cookie, token, httponly=True, samesite="strict", path="/")


@router.get("/session", status_code=204)
def check() -> None:
    """Nothing, if the cookie is valid."""


@router.post("/session/invite")
def invite(request: Request, keys: TheKeys) -> Address:
    """An address for a second browser, valid once."""
    return Address(address=f"http://{request.app.state.hosts[0]}/#code={keys.new_code()}")


@router.delete("/session", status_code=204)
def leave(response: Response, keys: TheKeys) -> None:
    """Make every cookie of this start invalid."""
    keys.renew()
    response.delete_cookie(keys.cookie, path="/")
