from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ultraad
from tests.adapted import QUICK, adapted
from tests.helpers import picture, save, write_busi, write_dicom, write_folder
from ultraad.backbones import load_backbone
from ultraad.data.auxiliary import load_auxiliary
from ultraad.data.samples import samples_of
from ultraad.data.support import draw_support, save_support
from ultraad.errors import ConfigError, DataError
from ultraad.io import read_image
from ultraad.model.adapt import adapt, zero_shot
from ultraad.model.model import Model
from ultraad.types import Sample


@pytest.fixture(scope="module")
def model(folder_dir: Path) -> Model:
    return adapted(folder_dir)


@pytest.fixture(scope="module")
def zero() -> Model:
    return zero_shot(backbone="tiny")


def test_a_path_an_array_and_a_sample_are_the_same_image(model: Model, busi_dir: Path) -> None:
    path = busi_dir / "benign" / "benign (1).png"
    pixels = read_image(path)
    by_path = model.predict(path)
    assert by_path.map is not None
    assert by_path.map.shape == pixels.shape[:2]
    assert by_path.probs is not None
    assert sum(by_path.probs.values()) == pytest.approx(1, abs=1e-5)
    for other in (str(path), pixels, pixels[..., 0], pixels / 255.0, Sample(id="x", image=path)):
        found = model.predict(other)
        assert found.score == by_path.score
        np.testing.assert_array_equal(found.map, by_path.map)
    assert model.predict(Sample(id="x", image=path)).id == "x"


def test_streams_equal_single_predictions_whatever_the_batch(model: Model, busi_dir: Path) -> None:
    single = {p: model.predict(p).score for p in sorted(busi_dir.rglob("*).png"))}
    for batch_size in (1, 5):
        found = list(model.predict_many([busi_dir], batch_size=batch_size))
        assert {r.sample.image: r.prediction.score for r in found} == pytest.approx(single, abs=1e-5)
        assert all(r.image.shape == (*r.prediction.map.shape, 3) for r in found)
        assert not any(r.mask is not None for r in found), "plain files bring no truth"


def test_a_bad_file_stops_a_stream_unless_it_may_be_passed_over(model: Model, tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture(1, lesion=False)[0])
    (tmp_path / "b.png").write_text("not an image")
    save(tmp_path / "c.png", picture(2, lesion=False)[0])
    with pytest.raises(DataError, match=r"b\.png"):
        list(model.predict_many([tmp_path]))
    failed: list[str] = []
    found = list(model.predict_many([tmp_path], on_error=lambda sample, e: failed.append(f"{sample.image.name}: {e}")))
    assert [r.sample.image.name for r in found] == ["a.png", "c.png"]
    assert len(failed) == 1
    assert failed[0].startswith("b.png: ")


@pytest.mark.parametrize("choice", ["of", "", "Off"])
def test_a_choice_that_there_is_not_is_refused(model: Model, busi_dir: Path, choice: str) -> None:
    image = next(busi_dir.rglob("*.png"))
    for ask in (model.predict, model.why, lambda x, **k: list(model.predict_many([x], **k))):
        for name in ("region", "fan"):
            with pytest.raises(ConfigError, match=f"{name} {choice!r}: choose from auto, off"):
                ask(image, **{name: choice})
    with pytest.raises(ConfigError, match=f"fan {choice!r}: choose from auto, off"):
        model.stream([], fan=choice)
    with pytest.raises(ConfigError, match="dtype 'float8': choose from auto, float32, bfloat16, float16"):
        load_backbone("tiny", dtype="float8")


def test_frames_become_samples(dicom_dir: Path) -> None:
    path = dicom_dir / "normal" / "b.dcm"
    found = samples_of([path])
    assert [(s.id, s.frame) for s in found] == [(f"{path.as_posix()}#{k}", k) for k in range(3)]
    assert len({s.group for s in found}) == 1
    assert found[0].group is not None
    assert [s.frame for s in samples_of([path], frame=2)] == [2]
    still = dicom_dir / "normal" / "a.dcm"
    assert [(s.id, s.frame) for s in samples_of([still])] == [(still.as_posix(), 0)]
    ready = Sample(id="mine", image=path, frame=1)
    assert samples_of([ready, still])[0] is ready


def test_a_frame_that_is_not_there_is_said_when_it_is_read(zero: Model, dicom_dir: Path) -> None:
    for name in ("a.dcm", "b.dcm"):
        with pytest.raises(DataError, match="frame"):
            list(zero.predict_many([dicom_dir / "normal" / name], frame=7))


def test_same_seed_same_model_and_other_seed_another(folder_dir: Path, model: Model) -> None:
    again = adapted(folder_dir)
    assert again.digest == model.digest
    support = draw_support(folder_dir, shots=2)
    other = adapt(support, backbone="tiny", options=QUICK, seed=1)
    assert other.digest != model.digest


def test_adapt_reads_support_files_and_takes_a_loaded_backbone(folder_dir: Path, tmp_path: Path, model: Model) -> None:
    save_support(draw_support(folder_dir, shots=2), tmp_path / "support.json")
    steps: list[tuple[str, int, int]] = []
    found = adapt(
        tmp_path / "support.json",
        backbone=load_backbone("tiny"),
        options=QUICK,
        progress=lambda *step: steps.append(step),
    )
    assert found.digest == model.digest
    assert ("adapt", 1, 1) in steps
    assert ("cross-validate", 2, 2) in steps
    assert (found.origin.shots, found.origin.setting) == (2, "few-shot")
    assert len(found.support) == 6
    assert {label for _, label in found.support} == {"normal", "benign", "malignant"}


def test_calibration_can_be_turned_off(folder_dir: Path) -> None:
    found = adapt(draw_support(folder_dir, shots=1), backbone="tiny", options=QUICK, calibrate=False)
    assert found.calibration.image_threshold == 0.5
    assert found.calibration.folds == 0
    assert "turned off" in found.calibration.notes[0]


def test_thresholds_decide_what_is_abnormal(model: Model, busi_dir: Path) -> None:
    p = model.predict(busi_dir / "normal" / "normal (1).png")
    assert model.is_abnormal(p) == (p.score >= model.calibration.image_threshold)
    assert model.calibration.folds == 2
    assert 0 <= model.calibration.image_threshold <= 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"train.epoch": 3}, "did you mean train.epochs"),
        ({"calibration.fold": 3}, "did you mean folds"),
        ({"calibration": {"folds": 1}}, "folds: wanted whole number >= 2, found 1"),
        ({"calibration": 3}, "wants a mapping"),
    ],
)
def test_wrong_options_are_refused_before_any_work(folder_dir: Path, options: dict, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        adapt("never read.json", backbone="never loaded", options=options)


def test_zero_shot_takes_classes_from_the_texts(zero: Model) -> None:
    assert zero.classes == ("normal", "benign", "malignant")
    assert zero.normal_class == "normal"
    assert (zero.origin.setting, zero.support) == ("zero-shot", ())
    assert zero.calibration.image_threshold == 0.5
    assert "zero-shot" in zero.calibration.notes[0]
    texts = {
        "organ": "thyroid",
        "object": "thyroid ultrasound",
        "classes": {"healthy": {"sentences": ["A healthy thyroid."]}, "nodule": {"sentences": ["A thyroid nodule."]}},
    }
    own = zero_shot(backbone="tiny", options={"texts": texts})
    assert (own.classes, own.normal_class) == (("healthy", "nodule"), "healthy")
    assert set(own.predict(np.zeros((40, 50), np.uint8)).probs) == {"healthy", "nodule"}


def test_zero_shot_asks_for_the_normal_class() -> None:
    with pytest.raises(ConfigError, match="normal_class="):
        zero_shot(backbone="tiny", classes=["a", "b"])
    assert zero_shot(backbone="tiny", classes=["a", "b"], normal_class="b").normal_class == "b"


def test_predicting_leaves_global_randomness_alone(zero: Model) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    zero.predict(np.zeros((40, 50), np.uint8))
    assert torch.equal(before, torch.random.get_rng_state())


DETECTOR = {"method": "april_gan", "backbone": "tiny", "options": {"epochs": 1}}


def test_an_auxiliary_set_is_enough_for_a_detector(busi_dir: Path, folder_dir: Path) -> None:
    found = adapt(auxiliary=busi_dir, **DETECTOR)
    assert (found.origin.setting, found.origin.shots, found.origin.source) == ("auxiliary", 0, None)
    assert found.origin.auxiliary is not None
    assert found.origin.auxiliary.source == f"busi:{busi_dir.resolve()}"
    assert found.origin.auxiliary.images == len(found.auxiliary) == 12
    assert found.support == ()
    assert found.classes == ("normal", "benign", "malignant")
    assert (found.calibration.folds, found.calibration.image_threshold) == (0, 0.5)
    assert "auxiliary set" in found.calibration.notes[0]
    p = found.predict(folder_dir / "benign" / "0.png")
    assert p.map is not None
    assert p.probs is None
    assert adapt(auxiliary=load_auxiliary(busi_dir, layout="busi"), **DETECTOR).digest == found.digest
    assert adapt(auxiliary=busi_dir, **DETECTOR, seed=1).digest != found.digest
    named = adapt(auxiliary=busi_dir, **DETECTOR, classes=["a", "b"], normal_class="b")
    assert (named.classes, named.normal_class) == (("a", "b"), "b")


def test_support_and_auxiliary_set_together(busi_dir: Path, folder_dir: Path) -> None:
    support = draw_support(folder_dir, shots=1)
    found = adapt(support, auxiliary=busi_dir, **DETECTOR)
    assert (found.origin.setting, found.origin.shots) == ("few-shot", 1)
    assert (len(found.support), len(found.auxiliary)) == (3, 12)
    assert found.origin.support_digest == support.digest
    assert found.digest != adapt(auxiliary=busi_dir, **DETECTOR).digest, "the support is its memory"


def test_unreadable_auxiliary_images_are_left_out_of_the_record(tmp_path: Path) -> None:
    root = write_busi(tmp_path / "busi", per_class=2)
    (root / "benign" / "benign (1).png").write_bytes(b"")
    found = adapt(auxiliary=root, auxiliary_layout="busi", **DETECTOR)
    assert found.origin.auxiliary.images == 5
    assert not any("benign (1).png" in p.id for p, _ in found.auxiliary)


def test_what_cannot_be_learned_from_is_refused_before_any_work(busi_dir: Path) -> None:
    with pytest.raises(ConfigError, match="no images to adapt ultraad to"):
        adapt(backbone="never loaded")
    with pytest.raises(ConfigError, match=r"ultraad learns from the support set alone.*methods that can:.*april_gan"):
        adapt(auxiliary="never read", backbone="never loaded")
    with pytest.raises(ConfigError, match="has its own classes"):
        adapt("never read.json", classes=["a", "b"], backbone="never loaded")
    with pytest.raises(DataError, match="does not exist"):
        adapt(auxiliary="nowhere", method="april_gan", backbone="never loaded")


def test_zero_shot_with_other_methods(busi_dir: Path) -> None:
    model = zero_shot(backbone="tiny", method="winclip")
    assert model.predict(busi_dir / "benign" / "benign (1).png").map is not None
    with pytest.raises(ConfigError, match=r"patch_core learns from images and has no zero-shot form.*winclip"):
        zero_shot(backbone="never loaded", method="patch_core")


def test_a_two_class_support_works_too(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "two", classes=("normal", "lesion"))
    model = adapted(root)
    assert model.classes == ("normal", "lesion")
    assert set(model.predict(root / "lesion" / "0.png").probs) == {"normal", "lesion"}


def test_dicom_goes_straight_in(zero: Model, tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    write_dicom(path, patient="P", frames=2)
    first, second = zero.predict(path), zero.predict(path, frame=1)
    assert first.map.shape == read_image(path).shape[:2]
    assert first.score != second.score


def test_a_model_says_what_it_is_and_can_be_measured(model: Model, busi_dir: Path) -> None:
    assert repr(model).startswith(
        "Model('ultraad', backbone='tiny', classes=('normal', 'benign', 'malignant'), few-shot"
    )
    found = ultraad.evaluate(model, busi_dir, bootstrap=0)
    assert found["n"]["images"] == 12
    assert found["thresholds"]["image"] == model.calibration.image_threshold
