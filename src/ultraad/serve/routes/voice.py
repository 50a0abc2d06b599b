"""Labels by voice: a clip comes in, the word in it goes out, and the clip is forgotten."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body

from ultraad.serve.routes.deps import TheDesk
from ultraad.serve.schemas_voice import HeardWord, HowSaid, VoiceInfo

router = APIRouter(tags=["voice"])


@router.get("/voice")
def voice(desk: TheDesk) -> VoiceInfo:
    """What can be said."""
    return desk.voice.info()


@router.post("/voice")
def hear(desk: TheDesk, clip: Annotated[bytes, Body(media_type="application/octet-stream")] = b"") -> HeardWord:
    """The word in a clip: samples at 16 kHz, one channel, signed 16-bit little-endian. Nothing is changed or kept."""
    return desk.voice.hear(clip)


@router.patch("/voice")
def how(wanted: HowSaid, desk: TheDesk) -> VoiceInfo:
    """Set how a class is said."""
    desk.voice.change(wanted)
    return desk.voice.info()
