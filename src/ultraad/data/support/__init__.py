"""The support set: the few labelled images a model is adapted on. Draw it, store it, keep it out of the evaluation."""

from __future__ import annotations

from ultraad.data.support.draw import content_hash, digest, draw_support, support_from_folder
from ultraad.data.support.file import load_support, save_support
from ultraad.data.support.leakage import (
    Fingerprint,
    check_leakage,
    fingerprints,
    fingerprints_of,
    leaking,
    read_fingerprints,
    write_fingerprints,
)

__all__ = [
    "Fingerprint",
    "check_leakage",
    "content_hash",
    "digest",
    "draw_support",
    "fingerprints",
    "fingerprints_of",
    "leaking",
    "load_support",
    "read_fingerprints",
    "save_support",
    "support_from_folder",
    "write_fingerprints",
]
