"""The support set of UltraAD: features and masks of augmented views, each encoded once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ultraad.backbones._door import Backbone
from ultraad.nn.augment import support_views
from ultraad.nn.prompts import unit
from ultraad.rng import seeded
from ultraad.types import Batch, Features


class SupportViews:
    """Features and masks of augmented views of a labelled batch.

    Args:
        backbone: Its cache encodes each view once, also across the folds of a cross-validation.
        support: Labelled; masks where known.
        normal_index: Label of the normal class.
        layers: Tapped layers.
        count: Views per image; the first is the image itself.
        mask_size: Side of the masks in pixels: the resolution of the loss.
        epochs: Number of epochs that views are drawn for.
        seed: Of the augmentation and of the draws.

    Attributes:
        labels: int64 (m,).
        one_hot: f32 (m c).
        keys: Unit f32 (m d): class tokens averaged over views, then normalised (Tip-Adapter).
        mask_known: bool (m,).
        has_masks: Whether any abnormal image has a mask.
        notes: What a user should know.
    """

    def __init__(
        self,
        backbone: Backbone,
        support: Batch,
        *,
        normal_index: int,
        layers: Sequence[int],
        count: int,
        mask_size: int,
        epochs: int,
        seed: int,
    ) -> None:
        labels, m = support.labels, len(support)
        assert labels is not None  # checked by Method.fit
        known = support.mask_known if support.mask_known is not None else torch.zeros(m, dtype=torch.bool)
        abnormal = labels != normal_index
        self.labels = labels.to(backbone.device)
        self.one_hot = F.one_hot(self.labels, len(support.classes)).float()
        self.mask_known = known.to(backbone.device)
        self.has_masks = bool((known & abnormal).any())
        self.notes: tuple[str, ...] = ()
        if not self.has_masks:
            self.notes = ("no support image has a lesion mask: only the classes were adapted, the map is zero-shot",)
        elif bool((abnormal & ~known).any()):
            self.notes = (f"{int((abnormal & ~known).sum())} abnormal support images have no usable mask",)
        self._features: list[Features] = []
        self._masks: list[torch.Tensor] = []
        for images, masks in support_views(support, count, seed=seed, preprocess=backbone.preprocess):
            self._features.append(backbone.cache.encode(images, layers=layers))
            full = masks.float()[:, None]  # (m 1 s s)
            small = F.interpolate(full, size=(mask_size, mask_size), mode="area")[:, 0] >= 0.5
            self._masks.append(small.to(backbone.device))
        self.keys = unit(torch.stack([f.image for f in self._features]).mean(0))
        self._choice = seeded(seed, "views").integers(count, size=(max(1, epochs), m))

    def draw(self, index: torch.Tensor, epoch: int) -> tuple[Features, torch.Tensor]:
        """One view of each image for this epoch.

        Args:
            index: int64 (b,).
            epoch: 0-based.

        Returns:
            Features of b images, masks bool (b mask_size mask_size).
        """
        rows = list(zip(self._choice[epoch, index.numpy()].tolist(), index.tolist(), strict=True))
        some = self._features[0]
        features = Features(
            image=torch.stack([self._features[v].image[i] for v, i in rows]),
            patches={k: torch.stack([self._features[v].patches[k][i] for v, i in rows]) for k in some.patches},
            cls={k: torch.stack([self._features[v].cls[k][i] for v, i in rows]) for k in some.cls},
            grid=some.grid,
        )
        return features, torch.stack([self._masks[v][i] for v, i in rows])
