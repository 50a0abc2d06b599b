"""Texts of the few-shot classifiers: frozen class sentences, and class sentences with learnable words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from ultraad.backbones._door import Backbone
from ultraad.errors import ConfigError, DataError
from ultraad.nn.prompts import encode_ensemble, word_embeddings
from ultraad.texts.bank import TextBank, breast_texts

TextSource = Literal["bank", "template"]
Position = Literal["end", "middle", "front"]

TEMPLATE = "a photo of a {}."
"""CLIP's generic sentence, used by CoOp, CLIP-Adapter, Tip-Adapter and LP++."""


def class_phrase(bank: TextBank, class_name: str) -> str:
    """What a prompt calls a class, e.g. ``"benign breast ultrasound"``."""
    return f"{class_name.replace('_', ' ')} {bank.object}"


def class_sentences(bank: TextBank, class_name: str, *, source: TextSource) -> tuple[str, ...]:
    """The sentences of a class: those of the bank, or the single template of the references."""
    if source == "template":
        return (TEMPLATE.format(class_phrase(bank, class_name)),)
    return bank.sentences(class_name)


def text_classifier(backbone: Backbone, sentences: Sequence[Sequence[str]]) -> torch.Tensor:
    """W: one prompt ensemble per class, unit f32 (c d); see :func:`ultraad.nn.prompts.encode_ensemble`."""
    return torch.stack([encode_ensemble(backbone, of_class) for of_class in sentences])


def frozen_texts(backbone: Backbone, bank: TextBank, classes: Sequence[str], *, source: TextSource) -> torch.Tensor:
    """W of the classes in label order, unit f32 (c d)."""
    return text_classifier(backbone, [class_sentences(bank, name, source=source) for name in classes])


def class_texts(
    backbone: Backbone, classes: Sequence[str], bank: TextBank | None, *, source: TextSource
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """W of the classes in label order, unit f32 (c d), and a note for the user if a class is not in the bank.

    Args:
        backbone: Its text tower reads the sentences.
        classes: Class names.
        bank: None: breast ultrasound.
        source: The bank's sentences, or the plain template.
    """
    bank = bank or breast_texts()
    return frozen_texts(backbone, bank, classes, source=source), missing_sentences(bank, classes, source=source)


def missing_sentences(bank: TextBank, classes: Sequence[str], *, source: TextSource = "bank") -> tuple[str, ...]:
    """A note for the user if a class is not in the bank; otherwise empty."""
    unknown = [name for name in classes if name not in bank.classes]
    if source == "template" or not unknown:
        return ()
    return (
        f"the text bank has no sentences for {', '.join(unknown)}: one plain sentence each was used; "
        "write your own with --texts",
    )


class ClassPrompts:
    """``"<learnable words> <class>."``, one sentence per class (CoOp, CoCoOp).

    Args:
        backbone: Its tokenizer and text tower are used.
        phrases: The name of each class.
        count: Learnable words m.
        position: Place of the class name: after the words, between their halves, or before them.

    Raises:
        ConfigError: If a sentence is longer than the context of the text tower.
    """

    def __init__(self, backbone: Backbone, phrases: Sequence[str], *, count: int, position: Position = "end") -> None:
        tokens = backbone.tokenize([f"{phrase}." for phrase in phrases])  # (c ctx)
        self.end = backbone.end_of_text(tokens) + count  # (c,), end of each sentence, where the tower is read
        length = int(self.end.max()) + 1
        if length > backbone.context:
            msg = (
                f"{count} learnable words and the longest class name are {length} tokens, "
                f"but {backbone.name} takes {backbone.context}; use fewer words"
            )
            raise ConfigError(msg)
        words = backbone.embed_text(tokens)[:, : length - count]  # (c length-m w)
        behind = backbone.end_of_text(backbone.tokenize(list(phrases))).tolist()  # first token after each name
        self.backbone = backbone
        self.split = {"end": count, "middle": count // 2, "front": 0}[position]
        self.frozen = [(row[:1], row[1:at], row[at:]) for row, at in zip(words, behind, strict=True)]

    def __call__(self, context: torch.Tensor) -> torch.Tensor:
        """Learnable words f32 (b c m text_width) in every sentence; raw text features f32 (b c d)."""
        b, c = context.shape[:2]
        rows = []
        for i, frozen in enumerate(self.frozen):
            start, name, rest = (part.expand(b, -1, -1) for part in frozen)
            before, after = context[:, i, : self.split], context[:, i, self.split :]
            rows.append(torch.cat([start, before, name, after, rest], dim=1))  # (b length w)
        embeds = torch.stack(rows, dim=1).flatten(0, 1)  # (b*c length w)
        return self.backbone.encode_prompts(embeds, self.end.repeat(b)).view(b, c, -1)


def require_words(backbone: Backbone, words: str, count: int, *, method: str) -> None:
    """Refuse a zero-shot model whose context words would be partly random.

    Raises:
        DataError: If ``words`` has fewer tokens than the context.
    """
    known = len(word_embeddings(backbone, words)) if words else 0
    if known < count:
        msg = (
            f"{method} got no images, and {count - known} of its {count} context words would stay random; "
            "give it a support set, or set words for the whole context"
        )
        raise DataError(msg)
