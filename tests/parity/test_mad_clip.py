"""MadCLIP against the outputs of its reference implementation (24 blocks, exact GELU, adapters and prompts at random).

The tensors were made by running the adapters, prompts and losses of mahshid1998/MadCLIP c54903d, at the widths of the
reference CLIP of this folder, on the inputs of this folder; every third row and column of a map is kept.
"""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from tests.parity import fixtures
from ultraad.methods.mad_clip import ZOOMS, MadCLIP, MadCLIPConfig
from ultraad.nn.augment import to_intensity
from ultraad.nn.fixed_views import fixed_views
from ultraad.nn.labelled import Labelled
from ultraad.texts.bank import TextBank

CLOSE = {"atol": 1e-4, "rtol": 0}
BRAIN = TextBank(organ="brain", object="Brain", classes={})
POSITIONS = ("end", "front", "middle")


@pytest.fixture(scope="module")
def golden():
    return {key: value.float() for key, value in fixtures.golden("madclip").items()}


@pytest.fixture(scope="module")
def inputs():
    return fixtures.golden("inputs")


@pytest.fixture(scope="module")
def method(golden):
    config = MadCLIPConfig(texts=BRAIN, states="industrial", normalise=False)
    method = MadCLIP(fixtures.mini(gelu=True), config, classes=("normal", "abnormal"), normal_class="normal")
    words = [torch.cat([golden[f"param.{side}_{at}"] for side in ("normal", "abnormal")]) for at in POSITIONS]
    state = {"words": torch.stack(words), "has_map": torch.tensor(True)}
    for kind in ("normal", "abnormal"):
        for i, layer in enumerate(method.layers):
            for part in ("shared", "seg", "det"):
                state[f"{kind}.{layer}.{part}.weight"] = golden[f"param.{kind}.{i}.{part}"]
    method.load_state_dict(state)
    return method


def test_sentences_in_three_positions(method, golden):
    assert method.layers == (6, 12, 18, 24)
    assert_close(method.text, golden["text"], **CLOSE)


@torch.no_grad()
def test_both_branches_and_what_is_made_of_them(method, golden, inputs):
    seg, det = method.logits(method._see(inputs["image_clip"]), method.text)
    assert_close(det[0], golden["det.0"], **CLOSE)
    assert_close(seg[3], golden["seg.3"], **CLOSE)
    assert_close(method.maps(seg).sum(0)[:, ::3, ::3], golden["map"], **CLOSE)
    assert_close(det.softmax(-1)[..., 1].mean((0, 2)) * 4, golden["detection"], **CLOSE)
    scores = method.score(inputs["image_clip"])
    assert_close(scores.score * 4, golden["map_maximum"], **CLOSE)


def test_losses_and_gradients(method, golden, inputs):
    known, masks = torch.ones(3, dtype=torch.bool), inputs["mask"][:, 0].bool()
    batch = Labelled(inputs["image_clip"], inputs["label"].bool(), masks, known)
    method.zero_grad()
    loss = method.loss(batch)
    loss.backward()
    assert_close(loss.detach()[None], golden["train.parts"].sum()[None], atol=1e-3, rtol=0)
    only_detection = method.loss(Labelled(batch.images, batch.anomalous, masks, ~known))
    assert_close(only_detection.detach(), golden["train.parts"][0], atol=1e-3, rtol=0)
    for kind in ("normal", "abnormal"):
        for i, layer in enumerate(method.layers):
            for part in ("shared", "seg", "det"):
                ours = getattr(getattr(method, kind)[str(layer)], part).weight.grad.norm()
                assert_close(ours[None], golden[f"gradnorm.{kind}.{i}.{part}"], atol=1e-6, rtol=1e-2)
    for at, grads in zip(POSITIONS, method.words.grad, strict=True):
        assert_close(grads[:7].norm()[None], golden[f"gradnorm.normal_{at}"], atol=0, rtol=1e-2)
        assert_close(grads[7:].norm()[None], golden[f"gradnorm.abnormal_{at}"], atol=0, rtol=1e-2)


def test_magnified_views(method, golden, inputs):
    views = fixed_views(to_intensity(inputs["image_clip"][:1], method.backbone.preprocess), zooms=ZOOMS)
    assert views.shape == (1, 15, 3, 112, 112)
    assert_close(views[0, 9:13, :, ::4, ::4], golden["zoom"], **CLOSE)
