"""Sentences of the anomaly detectors: states of an object, inserted into photo templates.

The states and the 22 templates are those of WinCLIP (Jeong et al., CVPR 2023), the 35 templates those of CLIP as
APRIL-GAN uses them. The references call a breast "flawless" or "damaged"; ``"medical"`` has medical words instead and
is the default of every method here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from ultraad.backbones._door import Backbone
from ultraad.nn.prompts import Template, encode_ensemble, unit
from ultraad.texts.bank import TextBank, breast_texts

States = Literal["medical", "industrial"]

NORMAL_STATES: dict[States, tuple[str, ...]] = {
    "industrial": (
        "{}",
        "flawless {}",
        "perfect {}",
        "unblemished {}",
        "{} without flaw",
        "{} without defect",
        "{} without damage",
    ),
    "medical": (
        "normal {}",
        "healthy {}",
        "unremarkable {}",
        "{} of normal tissue",
        "{} without lesion",
        "{} without mass",
        "{} without abnormality",
    ),
}
"""Each has one ``{}`` for the object."""
ABNORMAL_STATES: dict[States, tuple[str, ...]] = {
    "industrial": ("damaged {}", "broken {}", "{} with flaw", "{} with defect", "{} with damage"),
    "medical": ("abnormal {}", "{} of abnormal tissue", "{} with lesion", "{} with mass", "{} with abnormality"),
}
"""WinCLIP does not use "broken"."""

LEARNED_ENDS: dict[States, tuple[str, str]] = {
    "industrial": ("object.", "damaged object."),
    "medical": ("normal {}.", "abnormal {}."),
}
"""The end of a normal and an abnormal sentence whose first words are learned; ``{}`` is the object of the text bank.

AnomalyCLIP and Crane; their references name no object.
"""

TEMPLATES_35: tuple[str, ...] = (
    "a bad photo of a {}.",
    "a low resolution photo of the {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a bright photo of a {}.",
    "a dark photo of the {}.",
    "a photo of my {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a photo of one {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "a low resolution photo of a {}.",
    "a photo of a large {}.",
    "a blurry photo of a {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a photo of the small {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "a dark photo of a {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)
"""APRIL-GAN and MVFA; AdaCLIP uses the first four."""

TEMPLATES_22: tuple[str, ...] = (
    "a cropped photo of the {}",
    "a cropped photo of a {}",
    "a close-up photo of a {}",
    "a close-up photo of the {}",
    "a bright photo of a {}",
    "a bright photo of the {}",
    "a dark photo of the {}",
    "a dark photo of a {}",
    "a jpeg corrupted photo of a {}",
    "a jpeg corrupted photo of the {}",
    "a blurry photo of the {}",
    "a blurry photo of a {}",
    "a photo of a {}",
    "a photo of the {}",
    "a photo of a small {}",
    "a photo of the small {}",
    "a photo of a large {}",
    "a photo of the large {}",
    "a photo of the {} for visual inspection",
    "a photo of a {} for visual inspection",
    "a photo of the {} for anomaly detection",
    "a photo of a {} for anomaly detection",
)
"""WinCLIP."""


def compose(name: str, states: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every state of an object in every template, by state: ``compose("x", ["big {}"], ["a {}."])`` is ["a big x."]."""
    return [template.format(state.format(name)) for state in states for template in templates]


def both_sides(bank: TextBank | None, states: States, templates: Sequence[str]) -> tuple[list[str], list[str]]:
    """Normal and abnormal sentences about the object of a text bank; None: breast ultrasound."""
    name = (bank or breast_texts()).object
    return compose(name, NORMAL_STATES[states], templates), compose(name, ABNORMAL_STATES[states], templates)


def learned_pair(backbone: Backbone, bank: TextBank | None, states: States) -> list[Template]:
    """Normal and abnormal sentence with a slot for learned words at their start; None: about breast ultrasound."""
    name = (bank or breast_texts()).object
    return [Template(backbone, f"{{}} {end.format(name)}") for end in LEARNED_ENDS[states]]


@torch.no_grad()
def encode_pair(
    backbone: Backbone,
    normal: Sequence[str],
    abnormal: Sequence[str],
    *,
    average: Literal["unit", "raw"] = "unit",
) -> torch.Tensor:
    """t_n and t_a: unit f32 (2 d), normal first.

    Args:
        backbone: Its text tower reads the sentences.
        normal: Sentences of the normal side.
        abnormal: Sentences of the other.
        average: ``"unit"``: each sentence normalised before the mean (APRIL-GAN, MVFA, AdaCLIP); ``"raw"``: not
            (WinCLIP, MediCLIP).
    """
    if average == "unit":
        return torch.stack([encode_ensemble(backbone, s) for s in (normal, abnormal)])
    return unit(torch.stack([backbone.encode_text(list(s)).mean(0) for s in (normal, abnormal)]))
