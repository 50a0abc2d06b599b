"""Everything that belongs to one open project, wired together; the routes call it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ultraad import __version__
from ultraad.data import sources
from ultraad.errors import ConfigError
from ultraad.fan import FanChoice
from ultraad.io import read_mask
from ultraad.io.files import write_bytes
from ultraad.serve.decode import THUMBNAIL, Decoder
from ultraad.serve.events import Hub
from ultraad.serve.exporting import Exports
from ultraad.serve.history import History
from ultraad.serve.importing import Importer
from ultraad.serve.jobs import Jobs, NotReadyError
from ultraad.serve.listing import Listing
from ultraad.serve.marking import Marking
from ultraad.serve.orders import Orders
from ultraad.serve.outcomes import Outcomes
from ultraad.serve.project import LIMITS, Picture, Place, Project, Summary
from ultraad.serve.reasons import Reasons
from ultraad.serve.schemas import Import, Layout, PreviewRequest, ProjectChange, Row, Rows, Saved, Suggestions
from ultraad.serve.schemas_work import BackboneInfo, Check, CheckFinding, Job, JobRequest, MethodInfo, ProjectInfo
from ultraad.serve.shapes import Mask
from ultraad.serve.upcoming import Upcoming
from ultraad.serve.voice.ear import installed
from ultraad.serve.voice.voice import Voice

_LINE = 3.0  # pixels; radius of a scribble that does not say


class Desk:
    """A project with its worker, decoders and listeners.

    Args:
        folder: Of the project.
        backbone: Name of the backbone to begin with.
        first: Folder of the model to begin with; None for zero-shot.
        device: As ``ultraad adapt --device``.
        fan: As in :class:`~ultraad.serve.orders.Orders`.

    Attributes:
        references: Whether folders of this machine may be imported by path.
    """

    def __init__(
        self,
        folder: Path,
        *,
        backbone: str = "embedded",
        first: str | None = None,
        device: str = "cpu",
        fan: FanChoice | None = None,
    ) -> None:
        self.references = True
        self.project = Project(folder)
        self.hub = Hub()
        self.decoder = Decoder()
        self.outcomes = Outcomes(self.project)
        self.marking = Marking(self.project, guess=self._guess, opinion=self.outcomes.opinion)
        self.orders = Orders(self.project, self.marking, self.outcomes, backbone=backbone, first=first, fan=fan)
        self.jobs = Jobs(self.project, self.outcomes, self.orders, tell=self.hub.tell, device=device)
        self.importer = Importer(self.project, self.marking, tell=self._imported, added=self._added)
        self.listing = Listing(self.project, self.outcomes, warnings=self.warnings)
        self.history = History(self.project, self.outcomes, self.marking, self.jobs, tell=self.hub.tell)
        self.upcoming = Upcoming(self.project, self.outcomes, self.orders, self.jobs)
        self.reasons = Reasons(self.project, self.outcomes, self.orders, self.jobs)
        self.exports = Exports(self.project, self.marking, self.orders)
        self.voice = Voice(self.project)

    def start(self) -> None:
        """Start the worker."""
        self.jobs.start()

    def close(self) -> None:
        """End the children and close the project."""
        self.hub.close()
        self.importer.stop()
        self.jobs.stop()
        self.decoder.close()
        self.voice.close()
        self.project.close()

    def _imported(self, progress: Import) -> None:
        self.hub.tell("import", progress)
        if progress.state != "running":
            self.hub.tell("project", {})

    def _added(self, images: list[str]) -> None:
        self.hub.tell("images", {"changed": images})
        self.jobs.nudge(marked=True)

    def _guess(self, picture: Picture, row: Row) -> tuple[Mask, str]:
        return self._mask_from(picture, row, str(row.tool), row.points, row.radius or max(row.radii or [_LINE]))

    def _mask_from(
        self, picture: Picture, place: Row | PreviewRequest, tool: str, points: Sequence[float], radius: float
    ) -> tuple[Mask, str]:
        path, frame = self.project.path(picture), place.frame
        region, rule = self.decoder.guess(path, frame=frame, tool=tool, points=points, radius=radius, size=picture.size)
        return read_mask([region], shape=picture.size), rule

    def preview(self, wanted: PreviewRequest) -> tuple[Mask, str]:
        """The mask and the rule of a box or scribble that is not saved.

        Raises:
            KeyError: If there is no such frame.
            ConfigError: If the points are not those of a box or a line.
            DataError: If it makes no mask.
        """
        if len(wanted.points) % 2 or (wanted.tool == "box" and len(wanted.points) != 4):
            msg = f"got {len(wanted.points)} numbers; a box has two corners, a scribble x, y pairs"
            raise ConfigError(msg)
        picture = self.project.picture(wanted.image, wanted.frame)
        return self._mask_from(picture, wanted, wanted.tool, wanted.points, wanted.radius or _LINE)

    def save(self, rows: Rows) -> Saved:
        """Save marks, and tell every page.

        Raises:
            DataError: If the project cannot be written.
        """
        saved = self.marking.save(rows)
        if any(s.status == "saved" for s in saved.saved):
            places = [{"image": f.image, "frame": f.frame} for f in saved.frames]
            self.hub.tell("marks", {"row": saved.row, "frames": places, "rater": rows.rater})
            self.hub.tell("queue", {})
            self.jobs.nudge(marked=True)
        return saved

    def info(self) -> ProjectInfo:
        """The project as a whole."""
        project, roles = self.project, self.project.roles()
        raters = "SELECT rater FROM row WHERE kind != 'import' GROUP BY rater ORDER BY max(row) DESC"
        return ProjectInfo(
            id=project.database.setting("id"),
            title=project.title,
            version=__version__,
            classes=list(project.classes),
            raters=[rater for (rater,) in project.database.read(raters)],
            held_out_share=project.database.setting("held_out_share"),
            images=len(project.pictures),
            frames=sum(p.frames for p in project.pictures.values()),
            marked=sum(s.label is not None for s in project.summaries.values()),
            held_out=sum(role == "held_out" for role in roles.values()),
            model=self.outcomes.current,
            row=project.last_row,
            job=self.jobs.running,
            adapt=self.orders.readiness(),
            limits=LIMITS,
            voice=installed(),
        )

    def change(self, wanted: ProjectChange) -> None:
        """Change settings.

        Raises:
            ConfigError: If the classes cannot be changed like this.
        """
        if wanted.classes is not None:
            renamed = any(c.was not in (None, c.name) for c in wanted.classes)
            if renamed and any(facts.places for facts in self.outcomes.models.values()):
                msg = "classes cannot be renamed once a model was adapted to them; add a class instead"
                raise ConfigError(msg)
            self.project.set_classes(wanted.classes)
        if wanted.title is not None:
            self.project.database.set(title=wanted.title)
        if wanted.held_out_share is not None:
            self.project.set_share(wanted.held_out_share)
        self.hub.tell("project", {})
        self.jobs.nudge()

    def hello(self) -> dict[str, Any]:
        """The first event of a stream."""
        job = self.jobs.running
        return {
            "row": self.project.last_row,
            "model": self.outcomes.current,
            "job": job and job.model_dump(mode="json"),
            "version": __version__,
        }

    def methods(self) -> list[MethodInfo]:
        """The methods, and whether the marks are enough for each.

        Raises:
            NotReadyError: In the first seconds, while the worker starts.
        """
        if not self.jobs.answers.methods:
            msg = "the worker is still starting; ask again in a second"
            raise NotReadyError(msg)
        ready = [self.orders.readiness(method) for method in self.jobs.answers.methods]
        return [
            method.model_copy(update={"ready": r.ready, "reason": r.reason})
            for method, r in zip(self.jobs.answers.methods, ready, strict=True)
        ]

    def _chosen(self, request: JobRequest) -> MethodInfo | None:
        """The method of an adaptation; None for the usual one in the first seconds.

        Raises:
            ConfigError: If method or backbone is none of those that the page offers, so that no name from outside is
                imported; or if an option would read a file.
            NotReadyError: In the first seconds, if it is not the usual one.
        """
        known = self.jobs.answers
        if not known.methods and (request.backbone, request.method) == (None, "ultraad"):
            return None
        for kind, name, names in (
            ("method", request.method, [m.name for m in self.methods()]),
            ("backbone", request.backbone, [b.name for b in self.backbones()]),
        ):
            if name is not None and name not in names:
                msg = f"unknown {kind} {name!r}; choose one of {', '.join(names)}"
                raise ConfigError(msg)
        return known.method(request.method)

    def backbones(self) -> list[BackboneInfo]:
        """The backbones that can be chosen, the usual one first; that for tests only if it is the usual one.

        Raises:
            NotReadyError: In the first seconds, while the worker starts.
        """
        self.methods()
        usual, known = self.orders.usual_backbone, {b.name: b for b in self.jobs.answers.backbones}
        first = known.pop(usual, BackboneInfo(name=usual, about="with which the server was started"))
        return [first, *(b for b in known.values() if b.name != "tiny")]

    def submit(self, request: JobRequest) -> Job:
        """Begin a job.

        Raises:
            ConfigError: If the marks are not enough, with the reason in words.
            NotReadyError: If another job runs, or there is no model yet.
        """
        if request.kind == "adapt":
            if "texts" in request.options:
                msg = "the option 'texts' names a file, which is not read for a page; use 'ultraad adapt --texts'"
                raise ConfigError(msg)
            method = self._chosen(request)
            ready = self.orders.readiness(method, use_held_out=request.use_held_out)
            if not ready.ready:
                raise ConfigError(ready.reason)
            return self.jobs.submit(request, lambda number: self.orders.adapt(request, number))
        if request.kind == "check":
            return self.jobs.submit(request, lambda _: {**self.orders.check(), "at": self.jobs.state_of_data()})
        facts = self.outcomes.facts
        if facts is None:
            msg = "there is no model yet; import images and wait for the starting model"
            raise NotReadyError(msg)
        if request.kind == "export":
            return self.jobs.submit(request, lambda _: self.exports.order(facts, request))
        visible = [(p.image, p.frame) for p in request.visible]
        missing = set(self.outcomes.missing(facts.number))
        wanted = [place for place in [*visible, *self.orders.ranked(set(visible))] if place in missing]
        return self.jobs.submit(request, lambda _: self.orders.predict(facts, wanted))

    def suggestions(self, place: Place, *, model: int | None, threshold: float | None) -> Suggestions | None:
        """Lesions that a map shows beside the marked ones; None without a map.

        Raises:
            KeyError: If there is no such frame.
            DataError: If the image cannot be read.
        """
        self.project.picture(*place)
        summary = self.project.summaries.get(place, Summary())
        marked = list(self.marking.masks(place).values()) if summary.lesions else []
        return self.outcomes.suggestions(place, model=model, threshold=threshold, marked=marked)

    def warnings(self) -> dict[str, list[str]]:
        """{image: what the data check says about it}, without remarks that concern most of the set."""
        found: dict[str, list[str]] = {}
        for finding in (self.jobs.answers.checked or {}).get("findings", ()):
            if finding["severity"] == "info" or len(finding["images"]) > len(self.project.pictures) / 2:
                continue
            for image in finding["images"]:
                picture = self.project.pictures.get(image)
                items = [item for item in finding["items"] if picture and picture.name in item]
                text = f"{finding['kind'].replace('_', ' ')}: {items[0]}" if items else finding["message"]
                found.setdefault(image, []).append(text)
        return found

    def check(self) -> Check:
        """The findings of the last data check."""
        checked, job = self.jobs.answers.checked, self.jobs.running
        state: Literal["none", "running", "done", "stale"] = "none" if checked is None else "done"
        if job is not None and job.kind == "check":
            state = "running"
        elif checked is not None and checked["at"] != self.jobs.state_of_data():
            state = "stale"
        found = [CheckFinding.model_validate(f) for f in (checked or {}).get("findings", ())]
        return Check(state=state, findings=found)

    def layouts(self) -> list[Layout]:
        """The layouts that can be imported."""
        found = [sources.get(name) for name in sources.available()]
        return [Layout(name=s.name, title=s.title, layout=s.layout.strip("\n")) for s in found]

    def kept_thumbnail(self, image: str, *, frame: int, longest: int) -> bytes | None:
        """A JPEG of a frame that is on disk already, read at once; None if it has to be made.

        Raises:
            KeyError: If there is no such frame.
            DataError: If it cannot be read.
        """
        self.project.picture(image, frame)
        try:
            return self._thumbnail(image, frame).read_bytes() if longest == THUMBNAIL else None
        except FileNotFoundError:
            return None

    def thumbnail(self, image: str, *, frame: int, longest: int) -> bytes:
        """A JPEG of a frame; the usual size is kept on disk.

        Raises:
            KeyError: If there is no such frame.
            DataError: If it cannot be read.
        """
        picture = self.project.picture(image, frame)
        if (found := self.kept_thumbnail(image, frame=frame, longest=longest)) is not None:
            return found
        made = self.decoder.thumbnail(self.project.path(picture), frame=frame, longest=longest)
        if longest == THUMBNAIL and image in self.project.pictures:
            kept = self._thumbnail(image, frame)
            kept.parent.mkdir(exist_ok=True)
            write_bytes(kept, made)
        return made

    def _thumbnail(self, image: str, frame: int) -> Path:
        return self.project.folder / "thumbnails" / image[:2] / f"{image}-{frame}.jpg"

    def remove(self, image: str) -> None:
        """Remove an image.

        Raises:
            KeyError: If there is none of this id.
        """
        self.project.remove(image)
        self.outcomes.forget(image)
        self.hub.tell("images", {"changed": [image]})

    def delete_all(self, confirm: str) -> None:
        """Delete everything in the project.

        Raises:
            ConfigError: If the title was not typed.
            NotReadyError: While a job or an import runs.
        """
        if confirm != self.project.title:
            msg = f"type the title of the project, {self.project.title!r}, to delete everything in it"
            raise ConfigError(msg)
        if self.jobs.running is not None or self.importer.running:
            msg = "a job or an import is running; cancel it or wait until it is done"
            raise NotReadyError(msg)
        self.jobs.forget(self.project.delete_all)
        self.outcomes.load()
        self.hub.tell("images", {"all": True})
        self.hub.tell("project", {})
