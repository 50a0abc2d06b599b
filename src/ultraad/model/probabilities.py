"""Class probabilities that mean what they say: scaled on the held-out support images, and moved to a prevalence.

scaling      softmax(slope * ln p + offset), temperature (Guo et al., ICML 2017) with offsets per class (Platt 1999 for
             two classes). A few support images cannot fix four numbers, so a prior pulls the slope to 1 and the
             offsets to 0: it is worth as many images as is best in cross-validation, and the more images there are,
             the less it weighs. The simplest scaling that is no worse than the best by more than one standard
             error of the difference is taken (after Breiman et al., 1984, sec. 3.4.3); often that is none, and then
             the probabilities stay as they were.
prevalence   p(class) times its share in practice over its share in the support set (Saerens et al., Neural
             Computation 14:21, 2002). A support set of equal classes is not a clinic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ultraad.config import Strict
from ultraad.errors import ConfigError
from ultraad.metrics.calibration import negative_log_likelihood

Array = NDArray[np.float64]
Kind = Literal["none", "temperature", "offsets"]
Prevalence = float | Mapping[str, float]
"""Share of images that show a lesion, or share of each class."""

PRIORS = (100.0, 30.0, 10.0, 3.0, 1.0)
"""Strengths that are tried, the strongest first: a squared distance of 1 of ln(slope) or an offset costs half of that
many nats, of which each image brings its own."""
LEAST = 1e-6  # probability whose logarithm is still taken
NEAR = 1e-3  # shares of all classes may miss 1 by so much, since they are written with few digits


class Scaling(Strict):
    """How class probabilities are scaled, and what that is worth on held-out support images.

    Attributes:
        kind: ``"none"``: as the method gives them; ``"temperature"``: the slope alone; ``"offsets"``: both.
        slope: Above 1 sharper, below 1 softer.
        offsets: {class: added to slope * ln p}, with mean 0.
        prior: Strength of the prior in images; 0 for ``"none"``.
        images: Held-out support images that it was chosen on.
        nll: Their mean negative log-likelihood before and after, in cross-validation.
        shares: {class: share of the support images}, which the probabilities take for granted.
    """

    kind: Kind
    slope: float = 1.0
    offsets: dict[str, float]
    prior: float = 0.0
    images: int
    nll: tuple[float, float]
    shares: dict[str, float]

    def __call__(self, probs: Mapping[str, float]) -> dict[str, float]:
        """The scaled probabilities of one image."""
        if self.kind == "none":
            return dict(probs)
        names = [*self.offsets]
        fresh = _scaled(_logs([[probs[name] for name in names]]), self.slope, np.array([*self.offsets.values()]))[0]
        return dict(zip(names, fresh.tolist(), strict=True))


def fit(
    probs: ArrayLike, labels: Sequence[int], parts: Sequence[Sequence[int]], *, classes: Sequence[str]
) -> Scaling | None:
    """Choose a scaling by cross-validation on held-out images.

    Args:
        probs: (n c) of images by methods that were fitted without them.
        labels: (n,) true classes.
        parts: Positions of the images in each fold; patients are not divided.
        classes: Class names in label order.

    Returns:
        None if a class has no image, or there are fewer than two parts.
    """
    z, y = _logs(probs), np.asarray(labels, dtype=np.int64)
    counts = np.bincount(y, minlength=len(classes))
    if len(parts) < 2 or not counts.all():
        return None
    tried: list[tuple[Kind, float, Array]] = [("none", 0.0, _losses(z, y, 1.0, np.zeros(len(classes))))]
    for kind in ("temperature", "offsets"):
        tried += [(kind, prior, _held_out(z, y, parts, kind, prior)) for prior in PRIORS]
    kind, prior, losses = _simplest(tried)
    slope, offsets = (1.0, np.zeros(len(classes))) if kind == "none" else _fitted(z, y, kind, prior)
    return Scaling(
        kind=kind,
        slope=slope,
        offsets=dict(zip(classes, offsets.tolist(), strict=True)),
        prior=prior,
        images=len(y),
        nll=(float(tried[0][2].mean()), float(losses.mean())),
        shares=dict(zip(classes, (counts / len(y)).tolist(), strict=True)),
    )


def at_prevalence(
    probs: Mapping[str, float], prevalence: Prevalence, *, normal_class: str, shares: Mapping[str, float] | None
) -> dict[str, float]:
    """Class probabilities of an image where lesions, or classes, are as frequent as they are said to be.

    With a share of lesions alone, lesion classes keep their proportions to each other.

    Args:
        probs: {class: probability}.
        prevalence: Share of images that show a lesion, in (0, 1), or {class: share of the images}; one class may be
            left out, which has the rest.
        normal_class: The class that means "no lesion".
        shares: {class: share} that the probabilities take for granted; None for equal classes.
    """
    known = dict.fromkeys(probs, 1 / len(probs)) if shares is None else dict(shares)
    if isinstance(prevalence, Mapping):
        rest = max(1 - sum(prevalence.values()), 0.0)
        wanted = {name: prevalence.get(name, rest) for name in probs}
    else:
        lesions = sum(share for name, share in known.items() if name != normal_class)
        wanted = {name: prevalence * share / lesions for name, share in known.items()} | {normal_class: 1 - prevalence}
    odds = {name: max(p, LEAST**2) * wanted[name] / known[name] for name, p in probs.items()}
    total = sum(odds.values())
    return {name: value / total for name, value in odds.items()}


def read_prevalence(text: str) -> Prevalence:
    """A prevalence as it is written: ``"0.1"``, or ``"benign=0.2,malignant=0.05"``.

    Raises:
        ConfigError: If it is neither, or out of range (:func:`check_prevalence`, without the names of the classes).
    """
    pairs = [part.partition("=") for part in text.split(",")]
    try:
        numbers = [float(value if equals else name) for name, equals, value in pairs]
    except ValueError:
        msg = f"prevalence {text!r}: wanted a share such as 0.1, or shares of classes such as benign=0.2,malignant=0.05"
        raise ConfigError(msg) from None
    names = [name.strip() for name, equals, _ in pairs if equals]
    found: Prevalence = dict(zip(names, numbers, strict=True)) if len(names) == len(pairs) else numbers[0]
    if len(numbers) != (len(found) if isinstance(found, Mapping) else 1):
        msg = f"prevalence {text!r}: wanted one share of lesions, or each class once, as in benign=0.2,malignant=0.05"
        raise ConfigError(msg)
    check_prevalence(found)
    return found


def check_prevalence(value: Prevalence | None, classes: Sequence[str] | None = None) -> None:
    """Refuse a prevalence that is none.

    Args:
        value: Share of lesions, or shares of classes.
        classes: Classes of the model; None: not known yet.

    Raises:
        ConfigError: If the share of lesions is not in (0, 1), or shares of classes are not in [0, 1], sum to more than
            1, name other classes than those of the model, or leave out more than one of them.
    """
    if not isinstance(value, Mapping):
        if value is not None and not 0 < value < 1:  # also when NaN
            msg = f"prevalence {value}: wanted the share of images that show a lesion, above 0 and below 1, such as 0.1"
            raise ConfigError(msg)
        return
    total = sum(value.values())
    whole = classes is not None and len(value) == len(classes)
    if not all(0 <= share <= 1 for share in value.values()) or total > 1 + NEAR or (whole and total < 1 - NEAR):
        msg = f"prevalence {told(value)}: wanted shares in [0, 1] that sum to 1, or to at most 1 if a class is left out"
        raise ConfigError(msg)
    if classes is None:
        return
    if unknown := [name for name in value if name not in classes]:
        msg = f"prevalence: the model has no class {', '.join(map(repr, unknown))}; it has {', '.join(classes)}"
        raise ConfigError(msg)
    if len(left := [name for name in classes if name not in value]) > 1:
        msg = f"prevalence {told(value)}: wanted the shares of all classes but one; {', '.join(left)} are left out"
        raise ConfigError(msg)


def told(value: Prevalence) -> str:
    """A prevalence as :func:`read_prevalence` reads it."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={share:g}" for name, share in value.items())
    return f"{value:g}"


def _logs(probs: ArrayLike) -> Array:
    p: Array = np.log(np.maximum(np.asarray(probs, dtype=np.float64), LEAST))
    return p


def _scaled(z: Array, slope: float, offsets: Array) -> Array:
    """Probabilities (n c) of logits (n c)."""
    a = slope * z + offsets
    e = np.exp(a - a.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


def _losses(z: Array, y: NDArray[np.int64], slope: float, offsets: Array) -> Array:
    """Negative log-likelihood of each image (n,)."""
    return negative_log_likelihood(_scaled(z, slope, offsets), y, weights=np.eye(len(y)))


def _fitted(z: Array, y: NDArray[np.int64], kind: Kind, prior: float) -> tuple[float, Array]:
    """(slope, offsets) of the highest posterior density."""
    from scipy.optimize import minimize

    truth = np.eye(z.shape[1])[y]
    free = float(kind == "offsets")

    def loss(x: Array) -> tuple[float, Array]:
        slope, offsets = float(np.exp(x[0])), free * x[1:]
        p = _scaled(z, slope, offsets)
        off = p - truth
        value = -np.log(np.maximum((p * truth).sum(1), 1e-300)).sum() + prior / 2 * (x**2).sum()
        return float(value), np.r_[slope * (off * z).sum(), free * off.sum(0)] + prior * x

    bounds = [(-4.0, 4.0), *[(-9.0, 9.0)] * z.shape[1]]
    x = minimize(loss, np.zeros(1 + z.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds).x
    offsets = free * x[1:]
    return float(np.exp(x[0])), offsets - offsets.mean()


def _held_out(z: Array, y: NDArray[np.int64], parts: Sequence[Sequence[int]], kind: Kind, prior: float) -> Array:
    """Negative log-likelihood (n,) of each image by a scaling that was fitted without its part."""
    found = np.zeros(len(y))
    for part in parts:
        rest = np.setdiff1d(np.arange(len(y)), part)
        found[list(part)] = _losses(z[list(part)], y[list(part)], *_fitted(z[rest], y[rest], kind, prior))
    return found


def _simplest(tried: Sequence[tuple[Kind, float, Array]]) -> tuple[Kind, float, Array]:
    """The first, which is the simplest, that is no worse than the best by more than one standard error."""
    best = min((losses for *_, losses in tried), key=lambda losses: float(losses.mean()))
    worse = [losses - best for *_, losses in tried]
    near = [float(w.mean()) <= float(w.std(ddof=1)) / np.sqrt(len(w)) for w in worse]
    return tried[near.index(True)]  # the best is as good as itself
