"""PatchCore on CLIP's patch tokens: the distance of each patch to the nearest normal patch.

Paper      Roth et al., CVPR 2022, arXiv 2106.08265; on a convolutional network; here on the tokens of a ViT.
Equations  f_l        local patch feature   tokens of a tapped layer, averaged over their 3 x 3 neighbours (sec. 3.1)
           f          one row per patch     n(f_l) of all tapped layers, concatenated, normalised
           M          memory                rows of all normal images, thinned by a greedy coreset (sec. 3.2)
           d(f, m)    distance              1 - cos(f, m), which is the mean of the taps' own cosine distances
           map        per patch             min_m d(f, m) / 2, upsampled and smoothed (sec. 3.3)
           (6) s*     image score           the largest min_m d(f, m); its patch is f*, the row nearest to it m*
           (7) s      re-weighted           (1 - exp d(f*, m*) / sum_m exp d(f*, m)) s*, m over the b rows nearest to m*
Reference  none; the tests compare with the equations in plain numpy.
Learned    nothing; the memory M is stored.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from pydantic import Field

from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.key_value import distance
from ultraad.nn.labelled import normals
from ultraad.nn.maps import resize, smooth
from ultraad.nn.prompts import unit
from ultraad.rng import seeded
from ultraad.types import Batch, Features, FitReport, Scores

INFO = MethodInfo(
    name="patch_core",
    title="PatchCore: nearest normal patch, on CLIP's patch tokens",
    paper="Roth et al., CVPR 2022",
    url="https://arxiv.org/abs/2106.08265",
    reference="none; written from the paper",
    licence="Apache-2.0",
    outputs=frozenset({"score", "map"}),
    needs=Needs(normal_images=True),
    idea="measures how far each patch is from the nearest patch of any normal image, without texts",
    learned="nothing",
    baseline=True,
    deviations=(
        "tokens of the tapped layers of a ViT instead of blocks 2 and 3 of a WideResNet-50 (layers)",
        "cosine distances, halved, instead of Euclidean ones, so that scores and maps are in [0, 1]",
        "cosine distances are small, so Eq. 7 scales almost all images alike (neighbours=0 leaves it out)",
        "all rows are kept, because there are few images (coreset=0.1 keeps a tenth, as in the paper)",
        "the coreset is chosen on the rows themselves, not on random projections of them",
    ),
)


class PatchCoreConfig(MethodConfig):
    """Every option of PatchCore."""

    layers: tuple[int, ...] | None = Field(
        None, min_length=1, description="tapped layers, 0: patch embedding; None: quarters of the tower (ours)"
    )
    radius: int = Field(1, ge=0, le=3, description="neighbours averaged on each side; 1: 3 x 3 (paper sec. 3.1)")
    coreset: float = Field(1.0, gt=0, le=1, description="share of the rows kept; 1: all (ours; paper: 0.01 to 0.25)")
    neighbours: int = Field(9, ge=0, description="b of Eq. 7 (anomalib: 9); below 2: no re-weighting")
    sigma: float = Field(4.0, ge=0, description="Gaussian in pixels at an input of 224 (paper), scaled with the input")


def local_rows(features: Features, layers: Sequence[int], *, radius: int) -> torch.Tensor:
    """f, unit (b n l*w): the normalised neighbourhood means of all layers, concatenated."""
    taps = []
    for layer in layers:
        x = features.patches[layer].mT  # (b w n)
        x = x.reshape(*x.shape[:2], *features.grid)  # (b w gh gw)
        x = F.avg_pool2d(x, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)
        taps.append(unit(x.flatten(2).mT))  # (b n w)
    return unit(torch.cat(taps, -1))


def greedy_coreset(rows: torch.Tensor, count: int, *, seed: int) -> torch.Tensor:
    """A subset of rows that covers all: each time the row farthest from those chosen so far (paper, Algorithm 1).

    Args:
        rows: Unit f32 (m w).
        count: How many to choose, 1..m.
        seed: Of the first one.

    Returns:
        int64 (count,), in the order of choice, all different.
    """
    chosen = [int(seeded(seed, "coreset").integers(len(rows)))]
    nearest = rows.new_full((len(rows),), torch.inf)  # distance to the nearest chosen row
    while len(chosen) < count:
        nearest = torch.minimum(nearest, 1 - rows @ rows[chosen[-1]])
        nearest[chosen[-1]] = -torch.inf  # never chosen again, even among equal rows
        chosen.append(int(nearest.argmax()))
    return torch.tensor(chosen, device=rows.device)


class PatchCore(Method):
    """PatchCore; see the module's header for the equations."""

    info = INFO
    Config = PatchCoreConfig
    resizable = ("memory",)
    seedless = True
    config: PatchCoreConfig
    memory: torch.Tensor

    def prepare(self) -> None:
        """Tapped layers."""
        self.layers = self.backbone.check_layers(self.config.layers or self.backbone.default_layers, first=0)

    def build(self, *, seed: int) -> None:
        """Empty memory."""
        self.register_buffer("memory", torch.zeros(0, len(self.layers) * self.backbone.width))  # M (m l*w)

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Store the patches of the normal images. Only the coreset uses the seed."""
        c = self.config
        features = self.backbone.cache.encode(normals(support, normal_index=self.normal_index), layers=self.layers)
        rows = local_rows(features, self.layers, radius=c.radius).flatten(0, 1)  # (m l*w)
        if c.coreset < 1:
            rows = rows[greedy_coreset(rows, max(1, round(c.coreset * len(rows))), seed=seed)]
        self.memory = rows
        return FitReport("nothing is learned")

    def score(self, images: torch.Tensor) -> Scores:
        """Scores in [0, 1] and maps (b s s) in [0, 1] of images f32 (b 3 s s)."""
        size = self.backbone.size
        features = self.backbone.encode_image(images, layers=self.layers)
        rows = local_rows(features, self.layers, radius=self.config.radius)
        near = distance(rows, self.memory)  # (b n)
        maps = resize((near / 2).reshape(-1, *features.grid), size, align_corners=False)
        maps = smooth(maps, self.config.sigma * size / 224)
        return Scores(score=(self._image_score(rows, near) / 2).clamp(0, 1), map=maps.clamp(0, 1))

    def _image_score(self, rows: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        """Eq. 7, or s* of Eq. 6: (b,) in [0, 2], from rows f (b n l*w) and their distances to the memory (b n)."""
        largest, at = near.max(1)  # s*
        count = min(self.config.neighbours, len(self.memory))
        if count < 2:
            return largest
        query = rows[torch.arange(rows.shape[0], device=rows.device), at]  # f* (b l*w)
        found = self.memory[(query @ self.memory.T).argmax(1)]  # m*
        around = self.memory[(found @ self.memory.T).topk(count, dim=1).indices]  # m* and its neighbours (b count l*w)
        d = 1 - (around @ query[..., None])[..., 0]  # (b count)
        return (1 - largest.exp() / d.exp().sum(1)) * largest


METHOD = PatchCore
