"""What a folder keeps of an earlier run on other inputs: failures that are not tried again, and their names."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from ultraad.errors import first_names
from ultraad.io.files import json_lines, write_text
from ultraad.io.video import is_camera, is_video
from ultraad.results.row import DataFacts, ImageRow

_log = logging.getLogger(__name__)


def keep_failures(path: Path, wanted: Collection[str]) -> dict[str, str]:
    """Leave in ``errors.jsonl`` only what this run does not try again, with a warning.

    Args:
        path: The file; removed if nothing is left.
        wanted: The images and videos of this run, by id.

    Returns:
        {id: reason} of the failures that stay.
    """
    tried = {*wanted, *map(_file_of, wanted)}
    found = {str(row.get("id", "?")): str(row.get("error", "no reason given")) for _, row in json_lines(path)}
    kept = {id_: why for id_, why in found.items() if id_ not in tried and _file_of(id_) not in wanted}
    if not kept:
        path.unlink(missing_ok=True)
        return {}
    lines = (json.dumps({"id": id_, "error": why}, ensure_ascii=False) for id_, why in kept.items())
    write_text(path, "".join(f"{line}\n" for line in lines))
    _log.warning(
        "%d image(s) of an earlier run could not be used and are not among the inputs now; they stay in %s: %s",
        len(kept),
        path.name,
        first_names([*kept]),
    )
    return kept


def of_all_runs(
    earlier: DataFacts | None,
    now: DataFacts | None,
    rows: Iterable[ImageRow],
    failed: Collection[str],
    wanted: Collection[str],
) -> DataFacts | None:
    """The inputs of all runs in a folder.

    Args:
        earlier: Those of the runs before.
        now: Those of this run.
        rows: Of the runs before.
        failed: Ids of their failures that stay.
        wanted: The images and videos of this run, by id.
    """
    if earlier is None or now is None:
        return now
    images, videos = set[str](), set[str]()
    for row in rows:
        (images if row.video is None else videos).add(row.video or row.id)
    for id_ in failed:
        file = _file_of(id_)
        is_one = is_camera(file) or is_video(Path(file))
        (videos if is_one else images).add(file if is_one else id_)
    known = set(wanted)
    films = now.videos + len(videos - known)
    paths = tuple(dict.fromkeys([*(earlier.paths or ()), *(now.paths or ())]))
    more = {"videos": films} if films else {}
    return now.model_copy(update={"paths": paths, "images": now.images + len(images - known), **more})


def _file_of(id_: str) -> str:
    """The id of a file from that of one of its frames."""
    return re.sub(r"#\d+$", "", id_)
