"""Small pictures and errors as scores, against slow forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ultraad.nn.autoencoder import epochs_of, mirrored, relative, shrink


def slow_shrink(image, side):
    """Every new pixel as an integral over its square, on a grid fine enough to be exact."""
    size = len(image)
    fine = np.kron(image, np.ones((side, side)))  # size * side cells a side: new pixels are size x size of them
    return fine.reshape(side, size, side, size).mean((1, 3))


@pytest.mark.parametrize(("size", "side"), [(12, 4), (10, 4), (7, 7), (5, 8)])
def test_a_small_pixel_is_the_mean_of_its_area(size, side):
    image = np.random.default_rng(0).random((size, size))
    found = shrink(torch.tensor(image, dtype=torch.float32)[None, None], side)[0, 0].numpy()
    np.testing.assert_allclose(found, slow_shrink(image, side), atol=1e-6)


def test_half_of_the_pictures_are_mirrored_by_their_own_stream():
    x = torch.arange(64.0).view(64, 1, 1, 1) + torch.tensor([0.0, 0.5])
    found = mirrored(x, seed=0, purpose="a")
    flipped = found[:, 0, 0, 0] > found[:, 0, 0, 1]
    assert 16 < int(flipped.sum()) < 48
    assert torch.equal(torch.where(flipped.view(-1, 1, 1, 1), found.flip(-1), found), x)
    assert torch.equal(found, mirrored(x, seed=0, purpose="a"))
    assert not torch.equal(found, mirrored(x, seed=0, purpose="b"))


def test_the_usual_error_is_a_half_and_the_order_stays():
    errors = torch.tensor([0.0, 1.0, 2.0, 1e9])
    found = relative(errors, torch.tensor(2.0))
    assert found[2] == 0.5
    assert found[0] == 0
    assert (found.diff() > 0).all()
    assert (found <= 1).all()
    assert torch.isfinite(relative(errors, torch.tensor(0.0))[1:]).all()


def test_epochs_make_about_the_steps_that_were_asked_for():
    assert epochs_of(1200, count=419, batch_size=16) == 44  # 27 steps each
    assert epochs_of(1200, count=4, batch_size=16) == 1200
    assert epochs_of(1, count=419, batch_size=16) == 1
