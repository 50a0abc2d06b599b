"""Why a model predicts what it does: support images and sentences, marks, and small changes of the image.

The parts of the decision are those of the method (:class:`ultraad.nn.evidence.Evidence`), where it can tell. The rest
is measured: the image is predicted again with its marks painted out, and with each
of :data:`~ultraad.model.reasons.GAINS` and :data:`~ultraad.model.reasons.CROPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ultraad.data import sources
from ultraad.data.fans import fan_of, in_fans, with_fan
from ultraad.data.loader import input_batch
from ultraad.data.preprocess import Preprocess
from ultraad.data.samples import samples_of
from ultraad.data.support import Fingerprint, content_hash
from ultraad.data.support.file import folder_of, source_root
from ultraad.errors import DataError, UltraadError
from ultraad.fan import Fan, FanChoice
from ultraad.io import read_image
from ultraad.io.marks import are_marks, overlays, paint_out
from ultraad.methods._base import Method
from ultraad.model.reasons import (
    CROPS,
    GAINS,
    SHOWN,
    Changed,
    Marks,
    SentenceReason,
    Stability,
    SupportReason,
    Why,
    parts,
    rests,
    total,
)
from ultraad.nn.evidence import Evidence
from ultraad.nn.prompts import unit
from ultraad.types import Box, Prediction, Sample

_SAME = 1e-3  # of a score that is 1 - p(normal), computed twice

Probs = Mapping[str, float]


class Explainer:
    """Explains predictions of one model.

    Args:
        method: Fitted.
        preprocess: Of the model.
        support: Fingerprint and label of each support image, in order.
        predict: Predictions of the model for inputs that were prepared.
        scaled: Class probabilities as the model gives them, from those of the method.
        seconds: Of the fit, to say what leaving images out would cost.
        fan: How the model sees its support images (:class:`ultraad.model.record.Description`).
    """

    def __init__(
        self,
        method: Method,
        preprocess: Preprocess,
        support: Sequence[tuple[Fingerprint, str]],
        *,
        predict: Callable[[Sequence[Any]], Sequence[Prediction]],
        scaled: Callable[[Probs], Probs],
        seconds: float = 0.0,
        fan: FanChoice = "off",
    ) -> None:
        self._method = method
        self._preprocess = preprocess
        self._support = support
        self._predict = predict
        self._scaled = scaled
        self._seconds = seconds
        self._fan = fan

    def __call__(self, image: NDArray[np.uint8], region: Box | None = None, fan: Fan | None = None) -> Why:
        """Why the model predicts what it does of an image uint8 (h w 3), or of a region and a fan of it."""
        plain = self._preprocess.image(image, region, fan)
        score, marks, stability = self._measured(image, region, fan, plain)
        images = input_batch([plain], ["image"], self._preprocess).images.to(self._method.backbone.device)
        with torch.no_grad():
            evidence = self._method.evidence(images)
            told = self._divided(evidence, score) if evidence is not None else self._similar(images)
        return Why(marks=marks, stability=stability, **told)

    def _measured(
        self,
        image: NDArray[np.uint8],
        region: Box | None,
        fan: Fan | None,
        plain: Any,  # noqa: ANN401
    ) -> tuple[float, Marks, Stability]:
        """The score, and predictions of the image with its marks painted out and with small changes."""
        marks = overlays(image)
        inputs = [plain]
        for gain in GAINS:
            brighter = np.clip(np.rint(image * np.float32(gain)), 0, 255).astype(np.uint8)
            inputs.append(self._preprocess.image(brighter, region, fan))
        inputs += [self._preprocess.image(image, _inside(image, region, crop), fan) for crop in CROPS]
        if are_marks(marks):
            inputs.append(self._preprocess.image(paint_out(image, marks), region, fan))
        found = [p for one in inputs for p in self._predict([one])]  # one by one: little memory, the scores of predict
        names = [*(f"gain x {gain:g}" for gain in GAINS), *(f"crop {100 * crop:g} %" for crop in CROPS)]
        before, changed = found[0], found[1 : 1 + len(names)]
        scores = [p.score for p in (before, *changed)]
        stability = Stability(
            changes=tuple(
                Changed(change=name, score=p.score, label=_guess(p.probs))
                for name, p in zip(names, changed, strict=True)
            ),
            low=min(scores),
            high=max(scores),
            labels=tuple(dict.fromkeys(g for p in (before, *changed) if (g := _guess(p.probs)) is not None)),
        )
        area = float(marks.mean())
        if not are_marks(marks):
            return before.score, Marks(area=area), stability
        change = before.score - found[-1].score
        rest = rests(change, stability, before.score)
        return before.score, Marks(area=area, score=found[-1].score, change=change, rests=rest), stability

    def _divided(self, e: Evidence, score: float) -> dict[str, Any]:
        """The decision as a sum. The score without a support image is known where the score is 1 - p(normal)."""
        names = self._method.classes
        logits = e.logits[0].double()
        p = logits.softmax(-1)
        top = int(p.argmax())
        weights = -p / (1 - p[top]).clamp(min=1e-300)
        weights[top] = 1.0
        others = torch.arange(len(p), device=p.device) != top
        log_odds = float(logits[top] - logits[others].logsumexp(0))
        if not bool(torch.isfinite(weights).all()):  # no other class has any probability in float64
            weights = torch.where(others, -logits.masked_fill(~others, -torch.inf).softmax(0), 1.0)

        def added(x: torch.Tensor) -> list[float]:
            return (x.double() @ weights).tolist()

        named = {"sentences": added(e.sentences[0]), "support": added(e.support[0]), "map": added(e.map[:1])}
        found, rest = parts(named, log_odds)
        without = e.without[0].double().softmax(-1)  # (m c)
        scores = (1 - without[:, self._method.normal_index]).tolist()
        of_classes = abs(1 - float(p[self._method.normal_index]) - score) < _SAME
        rows = range(len(e.names))
        sentences = sorted(rows, key=lambda j: -abs(found["sentences"][j].share))[:SHOWN]
        nearest = sorted(range(len(scores)), key=lambda i: -abs(found["support"][i].share))[:SHOWN]
        support = [
            self._named(
                i,
                similarity=float(e.similarity[0, i]),
                part=found["support"][i],
                score=scores[i] if of_classes else None,
                probs=dict(self._scaled(dict(zip(names, without[i].tolist(), strict=True)))),
            )
            for i in nearest
        ]
        turns = int((without.argmax(-1) != top).sum()) if scores else None
        return {
            "label": names[top],
            "log_odds": log_odds,
            "support": tuple(support),
            "support_total": total(found["support"]) if scores else None,
            "without": (min(scores), max(scores)) if scores and of_classes else None,
            "turns": turns,
            "sentences": tuple(
                SentenceReason(
                    label=e.names[j][0],
                    text=e.names[j][1],
                    similarity=float(e.likeness[0, j]),
                    part=found["sentences"][j],
                )
                for j in sentences
            ),
            "sentences_total": total(found["sentences"]),
            "map": found["map"][0] if bool(e.map.any()) else None,
            "rest": rest,
            "notes": e.notes,
        }

    def _similar(self, images: torch.Tensor) -> dict[str, Any]:
        """Support images by similarity alone, where the method cannot tell their shares."""
        name, m = self._method.info.name, len(self._support)
        notes = [
            f"{name} has no memory of support images: only their similarity is known, and no share of the decision"
        ]
        if m:
            notes.append(
                f"leave-one-support-out is not offered for {name}: it takes {m} fits of about {self._seconds:.0f} s"
            )
        there = [i for i in range(m) if self._tokens[i] is not None]
        token = unit(self._method.backbone.encode_image(images).image)[0]
        cosines = {i: float(token @ t) for i in there if (t := self._tokens[i]) is not None}
        nearest = sorted(there, key=lambda i: -cosines[i])[:SHOWN]
        if lost := m - len(there):
            notes.append(f"{lost} of {m} support images are not where they were, or were changed: they are left out")
        return {"support": tuple(self._named(i, similarity=cosines[i]) for i in nearest), "notes": tuple(notes)}

    def _named(self, i: int, **found: Any) -> SupportReason:  # noqa: ANN401
        print_, label = self._support[i]
        sample = self._samples[i]
        where = {} if sample is None else {"image": sample.image.as_posix(), "frame": sample.frame}
        return SupportReason(id=print_.id, label=label, sha256=print_.sha256, **where, **found)

    @cached_property
    def _samples(self) -> list[Sample | None]:
        """The support images that are found and unchanged; the model itself keeps ids and digests only."""
        return _found([print_ for print_, _ in self._support])

    @cached_property
    def _tokens(self) -> list[torch.Tensor | None]:
        """Unit class tokens f32 (d) of the support images that are found."""
        return [None if sample is None else self._token(sample) for sample in self._samples]

    @torch.no_grad()
    def _token(self, sample: Sample) -> torch.Tensor:
        image = read_image(sample.image, frame=sample.frame, depth=sample.depth)
        (seen,) = in_fans([sample], self._fan)
        prepared = self._preprocess.image(image, sample.region, fan_of(with_fan(seen, image)))
        batch = input_batch([prepared], [sample.id], self._preprocess)
        return unit(self._method.backbone.encode_image(batch.images.to(self._method.backbone.device)).image)[0]


def _inside(image: NDArray[np.uint8], region: Box | None, crop: float) -> Box:
    """A region without a share of its width and height at each side."""
    x, y, w, h = region or (0, 0, image.shape[1], image.shape[0])
    dx, dy = round(crop * w), round(crop * h)
    return x + dx, y + dy, w - 2 * dx, h - 2 * dy


def _guess(probs: Probs | None) -> str | None:
    return max(probs, key=probs.__getitem__) if probs else None


def _found(prints: Sequence[Fingerprint]) -> list[Sample | None]:
    """The samples of fingerprints whose files are there and unchanged; None for the others."""
    direct = [_direct(one) for one in prints]
    if all(direct):
        return direct
    known: dict[str, dict[str, Sample]] = {}
    for source in {one.source for one, there in zip(prints, direct, strict=True) if there is None and one.source}:
        layout = source.removesuffix(f":{source_root(source)}")
        try:
            known[source] = {s.id: s for s in sources.scan(source_root(source), layout=layout)}
        except UltraadError:  # the data set is gone
            known[source] = {}
    return [
        there or _unchanged(known.get(one.source, {}).get(one.id), one)
        for one, there in zip(prints, direct, strict=True)
    ]


def _direct(one: Fingerprint) -> Sample | None:
    """The sample, if its id is the path of its file in its data set."""
    if not one.source:
        return None
    name, _, number = one.id.rpartition("#") if "#" in one.id else (one.id, "", "")
    try:
        path = folder_of(source_root(one.source)) / name
        return _unchanged(samples_of([path], frame=int(number) if number.isdecimal() else 0)[0], one)
    except UltraadError:  # there is no such file, or it is no image
        return None


def _unchanged(sample: Sample | None, one: Fingerprint) -> Sample | None:
    try:
        return sample if sample is not None and content_hash(sample) == one.sha256 else None
    except (DataError, OSError):
        return None
