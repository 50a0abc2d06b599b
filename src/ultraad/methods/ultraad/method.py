"""UltraAD: few-shot CLIP for ultrasound anomaly localisation and grading.

Paper      Zhou et al., MICCAI 2025, arXiv 2506.19694. No code was released; written from the paper.
Equations  t_n, t_a   image-aware prompts          "A photo of a normal|abnormal" + (g_i + s(x)),  s = MiniNet(n(f0))
           fh         shared class token           n((1 - rho) n(f0) + rho MiniNet(n(f0)))
           (1) T, M   memory                       class sentences (frozen), support images (refined)
           (2) S      classes                      lambda fh T^T + alpha exp(-beta (1 - fh M^T)) Y
           Pi         prototypes                   prompts and memory texts, averaged per side
           (3) Pi_l'  patch-wise fusion            prototypes attend to the adapted patches P_l = A_l F_l
           map        softmax over <n(P_l), Pi_l'> / tau, mean over layers;   loss = focal + dice + dice + CE
Learned    A_l, g, MiniNet, W_Q W_K W_V, image keys M; both CLIP towers, T and Y stay frozen.
Deviations see ``INFO.deviations``; each reading of an ambiguous sentence is an option (config.py, docs/ultraad.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Literal

import torch
from torch import nn

from ultraad.errors import ConfigError
from ultraad.methods import Holding, Method
from ultraad.methods.ultraad.config import CLASS_WORTH, GRADE_WORTH, BinaryConfig, UltraADConfig
from ultraad.methods.ultraad.head import Head
from ultraad.methods.ultraad.info import INFO
from ultraad.methods.ultraad.readout import (
    balanced,
    image_score,
    loss_weights,
    mixed_patch_logits,
    pair_logits,
    pixel_map,
    prior_weight,
    sharing,
)
from ultraad.methods.ultraad.zero_shot import ZeroShot
from ultraad.nn.blocks import MiniNet, PatchFusion
from ultraad.nn.evidence import Evidence, Sentences
from ultraad.nn.loop import train
from ultraad.nn.losses import dice, focal
from ultraad.nn.maps import to_probability
from ultraad.nn.moments import MomentVote
from ultraad.nn.prompts import starting_words, together, unit
from ultraad.nn.views import SupportViews
from ultraad.texts.bank import breast_texts
from ultraad.types import Batch, Features, FitReport, Scores


class UltraAD(Method):
    """UltraAD; see the module's header for the equations and :class:`UltraADConfig` for every option."""

    info = INFO
    Config = UltraADConfig
    resizable = ("keys", "values")
    config: UltraADConfig
    text: torch.Tensor
    values: torch.Tensor
    lesion_masks: torch.Tensor

    @classmethod
    def also_missing(cls, held: Holding, config: UltraADConfig) -> str:
        """Normal images, if the image score is not that of the classes, whose p(normal) the texts can give."""
        if held.only == "lesions" and not (config.cls.enabled and config.bin == BinaryConfig()):
            return f"needs normal images for cls.enabled=false and for bin.* ({held}); leave these options out"
        if config.cls.moments not in (0, "organ") and (
            absent := [name for name, count in held.counts.items() if not count]
        ):
            return f"needs images of every class for cls.moments and found none of: {', '.join(absent)}"
        return ""

    def prepare(self) -> None:
        """Tapped layers and the zero-shot model."""
        c, b = self.config, self.backbone
        self.layers = b.check_layers(c.layers or b.default_layers)
        self.texts = c.texts or breast_texts()
        elsewhere = b.organ not in (None, self.texts.organ)
        self.moments_weight = float(elsewhere) if c.cls.moments == "organ" else c.cls.moments
        self.zero_shot = ZeroShot(
            b, self.texts, classes=self.classes, normal_class=self.normal_class, memory=c.memory, proto=c.proto
        )
        self.notes = self.zero_shot.notes

    def build(self, *, seed: int) -> None:
        """Fresh prompts and networks, and an empty memory."""
        c, b, width, d = self.config, self.backbone, self.backbone.width, self.backbone.dim
        kind, zero = c.mininet.type, c.mininet.zero_init or c.mininet.residual == "add_zero_init"
        self.mininet = MiniNet(d, d, kind=kind, zero_init=zero)
        own = not c.mininet.shared or b.text_width != d
        self.instance = MiniNet(d, b.text_width, kind=kind, zero_init=zero) if own else None
        self.vcp_conv = nn.Conv1d(1, c.prompt.n_global, 3, padding=1) if c.prompt.fuse == "vcp_conv" else None
        words = self.texts.object if c.prompt.init == "words" else ""
        sides = 1 if c.prompt.share_global else 2
        g = [
            starting_words(b, words, c.prompt.n_global, generator=torch.Generator().manual_seed(seed + i))
            for i in range(sides)
        ]
        self.prompts = nn.Parameter(torch.stack(g))  # (1|2 r text_width)
        learn_ctx = c.prompt.ctx == "learnable"
        self.context = nn.Parameter(self.zero_shot.templates[0].before[1:5].clone()) if learn_ctx else None
        self.adapters = nn.ModuleDict({str(layer): self._adapter() for layer in self.layers})
        self.fusion = self._fusions(width, d) if c.pif.enabled else None
        self.moments = MomentVote(len(self.classes), width) if self.moments_weight else None
        log_tau = math.log(0.07) if c.score.tau == "learnable" else 0.0
        self.log_tau = nn.Parameter(torch.tensor(log_tau)) if c.score.tau == "learnable" else None
        ab = torch.tensor([max(c.cls.alpha, 1e-6), c.cls.beta]).log()
        self.log_ab = nn.Parameter(ab) if c.cls.learn_ab else None
        self.register_buffer("values", torch.zeros(0, len(self.classes)))  # Y, one-hot or balanced (m c)
        self.register_buffer("text", self.zero_shot.text.clone())  # T (c d)
        self.register_buffer("lesion_masks", torch.tensor(0))  # number of masks that trained the map
        self.keys = nn.Parameter(torch.zeros(0, d), requires_grad=c.memory.keys == "param" and c.cls.enabled)
        in_prompts = (
            c.proto.mode != "text_only" and c.prompt.instance != "none" and (c.prompt.instance == "fh" or not own)
        )
        self.mininet.requires_grad_(requires_grad=c.cls.enabled or in_prompts)

    def _adapter(self) -> nn.Linear:
        layer = nn.Linear(self.backbone.width, self.backbone.dim)
        if self.config.adapter.init == "projection":
            with torch.no_grad():
                layer.weight.copy_(self.backbone.projection.T)
                layer.bias.zero_()
        return layer

    def _fusions(self, width: int, d: int) -> nn.ModuleList:
        pif = self.config.pif
        patch_dim = d if pif.kv == "adapted" else width
        if patch_dim % pif.heads:
            msg = f"pif.heads={pif.heads} does not divide {patch_dim}; try {math.gcd(pif.heads, patch_dim)}"
            raise ConfigError(msg)
        init: Literal["zero_v", "identity"] = "zero_v" if pif.residual == "add" else "identity"
        count = len(self.layers) if pif.share_layers == "per_layer" else 1
        return nn.ModuleList(
            PatchFusion(d, patch_dim, heads=pif.heads, scale=pif.scale, out_proj=pif.out_proj, init=init)
            for _ in range(count)
        )

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Train map and classes; without lesion masks the classes only, and the report says so."""
        if len(support) == 0:
            return FitReport("zero-shot")
        t = self.config.train
        views = SupportViews(
            self.backbone,
            support,
            normal_index=self.normal_index,
            layers=self.layers,
            count=t.views,
            mask_size=self._loss_size(),
            epochs=t.epochs,
            seed=seed,
        )
        self.keys = nn.Parameter(views.keys, requires_grad=self.keys.requires_grad)
        self.values = balanced(views.one_hot) if self.config.cls.balance else views.one_hot
        masked = (views.mask_known & (views.labels != self.normal_index)).sum()
        self.lesion_masks.fill_(int(masked) if t.epochs else 0)
        self.text.copy_(self.zero_shot.support_text(views.keys, views.labels, seed=seed))
        if self.moments is not None:
            views.notes += self.moments.learn(self.backbone.cache.encode(support.images, layers=(0,)), views.labels)
        if self.config.memory.key_feature == "fh":
            with torch.no_grad():
                self.keys.copy_(self._class_token(self.keys))
        history = train(
            lambda index, epoch: self._loss(views, index, epoch),
            self._groups(learn_map=views.has_masks),
            count=len(support),
            epochs=t.epochs,
            batch_size=t.batch_size,
            seed=seed,
            betas=(t.beta1, 0.999),
            weight_decay=t.weight_decay,
            schedule=t.schedule,
            warmup_epochs=t.warmup_epochs,
            progress=self.progress,
        )
        return FitReport("last epoch", history, notes=views.notes)

    def _groups(self, *, learn_map: bool) -> list[dict[str, Any]]:
        t = self.config.train
        shared: list[nn.Parameter] = [*self.mininet.parameters()]
        maps: list[nn.Parameter] = [self.prompts, *self.adapters.parameters()]
        maps += [] if self.instance is None else [*self.instance.parameters()]
        maps += [] if self.vcp_conv is None else [*self.vcp_conv.parameters()]
        maps += [] if self.context is None else [self.context]
        return [
            {"params": shared + (maps if learn_map else []), "lr": t.lr},
            {"params": [*self.fusion.parameters()] if learn_map and self.fusion else [], "lr": t.lr_pif},
            {"params": [self.keys] if self.keys.requires_grad else [], "lr": t.lr_keys},
            {"params": [] if self.log_ab is None else [self.log_ab], "lr": t.lr},
            {"params": [] if self.log_tau is None or not learn_map else [self.log_tau], "lr": t.lr_tau},
        ]

    def _loss(self, views: SupportViews, index: torch.Tensor, epoch: int) -> torch.Tensor:
        """Focal + dice + dice + CE (section 2.4) on one view of each image in ``index``."""
        c, weights = self.config, loss_weights(self.values)
        f, mask = views.draw(index, epoch)
        total = f.image.new_zeros(())
        if c.cls.enabled:
            own = index if c.memory.exclude_self else None
            logits = self._head().logits(self._class_token(f.image), own=own)  # S(x): Eq. 2
            losses = nn.functional.cross_entropy(self.for_loss(logits), views.labels[index], reduction="none")
            total = total + c.loss.cls_weight * (losses * weights[index]).mean()
        known = views.mask_known[index]
        if views.has_masks and bool(known.any()):
            seg = self._segmentation_loss(f.select(known.nonzero().flatten()), mask[known], weights[index][known])
            total = total + c.loss.seg_weight * seg
        return total

    def _segmentation_loss(self, f: Features, mask: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        c = self.config
        maps = [to_probability(x, f.grid, size=self._loss_size(), up=c.map.up) for x in self._patch_logits(f).values()]
        if c.loss.seg_on == "averaged_map":
            maps = [torch.stack(maps).mean(0)]
        total = mask.new_zeros((), dtype=torch.float32)
        for p in maps:
            abnormal = dice(p, mask)
            if c.loss.dice_skip_empty:
                abnormal = abnormal * mask.flatten(1).any(1)
            total = total + ((focal(p, mask) + abnormal + dice(1 - p, ~mask)) * weights).mean()
        return total / len(maps) if c.loss.layer_reduce == "mean" else total

    def _loss_size(self) -> int:
        up = self.config.loss.upsample
        return min(self.backbone.size, self.backbone.grid[0] * up) if up else self.backbone.size

    def _class_token(self, f0: torch.Tensor) -> torch.Tensor:
        """The shared class token fh, unit (b d) (section 2.4)."""
        c, u = self.config.mininet, unit(f0)
        if not self.adapted:
            return u
        phi = self.mininet(u)
        if c.residual == "ratio":
            return unit((1 - c.ratio) * u + c.ratio * phi)
        return unit(u + phi) if c.residual == "add_zero_init" else unit(phi)

    def _prompt_pair(self, f0: torch.Tensor) -> torch.Tensor:
        """Image-aware t_n, t_a: unit (b 2 d)."""
        c, b = self.config.prompt, f0.shape[0]
        source = self._class_token(f0) if c.instance == "fh" else unit(f0) if c.norm_input else f0
        slots = self._instance_token(source, raw=c.instance == "fh")
        filled = []
        for i, template in enumerate(self.zero_shot.templates):
            g = self.prompts[min(i, len(self.prompts) - 1)]  # (r text_width)
            words = g.expand(b, -1, -1)
            if slots is not None:
                words = torch.cat([words, slots], 1) if c.fuse == "cat" else words + slots
            filled.append(template.fill(words, context=self.context))
        sides = self.backbone.encode_prompts(*together(filled))  # (2*b d), normal first
        return unit(sides.view(2, b, -1).transpose(0, 1))

    def _instance_token(self, source: torch.Tensor, *, raw: bool) -> torch.Tensor | None:
        """s(x): (b 1 text_width), or (b r text_width) for VCP's convolution."""
        if self.config.prompt.instance == "none":
            return None
        if self.vcp_conv is not None:
            return torch.as_tensor(self.vcp_conv((source if self.instance is None else self.instance(source))[:, None]))
        if raw and self.instance is None:
            return source[:, None]
        token = (self.mininet if self.instance is None else self.instance)(source)
        return torch.as_tensor(token)[:, None]

    def _head(self) -> Head:
        """The class head with the present weights."""
        c, prior = self.config.cls, self.config.prior
        alpha, beta = (c.alpha, c.beta) if self.log_ab is None else self.log_ab.exp()
        shots = self.values.sum() / (len(self.classes) - (0 if self.normal_seen else 1))
        weight = prior_weight(prior.cls, shots, CLASS_WORTH)
        return Head(
            scale=self.backbone.logit_scale if c.scale == "backbone" else c.scale,
            text=self.text,
            keys=self._class_token(self.keys) if self.config.memory.keys == "via_mininet" else unit(self.keys),
            values=self.values,
            alpha=alpha,
            beta=beta,
            norm=c.cache_norm,
            weight=weight,
            spread=prior.cls_spread,
            grade_weight=weight if prior.grade == "cls" else prior_weight(prior.grade, shots, GRADE_WORTH),
            normal_index=self.normal_index,
            normal_seen=bool(self.normal_seen),
            post=self.config.post if self.lesion_masks else None,
        )

    def _prototypes(self, f0: torch.Tensor) -> torch.Tensor:
        """Pi (b rows d) with the learned prompts; see :meth:`ZeroShot.prototypes`."""
        learned = self.adapted and self.config.proto.mode != "text_only"
        pair = self._prompt_pair(f0) if learned else self.zero_shot.pair.expand(f0.shape[0], -1, -1)
        return self.zero_shot.prototypes(pair, self.text, f0)

    def _patch_logits(self, f: Features) -> dict[int, torch.Tensor]:
        """{layer: (b n 2)} logits of (normal, abnormal): Eq. 3 and section 2.1."""
        c = self.config
        protos = self._prototypes(f.image)
        tau = self._tau()
        out: dict[int, torch.Tensor] = {}
        for net, layers in sharing(self.fusion, self.layers, c.pif.share_layers):
            tokens = torch.stack([f.patches[layer] for layer in layers])  # (l b n w)
            normed = self.backbone.post_norm(tokens) if c.adapter.input == "ln_post" else tokens
            adapted = [self.adapters[str(layer)](x) for layer, x in zip(layers, normed, strict=True)]
            patches = unit(torch.cat(adapted))  # n(P_l), (l*b n d)
            rows = protos.repeat(len(layers), 1, 1)  # (l*b rows d)
            fused, against = self._fuse(net, rows, patches, tokens.flatten(0, 1))
            logits = pair_logits(against @ fused.mT, c.proto.reduce) / tau
            if c.map.raw_weight:
                plain = pair_logits(patches @ unit(rows).mT, c.proto.reduce) / tau
                logits = (1 - c.map.raw_weight) * logits + c.map.raw_weight * plain
            out |= zip(layers, logits.view(len(layers), -1, *logits.shape[1:]), strict=True)  # (l b n 2)
        return out

    def _fuse(
        self, net: nn.Module | None, protos: torch.Tensor, patches: torch.Tensor, raw: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pi_l' (b rows d|w) and the patches that it is compared with (b n d|w); raw patches need not be unit."""
        c = self.config.pif
        if net is None:
            return unit(protos), patches
        if c.kv == "raw":
            raw = unit(raw)
            return unit(net(protos, raw)), raw
        attended = net(protos, patches)
        return unit(protos + attended if c.residual == "add" else attended), patches

    def _tau(self) -> float | torch.Tensor:
        tau = self.config.score.tau
        if self.log_tau is not None:
            return self.log_tau.exp()
        return 1 / self.backbone.logit_scale if tau == "backbone" else float(tau)

    def score(self, images: torch.Tensor) -> Scores:
        """Score, map and class logits of images f32 (b 3 s s); the map has the model input's resolution."""
        layers = (0, *self.layers) if self.moments_weight else self.layers
        return self.score_features(self.backbone.encode_image(images, layers=layers))

    def score_features(self, f: Features) -> Scores:
        """:meth:`score` from encoded features."""
        maps, a = self._map(replace(f, patches={layer: f.patches[layer] for layer in self.layers}))
        if not self.config.cls.enabled:
            return Scores(score=a, map=maps)
        logits = self._mixed_class_logits(f.image, a)
        if self.moments is not None and self.adapted:
            logits = (logits + self.moments_weight * self.moments(f)).log_softmax(-1)
        p0 = logits.softmax(-1)[:, self.normal_index]
        return Scores(score=self._binary(1 - p0, a, f.image), map=maps, logits=logits)

    def _map(self, f: Features) -> tuple[torch.Tensor, torch.Tensor]:
        """The map and its image statistic a(x); the adapted map counts by ``prior.map`` beside the zero-shot one."""
        c, masks = self.config, int(self.lesion_masks) / (len(self.classes) - 1)
        worth = c.prior.worth_in_map(normal_seen=bool(self.normal_seen))
        w = float(prior_weight(c.prior.map, masks, worth)) if masks else 0.0
        finer = self.backbone.finer(f) if c.map.fine and w < 1 else f
        zero, read = self.zero_shot.patch_logits, partial(pixel_map, size=self.backbone.size, tau=self._tau(), c=c)
        drawn, mixed = mixed_patch_logits(self._patch_logits, partial(zero, tau=c.score.tau), f, finer, weight=w)
        location = self.backbone.location if c.map.location else None
        maps, a = read(torch.stack(list(drawn.values())), finer.grid, location)
        if self.adapted and (mixed is not drawn or location is not None):  # both change the map alone
            a = read(torch.stack(list(mixed.values())), (finer if mixed is drawn else f).grid)[1]
        return maps, a

    @property
    def adapted(self) -> bool:
        """Whether there is a support set; if not, the model is zero-shot."""
        return len(self.keys) > 0

    def _mixed_class_logits(self, f0: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (b c); see :meth:`Head.mixed`."""
        zero = self.zero_shot.class_logits(f0)
        return self._head().mixed(zero, self._class_token(f0), a) if self.adapted else zero.log_softmax(-1)

    @torch.no_grad()
    def evidence(self, images: torch.Tensor) -> Evidence | None:
        """The parts of the class logits; None without classes (``cls.enabled=false``) or with ``cls.moments``."""
        if not self.config.cls.enabled or self.moments is not None:
            return None
        f = self.backbone.encode_image(images, layers=self.layers)
        return self._head().evidence(
            self._sentences,
            query=unit(f.image),
            fh=self._class_token(f.image),
            a=self._map(f)[1],
            zero=self.zero_shot.class_logits(f.image),
            zero_scale=self.backbone.logit_scale,
        )

    @cached_property
    def _sentences(self) -> Sentences:
        return Sentences(self.backbone, self.classes, [self.zero_shot.sentences(name) for name in self.classes])

    def _binary(self, cls: torch.Tensor, a: torch.Tensor, f0: torch.Tensor) -> torch.Tensor:
        """Image-level score (b,) in [0, 1] from 1 - p(normal) and the statistic of the map, (b,) each."""
        c = self.config.bin
        if c.cls != "memory":
            cosines = torch.einsum("bd,brd->br", self._class_token(f0), unit(self._prototypes(f0)))
            pair = (pair_logits(cosines[:, None], self.config.proto.reduce)[:, 0] / self._tau()).softmax(-1)[:, 1]
            cls = pair if c.cls == "clip_pair" else (cls + pair) / 2
        return image_score(cls, a, c)
