"""The few frames of a cine that stand for it, by one rule for videos and DICOM objects."""

from __future__ import annotations

from collections.abc import Iterable

KEY_FRAMES = 5  # at most, ours: what a reader pages through
KEY_SECONDS = 1.0  # between two key frames, ours; KEY_STEP frames if the frame time is unknown
KEY_STEP = 25
KEY_RULE = (
    f"Key frames: abnormal frames by falling score, each at least {KEY_SECONDS:g} s ({KEY_STEP} frames if the frame "
    f"time is unknown) from those before, at most {KEY_FRAMES}"
)


def key_frames(abnormal: Iterable[tuple[int, float]], *, seconds: float | None) -> tuple[int, ...]:
    """By :data:`KEY_RULE`, in the order of time.

    Args:
        abnormal: (number, score) of each abnormal frame; of equal scores, the first frame counts.
        seconds: From a frame to the next; None if unknown.
    """
    step = KEY_STEP if seconds is None else max(1, round(KEY_SECONDS / seconds))
    chosen: list[int] = []
    for frame, _ in sorted(abnormal, key=lambda one: (-one[1], one[0])):
        if len(chosen) < KEY_FRAMES and all(abs(frame - other) >= step for other in chosen):
            chosen.append(frame)
    return tuple(sorted(chosen))
