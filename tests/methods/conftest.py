from __future__ import annotations

import numpy as np
import pytest
import torch

from ultraad.backbones import load_backbone
from ultraad.config import options, resolve
from ultraad.data.support import Fingerprint, digest
from ultraad.model.calibration import fixed
from ultraad.model.model import Model
from ultraad.model.record import Origin
from ultraad.types import Batch, Geometry

CLASSES = ("normal", "benign", "malignant")


def make_batch(backbone, per_class=2, *, seed=0, masks=True, classes=CLASSES):
    """Speckle; lesion classes carry a dark (benign) or bright (malignant) disc."""
    rng = np.random.default_rng(seed)
    s = backbone.size
    images, labels, lesions = [], [], []
    yy, xx = np.mgrid[:s, :s]
    for label in range(len(classes)):
        for _ in range(per_class):
            image = rng.normal(0, 0.3, (3, s, s))
            mask = np.zeros((s, s), bool)
            if label:
                cy, cx = rng.uniform(0.35, 0.65, 2) * s
                mask = (yy - cy) ** 2 + (xx - cx) ** 2 < (s / 5) ** 2
                image[:, mask] += 1.5 if label == 1 else -1.5
            images.append(image)
            labels.append(label)
            lesions.append(mask)
    n = len(images)
    geometry = Geometry((s, s), s, (1.0, 1.0), pad=(0, 0), content_hw=(s, s))
    known = torch.full((n,), fill_value=masks)
    known[torch.tensor(labels) == 0] = True
    return Batch(
        ids=tuple(f"{classes[y]}/{i}.png" for i, y in enumerate(labels)),
        images=torch.tensor(np.stack(images), dtype=torch.float32),
        geometry=(geometry,) * n,
        classes=tuple(classes),
        labels=torch.tensor(labels),
        anomalous=torch.tensor(labels) > 0,
        masks=torch.tensor(np.stack(lesions)) & known[:, None, None],
        mask_known=known,
        groups=(None,) * n,
    )


def empty_batch(backbone, classes=CLASSES):
    """No support at all: zero-shot."""
    s = backbone.size
    return Batch(ids=(), images=torch.zeros(0, 3, s, s), geometry=(), classes=tuple(classes))


QUICK = {"epochs": 2, "views": 2, "warmup_epochs": 0, "steps": 4, "side": 32, "solver_steps": 2}
"""Options by the last part of their name; any method's training is over in a moment with these."""


def quick(config_class):
    """A method's options with a training that a test can afford, whatever they are called and however they nest."""
    given = {o.key: QUICK[last] for o in options(config_class) if (last := o.key.rpartition(".")[2]) in QUICK}
    return resolve(config_class, given)


@pytest.fixture(scope="session", params=["tiny", "tiny:uneven"])
def backbone(request):
    return load_backbone(request.param)


@pytest.fixture(scope="session")
def tiny():
    return load_backbone("tiny")


def model_around(method, *, learned=None):
    """A model around a fitted method, with one support image of which nothing else is known."""
    image = Fingerprint("a.png", None, "0" * 64, "folder:x")
    code = digest([image.id], [image.sha256])
    origin = Origin(
        protocol="few-shot", seed=0, shots=2, source="folder:x", support_digest=code, learned=dict(learned or {})
    )
    has_map = "map" in method.info.outputs
    return Model(method, calibration=fixed(has_map=has_map, note="a test"), origin=origin, support=[(image, "")])
