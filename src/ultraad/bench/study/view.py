"""What a part of the report is about, and how its numbers are written."""

from __future__ import annotations

from dataclasses import dataclass

from ultraad.bench.row import ImageLine, MeasuredRow
from ultraad.bench.study.statistics import Cell, Key, Paired, Study
from ultraad.metrics.catalogue import spec
from ultraad.report.kit.words import count


@dataclass(frozen=True, slots=True)
class View:
    """The rows of one backbone under one protocol.

    Attributes:
        study: All rows.
        backbone: One of its backbones.
        protocol: One of its protocols.
    """

    study: Study
    backbone: str
    protocol: str

    @property
    def suffix(self) -> str:
        """For file names, if there are several backbones."""
        n = self.study.backbones.index(self.backbone)
        return f"-{n + 1}" if len(self.study.backbones) > 1 else ""

    @property
    def labels(self) -> list[str]:
        """Methods with rows here, the reference first."""
        found = {k.label for k in self._keys()}
        return sorted((x for x in self.study.labels if x in found), key=lambda x: x != self.study.reference)

    @property
    def tests(self) -> list[str]:
        """Test sets, those with results first."""
        return sorted(self.study.tests, key=lambda test: not self.shots(test))

    def shots(self, test: str) -> list[int]:
        """Numbers of shots that have a result on a test set; rising."""
        return sorted({k.shots for k in self._keys(test) if self.study.ok(k)})

    def asked(self, test: str) -> list[int]:
        """Numbers of shots that the recipe asks for on a test set; rising."""
        return sorted({k.shots for k in self._keys(test)})

    def key(self, label: str, test: str, shots: int) -> Key:
        """The key of a method's fits."""
        return Key(self.backbone, test, self.protocol, label, shots)

    def title(self, test: str) -> str:
        """The title of a test set."""
        return test_title(self.study, test)

    def file(self, test: str) -> str:
        """A part of a file name that every file system takes."""
        name = "".join(c if c.isalnum() else "-" for c in test.lower()).strip("-") or "test"
        return name + self.suffix

    def _keys(self, test: str | None = None) -> list[Key]:
        here = (self.backbone, self.protocol)
        return [k for k in self.study.keys if (k.backbone, k.protocol) == here and test in {None, k.test}]


@dataclass(frozen=True, slots=True)
class Scope:
    """One test set of a view, at one number of shots."""

    view: View
    test: str
    shots: int

    @property
    def reference(self) -> str:
        """Label of the reference method."""
        return self.view.study.reference

    @property
    def labels(self) -> list[str]:
        """Methods, the reference first."""
        return self.view.labels

    @property
    def title(self) -> str:
        """The title of the test set."""
        return self.view.title(self.test)

    @property
    def file(self) -> str:
        """A part of a file name."""
        return self.view.file(self.test)

    def rows(self, label: str) -> list[MeasuredRow]:
        """The rows of a method that have a result, by seed."""
        return list(self.view.study.ok(self.key(label)).values())

    def predictions(self, label: str) -> list[list[ImageLine]]:
        """The stored images of each of these rows."""
        return [self.view.study.folder.predictions(row) for row in self.rows(label)]

    def key(self, label: str) -> Key:
        """The key of a method's fits."""
        return self.view.key(label, self.test, self.shots)

    def cell(self, label: str, metric: str) -> Cell:
        """A method's metric."""
        return self.view.study.cell(self.key(label), metric)

    def means(self, metric: str) -> dict[str, float]:
        """{label: mean} of the methods that have one."""
        found = {label: self.cell(label, metric).mean for label in self.labels}
        return {label: mean for label, mean in found.items() if mean is not None}

    def against_reference(self, metric: str) -> dict[str, Paired]:
        """{label: comparison} of the other methods with the reference."""
        return self.view.study.against_reference(self.key(self.reference), metric)


def test_title(study: Study, test: str) -> str:
    """The title of a test set: that of its data set, or its own name if it is a part of one."""
    found = next((t for t in study.folder.bench.tests if t.name == test and t.set == test), None)
    return (found and found.title) or test


def shots_text(shots: int, *, long: bool = False) -> str:
    """``"4 shots"``, or what that means."""
    if shots == 0:
        return "No adaptation images (zero-shot)" if long else "zero-shot"
    return f"Adapted on {count(shots, 'image')} of each class" if long else count(shots, "shot")


def percent(value: float | None, metric: str) -> str:
    """A metric in percent with one decimal, or an error of probabilities with three; empty for None."""
    if value is None:
        return ""
    return f"{100 * value:.1f}" if spec(metric).higher_is_better else f"{value:.3f}"


def signed(value: float, metric: str) -> str:
    """A difference in the units of :func:`percent`, with a true minus sign."""
    digits, scale = (1, 100) if spec(metric).higher_is_better else (3, 1)
    return f"{round(scale * value, digits) + 0.0:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
