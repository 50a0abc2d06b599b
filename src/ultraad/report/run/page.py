"""The page itself: its content, and the template it goes into."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultraad.errors import Caught, DataError, UltraadError, brief
from ultraad.io.files import write_text
from ultraad.report.kit.charts import PR, ROC
from ultraad.report.kit.page import environment
from ultraad.report.kit.tables import confusion
from ultraad.report.kit.words import DASH, decimals, short_id
from ultraad.report.run import charts, gallery, numbers, videos, why, words
from ultraad.report.run.protocol import options, protocol
from ultraad.report.run.read import read
from ultraad.results.folder import COCO, ERRORS, METRICS, PREDICTIONS, REPORT, RUN, TABLE
from ultraad.results.row import ImageRow

if TYPE_CHECKING:
    from ultraad.report.run.read import RunData

SHOWN_GROUPS = 20  # patients before the rest is folded away
SHOWN_OUTSIDE = 12  # images out of scope
SHOWN_ROWS = 25  # of the score list in a folder without truth


def render(folder: str | Path) -> Path:
    """Write ``report.html`` into the folder of a run, from the files there.

    The page is one file and asks the network for nothing. Pictures are small copies of the overlays and, where the
    files are still in place, of the images; patient ids from DICOM headers are replaced by numbers.

    Args:
        folder: What ``evaluate`` or ``predict`` wrote. Metrics, labels, maps and ``run.json`` may be missing; the page
            then says less.

    Returns:
        Path of the page; an older one is replaced in one step.

    Raises:
        DataError: If the folder holds no results, a file is damaged, or the page cannot be written.
    """
    folder = Path(folder)
    data = read(folder)
    page = ""
    with Caught() as caught:  # numbers that fit their types and not each other
        page = environment("ultraad.report.run").get_template("page.html.j2").render(_content(data))
    if isinstance(caught.error, UltraadError):
        raise caught.error
    if caught.error is not None:
        msg = (
            f"the results in {folder} are damaged ({brief(caught.error)}), so there is no report; run the command again"
        )
        raise DataError(msg) from caught.error
    write_text(folder / REPORT, page)
    return folder / REPORT


def _content(data: RunData) -> dict[str, Any]:
    """Everything the template needs."""
    album = gallery.Album(data.folder)
    examples = [
        (label or numbers.NO_CLASS, [album.strip(title, some) for title, some in gallery.spread(stills)])
        for label, rows in data.by_label.items()
        if (stills := [row for row in rows if row.video is None])
    ]
    outside = [album.strip("images that the model cannot judge", data.outside[:SHOWN_OUTSIDE])] if data.outside else []
    mistakes = [album.strip(title, rows) for title, rows in gallery.worst(data.rows) if rows]
    ranked = sorted(data.rows, key=lambda r: (-r.score, r.id))
    measured = data.measured
    return {
        "title": words.title(data),
        "date": ((data.run and data.run.started) or "")[:10],
        "lead": words.lead(data),
        "cautions": words.cautions(data),
        "measured": measured is not None,
        "headlines": numbers.headlines(data) if measured else [],
        "prior": words.beside_prior(data),
        "intervals": words.intervals(data),
        "videos": videos.shown(data),
        "charts": {
            "roc": charts.curves(data, ROC),
            "pr": charts.curves(data, PR),
            "reliability": charts.reliability(data),
            "risk": charts.risk_coverage(data),
            "scores": charts.histograms(_scores(data), data.thresholds.image),
        },
        "confusion": confusion(measured.confusion.classes, measured.confusion.matrix) if measured else None,
        "examples": examples,
        "why": why.reasons(data.rows, album),
        "with_why": sum(row.why is not None for row in data.rows),
        "outside": outside,
        "images_outside": len(data.outside),
        "each": gallery.EACH,
        "mistakes": mistakes,
        "truth_known": any(r.verdict for r in data.rows),
        "has_maps": any(r.overlay for r in data.rows),
        "album": album,
        "scale": gallery.scale(),
        "pixel_threshold": data.thresholds.pixel,
        "by_class": numbers.by_class(data) if any(r.label for r in data.rows) else [],
        "groups": numbers.by_group(data),
        "shown_groups": SHOWN_GROUPS,
        "subsets": numbers.subsets(data),
        "compared": numbers.subgroups(data),
        "table": numbers.table(measured.metrics) if measured else [],
        "ranked": [] if measured else [_line(r) for r in ranked[:SHOWN_ROWS]],
        "images": len(data.rows),
        "protocol": protocol(data),
        "options": list(options(data.model.options)) if data.model else [],
        "errors": _errors(data),
        "files": [name for name in (METRICS, TABLE, COCO, PREDICTIONS, ERRORS, RUN) if (data.folder / name).is_file()],
    }


def _line(r: ImageRow) -> tuple[str, str, str, str]:
    """A row of the score list."""
    graded = f"{r.guess} {r.probs[r.guess]:.2f}" if r.probs and r.guess else DASH
    return r.name, decimals(r.score), "abnormal" if r.abnormal else "normal", graded


def _errors(data: RunData) -> list[tuple[str, str]]:
    """Ids and reasons without the folders of the computer they come from."""
    root = data.data.root
    return [(short_id(id_), reason.replace(f"{root}/", "") if root else reason) for id_, reason in data.errors]


def _scores(data: RunData) -> list[tuple[str, list[float], bool | None]]:
    """(class, scores, whether it means lesion) for the histograms."""
    found = []
    for label, rows in data.by_label.items():
        truth = {r.anomalous for r in rows}
        found.append((label or numbers.NO_CLASS, [r.score for r in rows], truth.pop() if len(truth) == 1 else None))
    return found
