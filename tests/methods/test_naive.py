"""Methods that read prompts against their naive form, which shortens nothing and keeps nothing."""

from __future__ import annotations

import pytest
import torch
from perf import naive

from tests.methods.conftest import make_batch
from ultraad.backbones._door import Backbone
from ultraad.methods import get


@pytest.mark.parametrize("name", naive.FORMS)
@torch.no_grad()
def test_the_naive_form_gives_the_same(backbone: Backbone, name: str) -> None:
    batch, chosen = make_batch(backbone), get(name)
    method = chosen(backbone, chosen.Config(epochs=1), classes=batch.classes, normal_class="normal")
    method.fit(batch, seed=0)
    method.eval()
    for form in filter(None, naive.FORMS[name]):
        for image in make_batch(backbone, per_class=1, seed=1).images.split(1):
            assert naive.difference(method.score(image), form(method, image)) < naive.NEAR, form.__name__
