"""The page itself: what is said about the run, and the template it goes into."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultraad.io.files import write_text
from ultraad.report.kit.page import environment
from ultraad.report.kit.words import short_id
from ultraad.report.run import charts, gallery, numbers, words
from ultraad.report.run.protocol import options, protocol
from ultraad.report.run.read import read
from ultraad.results.folder import ERRORS, METRICS, PREDICTIONS, REPORT, RUN, TABLE

if TYPE_CHECKING:
    from ultraad.report.run.read import Results

SHOWN_GROUPS = 20  # ours: patients shown before the rest is folded away
SHOWN_ROWS = 25  # ours: lines of the score list in a folder without truth


def render(folder: str | Path) -> Path:
    """Write ``report.html`` into a results folder, from the files there.

    The page holds everything it shows and asks the network for nothing. Pictures are shrunk copies of the overlays and,
    where the files still are where they were, of the images; patient ids from DICOM headers are replaced by numbers.

    Args:
        folder: What ``evaluate`` or ``predict`` wrote. Metrics, labels, maps and ``run.json`` may be missing; the page
            then says less.

    Returns:
        Path of the page; an older one is replaced in one step.

    Raises:
        DataError: If the folder holds no results, a file is damaged, or the page cannot be written.
    """
    folder = Path(folder)
    page = environment("ultraad.report.run").get_template("page.html.j2").render(_content(read(folder)))
    write_text(folder / REPORT, page)
    return folder / REPORT


def _content(results: Results) -> dict[str, Any]:
    """Everything the template needs."""
    album = gallery.Album()
    titles, subsets = numbers.subsets(results)
    cuts = {"image": results.image_threshold, "pixel": results.pixel_threshold}
    examples = gallery.examples(results, album)
    mistakes = gallery.mistakes(results, album)
    ranked = sorted(results.rows, key=lambda r: (-r.score, r.id))
    groups = numbers.by_group(results)
    return {
        "title": words.title(results),
        "date": str(results.fact("started") or "")[:10],
        "lead": words.lead(results),
        "cautions": words.cautions(results),
        "measured": bool(results.metrics),
        "cards": numbers.cards(results) if results.metrics else [],
        "prior": words.beside_prior(results),
        "intervals": words.intervals(results),
        "charts": {
            "roc": charts.roc(results.metrics, cuts),
            "pr": charts.precision_recall(results.metrics, cuts),
            "reliability": charts.reliability(results.metrics),
            "scores": charts.histograms(_scores(results), results.image_threshold),
        },
        "confusion": _confusion(results),
        "examples": examples,
        "each": gallery.EACH,
        "mistakes": mistakes,
        "truth_known": any(r.verdict for r in results.rows),
        "has_maps": any(r.overlay for r in results.rows),
        "album": album,
        "scale": gallery.scale(),
        "cuts": cuts,
        "by_class": numbers.by_class(results) if any(r.label for r in results.rows) else [],
        "groups": groups,
        "shown_groups": SHOWN_GROUPS,
        "subset_titles": titles,
        "subsets": subsets,
        "table": numbers.table(results.metrics.get("metrics", {})),
        "ranked": ranked[:SHOWN_ROWS] if not results.metrics else [],
        "count": len(results.rows),
        "protocol": protocol(results),
        "options": options(results),
        "errors": _errors(results),
        "files": [name for name in (METRICS, TABLE, PREDICTIONS, ERRORS, RUN) if (results.folder / name).is_file()],
    }


# --- tables ----------------------------------------------------------------------------------------------------------


def _errors(results: Results) -> list[tuple[str, str]]:
    """Ids and reasons without the folders of the machine they come from."""
    root = results.fact("data", "root")
    return [(short_id(id_), reason.replace(f"{root}/", "") if root else reason) for id_, reason in results.errors]


def _scores(results: Results) -> list[tuple[str, list[float], bool | None]]:
    parts = numbers.of_class(results).items()
    normal = results.fact("model", "normal_class")
    return [
        (label or "no class known", [r.score for r in rows], None if None in (label, normal) else label != normal)
        for label, rows in parts
    ]


def _confusion(results: Results) -> dict[str, Any] | None:
    """Counts with the share of their row; None without a graded image."""
    found = results.metrics.get("confusion") or {}
    matrix = found.get("matrix") or []
    if not any(map(sum, matrix)):
        return None
    rows = [
        (name, [(n, n / max(1, sum(counts)), i == j) for j, n in enumerate(counts)], sum(counts))
        for i, (name, counts) in enumerate(zip(found["classes"], matrix, strict=True))
    ]
    return {"classes": found["classes"], "rows": rows}
