"""Whether an image is one that a model can judge: how far it is from what the backbone and the model have seen.

The tower's first step gives each image a gist (:mod:`ultraad.backbones._gist`), so nothing is encoded twice.

    reference   Mahalanobis distance (Lee et al., NeurIPS 2018) to the ultrasound that the backbone knows. The
                covariance is shrunk toward a multiple of the identity. The p-value is the share of images of held-out
                scanners, each with the same weight, that are at least as far. Ships with the weights, as statistics.
    support     The same distance to the mean of the support images. Their leave-one-out distances are few, so the
                p-value is that of a prediction interval for their logarithm (Student's t).

In scope is an image that is like the reference, or like the support images. If the support images are themselves unlike
the reference (another organ), they alone count. Without a reference nothing is called out of scope, because an unseen
scanner could not be told from a photograph. docs/trust.md has the measured values and the limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultraad.types import InScope

LEVEL = 0.02
"""Share of the images of an unseen scanner that may be called out of scope."""
SHRINKAGE = 0.01  # of the reference's covariance; 0.003 to 0.03 rank alike
_OWN_SHRINKAGE = 0.1  # of the variances of a support set without a reference
_LEAST = 4  # support images for a spread
NO_RECORD = "no record: neither this model nor its backbone carries statistics of the images that it can judge"
_NULLS = 500  # distances that are kept of the held-out ones, as quantiles

Arrays = Mapping[str, NDArray[Any]]


def factor_of(gists: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float16]:
    """The lower Cholesky factor of the inverse of the shrunk covariance, packed row by row: f16 (k (k + 1) / 2).

    Args:
        gists: (n k).
        weights: (n,), with the sum 1.
    """
    off = gists - weights @ gists
    covariance = (off * weights[:, None]).T @ off
    k = len(covariance)
    level = np.trace(covariance) / k
    covariance = (1 - SHRINKAGE) * covariance + (SHRINKAGE * level) * np.eye(k)
    return np.linalg.cholesky(np.linalg.inv(covariance))[np.tril_indices(k)].astype(np.float16)


def reference_arrays(
    gists: NDArray[np.float64], weights: NDArray[np.float64], null: NDArray[np.float64] | None = None
) -> dict[str, NDArray[Any]]:
    """The statistics of a reference.

    Args:
        gists: (n k) of its images.
        weights: (n,), how much each counts.
        null: Distances (m,) of images of scanners that were held out; None leaves them out.
    """
    weights = weights / weights.sum()
    found: dict[str, NDArray[Any]] = {
        "reference.mean": (weights @ gists).astype(np.float32),
        "reference.factor": factor_of(gists, weights),
    }
    if null is not None:
        found["reference.null"] = np.quantile(null, (np.arange(_NULLS) + 0.5) / _NULLS).astype(np.float32)
    return found


@dataclass(frozen=True, eq=False)
class Scope:
    """What is known about the images that a model can judge.

    Attributes:
        arrays: ``reference.mean`` (k,), ``reference.factor`` (packed), ``reference.null`` (m,), and of the support
            images ``support.mean`` (k,), ``support.spread`` (k,) without a reference, ``support.null`` (n,). Empty: no
            record.
    """

    arrays: Arrays

    @classmethod
    def of(cls, reference: Arrays, support: NDArray[np.float32] | None = None) -> Scope:
        """The record of a model.

        Args:
            reference: Of its backbone; empty if there is none.
            support: Gists (n k) of its support images; fewer than four say nothing.
        """
        if support is None or len(support) < _LEAST:
            return cls(dict(reference))
        x, n = support.astype(np.float64), len(support)
        own: dict[str, NDArray[Any]] = {"support.mean": x.mean(0).astype(np.float32)}
        if not reference:
            variance = x.var(0, ddof=1)
            own["support.spread"] = np.sqrt(variance + _OWN_SHRINKAGE * variance.mean() + 1e-12).astype(np.float32)
        known = cls({**reference, **own})
        out = (n / (n - 1)) ** 2 * known._from(known.arrays["support.mean"], x)  # as if each had been left out
        return cls({**known.arrays, "support.null": out})

    def judge(self, gists: NDArray[np.float32]) -> list[InScope]:
        """The records of images.

        Args:
            gists: (b k).
        """
        reference, support, distance = self.reference(gists), self.support(gists), self.log_distance(gists)
        return [
            self._record(
                None if reference is None else round(float(reference[i]), 4),
                None if support is None else round(float(support[i]), 4),
                None if distance is None else round(float(distance[i]), 4),
            )
            for i in range(len(gists))
        ]

    def reference(self, gists: NDArray[Any]) -> NDArray[np.float64] | None:
        """p-values (b,) of likeness to the reference; None without one."""
        if "reference.null" not in self.arrays:
            return None
        null = self.arrays["reference.null"]
        beyond = len(null) - np.searchsorted(null, self.distances(gists), side="left")
        return np.asarray((1 + beyond) / (1 + len(null)), dtype=np.float64)

    def support(self, gists: NDArray[Any]) -> NDArray[np.float64] | None:
        """p-values (b,) of likeness to the support images; None without them."""
        if "support.null" not in self.arrays:
            return None
        from scipy.special import stdtr

        seen = self.own_log_distances
        n, spread = len(seen), max(float(seen.std(ddof=1)), 0.05)  # copies of one image have no spread
        distance = self.log_distance(gists)
        assert distance is not None  # there are support images
        off = distance - seen.mean()
        return np.asarray(stdtr(n - 1, -off / (spread * np.sqrt(1 + 1 / n))), dtype=np.float64)

    @property
    def own_log_distances(self) -> NDArray[np.float64]:
        """Logarithms of the leave-one-out distances (n,) of the support images, in their order; empty without them."""
        return np.log(np.asarray(self.arrays.get("support.null", ()), dtype=np.float64) + 1e-12)

    def log_distance(self, gists: NDArray[Any]) -> NDArray[np.float64] | None:
        """The same (b,) of other images; None without support images."""
        if "support.null" not in self.arrays:
            return None
        return np.log(self._from(self.arrays["support.mean"], gists) + 1e-12)

    def distances(self, gists: NDArray[Any]) -> NDArray[np.float64]:
        """Squared Mahalanobis distances (b,) to the mean of the reference."""
        return self._from(self.arrays["reference.mean"], gists)

    def _from(self, mean: NDArray[Any], gists: NDArray[Any]) -> NDArray[np.float64]:
        off = np.asarray(gists, dtype=np.float64) - mean
        # einsum, because BLAS would wake its threads for so small a product, and they wait by computing
        off = off / self.arrays["support.spread"] if self._factor is None else np.einsum("bk,kj->bj", off, self._factor)
        return np.asarray((off**2).sum(1), dtype=np.float64)

    @cached_property
    def _factor(self) -> NDArray[np.float64] | None:
        if "reference.factor" not in self.arrays:
            return None
        k = len(self.arrays["reference.mean"])
        factor = np.zeros((k, k))
        factor[np.tril_indices(k)] = self.arrays["reference.factor"]
        return factor

    @cached_property
    def elsewhere(self) -> bool:
        """Whether the support images are themselves unlike the reference, as those of another organ are."""
        if "support.null" not in self.arrays or "reference.null" not in self.arrays:
            return False
        null = self.arrays["reference.null"]
        middle = float(self.distances(self.arrays["support.mean"][None])[0])
        return middle + float(np.median(self.arrays["support.null"])) > float(np.quantile(null, 1 - LEVEL))

    def _record(self, reference: float | None, support: float | None, distance: float | None) -> InScope:
        ok, words = self._verdict(reference, support)
        return InScope(ok=ok, reference=reference, support=support, words=words, distance=distance)

    def _verdict(self, reference: float | None, support: float | None) -> tuple[bool | None, str]:
        """Whether an image with these p-values is in scope, and that in words."""
        like = None if support is None else support >= LEVEL
        if reference is None and support is None:
            return None, NO_RECORD
        near = f"{'like' if like else 'unlike'} the support images" + ("" if support is None else f" ({_p(support)})")
        if reference is None:
            return None, f"not judged: {near}; the backbone has no record of other ultrasound"
        if self.elsewhere:
            return like, f"{'in' if like else 'out of'} scope: {near}"
        if reference < LEVEL and not like:
            return False, f"out of scope: unlike the ultrasound that the backbone knows ({_p(reference)})"
        return True, f"in scope, but {near}: another scanner?" if like is False else "in scope"


def _p(value: float) -> str:
    return "p < 0.002" if value < 0.002 else f"p = {value:.3f}"


def shipped(path: Path, *, weights: str, side: int) -> dict[str, NDArray[Any]]:
    """The statistics that ship with weights; empty if there are none for these weights at this input side.

    Args:
        path: Of the file; it need not exist.
        weights: sha256 of the backbone's weights (``Backbone.weights``).
        side: Input side in pixels.
    """
    if not path.is_file():
        return {}
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        facts = file.metadata() or {}
        if (facts.get("weights"), facts.get("side")) != (weights, str(side)):
            return {}
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dictionary
