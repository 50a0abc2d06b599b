"""What routes take from the application."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from ultraad.serve.desk import Desk
from ultraad.serve.guard import Keys
from ultraad.serve.schemas import FrameNumber, ImageId


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def _keys(request: Request) -> Keys:
    keys: Keys = request.app.state.keys
    return keys


TheDesk = Annotated[Desk, Depends(_desk)]
TheKeys = Annotated[Keys, Depends(_keys)]
Image = ImageId
Frame = FrameNumber
