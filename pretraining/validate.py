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

    from pretraining.images import Shards
    from pretraining.tower import Words

KINDS = ("a normal breast ultrasound image", "a benign breast ultrasound image", "a malignant breast ultrasound image")


@torch.no_grad()
def validate(
    model: CLIP, table: torch.Tensor, words: Words, shards: Shards, *, side: int, count: int = 480
) -> dict[str, float]:
    """AUROC in [0, 1] of the zero-shot tower on the first ``count`` images of the validation shard."""
    model.eval()
    text = encode_texts(model, table, words.rows([*KINDS, *(s for pair in VALIDATION_PAIRS for s in pair)]))
    pair = text[len(KINDS) :]
    maps, shares, classes, pairs, labels = [], [], [], [], []
    for start in range(0, count, 60):
        image, mask, facts = shards.take(np.arange(start, min(start + 60, count)))
        x = F.interpolate(torch.from_numpy(image).permute(0, 3, 1, 2) / 255, (side, side), mode="area")
        y = torch.from_numpy(mask).float()[:, None]
        token, patches, grid = encode_images(model, x)
        logit = torch.stack([p @ (pair[1] - pair[0]) for p in patches]).mean(0)
        maps.append(logit)
        shares.append(F.adaptive_avg_pool2d(y, grid).flatten(1))
        classes.append((model.logit_scale.exp() * token @ text[: len(KINDS)].T).softmax(1))
        pairs.append(token @ (pair[1] - pair[0]))
        labels.append(facts[:, 0])
    score, share, probability, contrast = (torch.cat(v) for v in (maps, shares, classes, pairs))
    label = np.concatenate(labels)
    lesion = label > 0
    return {
        "P-AUROC": roc_auc_score((share > 0.5).flatten(), score.flatten()),
        "I-AUROC map": roc_auc_score(lesion, score.topk(4, 1)[0].mean(1)),
        "I-AUROC pair": roc_auc_score(lesion, contrast),
        "I-AUROC class": roc_auc_score(lesion, 1 - probability[:, 0]),
        "BM-AUROC": roc_auc_score(label[lesion] == 2, probability[lesion, 2] - probability[lesion, 1]),
    }
