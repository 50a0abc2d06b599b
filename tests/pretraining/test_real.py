"""Real images in training: what is known is taught, nothing else, and held-out cases stay out."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest
import torch
from pretraining.augment import augment, lost_contact, with_faint_lesions, with_levels_of
from pretraining.images import FACTS
from pretraining.objective import objective
from pretraining.prompts import real_caption
from pretraining.real import Part, bus_bra, facts_of, paint, window, without_lesion
from pretraining.tower import Words, tokenizer
from pretraining.train import Recipe, batch_of, stages, vocabulary

from ultraad.backbones._embedded_tower import build
from ultraad.backbones._torchvision import ensure_torchvision
from ultraad.simulate import LABELS, LEXICON

ROW = {"Pathology": "malignant", "Histology": "invasive ductal carcinoma", "BIRADS": "4"}


def speckle(seed: int, *, h: int = 120, w: int = 160) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.GaussianBlur(rng.integers(60, 160, (h, w)).astype(np.uint8), (0, 0), 1)


def with_lesion(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A dark disc left of the middle."""
    image, lesion = speckle(seed), np.zeros((120, 160), np.uint8)
    cv2.circle(lesion, (45, 50), 14, 1, -1)
    image[lesion > 0] = 10
    return image, lesion > 0


def folder(root, cases: range):
    """A folder in BUS-BRA's layout with one image of each case."""
    (root / "Images").mkdir()
    (root / "Masks").mkdir()
    with (root / "bus_data.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["ID", "Case", *ROW])
        table.writeheader()
        for case in cases:
            image, lesion = with_lesion(case)
            table.writerow({"ID": f"bus_{case:04d}-s", "Case": case, **ROW})
            cv2.imwrite(str(root / "Images" / f"bus_{case:04d}-s.png"), image)
            cv2.imwrite(str(root / "Masks" / f"mask_{case:04d}-s.png"), lesion.astype(np.uint8) * 255)
    return root


def test_what_is_not_known_is_not_guessed():
    facts = dict(zip(FACTS, facts_of(ROW), strict=True))
    known = {"label": 2, "family": LEXICON["family"].index("invasive carcinoma"), "birads": 2}
    assert {name: value for name, value in facts.items() if value >= 0} == known
    assert facts_of({**ROW, "Histology": "lymph node"})[FACTS.index("family")] == -1


def test_captions_of_real_images_say_only_what_is_known():
    rng = np.random.default_rng(0)
    bare = [facts_of({**ROW, "Histology": "lymph node"})[i] if name != "birads" else -1 for i, name in enumerate(FACTS)]
    said = " ".join(real_caption(np.array(bare), rng) for _ in range(200))
    findings = [w for name in LEXICON if name != "family" for w in LEXICON[name]]
    assert not any(word in said for word in findings)
    assert "BI-RADS" not in said
    full = " ".join(real_caption(np.array(facts_of(ROW)), rng) for _ in range(200))
    assert "BI-RADS category 4" in full
    assert "BI-RADS 2" not in full
    assert "invasive" in full


def test_a_painted_image_has_no_lesion_and_is_unchanged_elsewhere():
    image, lesion = with_lesion(0)
    painted = without_lesion(image, lesion, np.random.default_rng(0))
    assert painted is not None
    assert abs(float(painted[lesion].mean()) - 110) < 15  # tissue, where 10 was
    far = cv2.dilate(lesion.astype(np.uint8), np.ones((61, 61), np.uint8)) == 0
    far[50:] = False  # behind the lesion its shadow is painted out
    np.testing.assert_array_equal(painted[far], image[far])


def test_nothing_is_painted_without_free_tissue():
    image = speckle(0)
    everywhere = np.ones_like(image, np.bool_)
    everywhere[:, :20] = False
    assert paint(image, everywhere, everywhere, np.random.default_rng(0)) is None


def test_windows_contain_no_lesion():
    rng = np.random.default_rng(0)
    image, lesion = with_lesion(0)
    image[...] = 0
    image[lesion] = 255
    cuts = [cut for _ in range(20) if (cut := window(image, lesion, rng)) is not None]
    assert len(cuts) > 10
    assert not any(cut.any() for cut in cuts)


def test_every_fifth_case_is_left_out(tmp_path):
    parts = bus_bra(folder(tmp_path, range(1, 11)), size=64, copies=1)
    assert len(parts["lesion"].images) == 8  # of ten
    for name in ("painted", "window"):
        assert not parts[name].masks.any()
        assert set(parts[name].facts[:, 0]) == {LABELS.index("normal")}
    assert parts["decoy"].masks.any((1, 2)).all()
    parts["lesion"].save(tmp_path, "lesion")
    np.testing.assert_array_equal(Part.load(tmp_path, "lesion").images, parts["lesion"].images)


def test_grey_levels_of_another_image():
    image, other = np.repeat(speckle(0)[..., None], 3, -1), (speckle(1) // 4 + 20).astype(np.uint8)
    changed = with_levels_of(image, other)
    assert abs(float(changed.mean()) - float(other.mean())) < 2
    order = np.argsort(image[..., 1].ravel())
    assert (np.diff(changed[..., 1].ravel()[order].astype(int)) >= 0).all()  # what was brighter stays brighter


def test_stages_of_the_input_side():
    assert stages("112,128:0.4 160:0.6") == ((0.4, (112, 128)), (1.0, (160,)))


class Simulated:
    """Two simulated images; the interface of Shards."""

    def __len__(self) -> int:
        return 2

    def take(self, index):
        facts = np.array([[0, *[-1] * 9], [1, 0, 0, 0, 0, 0, 0, 0, 0, -1]], np.int8)
        return np.full((2, 32, 32, 3), 40, np.uint8)[index], np.zeros((2, 32, 32), np.uint8), facts[index]


def test_a_batch_depends_on_its_random_numbers_alone(tmp_path):
    parts = bus_bra(folder(tmp_path, range(1, 4)), size=32, copies=1)
    recipe = Recipe(10, 5, {"lesion": 2, "painted": 1}, stages("32:1"), style=1.0)
    first, again = (batch_of(Simulated(), parts, recipe, np.random.default_rng([0, 7])) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    images, masks, facts, real = first
    assert (len(images), len(masks), len(facts)) == (5, 5, 5)
    assert real.tolist() == [False, False, True, True, True]


@pytest.fixture(scope="module")
def model():
    ensure_torchvision()
    torch.manual_seed(0)
    return build(size=32)


def losses(model, words, facts, *, real, grades_only=False):
    table = torch.randn(len(words), 128, generator=torch.Generator().manual_seed(0)) * 0.05
    images = torch.rand(len(facts), 3, 32, 32, generator=torch.Generator().manual_seed(1))
    masks = torch.from_numpy(facts[:, 0] > 0).float()[:, None, None].expand(-1, 32, 32)
    with torch.no_grad():
        return objective(
            model, table, words, images, masks, facts, np.random.default_rng(0), real=real, grades_only=grades_only
        )


def test_unknown_attributes_are_not_taught(model):
    words = vocabulary()
    unknown = np.array([[1, *[-1] * 9], [2, *[-1] * 9]], np.int8)
    assert "attribute" not in losses(model, words, unknown, real=np.array([True, True]))
    known = unknown.copy()
    known[0, FACTS.index("birads")] = 1
    assert losses(model, words, known, real=np.array([True, True]))["attribute"] > 0


def test_grades_only_never_tells_normal_from_lesion_on_real_images(model):
    words = Words(["normal"], tokenizer=tokenizer())
    simulated = np.array([[0, *[-1] * 9], [1, 0, 0, 0, 0, 0, 0, 0, 0, -1]], np.int8)
    normal = np.array([[0, *[-1] * 9]], np.int8)
    real = np.array([False, False, True])
    both = np.concatenate([simulated, normal])
    alone = losses(model, words, both, real=real, grades_only=True)
    told = losses(model, words, both, real=real)
    assert float(alone["pair"]) != pytest.approx(float(told["pair"]), abs=1e-6)
    assert float(alone["class"]) != pytest.approx(float(told["class"]), abs=1e-6)


def test_shrunk_images_keep_their_masks_and_have_smaller_lesions():
    images, masks = torch.full((24, 3, 96, 96), 0.2), torch.zeros(24, 96, 96)
    masks[:, 40:56, 40:56] = 1
    images[:, :, 40:56, 40:56] = 0.8
    plain, small = (
        augment(images, masks, side=96, generator=torch.Generator().manual_seed(0), shrunk=share) for share in (0, 1)
    )
    assert float(small[1].sum()) < 0.7 * float(plain[1].sum())
    for image, mask in zip(small[0].mean(1), small[1], strict=True):
        assert image[mask > 0.9].mean() > image[mask < 0.1].mean() + 0.2


def test_lost_contact_only_darkens():
    images = torch.full((32, 1, 64, 64), 0.5)
    dark = lost_contact(images, share=1.0, generator=torch.Generator().manual_seed(0))
    assert bool((dark <= images).all())
    assert float(dark.min()) < 0.1
    assert float((dark < 0.25).float().mean()) < 0.4
    torch.testing.assert_close(lost_contact(images, share=0.0, generator=torch.Generator().manual_seed(0)), images)


def test_faint_lesions_come_near_to_the_grey_level_around_them():
    images = torch.full((8, 1, 64, 64), 0.6)
    masks = torch.zeros(8, 64, 64)
    masks[:4, 20:40, 20:40] = 1  # the others have no lesion
    images[:, :, 20:40, 20:40] = 0.2
    faint = with_faint_lesions(images, masks, share=1.0, generator=torch.Generator().manual_seed(0))
    inside = faint[:4, 0, 26:34, 26:34]
    assert bool((inside > 0.22).all())
    assert bool((inside < 0.6).all())
    torch.testing.assert_close(faint[4:], images[4:])
    torch.testing.assert_close(faint[:, :, :8], images[:, :, :8])
