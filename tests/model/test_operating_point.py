"""Operating points by hand: the threshold, the rates of the held-out images, and what they cannot show."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from ultraad.errors import ConfigError
from ultraad.metrics import threshold
from ultraad.model.calibration import Calibration, HeldOut, fixed
from ultraad.model.operating_point import at, operating_point, parse


def calibration(normal: list[float], lesion: list[float], *, patients: int | None = None) -> Calibration:
    truth = [*((s, False) for s in normal), *((s, True) for s in lesion)]
    held_out = tuple(
        HeldOut(id=str(i), score=s, anomalous=a, group=None if patients is None else f"p{i % patients}")
        for i, (s, a) in enumerate(truth)
    )
    return Calibration(image_threshold=0.5, pixel_threshold=None, rule="youden", folds=4, held_out=held_out)


def spread(n: int, low: float, high: float) -> list[float]:
    return [low + (high - low) * i / (n - 1) for i in range(n)]


OVERLAPPING = calibration(spread(21, 0.0, 0.6), spread(41, 0.4, 1.0))


def test_a_kept_sensitivity_by_hand() -> None:
    point = operating_point(OVERLAPPING, "sens=0.95")
    lesions = [h.score for h in OVERLAPPING.held_out if h.anomalous]
    normals = [h.score for h in OVERLAPPING.held_out if not h.anomalous]
    assert sum(s >= point.threshold for s in lesions) == 39  # two of 41 may be missed
    assert point.sensitivity is not None
    assert point.specificity is not None
    assert (point.sensitivity.value, point.sensitivity.n) == (pytest.approx(39 / 41), 41)
    assert point.specificity.value == pytest.approx(sum(s < point.threshold for s in normals) / 21)
    exact = binomtest(39, 41).proportion_ci(0.95, method="exact")
    assert (point.sensitivity.low, point.sensitivity.high) == pytest.approx((exact.low, exact.high))
    assert point.rule == "sensitivity>=0.95 on 62 held-out support images"
    assert point.notes == (
        f"41 lesion images do not show that new images keep 0.95: the interval begins at {exact.low:.3f}",
    )


def test_a_kept_specificity_by_hand() -> None:
    point = operating_point(OVERLAPPING, "spec=0.90")
    assert point.specificity is not None
    assert (point.specificity.value, point.specificity.n) == (pytest.approx(19 / 21), 21)
    assert "21 normal images do not show that new images keep 0.9" in point.notes[0]


def test_youden_is_the_best_sum_and_says_that_it_is_optimistic() -> None:
    point = operating_point(OVERLAPPING, "youden")
    scores, anomalous = [h.score for h in OVERLAPPING.held_out], [h.anomalous for h in OVERLAPPING.held_out]
    assert point.threshold == threshold.youden(scores, anomalous).value
    assert "expect lower ones" in point.notes[-1]


@pytest.mark.parametrize(("n", "resolved"), [(12, False), (19, False), (20, True)])
def test_few_images_cannot_resolve_a_rate(n: int, resolved: bool) -> None:
    point = operating_point(calibration([0.1, 0.2], spread(n, 0.3, 0.9)), "sens=0.95")
    said = f"{n} lesion images cannot resolve 0.95: one image is {1 / n:.3f} of the rate"
    assert (said in point.notes) is not resolved
    assert point.sensitivity is not None
    assert (point.sensitivity.value == 1.0) is not resolved, "without resolution none may be missed"
    unresolved = operating_point(calibration(spread(n, 0.1, 0.9), []), "spec=1")
    assert unresolved.notes[0].startswith(f"{n} normal images cannot resolve 1:"), "no number of images can"


def test_images_of_few_patients_are_named() -> None:
    alone = at(calibration([0.1] * 4, [0.9] * 6), 0.5, rule="given")
    assert alone.notes == ()
    shared = at(calibration([0.1] * 4, [0.9] * 6, patients=3), 0.5, rule="given")
    assert shared.notes == (
        "the 6 lesion images show 3 patients, so the interval of their rate is too narrow",
        "the 4 normal images show 3 patients, so the interval of their rate is too narrow",
    )


def test_normal_images_alone_give_a_specificity_and_no_sensitivity() -> None:
    point = operating_point(calibration(spread(20, 0.0, 0.5), []), "spec=0.90")
    assert point.sensitivity is None
    assert point.specificity is not None
    for wanted in ("sens=0.95", "youden"):
        with pytest.raises(ConfigError, match=rf"operating point {wanted} needs .* in the support set; give a thresh"):
            operating_point(calibration(spread(20, 0.0, 0.5), []), wanted)


def test_models_without_held_out_scores_say_why() -> None:
    with pytest.raises(ConfigError, match=r"no held-out scores to fit it on \(zero-shot\)\. Give a threshold instead"):
        operating_point(fixed(has_map=True, note="zero-shot"), "youden")
    earlier = OVERLAPPING.model_copy(update={"held_out": ()})
    with pytest.raises(ConfigError, match="saved by an earlier version, without its held-out scores"):
        operating_point(earlier, "youden")
    assert at(earlier, 0.5, rule="given").sensitivity is None


@pytest.mark.parametrize(
    "text", ["", "sens", "sens=", "sens=0", "sens=95", "sens=1.01", "sens=nan", "spec=-0.9", "Youden", "f1", "auc=0.9"]
)
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"wanted sens=RATE or spec=RATE with a rate in \(0, 1\]"):
        parse(text)


def test_words_that_are_read() -> None:
    assert parse("sens=0.95") == ("sens", 0.95)
    assert parse("spec=.9") == ("spec", 0.9)
    assert parse("sens=1") == ("sens", 1.0)
    assert parse("youden") == ("youden", None)
