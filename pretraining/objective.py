"""What the tower is taught: captions, classes, attributes, and where the lesion is, all against text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from pretraining.images import FACTS, decode
from pretraining.prompts import ATTRIBUTE_PROMPTS, CLASS_PROMPTS, PAIRS, pick, real_caption
from pretraining.teacher import WEIGHTS as TAUGHT
from pretraining.teacher import Seen, taught
from pretraining.tower import encode_images, encode_texts
from ultraad.simulate import LABELS
from ultraad.simulate.captions import caption

if TYPE_CHECKING:
    from collections.abc import Callable

    from open_clip import CLIP

    from pretraining.tower import Words

WEIGHTS = {"caption": 0.5, "class": 1.0, "pair": 0.5, "attribute": 0.7, "dense": 2.0, "dense class": 0.3} | TAUGHT
UNKNOWN_WORD = 0.03  # share of tokens hidden, so that the unknown word means nothing in particular
ALIKE = [FACTS.index(name) for name in FACTS if name not in ("calcifications", "halo")]
"""Images that agree in these are positives of each other's captions."""


class Sentences:
    """All texts of one step, encoded in one pass."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, texts: list[str]) -> slice:
        """Where the embeddings of these texts will be."""
        self.texts += texts
        return slice(len(self.texts) - len(texts), len(self.texts))


def objective(
    model: CLIP,
    table: torch.Tensor,
    words: Words,
    images: torch.Tensor,
    masks: torch.Tensor,
    facts: np.ndarray,
    rng: np.random.Generator,
    *,
    real: np.ndarray | None = None,
    grades_only: bool = False,
    bf16: bool = False,
    teacher: Callable[[torch.Tensor], Seen] | None = None,
) -> dict[str, torch.Tensor]:
    """Losses by name.

    Args:
        model: The tower.
        table: Embeddings of the words in use.
        words: Sentences to rows.
        images: (b 3 s s) in 0..1.
        masks: (b s s) in 0..1.
        facts: (b f), see :data:`pretraining.images.FACTS`; what is not known (-1) is not taught.
        rng: Chooses wordings.
        real: bool (b), not simulated; None if none is. Captions are compared within real and within simulated images.
        grades_only: Real images say nothing about normal against lesion, except in their patches.
        bf16: Run the image tower's blocks in bfloat16; embeddings and losses stay in single precision.
        teacher: What a teacher makes of the same images and the sentences of given rows.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        image, patches, grid = encode_images(model, images)
    share = F.adaptive_avg_pool2d(masks[:, None], grid).flatten(1)  # (b n) share of lesion in a patch
    visible = share.sum(1) > 0.5
    label = torch.from_numpy(facts[:, 0].astype(np.int64))
    usable = visible | (
        label == 0
    )  # a lesion that was cropped away makes neither a lesion nor, for its captions, a normal image
    label = label * visible
    real = np.zeros(len(facts), np.bool_) if real is None else real
    domain = torch.from_numpy(real)

    said = Sentences()
    captions = said.add(
        [real_caption(row, rng) if r else caption(*decode(row), rng) for row, r in zip(facts, real, strict=True)]
    )
    classes = [said.add([pick(rng, CLASS_PROMPTS[name]) for name in LABELS]) for _ in range(2)]
    pairs = [said.add(list(PAIRS[int(rng.integers(len(PAIRS)))])) for _ in range(3)]
    values = {name: said.add([pick(rng, w) for w in wordings]) for name, wordings in ATTRIBUTE_PROMPTS.items()}
    rows = words.rows(said.texts)
    hidden = (torch.from_numpy(rng.random(rows.shape)) < UNKNOWN_WORD) & (rows > 2)
    rows = rows.masked_fill(hidden, 0)
    text = encode_texts(model, table, rows)
    scale = model.logit_scale.exp()

    losses = {}
    same = torch.from_numpy((facts[:, None, ALIKE] == facts[None, :, ALIKE]).all(-1))
    same |= torch.outer(label == 0, label == 0)
    apart = domain[:, None] != domain[None, :]
    same, apart = (x[usable][:, usable] for x in (same & ~apart, apart))
    target = same / same.sum(1, keepdim=True)
    logits = (scale * image[usable] @ text[captions][usable].T).masked_fill(apart, -1e4)
    losses["caption"] = -0.5 * (
        (target * logits.log_softmax(1)).sum(1).mean() + (target * logits.T.log_softmax(1)).sum(1).mean()
    )
    told = usable if not grades_only else usable & ~domain
    graded = domain & (label > 0) if grades_only else torch.zeros_like(domain)
    count = told.sum() + graded.sum()
    losses["class"] = (
        torch.stack(
            [
                F.cross_entropy(scale * image[told] @ text[c].T, label[told], reduction="sum")
                + F.cross_entropy(scale * image[graded] @ text[c][1:].T, label[graded] - 1, reduction="sum")
                for c in classes
            ]
        ).mean()
        / count
    )
    losses["pair"] = torch.stack(
        [F.cross_entropy(scale * image[told] @ text[p].T, (label[told] > 0).long()) for p in pairs]
    ).mean()
    lesion = torch.nonzero(label > 0).flatten()
    per = []
    for name, where in values.items():
        value = torch.from_numpy(facts[lesion.numpy(), FACTS.index(name)].astype(np.int64))
        if bool((value >= 0).any()):
            per.append(F.cross_entropy(scale * image[lesion] @ text[where].T, value, ignore_index=-1))
    if per:
        losses["attribute"] = torch.stack(per).mean()
    pulls = torch.stack([text[p][1] - text[p][0] for p in pairs])
    losses["dense"] = dense(patches, pulls, share, scale=scale)
    inside = share > 0.6
    if bool(inside.any()):
        kinds = label[:, None].expand_as(share)[inside]
        losses["dense class"] = F.cross_entropy(scale * patches[-1][inside] @ text[classes[0]].T, kinds)
    if teacher is not None:
        own = Seen(image, patches, grid, text, scale)
        losses |= taught(own, teacher(rows), [*classes, *pairs, *values.values()], pairs)
    return losses


def dense(
    patches: list[torch.Tensor], pulls: torch.Tensor, share: torch.Tensor, *, scale: torch.Tensor
) -> torch.Tensor:
    """Focal and Dice loss of where lesions are, the mean over blocks.

    Args:
        patches: Unit vectors (b n d) of each block.
        pulls: (k d), "abnormal" minus "normal" of each wording; blocks take them in turn.
        share: (b n), of lesion in a patch.
        scale: The tower's logit scale.
    """
    per = []
    for k, tokens in enumerate(patches):
        logit = scale * tokens @ pulls[k % len(pulls)]  # (b n), of "abnormal"
        p = logit.sigmoid()
        entropy = F.binary_cross_entropy_with_logits(logit, share, reduction="none") * (1 + 2 * share)
        focal = 3 * (entropy * (p - share).abs().detach().clamp(min=0.05)).mean()
        dice = 1 - (2 * (p * share).sum(1) + 1) / (p.sum(1) + share.sum(1) + 1)
        per.append(focal + 0.5 * dice.mean())
    return torch.stack(per).mean()
