"""Exports as the server sees them: what is to be written, and what was."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ultraad.serve.decode import SAMPLES
from ultraad.serve.export import WHAT
from ultraad.serve.marking import Marking
from ultraad.serve.numbers import honest_places
from ultraad.serve.orders import Order, Orders
from ultraad.serve.outcomes import ModelFacts
from ultraad.serve.project import Project, now
from ultraad.serve.schemas_work import Export, JobRequest
from ultraad.types import Sample


class Exports:
    """The exports of a project.

    Args:
        project: Open.
        marking: Its marks.
        orders: Makes the part of the order that names the model.
    """

    def __init__(self, project: Project, marking: Marking, orders: Orders) -> None:
        self._project, self._marking, self._orders = project, marking, orders

    def all(self) -> list[Export]:
        """What was taken away, newest first."""
        found = self._project.database.facts("export")
        return [Export.model_validate(facts) for _, facts in sorted(found.items(), reverse=True)]

    def folder(self, number: int) -> Path:
        """Where an export is.

        Raises:
            KeyError: If there is none of this number.
        """
        folder = self._project.folder / "exports" / str(number)
        if not folder.is_dir():
            raise KeyError(number)
        return folder

    def delete(self, number: int) -> None:
        """Delete an export.

        Raises:
            KeyError: If there is none of this number.
        """
        folder = self.folder(number)
        with self._project.database.write() as db:
            db.execute("DELETE FROM export WHERE number = ?", (number,))
        shutil.rmtree(folder, ignore_errors=True)

    def order(self, facts: ModelFacts, request: JobRequest) -> Order:
        """Write everything that is known, with a model."""
        project, roles = self._project, self._project.roles()
        number = max(project.database.facts("export"), default=0) + 1
        marked = [
            replace(self._marking.sample(place), split="train" if role == "support" else "test")
            for place, role in roles.items()
        ]
        about = Export(
            number=number,
            made=now(),
            model=facts.number,
            folder=f"exports/{number}",
            files=0,
            bytes=0,
            what=list(request.what or WHAT),
            command=self._command(facts, number, what=request.what or WHAT),
        )
        return {
            **self._orders.predict(facts, []),
            "do": "export",
            "export": number,
            "about": about.model_dump(),
            "target": str(project.folder / about.folder),
            "what": about.what,
            "marked": SAMPLES.dump_python(marked, mode="json"),
            "all": SAMPLES.dump_python(list(self._every_frame()), mode="json"),
            "classes": project.class_names,
            "normal_class": project.normal_class,
            "support_file": str(project.folder / "supports" / f"{facts.number}.json"),
        }

    def _command(self, facts: ModelFacts, number: int, *, what: Sequence[str]) -> str:
        """What to type in the folder of the project to use the model and the marks; empty if the marks are left out."""
        if not {"masks", "coco"} & set(what) or not self._project.roles():
            return ""
        model, export = f"models/{facts.number}", f"exports/{number}"
        if honest_places(self._project, facts):
            return f"ultraad evaluate {model} {export}/data --split test --drop-support -o {export}/evaluation"
        return f"ultraad predict {model} {export}/data/images -o {export}/again"

    def _every_frame(self) -> Iterator[Sample]:
        """All frames with their labels and masks; ids are unique."""
        seen: set[str] = set()
        for picture in list(self._project.pictures.values()):
            for frame in range(picture.frames) if not picture.failed else ():
                sample = self._marking.sample((picture.id, frame))
                if sample.id in seen:
                    sample = replace(sample, id=f"{picture.id}/{sample.id}")
                seen.add(sample.id)
                yield sample
