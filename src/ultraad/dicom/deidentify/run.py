"""A folder to a folder: look for text, let a person decide, write.

OUT/deidentified.json     how it was made: edition and options, nothing of a patient
OUT/deidentified.jsonl    one line for each file that was written
OUT/...                   the images, under pseudonyms
OUT-review/               what was found (:mod:`.review`); it holds patient data
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ultraad import __version__
from ultraad.dicom.deidentify.decision import Decision, Looked, Settings, as_found
from ultraad.dicom.deidentify.listing import Listed, list_files
from ultraad.dicom.deidentify.look import look_at, look_at_mask
from ultraad.dicom.deidentify.out import Out, Plan
from ultraad.dicom.deidentify.profile import Profile
from ultraad.dicom.deidentify.review import Review
from ultraad.dicom.deidentify.secret import secret_of
from ultraad.dicom.deidentify.text import FRAMES, TextFinder
from ultraad.errors import Caught, ConfigError, DataError, brief, printable
from ultraad.io.faults import one_run
from ultraad.io.files import sha256
from ultraad.io.lock import lock_folder
from ultraad.types import Box


@dataclass(slots=True)
class Outcome:
    """What was done.

    Attributes:
        review: The folder of the review.
        looked: Files that were looked at, now or before.
        boxes: Places in them that look like text.
        written: Files that were written.
        skipped: Files that an earlier run had written.
        dropped: Files that the review leaves out.
        masks: Lesion masks among those that were looked at; or, if images were written, among the written and skipped.
        declared: Files whose pixels are declared free of identity, among those that were written or skipped.
        without_regions: Files of which nothing around the image was blanked.
        waiting: Whether nothing was written, since nobody has confirmed.
        failed: {file: reason}.
    """

    review: Path
    looked: int = 0
    boxes: int = 0
    written: int = 0
    skipped: int = 0
    dropped: int = 0
    masks: int = 0
    declared: int = 0
    without_regions: list[str] = field(default_factory=list)
    waiting: bool = False
    failed: dict[str, str] = field(default_factory=dict)


@one_run()
def deidentify(
    source: str | Path,
    out: str | Path,
    *,
    key: str | Path | None = None,
    review: str | Path | None = None,
    confirm: bool = False,
    yes: bool = False,
    decide: Callable[[Review], bool] | None = None,
    keep: Box | None = None,
    retain: Iterable[str] = (),
    keep_names: bool = False,
    frames: int = FRAMES,
    progress: Callable[[str, int, int], None] | None = None,
) -> Outcome:
    """De-identify the images of a folder.

    The first call looks for text and writes a review; nothing else. A call with ``confirm`` writes the images as the
    review decides. ``yes`` does both at once, and blanks everything that looks like text; so does ``decide``, which
    lets a person decide about every file in between.

    Lesion masks of the images are never searched for text, and written pixel by pixel if their image is written.

    Args:
        source: A folder, or one image.
        out: Folder for the images; its name with ``-review`` is that of the review.
        key: File with the secret, made if needed. None: a secret that is forgotten at the end.
        review: Another folder for the review.
        confirm: A person has looked at the review.
        yes: Nobody will look, and the caller answers for it.
        decide: Called when everything was looked at; it says whether a person has decided about every file, such as
            :func:`ultraad.serve.review.decide_on_page`. Only then is anything written.
        keep: (x, y, width, height) that stays of pictures without ultrasound regions.
        retain: Options of the profile, any of :data:`ultraad.dicom.deidentify.profile.RETAINED`.
        keep_names: Files and folders keep their names, which then must not identify anybody.
        frames: How many frames of a cine are searched for text.
        progress: Called with (step, files done, all of them).

    Raises:
        ConfigError: If options exclude each other, or one is unknown.
        MissingExtraError: If the extra ``deidentify`` is not installed.
        DataError: If folders lie in each other, hold other things, or cannot be written; or nothing is found. What is
            wrong with one file is only listed.
    """
    source, out = Path(source), Path(out)
    review = Path(review) if review is not None else out.with_name(f"{out.name}-review")
    key = None if key is None else Path(key)
    if confirm + yes + (decide is not None) > 1:
        msg = "a review is confirmed, decided on its page, or accepted unseen; give one of --confirm, --page and --yes"
        raise ConfigError(msg)
    if frames < 1:
        msg = f"frames={frames}: wanted a whole number, at least 1"
        raise ConfigError(msg)
    _check_places(source, out, review, key)
    Profile(secret_of(None), retain)  # before any work: unknown options, a table that is missing
    listed = list_files(source)
    settings = Settings(ultraad=__version__, source=str(source), keep=keep, frames=frames)
    found = Review(review, None if confirm else settings)
    if confirm and keep is not None and keep != found.settings.keep:
        msg = f"{review} was made with another --keep; leave it out, or look again"
        raise ConfigError(msg)
    outcome = Outcome(review)
    tell = progress or (lambda *_: None)
    lock = lock_folder(review)
    try:
        for path, reason in listed.refused.items():
            _fail(outcome, found, path.as_posix(), reason)
        if not confirm:
            _look(listed, found, outcome, settings, tell)
        outcome.looked = len(found.looked)
        outcome.boxes = sum(len(row.texts) for row in found.looked.values())
        pictures = {name: row for name, row in found.looked.items() if row.mask_of is None}
        outcome.masks = len(found.looked) - len(pictures)
        outcome.without_regions = [name for name, row in pictures.items() if not row.keep]
        decided = decide is not None and bool(pictures) and decide(found)
        outcome.waiting = not (confirm or yes or decided)
        if not outcome.waiting:
            profile = Profile(secret_of(key), retain)
            into = Out(out, profile, keep_names=keep_names, linked=key is not None)
            try:
                _write(listed, found, into, outcome, tell, seen=confirm or decided, each=decided)
            finally:
                into.close()
    finally:
        lock.release()
    return outcome


def _check_places(source: Path, out: Path, review: Path, key: Path | None) -> None:
    """Refuse folders that lie in each other: what is given away must hold nothing else, and no run reads its output."""
    place = source.resolve() if source.is_dir() else None
    given, seen = out.resolve(), review.resolve()
    if place is not None and (given.is_relative_to(place) or place.is_relative_to(given)):
        msg = f"{out} and {source} lie in each other; the images that are given away need a folder of their own"
        raise DataError(msg)
    if seen.is_relative_to(given) or given.is_relative_to(seen):
        msg = f"the review {review} holds patient data, so it cannot lie in {out} or around it; give another --review"
        raise DataError(msg)
    if place is not None and (seen.is_relative_to(place) or place.is_relative_to(seen)):
        msg = f"the review {review} and {source} lie in each other; give another --review"
        raise DataError(msg)
    if key is not None and key.resolve().is_relative_to(given):
        msg = f"the key {key} would be given away with {out}; keep it elsewhere"
        raise DataError(msg)


@cache
def _finder() -> TextFinder:
    """Its networks are loaded once, when the first picture has to be searched."""
    return TextFinder()


def _look(
    listed: Listed, review: Review, outcome: Outcome, settings: Settings, tell: Callable[[str, int, int], None]
) -> None:
    fresh: list[str] = []
    for number, path in enumerate(listed.pictures, start=1):
        name = path.as_posix()
        with Caught() as caught:
            known, image = review.looked.get(name), _image_of(listed, path)
            if known is None or known.mask_of != image or known.sha256 != sha256(listed.root / path):
                if image is not None and image not in review.looked:
                    msg = f"{listed.root / path} is a mask of {image}, which cannot be used, so it is left out"
                    raise DataError(msg)
                if image is not None:
                    row, shown = look_at_mask(listed.root / path, name, listed.root / image, image)
                else:
                    keep, frames = settings.keep, settings.frames
                    row, shown = look_at(listed.root / path, name, _finder(), keep=keep, frames=frames)
                review.add(row, shown)
                fresh.append(name)
        if caught.error is not None:
            review.looked.pop(name, None)
            _fail(outcome, review, name, _said(caught.error))
        tell("look", number, len(listed.pictures))
    review.show(fresh)


def _image_of(listed: Listed, path: Path) -> str | None:
    """What the review calls the image of a mask; None for an image."""
    return listed.masks[path][0].as_posix() if path in listed.masks else None


def _write(
    listed: Listed,
    review: Review,
    into: Out,
    outcome: Outcome,
    tell: Callable[[str, int, int], None],
    *,
    seen: bool,
    each: bool,
) -> None:
    """Write the files: as a person has ``seen`` them, and if ``each``, only what was confirmed by itself.

    A mask goes with its image.
    """
    decisions = review.decisions() if seen else {}
    outcome.masks = 0
    there: dict[str, bool] = {}  # by name, but for what failed; False: the review leaves it out
    for number, path in enumerate(listed.pictures, start=1):
        name, image = path.as_posix(), _image_of(listed, path)
        row = review.looked.get(name)
        if row is not None or (seen and not each):  # what could not be looked at is listed already
            with Caught() as caught:
                decision = decisions.get(name) if seen else None
                if image is None and each and (decision is None or decision.state == "open"):
                    msg = f"{listed.root / path} was not confirmed on the page; run the same command again"
                    raise DataError(msg)
                if image is not None and image not in there:
                    msg = f"{listed.root / path} is a mask of {image}, which was not written, so it was not either"
                    raise DataError(msg)
                if image is not None and not there[image]:
                    decision = Decision(drop=True)
                mask_of = listed.masks.get(path)
                there[name] = _write_one(listed.root / path, row, decision, into, outcome, mask_of, seen=seen)
            if caught.error is not None:
                _fail(outcome, review, name, _said(caught.error))
        tell("write", number, len(listed.pictures))


def _write_one(
    path: Path,
    row: Looked | None,
    decision: Decision | None,
    into: Out,
    outcome: Outcome,
    mask_of: tuple[Path, int | None] | None,
    *,
    seen: bool,
) -> bool:
    """False if the review leaves it out."""
    digest = sha256(path)
    if row is None or row.sha256 != digest:
        what = (
            "was not part of the review: it is new, or could not be read" if row is None else "changed since the review"
        )
        msg = f"{path} {what}; run without --confirm, and look again"
        raise DataError(msg)
    if row.mask_of != (None if mask_of is None else mask_of[0].as_posix()):
        was = "an image" if row.mask_of is None else f"a mask of {row.mask_of}"
        msg = f"{path} was {was} in the review, and is not any more; run without --confirm, and look again"
        raise DataError(msg)
    if seen and decision is None:
        msg = f"{path} has no line in the boxes.csv of the review; run without --confirm to write them again"
        raise DataError(msg)
    decided = decision or as_found(row)
    if decided.drop:
        outcome.dropped += 1
        return False
    state = into.profile.secret.digest("state", digest, json.dumps([row.keep, decided.blank, seen])).hex()
    plan = Plan(path, Path(row.file), tuple(row.keep), tuple(decided.blank), seen, state, mask_of)
    outcome.declared += plan.declared
    outcome.masks += mask_of is not None
    if into.add(plan):
        outcome.written += 1
    else:
        outcome.skipped += 1
    return True


def _fail(outcome: Outcome, review: Review, name: str, reason: str) -> None:
    outcome.failed[name] = printable(reason)
    review.fail(name, outcome.failed[name])


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, DataError) else brief(error)
