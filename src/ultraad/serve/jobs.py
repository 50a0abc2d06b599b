"""The worker as the server sees it: one job at a time, what it does between jobs, and what it answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from threading import Condition, Thread
from typing import Any, NamedTuple

from ultraad.errors import ConfigError
from ultraad.serve.answers import Answers, Tell
from ultraad.serve.child import Child, Message
from ultraad.serve.orders import Order, Orders, same_fit
from ultraad.serve.outcomes import ModelFacts, Outcomes
from ultraad.serve.project import Project, now
from ultraad.serve.schemas_work import Job, JobRequest

_log = logging.getLogger(__name__)

_AHEAD = 64  # frames that are predicted at a time between jobs
_PATIENCE = 5.0  # seconds that a cancelled job has to stop by itself
_PAUSE = 1.0  # seconds after the last mark before its views are encoded ahead
_EVERY = 0.2  # seconds between two progress events
_DOING = {
    "fitting": "fitting, epoch",
    "predicting": "predicting, image",
    "calibrating": "thresholds, part",
    "writing": "writing, image",
}
_ENDED = frozenset({"done", "failed", "cancelled"})
_MOST_CRASHES = 3  # of the worker in a row, before it is not started again by itself


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
        self._nudged = True  # there may be work between jobs
        self._busy = False  # the worker has an order
        self._ahead_now: Order | None = None  # the adaptation that it makes ahead
        self._asked: Order | None = None  # the question that it answers
        self._cancel_by = float("inf")  # time at which the child is killed
        self.jobs: dict[int, Job] = {n: Job.model_validate(f) for n, f in project.database.facts("job").items()}
        self.answers = Answers(project, outcomes, tell=tell, resave=self.set_thresholds)
        self._request = JobRequest(kind="adapt")
        self._warmed = self._failed = ""  # states of the data that need not, or cannot, be worked on ahead
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
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    @property
    def running(self) -> Job | None:
        """The job that waits or runs; None if there is none."""
        return next((j for j in reversed(self.jobs.values()) if j.state not in _ENDED), None)

    def nudge(self, *, marked: bool = False) -> None:
        """Something has changed; there may be work between jobs.

        Args:
            marked: Whether marks have changed.
        """
        with self._changed:
            self._nudged = True
            if marked:
                self._marked_at = time.monotonic()
                if self._busy and self._ahead_now is not None and self._child is not None:  # for marks of before
                    self._child.send(Message({"do": "cancel"}))
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
                self._outcomes.clear(order["number"])
            job = Job(number=number, kind=request.kind, model=model, started=now(), text="waiting for the worker")
            job.to_predict = sum(len(order.get(key, ())) for key in ("visible", "rest", "units"))
            self.jobs[number] = job
            self._waiting.append(_Task(order, number))
            if self._busy and self._child is not None and not same_fit(self._ahead_now, order):
                self._child.send(Message({"do": "cancel"}))
            self._changed.notify_all()
        self._tell("job", job)
        return job

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
            self.jobs, self._waiting, self._warmed = {}, [], ""
            self.answers.checked, self.answers.unreadable, self.answers.reasons = None, {}, {}

    def set_thresholds(self, facts: ModelFacts) -> None:
        """Have a model saved with new thresholds when the worker is free."""
        with self._changed:
            self._waiting.append(_Task(self._orders.thresholds(facts)))
            self._changed.notify_all()

    def ask(self, order: Order) -> None:
        """Ask the worker something that the page waits for, once; work between jobs gives way to it."""
        with self._changed:
            if order == self._asked or any(task.order == order for task in self._waiting):
                return
            self._waiting.append(_Task(order))
            if self._busy and self.running is None and self._asked is None and self._child is not None:
                self._child.send(Message({"do": "cancel"}))
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
        # pages and pictures that someone waits for come before images that nobody looks at yet
        self._child = Child("ultraad.serve.work", self._device, nice=5)
        return self._follow(_Task({"do": "begin", "backbone": self._orders.backbone}))

    def _next(self) -> _Task | None:
        """The next thing to do; None after a pause without any."""
        with self._changed:
            if self._waiting:
                return self._waiting.pop(0)
            self._nudged = False
        ahead = self._ahead()
        with self._changed:
            if ahead is not None:
                self._nudged = True
            elif not (self._waiting or self._stopping or self._nudged):
                rests = _PAUSE - (time.monotonic() - self._marked_at)
                self._changed.wait(timeout=rests + 0.1 if rests > 0 else None)
        return ahead

    def _ahead(self) -> _Task | None:
        """Work between jobs: a first model, features of what is marked, missing predictions, the data check."""
        if self._failed == self.state_of_data():
            return None
        if self._orders.needs_first():
            self._outcomes.clear(0)
            return _Task(self._orders.first(0))
        rested = time.monotonic() - self._marked_at > _PAUSE
        last = str(self._project.last_row)
        if rested and self._request.method == "ultraad" and last != self._warmed and self._orders.can_warm():
            self._warmed = last
            return _Task(self._orders.warm(self._request))
        facts = self._outcomes.facts
        if facts is not None:
            missing = [
                p for p in self._outcomes.missing(facts.number) if (facts.number, p) not in self.answers.unreadable
            ]
            if missing:
                return _Task(self._orders.predict(facts, missing[:_AHEAD]))
        if (
            rested
            and self._project.pictures
            and (self.answers.checked is None or self.answers.checked["at"] != self.state_of_data())
        ):
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
            if task.job is None and self._waiting and task.order["do"] != "why":
                return True
            if task.job is not None and not self.jobs[task.job].cancellable:
                self._update(task.job, state="cancelled", text="cancelled")
                return True
            self._busy, self._cancel_by = True, float("inf")
            self._ahead_now = task.order if task.order["do"] == "warm" else None
            self._asked = task.order if task.order["do"] == "why" else None
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
                self._busy, self._asked = False, None
                self._changed.notify_all()

    def _died(self, task: _Task) -> None:
        assert self._child is not None
        self._child.kill()  # closes what led to it
        code, self._child = self._child.exit_code, None
        if self._stopping:
            return
        self._crashes += 1
        _log.warning("the worker ended with exit code %s", code)
        if task.order["do"] in ("warm", "check", "predict"):  # not again the same
            self._skip(task.order)
        if task.order["do"] == "why":
            image, frame, _ = task.order["unit"]
            about = {key: task.order[key] for key in ("number", "digest")}
            self.answers.take(
                {"say": "why", "image": image, "frame": frame, "error": "the worker crashed on it", **about},
                b"",
                task.order,
            )
        if task.job is None:
            return
        if self._cancel_by < float("inf"):
            self._update(task.job, state="cancelled", text="cancelled")
        else:
            text = "the worker ended unexpectedly, perhaps for lack of memory; try a smaller backbone or fewer images"
            self._update(task.job, state="failed", error=text, text=text)

    def _skip(self, order: Order) -> None:
        for image, frame, _ in order.get("units", ())[:1]:
            self.answers.unreadable[order["number"], (image, frame)] = "the worker crashed on it"

    def _took(self, message: Message, task: _Task, seconds: float) -> bool:
        """Take in an answer; True if it was the last one."""
        what, say = message.what, message.what["say"]
        if say == "progress":
            self._progress(task, what, seconds)
        else:
            self.answers.take(what, message.data, task.order)
        if say == "predictions" and task.job is not None:
            self.jobs[task.job].predicted += len(what["found"])
        return self._ended(task, what, seconds)

    def _ended(self, task: _Task, what: Mapping[str, Any], seconds: float) -> bool:
        states = {"finished": "done", "failed": "failed", "stopped": "cancelled"}
        state = states.get(what["say"])
        if state is None:
            return False
        if state == "failed" and task.job is None:
            _log.warning("work between jobs failed: %s", what["error"])
            self._failed = self.state_of_data()  # it would fail again at once
        if task.job is not None:
            text = what.get("error") or state
            self._update(task.job, state=state, text=text, error=what.get("error"), seconds=seconds, cancellable=False)
        return True

    def _progress(self, task: _Task, what: Mapping[str, Any], seconds: float) -> None:
        if task.job is None:
            return
        done, total, state = what["done"], what["total"], what["state"]
        self._update(
            task.job,
            quiet=time.monotonic() - self._sent < _EVERY and state == self.jobs[task.job].state,
            state=state,
            text=f"{_DOING[state]} {done} of {total}",
            done=done,
            total=total,
            seconds=seconds,
            fraction=done / total if total else 0.0,
        )

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
