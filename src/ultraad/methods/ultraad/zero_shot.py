"""The frozen part of UltraAD, which is its zero-shot model: templates, memory texts, prototypes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ultraad.backbones._door import Backbone
from ultraad.methods.ultraad.config import MemoryConfig, ProtoConfig
from ultraad.methods.ultraad.readout import pair_logits
from ultraad.nn.class_texts import missing_sentences
from ultraad.nn.prompts import Template, cosine, encode_ensemble, unit, word_embeddings
from ultraad.rng import seeded
from ultraad.texts.bank import TextBank
from ultraad.types import Features


class ZeroShot:
    """The zero-shot model.

    Args:
        backbone: The frozen backbone.
        bank: Sentences and object words.
        classes: Class names in label order.
        normal_class: The one that means "no lesion".
        memory: Options of the texts.
        proto: Options of the prototypes.

    Attributes:
        text: T f32 (c d), the class texts of the memory.
        pair: t_n, t_a f32 (2 d) of "A photo of a normal|an abnormal <object>".
        templates: The same sentences with a slot for learnable words.
        notes: For the user, e.g. that a class has no sentences.
    """

    def __init__(
        self,
        backbone: Backbone,
        bank: TextBank,
        *,
        classes: Sequence[str],
        normal_class: str,
        memory: MemoryConfig,
        proto: ProtoConfig,
    ) -> None:
        self.backbone = backbone
        self.bank = bank
        self.classes = tuple(classes)
        self.normal_class = normal_class
        self.memory = memory
        self.proto = proto
        self.templates = [Template(backbone, f"A photo of {state} {{}}") for state in ("a normal", "an abnormal")]
        words = word_embeddings(backbone, bank.object)[None]
        with torch.no_grad():
            self.text = torch.stack([encode_ensemble(backbone, self.sentences(c)) for c in self.classes])
            self.pair = unit(torch.cat([backbone.encode_prompts(*t.fill(words)) for t in self.templates]))
        self.notes = missing_sentences(bank, self.classes)

    def sentences(self, class_name: str) -> tuple[str, ...]:
        """The sentences of one class under the options of the texts (A5; the ablation of section 3.3)."""
        if self.memory.text == "generic":
            return (f"A photo of a {class_name} object.",)
        if self.memory.text == "generic_image":
            return (f"This is a {class_name} image.",)
        found = self.bank.sentences(class_name)
        known = self.bank.classes.get(class_name)
        if self.memory.normal_affirmative_only and class_name == self.normal_class and known and known.affirmative:
            found = known.affirmative
        return found[:1] if self.memory.text_variants == "1" else found

    @torch.no_grad()
    def support_text(self, keys: torch.Tensor, labels: torch.Tensor, *, seed: int) -> torch.Tensor:
        """T (c d) for a support: class texts, or with ``text_per=image`` the mean of one drawn sentence per image.

        Args:
            keys: Class tokens of the support images, unit (m d); only ``text_select=support`` reads them.
            labels: int64 (m,).
            seed: Of the drawn sentences.
        """
        if self.memory.text_per == "class" and self.memory.text_select == "all":
            return self.text
        rng = seeded(seed, "texts")
        rows = []
        for i, name in enumerate(self.classes):
            options = self._selected(unit(self.backbone.encode_text(list(self.sentences(name)))), keys, labels == i)
            if self.memory.text_per == "class":
                rows.append(unit(options.mean(0)))
                continue
            count = max(1, int((labels == i).sum()))
            rows.append(options[torch.from_numpy(rng.integers(len(options), size=count))].mean(0))
        return torch.stack(rows)

    def _selected(self, options: torch.Tensor, keys: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """The sentences (t d) of a class that are kept, in order, chosen by the support alone.

        After the sign selection of SD-MAD (arXiv 2505.16659), whose abstract was read: there signs are chosen at
        inference, after the image tower has learned to tell the anomalies apart; here the support chooses. A sentence
        is worth its mean cosine with the images of its class, ``own`` (m,), less that with the other images. A class
        without images, or alone, keeps all.
        """
        if self.memory.text_select == "all" or bool(own.all()) or not bool(own.any()):
            return options
        cosines = keys @ options.T  # (m t)
        worth = cosines[own].mean(0) - cosines[~own].mean(0)
        kept = worth.topk(math.ceil(self.memory.text_keep * len(options))).indices
        return options[kept.sort().values]

    def class_logits(self, f0: torch.Tensor) -> torch.Tensor:
        """Zero-shot class logits (b c) of raw class tokens (b d)."""
        return self.backbone.logit_scale * unit(f0) @ self.text.T

    def patch_logits(self, f: Features, *, tau: float | str) -> dict[int, torch.Tensor]:
        """{layer: (b n 2)}: cosines of the projected patches with the prototypes, by ``tau``; words: by the tower's."""
        rows = unit(self.prototypes(self.pair.expand(f.image.shape[0], -1, -1), self.text, f.image))
        scale = 1 / tau if isinstance(tau, float) else self.backbone.logit_scale
        cosines = {layer: cosine(self.backbone.project(tokens), rows) for layer, tokens in f.patches.items()}
        return {layer: pair_logits(x, self.proto.reduce) * scale for layer, x in cosines.items()}

    def prototypes(self, pair: torch.Tensor, text: torch.Tensor, f0: torch.Tensor) -> torch.Tensor:
        """Pi (b rows d): prompts and memory texts together (section 2.3; A8, A9).

        Args:
            pair: t_n, t_a, unit (b 2 d).
            text: T (c d).
            f0: Raw class tokens (b d), for ``abn=max`` only.

        Returns:
            Normal rows first; one row per side except in ``concat_rows`` (2 normal rows, then c abnormal ones).
        """
        c, b = self.proto, pair.shape[0]
        i = self.classes.index(self.normal_class)
        abnormal = text[[j for j in range(len(text)) if j != i]]  # (c-1 d)
        normal = text[i].expand(b, -1)
        if c.abn == "max":
            together = abnormal[(unit(f0) @ abnormal.T).argmax(1)]
        else:
            together = (abnormal.sum(0) if c.abn == "sum" else unit(abnormal.mean(0))).expand(b, -1)
        memory = torch.stack([normal, together], 1)  # (b 2 d)
        if c.mode == "text_only":
            return unit(memory)
        if c.mode == "prompt_only":
            return pair
        if c.mode == "concat_rows":
            return torch.cat([pair[:, :1], normal[:, None], pair[:, 1:], abnormal.expand(b, -1, -1)], 1)  # (b 2+c d)
        if c.mode == "weighted":
            return unit((1 - c.weight) * pair + c.weight * memory)
        return (pair + memory) / 2 if c.mode == "sum" else unit((pair + memory) / 2)
