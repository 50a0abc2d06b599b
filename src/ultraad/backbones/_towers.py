"""The towers that ship with the package: files in ``pretrained/``, of the architecture in ``_embedded_tower.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Tower:
    """A CLIP whose weights ship with the package.

    Attributes:
        stem: Its files are ``<stem>.safetensors``, ``<stem>.sha256``, the model card ``<stem>.md`` and, if
            there are such, ``<stem>.scope.safetensors`` and ``<stem>.decoder.safetensors`` with its sha256.
        about: What it is, in one sentence.
        finer: Whether it has a decoder of finer patches.
    """

    stem: str
    about: str
    finer: bool = False

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self._file(".safetensors")

    @property
    def card(self) -> Path:
        """The model card."""
        return self._file(".md")

    @property
    def scope(self) -> Path:
        """Statistics of the ultrasound that the tower knows (:mod:`ultraad.model.scope`); no images."""
        return self._file(".scope.safetensors")

    @property
    def decoder(self) -> Path:
        """The decoder of finer patches (:mod:`ultraad.backbones._decoder`). It never changes without the weights."""
        return self._file(".decoder.safetensors")

    def _file(self, suffix: str) -> Path:
        return Path(str(files("ultraad.backbones") / "pretrained")) / f"{self.stem}{suffix}"


TOWERS: Mapping[str, Tower] = {
    "embedded": Tower(
        "embedded",
        "CLIP for breast ultrasound, in the package: 10 million values, 192 px, trained on simulations and BUS-BRA.",
        finer=True,
    ),
    "embedded-large": Tower(
        "embedded-large",
        "The most accurate single one: 14 million values, 224 px, 1.9 times the time of embedded; see its card.",
        finer=True,
    ),
    "embedded-simulated": Tower(
        "embedded-simulated",
        "Version 2 of embedded, for those who want no patient image in the weights: trained on simulated images only.",
    ),
}
"""{name for ``--backbone``: tower}; the first is the default backbone."""

JOINED: Mapping[str, tuple[str, ...]] = {"embedded+embedded-large": ("embedded", "embedded-large")}
"""{name for ``--backbone``: towers that are one backbone (:mod:`ultraad.backbones._joined`)}."""

ABOUT: Mapping[str, str] = {name: tower.about for name, tower in TOWERS.items()} | {
    "embedded+embedded-large": "Both as one: the best on BUS-UCLM, on BUSI like embedded-large; 3.2 times the time of "
    "embedded; not for methods that work inside the blocks of a tower.",
}
"""{name for ``--backbone``: what it is, in a sentence or two}."""
