"""MadCLIP: one branch of adapters for normal and one for abnormal, both compared with learned sentences.

Paper      Shiri et al., MadCLIP: Few-shot Medical Anomaly Detection with CLIP, MICCAI 2025, arXiv 2506.23810.
Equations  m_k,l         shared       ln(lrelu(W_k,l h_l)), k = normal, abnormal; h_l patches of the frozen tower, ln
                                      without weights
           O_k,l         branch       n(lrelu(V_k,l m_k,l)), one V for segmentation and one for detection
           t_k           text         n(mean over sentences and positions of E_t): 8 learned words of their own before,
                                      after or around each "flawless {}" or "damaged {}" (section 2.2)
           S_l           logits       [O_n,l (t_n - t_a), O_a,l (t_a - t_n)], in [-2, 2]
           map           mean over layers of softmax(U(S_l of segmentation))_a
           detection     mean over layers and patches of softmax(S_l of detection)_a;  score: image_score
Loss       sum_l focal + dice_a of the map of layer l, and the sigmoid loss of detection
           -mean over patches of log sigmoid(-y S_n) + log sigmoid(y S_a), y = 1 if abnormal, else -1
Reference  mahshid1998/MadCLIP c54903d (MIT).
Learned    W, V and the words; both towers stay frozen, so each view is encoded once.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat
from torch import nn

from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.augment import to_intensity
from ultraad.nn.fixed_views import with_fixed_views
from ultraad.nn.labelled import Labelled, TrainingSet
from ultraad.nn.losses import segmentation
from ultraad.nn.maps import largest, to_probability
from ultraad.nn.prompts import Template, unit
from ultraad.nn.templates import ABNORMAL_STATES, NORMAL_STATES, States
from ultraad.texts.bank import TextBank, breast_texts
from ultraad.types import Batch, Features, FitReport, Scores

INFO = MethodInfo(
    name="mad_clip",
    title="MadCLIP: two branches of adapters and learned sentences under a sigmoid loss",
    paper="Shiri et al., MICCAI 2025",
    url="https://arxiv.org/abs/2506.23810",
    reference="mahshid1998/MadCLIP c54903d",
    licence="MIT",
    outputs=frozenset({"score", "map"}),
    needs=Needs(normal_images=True, abnormal_images=True),
    idea="maps patches once for normal and once for abnormal, and compares both with learned sentences",
    learned="three linear layers per tapped layer and branch, and the words of every sentence",
    auxiliary=True,
    auxiliary_alone=True,
    deviations=(
        "images are normalised as the tower expects; the reference uses 0..1 intensities (normalise=false)",
        "sentences name lesions instead of flaws (states=industrial: the reference's words)",
        "maps and detection scores are averaged over layers; the reference sums them and min-max normalises them over "
        "the test set",
        "images are also mirrored up-down, as in the reference, although ultrasound images have a top (augment=false)",
        "15 views of each image; the reference adds one whose brightness and contrast are random",
        "without masks there is no map, because its layers are not trained, as in the reference",
        "float32; the reference trains with autocast",
        "the last epoch is kept; the reference keeps the best one on the test set",
        "the activation is that of the backbone; the reference ran OpenAI's weights with exact GELU at 240 px",
    ),
)
MORE_STATES: dict[States, tuple[str, ...]] = {"industrial": ("disease {}", "abnormal {}"), "medical": ()}
"""Abnormal states of the reference beside those of ``nn/templates.py``."""
ZOOMS = (1.1, 1.15, 1.2, 1.3)  # reference utils.py


class MadCLIPConfig(MethodConfig):
    """Every option of MadCLIP."""

    layers: tuple[int, ...] | None = Field(
        None, description="tapped layers, 1-based; None: quarters of the tower (reference: 6 12 18 24 of 24)"
    )
    texts: TextBank | None = Field(None, description="text bank that names the object; None: breast ultrasound (ours)")
    states: States = Field("medical", description="words for normal and abnormal (ours); 'industrial': the reference's")
    words: int = Field(8, ge=1, description="learned words of each sentence and position (reference: 8)")
    normalise: bool = Field(
        default=True, description="normalise images as the tower expects (ours), or use 0..1 intensities (reference)"
    )
    augment: bool = Field(default=True, description="15 fixed views per support image (reference: 16)")
    image_score: Literal["map", "detection"] = Field(
        "map", description="largest value of the map if there is one (reference), or the detection branch"
    )
    epochs: int = Field(60, ge=0, description="passes over the training images and their views (reference: 60)")
    batch_size: int = Field(16, ge=1, description="views per step from the support (reference: 16)")
    lr: PositiveFloat = Field(1e-3, description="learning rate of Adam, constant (reference: 1e-3)")
    beta1: float = Field(0.5, ge=0, lt=1, description="first momentum of Adam (reference: 0.5)")


class Branch(nn.Module):
    """The adapters of one branch at one layer: a shared linear layer and one for each task.

    Args:
        width: Tower width w.
        dim: Joint dimension d.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.shared = nn.Linear(width, width, bias=False)
        self.seg = nn.Linear(width, dim, bias=False)
        self.det = nn.Linear(width, dim, bias=False)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Patches (b n w) to unit (2 b n d): segmentation, detection."""
        m = F.layer_norm(F.leaky_relu(self.shared(h)), h.shape[-1:])
        return unit(torch.stack([F.leaky_relu(self.seg(m)), F.leaky_relu(self.det(m))]))


class MadCLIP(Method):
    """MadCLIP; see the module's header for the equations and :class:`MadCLIPConfig` for every option."""

    info = INFO
    Config = MadCLIPConfig
    config: MadCLIPConfig
    text: torch.Tensor
    has_map: torch.Tensor

    def prepare(self) -> None:
        """Tapped layers and sentences; the normal ones come first."""
        c, b = self.config, self.backbone
        self.layers = b.check_layers(c.layers or b.default_layers)
        name = (c.texts or breast_texts()).object
        sides = NORMAL_STATES[c.states], (*ABNORMAL_STATES[c.states], *MORE_STATES[c.states])
        self.normals = len(sides[0])  # sentences of the normal side
        self.templates = [Template(b, f"{{}} {state.format(name)}.") for side in sides for state in side]

    def build(self, *, seed: int) -> None:
        """Fresh adapters and words."""
        c, b = self.config, self.backbone
        self.normal, self.abnormal = (
            nn.ModuleDict({str(layer): Branch(b.width, b.dim) for layer in self.layers}) for _ in range(2)
        )
        self.words = nn.Parameter(0.02 * torch.randn(3, len(self.templates), c.words, b.text_width))  # (3 t r w)
        self.register_buffer("has_map", torch.tensor(True))  # noqa: FBT003  whether masks trained the segmentation
        self.register_buffer("text", torch.zeros(2, b.dim), persistent=False)  # set by _encode

    @torch.no_grad()
    def _encode(self) -> None:
        """Encode the sentences of the learned words once, for :meth:`score`."""
        self.text.copy_(self.encode_text())

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002
        """Strict load; encodes the sentences of the loaded words."""
        found = super().load_state_dict(state_dict, strict=strict, assign=assign)
        self._encode()
        return found

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Train on the auxiliary set if there is one, otherwise on the support and its views."""
        c, notes = self.config, self._check_masks(support) if auxiliary is None else ()
        seen = with_fixed_views(support, zooms=ZOOMS) if auxiliary is None and c.augment else support
        data = TrainingSet(seen, auxiliary, normal_index=self.normal_index, batch_size=c.batch_size, seed=seed)
        history = data.train(
            self.loss,
            [{"params": [p for p in self.parameters() if p.requires_grad], "lr": c.lr}],
            epochs=c.epochs,
            beta1=c.beta1,
            progress=self.progress,
        )
        self._encode()
        return FitReport("last epoch", history, notes=notes)

    def _check_masks(self, support: Batch) -> tuple[str, ...]:
        """Without masks only detection is trained; returns notes for the user."""
        has_masks = support.masks is not None and bool(support.masks.any())
        self.has_map.fill_(has_masks)
        for name, values in self.named_parameters():
            values.requires_grad_(has_masks or ".seg." not in name)
        return () if has_masks else ("no support image has a lesion mask: images are scored, but there is no map",)

    def loss(self, batch: Labelled) -> torch.Tensor:
        """The loss of the header, f32 (); an unknown mask is left out of the pixel terms."""
        device = self.backbone.device
        seg, det = self.logits(self._see(batch.images, keep=True), self.encode_text())
        sign = torch.where(batch.anomalous, 1.0, -1.0).to(device)[None, :, None, None]  # (1 b 1 1)
        agrees = F.logsigmoid(sign * det * det.new_tensor([-1.0, 1.0]))  # (l b n 2)
        total = -agrees.mean(2).sum(-1).mean(1).sum()
        known = batch.known.to(device)
        if self.has_map and known.any():
            masks = batch.masks.to(device)[known]
            for probs in self.maps(seg[:, known]):
                total = total + segmentation(probs, masks, both=False)
        return total

    def encode_text(self) -> torch.Tensor:
        """t_n and t_a, unit f32 (2 d): the mean of the raw features of all sentences in all three positions."""
        rows = []
        for before, own in zip((self.config.words, 0, self.config.words // 2), self.words, strict=True):
            for template, words in zip(self.templates, own, strict=True):
                body, end = template.after[:-2], template.after[-2:]  # the end: full stop and end token
                rows.append(torch.cat([template.before, words[:before], body, words[before:], end]))
        eot = torch.tensor([len(row) - 1 for row in rows], device=rows[0].device)
        embeds = nn.utils.rnn.pad_sequence(rows, batch_first=True)  # (3*t length text_width)
        raw = self.backbone.encode_prompts(embeds, eot).view(3, len(self.templates), -1)
        return unit(torch.stack([raw[:, : self.normals].mean((0, 1)), raw[:, self.normals :].mean((0, 1))]))

    def _see(self, images: torch.Tensor, *, keep: bool = False) -> Features:
        """Patches of the frozen tower of images f32 (b 3 s s); ``keep`` puts them into the cache."""
        b = self.backbone
        images = images if self.config.normalise else to_intensity(images, b.preprocess)
        return (b.cache.encode if keep else b.encode_image)(images, layers=self.layers)

    def logits(self, f: Features, text: torch.Tensor) -> torch.Tensor:
        """S (2 l b n 2): of segmentation and detection, for (normal, abnormal); text from :meth:`encode_text`."""
        apart = text[0] - text[1]  # t_n - t_a
        layers = []
        for layer in self.layers:
            own, other = (branch[str(layer)](f.patches[layer]) for branch in (self.normal, self.abnormal))  # (2 b n d)
            layers.append(torch.stack([own @ apart, other @ -apart], dim=-1))
        return torch.stack(layers, dim=1)

    def maps(self, logits: torch.Tensor) -> torch.Tensor:
        """Abnormal probability (l b s s) of each layer from logits (l b n 2); the reference's map is their sum."""
        return to_probability(logits, self.backbone.grid, size=self.backbone.size)

    def score(self, images: torch.Tensor) -> Scores:
        """Score and map, both in [0, 1], of images f32 (b 3 s s); the map has the model input's resolution."""
        seg, det = self.logits(self._see(images), self.text)
        score = det.softmax(-1)[..., 1].mean((0, 2))
        if not self.has_map:
            return Scores(score=score)
        maps = self.maps(seg).mean(0)
        return Scores(score=score if self.config.image_score == "detection" else largest(maps), map=maps)


METHOD = MadCLIP
