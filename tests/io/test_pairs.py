"""Masks are told from images, and find their image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ultraad.io.names import nearness
from ultraad.io.pairs import MaskOf, tell_masks


def write(root: Path, *names: str) -> list[Path]:
    """Pictures of many values, and of two if the name says mask."""
    rng = np.random.default_rng(0)
    paths = [root / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = rng.integers(0, 256, (16, 16), np.uint8)
        Image.fromarray((grey > 200).astype(np.uint8) * 255 if "mask" in str(path.relative_to(root)) else grey).save(
            path
        )
    return paths


def test_a_mask_belongs_to_the_nearest_image_of_its_name(tmp_path: Path) -> None:
    images = write(tmp_path, "train/benign/1.png", "test/benign/1.png", "test/images/benign/1.png", "normal/2.png")
    masks = {
        "train/benign/1_mask.png": [0],
        "train/masks/benign/1.png": [0],
        "test/benign/masks/1.png": [1, 2],
        "benign_masks/1.png": [0, 1, 2],
        "masks/normal/2.png": [3],
    }
    paths = write(tmp_path, *masks)
    found = tell_masks(tmp_path, sorted([*images, *paths]))
    assert found.images == sorted(images)
    assert not found.orphans
    for path, wanted in zip(paths, masks.values(), strict=True):
        assert sorted(found.masks[path].images) == sorted(images[at] for at in wanted), path
        assert found.masks[path].frame is None


def test_a_mask_of_a_frame_and_one_without_an_image(tmp_path: Path) -> None:
    (cine,) = write(tmp_path, "cine.png")
    frame, lone = write(tmp_path, "cine_frame3_mask.png", "masks/other.png")
    found = tell_masks(tmp_path, [cine, frame, lone])
    assert found.masks == {frame: MaskOf((cine,), 3)}
    assert (found.images, found.orphans) == ([cine], [lone])


def test_the_class_in_the_name_of_a_folder_of_masks_counts() -> None:
    mask = Path("benign_masks/1.png")
    assert nearness(mask, Path("benign/1.png")) > nearness(mask, Path("normal/1.png"))
    assert nearness(Path("a/masks/1.png"), Path("a/images/1.png")) > nearness(Path("a/masks/1.png"), Path("a/b/1.png"))
