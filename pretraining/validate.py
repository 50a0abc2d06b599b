"""Simulated validation: what model selection may look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from pretraining.prompts import VALIDATION_PAIRS
from pretraining.tower import encode_images, encode_texts

if TYPE_CHECKING:
    from open_clip import CLIP

    from pretraining.tower import Words

KINDS = ("a normal breast ultrasound image", "a benign breast ultrasound image", "a malignant breast ultrasound image")


@torch.no_grad()
def validate(
    model: CLIP,
    table: torch.Tensor,
    words: Words,
    images: np.ndarray,
    masks: np.ndarray,
    facts: np.ndarray,
    *,
    side: int,
) -> dict[str, float]:
    """AUROC in [0, 1] of the zero-shot tower.

    Args:
        model: The tower.
        table: Embeddings of the words in use.
        words: Sentences to rows.
        images: uint8 (b h w 3).
        masks: uint8 (b h w), 1 on lesion.
        facts: (b f), see :data:`pretraining.images.FACTS`.
        side: Side of the input in pixels.
    """
    model.eval()
    text = encode_texts(model, table, words.rows([*KINDS, *(s for pair in VALIDATION_PAIRS for s in pair)]))
    pair = text[len(KINDS) :]
    maps, shares, classes, pairs = [], [], [], []
    for start in range(0, len(images), 8):  # a third faster than 60, whose activations leave the processor's cache
        part = slice(start, start + 8)
        x = F.interpolate(torch.from_numpy(images[part]).permute(0, 3, 1, 2) / 255, (side, side), mode="area")
        y = torch.from_numpy(masks[part]).float()[:, None]
        token, patches, grid = encode_images(model, x)
        logit = torch.stack([p @ (pair[1] - pair[0]) for p in patches]).mean(0)
        maps.append(logit)
        shares.append(F.adaptive_avg_pool2d(y, grid).flatten(1))
        classes.append((model.logit_scale.exp() * token @ text[: len(KINDS)].T).softmax(1))
        pairs.append(token @ (pair[1] - pair[0]))
    score, share, probability, contrast = (torch.cat(v) for v in (maps, shares, classes, pairs))
    label = facts[:, 0]
    lesion = label > 0
    return {
        "P-AUROC": roc_auc_score((share > 0.5).flatten(), score.flatten()),
        "I-AUROC map": roc_auc_score(lesion, score.topk(4, 1)[0].mean(1)),
        "I-AUROC pair": roc_auc_score(lesion, contrast),
        "I-AUROC class": roc_auc_score(lesion, 1 - probability[:, 0]),
        "BM-AUROC": roc_auc_score(label[lesion] == 2, probability[lesion, 2] - probability[lesion, 1]),
    }
