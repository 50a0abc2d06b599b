"""The report of a data check, as data and as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

Severity = Literal["error", "warning", "info"]
_ORDER: tuple[Severity, ...] = ("error", "warning", "info")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(_Frozen):
    """One kind of fault and everything that has it.

    Attributes:
        severity: ``"error"``: numbers computed from the set would be wrong or too high. ``"warning"``: they may
            mislead. ``"info"``: good to know.
        kind: Stable name, e.g. ``"misaligned_mask"``.
        message: What was found, why it matters, what to do.
        items: Every image, pair or cell with the fault.
    """

    severity: Severity
    kind: str
    message: str
    items: tuple[str, ...] = ()


class ClassCount(_Frozen):
    """Counts of one class.

    Attributes:
        images: Images of this class.
        patients: Known patients with an image of this class.
        splits: {published split: images}; empty if none is published.
        masks: Images with a mask of the same size.
    """

    images: int
    patients: int
    splits: dict[str, int]
    masks: int


class TagCount(_Frozen):
    """How well a tag predicts the label.

    Attributes:
        normal: Normal images with this tag.
        abnormal: Abnormal images with this tag.
        auroc: AUROC of the tag alone as a lesion detector, in [0, 1]; None if normal or abnormal images are missing.
    """

    normal: int
    abnormal: int
    auroc: float | None


class AuditReport(_Frozen):
    """Result of :func:`ultraad.data.audit.audit`.

    Attributes:
        root: Folder that was checked.
        layout: Its layout.
        title: Full name of the layout.
        images: Number of samples.
        patients: Number of known patients.
        without_patient: Images whose patient is unknown.
        classes: {class: counts}, in label order; the key ``"(no class)"`` is for unlabelled images.
        normal_class: The class that means "no lesion"; None if unknown.
        tags: {tag: counts}; ``"colour"`` is measured, the others come with the data.
        findings: Most severe first.
    """

    root: str
    layout: str
    title: str
    images: int
    patients: int
    without_patient: int
    classes: dict[str, ClassCount]
    normal_class: str | None
    tags: dict[str, TagCount]
    findings: tuple[Finding, ...]

    @property
    def has_errors(self) -> bool:
        """True if any finding is an error; ``ultraad data check`` then exits with 1."""
        return any(f.severity == "error" for f in self.findings)

    def count(self, severity: Severity) -> int:
        """Number of findings of one severity."""
        return sum(f.severity == severity for f in self.findings)

    def lines(self, *, items: int = 5) -> list[str]:
        """The report as text.

        Args:
            items: Number of images to list for each finding, >= 0.
        """
        unknown = f", {self.without_patient} images without a patient ID" if self.without_patient else ""
        out = [
            f"{self.root}",
            f"layout {self.layout}: {self.title}",
            f"{self.images} images, {self.patients} patients{unknown}",
            "",
            *self._class_table(),
        ]
        if self.tags:
            out += ["", *self._tag_table()]
        for finding in self.findings:
            out += ["", f"{finding.severity.upper()} {finding.kind}: {finding.message}"]
            out += [f"    {item}" for item in finding.items[:items]]
            if len(finding.items) > items:
                out.append(f"    and {len(finding.items) - items} more")
        totals = ", ".join(f"{n} {s}{'s' if n != 1 and s != 'info' else ''}" for s in _ORDER for n in [self.count(s)])
        return [*out, "", totals]

    def _class_table(self) -> list[str]:
        splits = list(dict.fromkeys(s for c in self.classes.values() for s in c.splits))
        rows = [["class", "images", "patients", "masks", *splits]]
        for name, c in self.classes.items():
            shown = f"{name} (= no lesion)" if name == self.normal_class else name
            per_split = [str(c.splits.get(s, 0)) for s in splits]
            rows.append([shown, str(c.images), str(c.patients or "-"), str(c.masks), *per_split])
        return _table(rows)

    def _tag_table(self) -> list[str]:
        rows = [["tag", "on normal", "on abnormal", "AUROC of the tag alone"]]
        for name, t in self.tags.items():
            rows.append([name, str(t.normal), str(t.abnormal), "-" if t.auroc is None else f"{t.auroc:.2f}"])
        return _table(rows)


def worst_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Errors, then warnings, then the rest; otherwise in the given order."""
    return tuple(sorted(findings, key=lambda f: _ORDER.index(f.severity)))


def _table(rows: list[list[str]]) -> list[str]:
    """Aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
