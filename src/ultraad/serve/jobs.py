"""The worker as the server sees it: one job at a time, what it does between jobs, and what it answers."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from threading import Condition, Thread
from typing import Any, NamedTuple

import numpy as np

from ultraad.errors import ConfigError
from ultraad.serve.child import Child, Message
from ultraad.serve.orders import Order, Orders
from ultraad.serve.outcomes import ModelFacts, Outcomes
from ultraad.serve.project import Place, Project, now
from ultraad.serve.schemas_work import BackboneInfo, Job, JobRequest, MethodInfo

_log = logging.getLogger(__name__)

_AHEAD = 64  # frames that are predicted at a time between jobs
_PATIENCE = 5.0  # seconds that a cancelled job has to stop by itself
_PAUSE = 1.0  # seconds after the last mark before its views are encoded ahead
_EVERY = 0.2  # seconds between two progress events
_ENDED = frozenset({"done", "failed", "cancelled"})
_MOST_CRASHES = 3  # of the worker in a row, before it is not started again by itself

Tell = Callable[[str, Any], None]


class NotReadyError(ConfigError):
    """A job cannot be started now."""


class _Task(NamedTuple):
    """An order, and the job it belongs to; None for work between jobs."""

    order: Order
    job: int | None = None


class Jobs:
    """Gives the worker one order at a time.

    Args:
        project: Open.
        outcomes: Gets what the worker finds.
        orders: Makes its orders.
        tell: Called with (event, what) for the pages.
        device: As ``ultraad adapt --device``.
    """

    def __init__(self, project: Project, outcomes: Outcomes, orders: Orders, *, tell: Tell, device: str) -> None:
        self._project, self._outcomes, self._orders = project, outcomes, orders
        self._tell = tell
        self._device = device
        self._child: Child | None = None
        self._changed = Condition()
        self._stopping = False
        self._crashes = 0
        self._waiting: list[_Task] = []
        self._busy = False  # the worker has an order
        self._cancel_by = float("inf")  # time at which the child is killed
        self.jobs: dict[int, Job] = {n: Job.model_validate(f) for n, f in project.database.facts("job").items()}
        self.methods: list[MethodInfo] = []
        self.backbones: list[BackboneInfo] = []
        self.checked: dict[str, Any] | None = project.database.setting("checked")
        self._request = JobRequest(kind="adapt", backbone=orders.backbone)
        self._unreadable: dict[tuple[int, Place], str] = {}
        self._warmed = self._last_mark = ""
        self._marked_at = 0.0
        self._sent = 0.0
        self._thread = Thread(target=self._loop, name="jobs", daemon=True)

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    def stop(self) -> None:
        """End the worker now; a job that runs is lost, what it had predicted is not."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._child is not None:
            self._child.kill()
        self._thread.join(timeout=5)

    @property
    def running(self) -> Job | None:
        """The job that waits or runs; None if there is none."""
        return next((j for j in reversed(self.jobs.values()) if j.state not in _ENDED), None)

    def method(self, name: str) -> MethodInfo | None:
        """What is known of a method."""
        return next((m for m in self.methods if m.name == name), None)

    def nudge(self, *, marked: bool = False) -> None:
        """Something has changed; there may be work between jobs.

        Args:
            marked: Whether marks have changed.
        """
        with self._changed:
            if marked:
                self._marked_at = time.monotonic()
            self._changed.notify_all()

    def submit(self, request: JobRequest, make: Callable[[int], Order]) -> Job:
        """Begin a job.

        Args:
            request: What is wanted.
            make: Makes the order from the number of the model.

        Raises:
            NotReadyError: If another job runs.
        """
        with self._changed:
            if self.running is not None:
                msg = f"job {self.running.number} ({self.running.kind}) is running; wait until it is done, or cancel it"
                raise NotReadyError(msg)
            number = max(self.jobs, default=0) + 1
            model = self._outcomes.new_number() if request.kind == "adapt" else self._outcomes.current
            order = make(model if model is not None else 0)
            if request.kind == "adapt":
                self._request = request
                self._clear(order["number"])
            job = Job(number=number, kind=request.kind, model=model, started=now(), text="waiting for the worker")
            self.jobs[number] = job
            self._waiting.append(_Task(order, number))
            if self._busy and self._child is not None:
                self._child.send(Message({"do": "cancel"}))
            self._changed.notify_all()
        self._tell("job", job)
        return job

    def _clear(self, model: int) -> None:
        """Remove what a killed job of this number may have left."""
        with self._project.database.write() as db:
            db.execute("DELETE FROM prediction WHERE model = ?", (model,))
        shutil.rmtree(self._project.folder / "maps" / str(model), ignore_errors=True)

    def cancel(self, number: int) -> Job:
        """Ask a job to stop; it is killed if it does not.

        Raises:
            KeyError: If there is no such job.
        """
        with self._changed:
            job = self.jobs[number]
            if job.state in _ENDED:
                return job
            waiting = [task for task in self._waiting if task.job == number]
            if waiting:
                self._waiting.remove(waiting[0])
                return self._update(number, state="cancelled", text="cancelled", cancellable=False)
            self._cancel_by = time.monotonic() + _PATIENCE
            if self._child is not None:
                self._child.send(Message({"do": "cancel"}))
        return self._update(number, text="stopping", cancellable=False)

    def forget(self, delete: Callable[[], None]) -> None:
        """Delete a project while the worker does nothing.

        Args:
            delete: Deletes it.
        """
        with self._changed:
            if self._child is not None:
                self._child.send(Message({"do": "cancel"}))
            self._changed.wait_for(lambda: not self._busy, timeout=_PATIENCE)
            delete()
            self.jobs, self.checked, self._waiting = {}, None, []
            self._unreadable, self._warmed = {}, ""

    def set_thresholds(self, facts: ModelFacts) -> None:
        """Have a model saved with new thresholds when the worker is free."""
        with self._changed:
            self._waiting.append(_Task(self._orders.thresholds(facts)))
            self._changed.notify_all()

    def _loop(self) -> None:
        while True:
            with self._changed:
                if self._stopping:
                    return
            if (self._child is None or not self._child.alive) and not self._begin():
                continue
            task = self._next()
            if task is not None:
                self._follow(task)

    def _begin(self) -> bool:
        """Start the worker's process and wait until it knows what can be chosen."""
        if self._crashes >= _MOST_CRASHES:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or bool(self._waiting))
                self._crashes = 0
            return False
        self._child = Child("ultraad.serve.work", self._device)
        return self._follow(_Task({"do": "begin", "backbone": self._orders.backbone}))

    def _next(self) -> _Task | None:
        """The next thing to do; None after a pause without any."""
        with self._changed:
            if self._waiting:
                return self._waiting.pop(0)
        ahead = self._ahead()
        if ahead is None:
            with self._changed:
                if not self._waiting and not self._stopping:
                    self._changed.wait(timeout=_PAUSE)
        return ahead

    def _ahead(self) -> _Task | None:
        """Work between jobs: a first model, missing predictions, features of the support, the data check."""
        if self._orders.needs_first():
            number = self._outcomes.new_number()
            self._clear(number)
            return _Task(self._orders.first(number))
        facts = self._outcomes.facts
        if facts is not None:
            missing = [p for p in self._outcomes.missing(facts.number) if (facts.number, p) not in self._unreadable]
            if missing:
                return _Task(self._orders.predict(facts, missing[:_AHEAD]))
        rested = time.monotonic() - self._marked_at > _PAUSE
        last = str(self._project.last_row)
        if rested and self._request.method == "ultraad" and last != self._warmed and self._orders.readiness().ready:
            self._warmed = last
            return _Task(self._orders.warm(self._request))
        if rested and self._project.pictures and (self.checked is None or self.checked["at"] != self.state_of_data()):
            return _Task({**self._orders.check(), "at": self.state_of_data()})
        return None

    def state_of_data(self) -> str:
        """Another text when the data check has to be done again."""
        last = self._project.last_row
        return f"{len(self._project.pictures)} images, row {last - last % 10}"

    def _follow(self, task: _Task) -> bool:
        """Give an order and take in what comes back; False if the worker died."""
        assert self._child is not None
        child, started = self._child, time.monotonic()
        with self._changed:  # so that a cancellation comes either before or after the order
            if task.job is None and self._waiting:
                return True
            if task.job is not None and not self.jobs[task.job].cancellable:
                self._update(task.job, state="cancelled", text="cancelled")
                return True
            self._busy, self._cancel_by = True, float("inf")
            child.send(Message(task.order))
        if task.job is not None:
            self._update(task.job, state="fitting" if task.order["do"] == "adapt" else "predicting", text="starting")
        try:
            while True:
                try:
                    message = child.receive(timeout=_EVERY)
                except TimeoutError:
                    if time.monotonic() > self._cancel_by:
                        child.kill()
                    continue
                if message is None:
                    self._died(task)
                    return False
                if self._took(message, task, time.monotonic() - started):
                    self._crashes = 0
                    return True
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _died(self, task: _Task) -> None:
        code = self._child.exit_code if self._child is not None else None
        self._child = None
        if self._stopping:
            return
        self._crashes += 1
        _log.warning("the worker ended with exit code %s", code)
        if task.order["do"] in ("warm", "check", "predict"):  # not again the same
            self._skip(task.order)
        if task.job is None:
            return
        if self._cancel_by < float("inf"):
            self._update(task.job, state="cancelled", text="cancelled")
        else:
            text = "the worker ended unexpectedly, perhaps for lack of memory; try a smaller backbone or fewer images"
            self._update(task.job, state="failed", error=text, text=text)

    def _skip(self, order: Order) -> None:
        for image, frame, _ in order.get("units", ())[:1]:
            self._unreadable[order["number"], (image, frame)] = "the worker crashed on it"

    def _took(self, message: Message, task: _Task, seconds: float) -> bool:
        """Take in an answer; True if it was the last one."""
        what, say = message.what, message.what["say"]
        if say == "progress":
            self._progress(task, what, seconds)
        elif say == "predictions":
            self._predictions(what, message.data)
            if task.job is not None:
                job = self.jobs[task.job]
                self.jobs[task.job] = job.model_copy(update={"predicted": job.predicted + len(what["found"])})
        elif say == "unreadable":
            self._unreadable[task.order["number"], (what["image"], what["frame"])] = what["error"]
        elif say == "model":
            self._model(ModelFacts.model_validate(what["facts"]))
        elif say == "digest":
            self._outcomes.put(self._outcomes.models[what["number"]].model_copy(update={"digest": what["digest"]}))
        elif say == "catalogue":
            self.methods = [MethodInfo.model_validate(m) for m in what["methods"]]
            self.backbones = [BackboneInfo.model_validate(b) for b in what["backbones"]]
            self._tell("project", {})
        elif say == "checked":
            self.checked = {"at": task.order.get("at", self.state_of_data()), **_without(what, "say")}
            self._project.database.set(checked=self.checked)
            self._tell("queue", {})
        elif say == "exported":
            self._exported(task, what)
        return self._ended(task, what, seconds)

    def _ended(self, task: _Task, what: Mapping[str, Any], seconds: float) -> bool:
        states = {"finished": "done", "failed": "failed", "stopped": "cancelled"}
        state = states.get(what["say"])
        if state is None:
            return False
        if state == "failed" and task.job is None:
            _log.warning("work between jobs failed: %s", what["error"])
            if task.order["do"] == "first":
                self._crashes = _MOST_CRASHES  # it would fail again at once
        if task.job is not None:
            text = what.get("error") or state
            self._update(task.job, state=state, text=text, error=what.get("error"), seconds=seconds, cancellable=False)
        return True

    def _progress(self, task: _Task, what: Mapping[str, Any], seconds: float) -> None:
        if task.job is None:
            return
        done, total, state = what["done"], what["total"], what["state"]
        text = {
            "fitting": f"fitting, epoch {done} of {total}",
            "predicting": f"{done} of {total} images",
            "calibrating": f"thresholds, part {done} of {total}",
            "writing": f"writing, {done} of {total}",
        }[state]
        quiet = time.monotonic() - self._sent < _EVERY and state == self.jobs[task.job].state
        self._update(
            task.job, state=state, text=text, done=done, total=total, seconds=seconds, quiet=quiet,
            fraction=done / total if total else 0.0, to_predict=len(task.order.get("rest", ())) +
            len(task.order.get("visible", ())) or len(task.order.get("units", ())),
        )  # fmt: skip

    def _update(self, number: int, *, quiet: bool = False, **changes: Any) -> Job:  # noqa: ANN401
        job = self.jobs[number].model_copy(update=changes)
        if "seconds" in changes:
            job.seconds = round(job.seconds, 2)
        self.jobs[number] = job
        if job.state in _ENDED:
            self._project.database.put("job", number, job.model_dump_json())
        if not quiet:
            self._sent = time.monotonic()
            self._tell("job", job)
        return job

    def _predictions(self, what: Mapping[str, Any], vectors: bytes) -> None:
        found = what["found"]
        rows = np.frombuffer(vectors, "<f4").reshape(len(found), -1)
        with_vectors = [{**f, "vector": row.tobytes()} for f, row in zip(found, rows, strict=True)]
        images = self._outcomes.add(what["number"], with_vectors)
        self._tell("predictions", {"model": what["number"], "images": images})

    def _model(self, facts: ModelFacts) -> None:
        """A model was fitted, or its thresholds were."""
        known = facts.number in self._outcomes.models
        self._outcomes.put(facts)
        if not known:
            self._outcomes.use(facts.number)
        self._tell("model", {"model": facts.number, "why": "calibrated" if known else "adapted"})
        self._tell("queue", {})

    def _exported(self, task: _Task, what: Mapping[str, Any]) -> None:
        facts = {**task.order["about"], "files": what["files"], "bytes": what["bytes"]}
        self._project.database.put("export", task.order["export"], json.dumps(facts))


def _without(what: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in what.items() if k != key}
