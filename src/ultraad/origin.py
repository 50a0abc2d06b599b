"""Where a model comes from; stored in every bundle and shown by the model card and the report."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from pydantic import BaseModel, ConfigDict

ProtocolName = Literal["few-shot", "zero-shot", "auxiliary"]


class Auxiliary(BaseModel):
    """The auxiliary set a model was trained on.

    Attributes:
        source: ``"<layout>:<root>"``.
        images: Images that could be read.
        digest: sha256 over their ids and bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    images: int
    digest: str


class Origin(BaseModel):
    """Where a model comes from.

    Attributes:
        protocol: ``"few-shot"`` with a support set, ``"auxiliary"`` if images of another data set alone were used,
            ``"zero-shot"`` if no image was used.
        seed: Of the fit, the folds and the method's random start.
        shots: Images per class; 0 without a support set.
        source: ``"<layout>:<root>"`` of the support images; None without a support set.
        support_digest: sha256 over ids and bytes of the support images; None without a support set.
        auxiliary: The auxiliary set; None without one.
        selection: The rule that chose the fitted state.
        loss: Mean training loss per epoch.
        seconds: Wall time of the final fit.
        learned: {parameter: number of values}.
        notes: What the method wants a user to read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: ProtocolName
    seed: int
    shots: int = 0
    source: str | None = None
    support_digest: str | None = None
    auxiliary: Auxiliary | None = None
    selection: str = ""
    loss: tuple[float, ...] = ()
    seconds: float = 0.0
    learned: dict[str, int] = {}
    notes: tuple[str, ...] = ()


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on, as far as they are installed."""
    found = {}
    for name in ("ultraad", "torch", "open_clip_torch", "timm", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an exported model needs no torch
            continue
    return found
