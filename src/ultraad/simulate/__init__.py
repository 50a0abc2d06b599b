"""Procedural breast-ultrasound images with masks, BI-RADS attributes and captions, made without real images."""

from ultraad.simulate.attributes import FAMILIES, LABELS, LEXICON, Attributes
from ultraad.simulate.dataset import write_dataset
from ultraad.simulate.imaging import PROFILES, Device
from ultraad.simulate.phantom import TISSUES, Phantom, TissueKind, simulate

__all__ = [
    "FAMILIES", "LABELS", "LEXICON", "PROFILES", "TISSUES", "Attributes", "Device", "Phantom", "TissueKind", "simulate",
    "write_dataset",
]  # fmt: skip
