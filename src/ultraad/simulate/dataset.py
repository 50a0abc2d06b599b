"""A data set of simulated images, in the layout ``synthetic``."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ultraad.errors import ConfigError, DataError
from ultraad.rng import seeded
from ultraad.simulate.attributes import LABELS, Attributes
from ultraad.simulate.phantom import CLASS_SHARES, check_size, simulate

MARKER = "simulated.json"
_UNFINISHED = ".simulated.json"
GENERATOR = "ultraad.simulate"
IMAGES_PER_PATIENT = 4
MOST_IMAGES = 1_000_000


def _deal(counts: Sequence[int], patients: int, rng: np.random.Generator) -> list[tuple[str, int]]:
    """(label, patient) of every image: any patient can have normal images, but lesions of only one class."""
    normal, benign, malignant = counts
    lesions = benign + malignant
    with_benign = round(patients * benign / lesions) if lesions else patients
    if benign and malignant:
        with_benign = min(max(with_benign, 1), patients - 1)
    order = rng.permutation(patients)
    owners = (order, order[:with_benign], order[with_benign:])
    plan = [
        (label, int(owner[i % len(owner)]))
        for label, count, owner in zip(LABELS, (normal, benign, malignant), owners, strict=True)
        for i in range(count)
    ]
    return sorted(plan, key=lambda item: item[1])  # stable: within a patient by class


def _check(n: int, shares: Sequence[float], patients: int) -> None:
    if not 1 <= n <= MOST_IMAGES:
        msg = f"n must be 1 to {MOST_IMAGES}, got {n}"
        raise ConfigError(msg)
    if len(shares) != len(LABELS) or min(shares) < 0 or sum(shares) <= 0:
        msg = f"shares must be {len(LABELS)} numbers >= 0 for {', '.join(LABELS)}, got {tuple(shares)}"
        raise ConfigError(msg)
    least = 2 if shares[1] > 0 and shares[2] > 0 else 1
    if patients < least:
        msg = f"patients must be at least {least} (a patient has lesions of one class only), got {patients}"
        raise ConfigError(msg)


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def write_dataset(
    folder: str | Path,
    *,
    n: int,
    seed: int = 0,
    size: int = 256,
    shares: Sequence[float] = CLASS_SHARES,
    patients: int | None = None,
    clutter: bool = True,
) -> Path:
    """Write simulated images.

    The files are ``<class>/pPPPP_IIII.png`` and ``<class>/pPPPP_IIII_mask.png`` (all black for normal), where PPPP is
    the patient and IIII the number of the patient's image. ``captions.csv`` has the patient, label, device, caption and
    attributes of every image. ``simulated.json``, written last, records the arguments. Images of one patient have the
    same machine and breast.

    Args:
        folder: Created if missing. A folder that already contains this very data set is not changed; one in which
            writing it was interrupted is written again.
        n: Number of images, 1 to 1000000.
        seed: Seed of everything random.
        size: Side of the square images in pixels, 32 to 4096.
        shares: Shares of normal, benign and malignant.
        patients: Number of patients; None: one for every four images.
        clutter: Whether consoles draw calipers, text and markers.

    Returns:
        The folder.

    Raises:
        ConfigError: If a number is out of range.
        DataError: If the folder contains anything else, or cannot be written.
    """
    root = Path(folder)
    if patients is None:
        patients = max(2, n // IMAGES_PER_PATIENT)
    _check(n, shares, patients)
    check_size(size)
    marker: dict[str, Any] = {
        "generator": GENERATOR, "seed": seed, "n": n, "size": size,
        "shares": [float(s) for s in shares], "patients": patients, "clutter": clutter,
    }  # fmt: skip
    text = json.dumps(marker, indent=1) + "\n"
    try:
        if not _is_there(root, text):
            root.mkdir(parents=True, exist_ok=True)
            (root / _UNFINISHED).write_text(text, encoding="utf-8")
            _write(root, marker)
            (root / _UNFINISHED).rename(root / MARKER)
    except OSError as e:
        msg = f"{root} cannot be written: {e.strerror or e}; choose another folder, or free space and permissions there"
        raise DataError(msg) from e
    return root


def _is_there(root: Path, text: str) -> bool:
    """Whether the folder holds this very data set; False if it is empty or an interruption left a part of it.

    Raises:
        DataError: If it holds anything else.
    """
    if not root.exists() or not any(root.iterdir()):
        return False
    with suppress(OSError, ValueError, RecursionError):  # no marker, or a damaged one
        if json.loads((root / MARKER).read_text(encoding="utf-8")) == json.loads(text):
            return True
    with suppress(OSError, ValueError):
        if text.startswith((root / _UNFINISHED).read_text(encoding="utf-8")):  # the file may be cut off, too
            return False
    msg = f"{root} is not empty and does not contain this simulated data set; name an empty or new folder"
    raise DataError(msg)


def _write(root: Path, marker: Mapping[str, Any]) -> None:
    """Write the images and their table."""
    seed, n, size, patients = (int(marker[key]) for key in ("seed", "n", "size", "patients"))
    shares, clutter = marker["shares"], bool(marker["clutter"])
    rng = seeded(seed, "simulate/dataset")
    edges = np.round(np.cumsum([0, *shares]) / sum(shares) * n).astype(int)
    plan = _deal([int(c) for c in np.diff(edges)], patients, rng)
    image_seeds = rng.integers(0, 2**62, n)
    patient_seeds = rng.integers(0, 2**62, patients)
    for label in {label for label, _ in plan}:
        (root / label).mkdir(parents=True, exist_ok=True)
    taken: dict[int, int] = {}
    names = [f.name for f in fields(Attributes)]
    with (root / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "patient", "label", "device", "caption", *names])
        for (label, patient), image_seed in zip(plan, image_seeds, strict=True):
            phantom = simulate(
                int(image_seed), label=label, size=size, clutter=clutter, patient=int(patient_seeds[patient])
            )
            taken[patient] = taken.get(patient, 0) + 1
            stem = f"p{patient:04d}_{taken[patient]:04d}"
            _write_png(root / label / f"{stem}.png", phantom.image[..., ::-1])
            _write_png(root / label / f"{stem}_mask.png", phantom.mask.astype(np.uint8) * np.uint8(255))
            row = dict.fromkeys(names, "") if phantom.attributes is None else asdict(phantom.attributes)
            table.writerow(
                [f"{label}/{stem}.png", f"p{patient:04d}", label, phantom.device, phantom.caption]
                + [row[name] for name in names]
            )
