"""WinCLIP and WinCLIP+: windows of patches, compared with sentences and with windows of normal images.

Paper      Jeong et al., CVPR 2023, arXiv 2303.14814. The authors released no code.
Equations  w          a window          class token + s x s patch tokens, each at its own position, through the tower
           p(x)       abnormality       softmax(<n(x), (t_n, t_a)> / tau), t_n and t_a from a compositional ensemble
           M_text     zero-shot map     harmonic mean of p: over the windows that cover a patch, then over the scales
                                        (whole image and each window size)
           v(x)       distance          min_g (1 - cos(x, g)) / 2 over the same scale of all normal references
           M_visual   few-shot map      mean over scales (single patches and each window size) of v, spread likewise
           WinCLIP    score p(image), map M_text
           WinCLIP+   score (p(image) + max M_visual) / 2, map (M_text + M_visual) / 2
Reference  anomalib 161bb36 (Apache-2.0) and caoyunkang/WinClip 0818c9d (MIT), two re-implementations that differ.
Learned    nothing; the windows and patches of the normal references are stored.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt

from ultraad.errors import ConfigError
from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.key_value import distance
from ultraad.nn.labelled import normals
from ultraad.nn.maps import largest, resize
from ultraad.nn.prompts import unit
from ultraad.nn.templates import ABNORMAL_STATES, NORMAL_STATES, TEMPLATES_22, States, compose, encode_pair
from ultraad.texts.bank import TextBank, breast_texts
from ultraad.types import Batch, FitReport, Scores

INFO = MethodInfo(
    name="winclip",
    title="WinCLIP: zero- and few-shot anomaly classification and segmentation by windows",
    paper="Jeong et al., CVPR 2023",
    url="https://arxiv.org/abs/2303.14814",
    reference="openvinotoolkit/anomalib 161bb36 and caoyunkang/WinClip 0818c9d; the authors released none",
    licence="Apache-2.0 and MIT",
    outputs=frozenset({"score", "map"}),
    needs=Needs(normal_images=True),
    zero_shot=True,
    idea="encodes small windows with CLIP and compares them with sentences and with windows of normal images",
    learned="nothing",
    deviations=(
        "sentences name lesions instead of flaws (states=industrial: the paper's words)",
        "anomalib has temperature 0.07 and lacks a template (tau=0.07, templates=anomalib)",
        "caoyunkang averages p(normal) over windows only and ignores the class token "
        "(harmonic_of=normal, scales=windows, spread=mean, fuse=harmonic, score=map)",
        "caoyunkang compares the first window of each later scale with the gallery of the previous scale: fixed here",
        "caoyunkang's maps are half of ours (zero-shot t / 2, few-shot 1 / (1/t + 1/v)); ours are in [0, 1]",
        "caoyunkang keeps only the last batch of references and swaps their colours; all are kept unchanged here",
        "single patches are those of the last block after ln_post (anomalib; the paper says penultimate features)",
        "any backbone at its own size; the published one is ViT-B-16-plus-240 of LAION-400M",
    ),
)

ANOMALIB_TEMPLATES: tuple[str, ...] = tuple(
    template.replace("jpeg corrupted photo of a ", "jpeg corrupted photo of the ") + "."
    for template in TEMPLATES_22
    if template != "a cropped photo of a {}"
)
"""anomalib's 21: one is missing, one is duplicated, and each ends in a full stop."""

WINDOWS_PER_PASS = 2048
"""Windows per pass through the tower; limits memory use and does not change the result."""


class WinCLIPConfig(MethodConfig):
    """Every option of WinCLIP; the defaults follow the paper."""

    texts: TextBank | None = Field(None, description="text bank that names the object; None: breast ultrasound (ours)")
    states: States = Field("medical", description="words for normal and abnormal (ours); 'industrial': the paper's")
    templates: Literal["paper", "anomalib"] = Field(
        "paper", description="22 photo templates (paper), or the 21 of anomalib"
    )
    text_average: Literal["raw", "unit"] = Field(
        "raw", description="mean of raw sentence embeddings (both re-implementations), or of normalised ones"
    )
    tau: PositiveFloat | Literal["backbone"] = Field(
        "backbone", description="temperature: that of the backbone (paper; CLIP: 0.01), or a number (anomalib: 0.07)"
    )
    windows: tuple[PositiveInt, ...] = Field(
        (2, 3), min_length=1, description="sides of the windows in patches, stride 1 (paper: 2 and 3)"
    )
    scales: Literal["all", "windows"] = Field(
        "all",
        description="include the whole image in the text map and single patches in the visual map (paper), or not",
    )
    harmonic_of: Literal["abnormal", "normal"] = Field(
        "abnormal", description="text map: harmonic mean of p(abnormal) (paper), or one minus that of p(normal)"
    )
    spread: Literal["harmonic", "mean"] = Field(
        "harmonic", description="visual map: how a patch averages its windows (anomalib: harmonic; caoyunkang: mean)"
    )
    fuse: Literal["mean", "harmonic"] = Field(
        "mean", description="text and visual map: mean (anomalib), or harmonic mean (caoyunkang)"
    )
    score: Literal["class_token", "map"] = Field(
        "class_token", description="image score: class token and largest distance (paper), or the map's maximum"
    )


def window_index(grid: tuple[int, int], size: int) -> torch.Tensor:
    """Patches of every window, int64 (m size*size); windows and patches are row-major, m = (gh-size+1) (gw-size+1)."""
    place = torch.arange(grid[0] * grid[1]).view(grid)
    return place.unfold(0, size, 1).unfold(1, size, 1).reshape(-1, size * size)


def spread(values: torch.Tensor, size: int) -> torch.Tensor:
    """Mean over the windows that cover a patch: (b gh-size+1 gw-size+1) to (b gh gw)."""
    border = (size - 1,) * 4
    total = F.avg_pool2d(F.pad(values, border), size, stride=1)
    share = F.avg_pool2d(F.pad(torch.ones_like(values), border), size, stride=1)
    return total / share


def inverse(x: torch.Tensor) -> torch.Tensor:
    """1 / x for x >= 0, but finite: a harmonic mean ``inverse(mean(inverse(x)))`` that contains a zero is zero."""
    return 1 / x.clamp(min=1e-12)


def fuse(text: torch.Tensor, visual: torch.Tensor, how: Literal["mean", "harmonic"]) -> torch.Tensor:
    """Mean of two maps in [0, 1], arithmetic or harmonic; caoyunkang's 1 / (1/t + 1/v) is half of the latter."""
    return (text + visual) / 2 if how == "mean" else inverse((inverse(text) + inverse(visual)) / 2)


def class_token_alone(block: Any, x: torch.Tensor) -> torch.Tensor:  # noqa: ANN401  an open_clip block
    """``block(x)[:, :1]``, tokens (b 1+m w) to (b 1 w), without computing the other tokens.

    Keys and values come from all tokens; query, output projection and MLP act per token and need the class token only.
    """
    if not hasattr(block, "attention"):  # open_clip's custom blocks take no separate query
        return torch.as_tensor(block(x)[:, :1])
    y = block.ln_1(x)
    token = x[:, :1] + block.ls_1(block.attention(y[:, :1], y, y))
    return torch.as_tensor(token + block.ls_2(block.mlp(block.ln_2(token))))


class WinCLIP(Method):
    """WinCLIP without support, WinCLIP+ with normal images; see the module's header for the equations."""

    info = INFO
    Config = WinCLIPConfig
    resizable = ("patches", "windows")
    untraceable = "it encodes its windows in passes, whose number depends on the number of images"
    seedless = True
    config: WinCLIPConfig
    patches: torch.Tensor
    windows: torch.Tensor

    def prepare(self) -> None:
        """The pair of texts, and the number of windows of each size."""
        c, b, (gh, gw) = self.config, self.backbone, self.backbone.grid
        if max(c.windows) > min(gh, gw):
            msg = (
                f"windows={c.windows} do not fit the {gh} x {gw} patches of {b.name}; "
                f"give sides of at most {min(gh, gw)}"
            )
            raise ConfigError(msg)
        self.counts = [(gh - size + 1) * (gw - size + 1) for size in c.windows]  # windows per size
        name = (c.texts or breast_texts()).object
        templates = TEMPLATES_22 if c.templates == "paper" else ANOMALIB_TEMPLATES
        abnormal = [state for state in ABNORMAL_STATES[c.states] if state != "broken {}"]  # WinCLIP does not use it
        self.pair = encode_pair(
            b,
            compose(name, NORMAL_STATES[c.states], templates),
            compose(name, abnormal, templates),
            average=c.text_average,
        )  # t_n, t_a (2 d)

    def build(self, *, seed: int) -> None:
        """Empty memory."""
        b, (gh, gw) = self.backbone, self.backbone.grid
        self.register_buffer("patches", torch.zeros(0, gh * gw, b.width))  # of r references, (r n w)
        self.register_buffer("windows", torch.zeros(0, sum(self.counts), b.dim))  # all sizes in turn, (r m d)

    @torch.no_grad()
    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Store the windows and patches of the normal images."""
        references = normals(support, normal_index=self.normal_index)
        if len(references):
            parts = [self._encode(images.to(self.backbone.device)) for images in torch.split(references, 8)]
            _, self.patches, self.windows = (torch.cat(x) for x in zip(*parts, strict=True))
        return FitReport("nothing is learned")

    def score(self, images: torch.Tensor) -> Scores:
        """Scores in [0, 1] and maps (b s s) in [0, 1] of images f32 (b 3 s s)."""
        c = self.config
        image, patches, windows = self._encode(images)
        score, grid = self._probability(image)[:, 1], self._text_map(image, windows)
        if len(self.windows):
            visual = self._visual_map(patches, windows)
            score, grid = (score + visual.flatten(1).amax(1)) / 2, fuse(grid, visual, c.fuse)
        maps = resize(grid, self.backbone.size, align_corners=False)
        return Scores(score=largest(maps) if c.score == "map" else score, map=maps)

    def _encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Class token (b d), last patch tokens after ln_post (b n w), all windows (b m d); nothing is unit."""
        b, last = self.backbone, self.backbone.layers
        tokens = b.embed_image(images)  # with positions and ln_pre, which act per token
        f = b.encode_tokens(tokens, layers=(last,))
        windows = [self._encode_windows(tokens, size) for size in self.config.windows]
        return f.image, b.post_norm(f.patches[last]), torch.cat(windows, 1)

    def _encode_windows(self, tokens: torch.Tensor, size: int) -> torch.Tensor:
        """Encode every window of one size separately: tokens (b 1+n w) to (b m d)."""
        index = 1 + window_index(self.backbone.grid, size).to(tokens.device)  # (m size*size)
        index = F.pad(index, (1, 0))  # the class token first, (m 1+size*size)
        b, m = len(tokens), len(index)

        def short(layer: int, x: torch.Tensor, block: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
            return class_token_alone(block, x) if layer == self.backbone.layers else block(x)

        out = []
        for rows in torch.split(torch.arange(b * m, device=tokens.device), WINDOWS_PER_PASS):
            subset = tokens[(rows // m)[:, None], index[rows % m]]  # (rows 1+size*size w)
            out.append(self.backbone.encode_tokens(subset, around=short).image)
        return torch.cat(out).view(b, m, -1)

    def _probability(self, x: torch.Tensor) -> torch.Tensor:
        """Probabilities (... 2) of normal and abnormal for embeddings (... d)."""
        tau = self.config.tau
        scale = self.backbone.logit_scale if tau == "backbone" else 1 / tau
        return (scale * unit(x) @ self.pair.T).softmax(-1)

    def _text_map(self, image: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        """M_text (b gh gw) in [0, 1]."""
        c = self.config
        side = 1 if c.harmonic_of == "abnormal" else 0
        p = self._probability(windows)[..., side]  # (b m)
        terms = [spread(inverse(x), size) for x, size in self._fields(p)]
        if c.scales == "all":
            whole = self._probability(image)[:, side]
            terms.append(inverse(whole)[:, None, None].expand_as(terms[0]))
        mean = inverse(torch.stack(terms).mean(0))
        return mean if side == 1 else 1 - mean

    def _visual_map(self, patches: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        """M_visual (b gh gw) in [0, 1]."""
        c = self.config
        pairs = zip(torch.split(windows, self.counts, 1), torch.split(self.windows, self.counts, 1), strict=True)
        v = torch.cat([distance(own, bank.flatten(0, 1)) for own, bank in pairs], 1) / 2  # (b m)
        fields = self._fields(v)
        if c.spread == "harmonic":
            terms = [inverse(spread(inverse(x), size)) for x, size in fields]
        else:
            terms = [spread(x, size) for x, size in fields]
        if c.scales == "all":
            near = distance(patches, self.patches.flatten(0, 1)) / 2  # (b n)
            terms.append(near.view_as(terms[0]))
        return torch.stack(terms).mean(0).clamp(0, 1)

    def _fields(self, values: torch.Tensor) -> list[tuple[torch.Tensor, int]]:
        """Values of all windows (b m) as one field (b gh-size+1 gw-size+1) per size."""
        gh, gw = self.backbone.grid
        sizes = self.config.windows
        parts = torch.split(values, self.counts, 1)
        return [(x.reshape(len(x), gh - s + 1, gw - s + 1), s) for x, s in zip(parts, sizes, strict=True)]


METHOD = WinCLIP
