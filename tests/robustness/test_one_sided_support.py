"""Support sets of normal images only, and of lesions only: what can be done with them, and what every output says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ultraad
from tests.helpers import picture, save, write_bus_bra, write_busi, write_folder, write_mvtec
from ultraad.cli import main
from ultraad.errors import DataError
from ultraad.model import adapt as adapting
from ultraad.model.adapt import adapt, zero_shot
from ultraad.model.model import Model, load
from ultraad.results.folder import read_rows

NORMALS_ONLY = (
    "anodode",
    "april_gan",
    "ccd",
    "latent_dissimilarity",
    "medi_clip",
    "mvfa",
    "patch_core",
    "perceptual_ae",
    "sagan",
    "winclip",
)
GRADERS = ("clip_adapter", "cocoop", "coop", "lp_plus_plus", "tip_adapter")
QUICK = {
    "april_gan": {},
    "latent_dissimilarity": {"steps": 1, "side": 32, "calibration.folds": 4},
    "medi_clip": {"epochs": 1, "views": 1},
    "mvfa": {"augment": False},
    "patch_core": {},
    "winclip": {},
}
ULTRAAD = {"train.epochs": 1, "train.views": 1, "calibration.folds": 2}

Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(w) for w in words])
        text = capsys.readouterr()
        return int(end.value.code or 0), text.out, text.err

    return run


def normal_images(kind: str, root: Path) -> Path:
    return write_mvtec(root) if kind == "mvtec" else write_folder(root, classes=("normal",))


@pytest.mark.parametrize(("method", "kind"), [*((m, "folder") for m in QUICK), ("patch_core", "mvtec")])
def test_normal_images_alone_make_a_detector(method: str, kind: str, tmp_path: Path) -> None:
    support = ultraad.draw_support(normal_images(kind, tmp_path / "data"), shots=4)
    model = ultraad.adapt(support, method=method, backbone="tiny", options=QUICK[method])
    c, origin = model.calibration, model.origin
    assert (c.folds, c.images) == (4, 4)
    assert c.rule.startswith("0.95 quantile of the scores of 4 held-out normal images, 0.99 quantile of their pixels")
    assert "no sensitivity is known" in c.notes[0]
    assert origin.support_classes == (support.normal_class,)
    saved = load(model.save(tmp_path / "model"))
    assert saved.digest == model.digest
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "4 normal images" in card
    assert "no sensitivity is known" in card
    found = ultraad.evaluate(saved, write_busi(tmp_path / "busi"), output=tmp_path / "out", bootstrap=0)
    assert found["n"] | {"lesions": 8, "normals": 4, "graded": 0} == found["n"]
    assert all(found["metrics"][key]["value"] is not None for key in ("image_auroc", "image_sensitivity", "dice"))
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "was adapted on 4 normal images (" in page
    assert "The thresholds come from normal images alone: no sensitivity is known." in page
    assert "malignant" in page, "a detector keeps the classes of the data in its breakdown"


def test_what_is_not_adapted_is_said(tmp_path: Path) -> None:
    support = ultraad.draw_support(normal_images("folder", tmp_path), shots=2)
    notes = {
        m: adapt(support, method=m, backbone="tiny", options=QUICK[m], calibrate=False).origin.notes for m in QUICK
    }
    assert "the linear layers are not used" in notes["april_gan"][0]
    assert "the adapters are not used" in notes["mvfa"][0]
    assert not (notes["patch_core"] + notes["winclip"] + notes["medi_clip"])


@pytest.mark.parametrize("method", ["ultraad", *GRADERS, "linear_probe", "ada_clip", "vcp_clip", "patch_probe"])
def test_other_methods_refuse_normal_images_before_any_work(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    support = ultraad.draw_support(normal_images("folder", tmp_path), shots=2)
    monkeypatch.setattr(adapting, "load_backbone", lambda *_, **__: pytest.fail("the backbone was loaded"))
    with pytest.raises(DataError, match=rf"{method} needs images with a lesion, .* none \(2 normal\); add images") as e:
        ultraad.adapt(support, method=method)
    assert str(e.value).endswith(f"This support set is enough for: {', '.join(NORMALS_ONLY)}")


def test_the_shell_says_what_normal_images_are_enough_for(shell: Shell, tmp_path: Path) -> None:
    root, file = normal_images("mvtec", tmp_path / "data"), tmp_path / "s.json"
    code, out, _ = shell("support", "draw", root, "-o", file, "--shots", 3)
    assert code == 0
    assert f"Normal images only: enough for {', '.join(NORMALS_ONLY)}." in out
    assert "Images with a lesion are needed for aa_clip, ada_clip, " in out
    assert out.rstrip().endswith(f"next: ultraad adapt {file} -o MODEL --method NAME")
    code, _, err = shell("adapt", file, "-o", tmp_path / "m", "--backbone", "tiny")
    assert (code, "ultraad needs images with a lesion" in err) == (1, True)
    code, out, err = shell("adapt", file, "-o", tmp_path / "m", "--backbone", "tiny", "--method", "patch_core")
    assert code == 0
    assert "0.95 quantile of the scores of 3 held-out normal images" in out
    assert "no sensitivity is known" in err
    code, out, _ = shell(
        "adapt", file, "-o", tmp_path / "m", "--backbone", "tiny", "--method", "patch_core",
        "--set", "calibration.quantile=0.5",
    )  # fmt: skip
    assert (code, "0.5 quantile" in out) == (0, True)


@pytest.fixture(scope="module")
def lesions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bus_bra(tmp_path_factory.mktemp("bra"))


@pytest.fixture(scope="module")
def graded(lesions: Path) -> Model:
    return adapt(ultraad.draw_support(lesions, shots=2), backbone="tiny", options=ULTRAAD)


NOTE = "no support image is normal: grading and the map are adapted; detection (normal against lesion) stays zero-shot"


def test_every_output_says_that_detection_stays_zero_shot(
    graded: Model, busi_dir: Path, tmp_path: Path, shell: Shell
) -> None:
    assert graded.classes == ("normal", "benign", "malignant")
    assert graded.origin.support_classes == ("benign", "malignant")
    assert graded.describe().origin.notes[0].startswith(NOTE)
    folder = graded.save(tmp_path / "model")
    assert json.loads((folder / "config.json").read_text())["origin"]["notes"][0].startswith(NOTE)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert NOTE in card
    assert "2 images per lesion class, none normal" in card
    code, _, err = shell("evaluate", folder, busi_dir, "-o", tmp_path / "out", "--bootstrap", 0, "--device", "cpu")
    assert (code, f"note: {NOTE}" in err) == (0, True)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["notes"][0].startswith(NOTE)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"N{NOTE[1:]}" in page
    assert "was adapted on 2 images per lesion class (benign, malignant), none normal, from" in page


def test_scores_are_those_of_the_sentences(graded: Model, busi_dir: Path) -> None:
    texts = zero_shot(backbone=graded.backbone)
    assert graded.calibration.image_threshold == texts.calibration.image_threshold == 0.5
    samples = ultraad.scan(busi_dir)
    a, b = ([r.prediction for r in m.predict_many(samples)] for m in (graded, texts))
    assert [x.score for x in a] == pytest.approx([y.score for y in b], abs=1e-6)
    assert [x.probs["normal"] for x in a] == pytest.approx([y.probs["normal"] for y in b], abs=1e-6)
    assert not np.allclose([x.probs["benign"] for x in a], [y.probs["benign"] for y in b], rtol=0, atol=1e-5)
    assert not np.allclose(a[0].map, b[0].map, atol=1e-3)
    found = ultraad.evaluate(graded, samples, bootstrap=0)["metrics"]["image_auroc"]
    assert found == ultraad.evaluate(texts, samples, bootstrap=0)["metrics"]["image_auroc"]


def test_lesions_alone_have_no_image_metric_that_needs_a_normal_image(graded: Model, tmp_path: Path) -> None:
    found = ultraad.evaluate(graded, write_folder(tmp_path, classes=("", "benign", "malignant")), bootstrap=50)
    for key in ("image_auroc", "image_ap", "image_f1_oracle", "image_specificity", "sensitivity_at_90"):
        assert found["metrics"][key]["value"] is None
        assert found["metrics"][key]["reason"] == "no normal image"
    assert found["metrics"]["benign_malignant_auroc"]["value"] is not None
    assert found["metrics"]["pixel_ap"]["value"] is not None


@pytest.mark.parametrize("method", GRADERS)
def test_other_graders_keep_the_sentences_too(method: str, lesions: Path, busi_dir: Path) -> None:
    options = {"epochs": 1, "views": 1, "calibration.folds": 2} if method != "lp_plus_plus" else {"steps": 3}
    model = adapt(ultraad.draw_support(lesions, shots=2), method=method, backbone="tiny", options=options)
    assert "grading is adapted; detection (normal against lesion) stays zero-shot" in model.origin.notes[0]
    texts = zero_shot(backbone=model.backbone, method=method)
    sample = ultraad.scan(busi_dir)[0]
    assert model.predict(sample).score == pytest.approx(texts.predict(sample).score, abs=1e-5)


@pytest.mark.parametrize("method", ["winclip", "april_gan", "mvfa", "medi_clip", "patch_core", "linear_probe"])
def test_methods_that_need_normal_images_refuse_lesions_before_any_work(
    method: str, lesions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapting, "load_backbone", lambda *_, **__: pytest.fail("the backbone was loaded"))
    with pytest.raises(DataError, match=rf"{method} needs normal images, .* none \(1 benign, 1 malignant\)") as e:
        ultraad.adapt(ultraad.draw_support(lesions, shots=1), method=method)
    assert "This support set is enough for: clip_adapter, cocoop, coop" in str(e.value)


def test_the_shell_says_what_lesions_are_enough_for(shell: Shell, lesions: Path, tmp_path: Path) -> None:
    code, out, _ = shell("support", "draw", lesions, "-o", tmp_path / "s.json", "--shots", 2)
    assert code == 0
    assert "Lesions only: 'normal' has no image and is known by its sentences, so detection" in out
    assert "maps with patch_probe, ultraad, vcp_clip." in out
    assert "Normal images are needed for aa_clip, ada_clip, " in out
    shown = shell("support", "show", tmp_path / "s.json")[1]
    assert "Lesions only" in shown
    assert "--method" not in out


def test_a_support_set_of_both_kinds_says_nothing_more(shell: Shell, busi_dir: Path, tmp_path: Path) -> None:
    _, out, _ = shell("support", "draw", busi_dir, "-o", tmp_path / "s.json", "--shots", 1)
    assert "only" not in out
    model = adapt(tmp_path / "s.json", backbone="tiny", options=ULTRAAD, calibrate=False)
    assert model.origin.notes == ()


def test_lesions_of_a_class_that_the_model_does_not_know_are_evaluated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "data"
    for n in range(4):
        image, mask = picture(500 + n, lesion=True)
        save(root / "papilloma" / f"{n}.png", image)  # the name does not say that it is a lesion
        save(root / "papilloma" / f"{n}_mask.png", mask)
    assert {(s.label, s.anomalous) for s in ultraad.scan(root)} == {("papilloma", None)}
    found = ultraad.evaluate(zero_shot(backbone="tiny"), root, output=tmp_path / "out", bootstrap=0)
    assert (found["n"]["lesions"], found["n"]["masks"], found["n"]["graded"]) == (4, 4, 0)
    assert found["metrics"]["image_sensitivity"]["n"] == 4
    assert found["metrics"]["pixel_auroc"]["value"] is not None
    assert found["metrics"]["class_auroc_macro"]["value"] is None
    assert "images of papilloma (4) count for detection and maps, not for grading" in caplog.text
    (note,) = found["notes"]
    assert note.startswith("classes that the model does not know: papilloma (4);")
    rows = list(read_rows(tmp_path / "out"))
    assert {(r.label, r.anomalous) for r in rows} == {("papilloma", True)}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Classes that the model does not know: papilloma (4); these images count for detection and maps" in page
