"""The program of the worker: it adapts, predicts and exports, one thing at a time, in a process of its own.

It keeps the backbone, the features of images it has seen, and the model in use in memory, so that Adapt does not begin
with loading.
"""

from __future__ import annotations

import json
import logging
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from ultraad.errors import Caught, DataError, UltraadError, brief
from ultraad.serve.child import Message, Parent, parent, quiet, where
from ultraad.serve.decode import without_paths
from ultraad.serve.fitted import facts_of, support_of, with_sets
from ultraad.serve.orders import FIT
from ultraad.serve.reasons import explained
from ultraad.types import Sample, SupportSet

if TYPE_CHECKING:
    from ultraad.backbones._cache import FeatureCache
    from ultraad.backbones._door import Backbone
    from ultraad.model.model import Model
    from ultraad.types import Batch

_log = logging.getLogger(__name__)

FEATURE_BYTES = 512 << 20  # of image features in memory; some 1200 images of the embedded backbone
_VIEW_BYTES = 512 << 20  # of the features of augmented support images
_BATCH = 8
_BEFORE_THRESHOLDS = 256  # frames predicted before the cross-validation


class Stopped(Exception):  # noqa: N818  control flow, not an error
    """The parent does not want the rest."""


class Worker:
    """The state that is kept between orders.

    Args:
        to_parent: Where answers go.
        device: As ``ultraad adapt --device``.
    """

    def __init__(self, to_parent: Parent, *, device: str = "cpu") -> None:
        self._tell = to_parent.send
        self._device = device
        self._orders: queue.Queue[Message | None] = queue.Queue()
        self._received = self._current = self._cancelled = 0  # orders so far; the one that runs; cancelled up to
        self._backbones: dict[str, Backbone] = {}
        self._features: dict[str, FeatureCache] = {}
        self._models: dict[int, Model] = {}
        self._marked: tuple[tuple[str, ...], Batch] | None = None  # the support images, decoded, and what they are
        self._ahead: tuple[str, Model, float] | None = None  # what it was made for, the model, seconds
        Thread(target=self._listen, args=(to_parent,), daemon=True).start()

    def _listen(self, to_parent: Parent) -> None:
        for message in to_parent.messages():
            if message.what["do"] == "cancel":
                self._cancelled = self._received  # also an order that was not begun yet, and none that comes later
            else:
                self._received += 1
                self._orders.put(message)
        self._cancelled = self._received
        self._orders.put(None)

    def run(self) -> None:
        """Follow orders until the parent is gone."""
        doing: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "begin": self._begin,
            "first": self._first,
            "adapt": self._adapt,
            "predict": self._predict_some,
            "warm": self._warm,
            "thresholds": self._thresholds,
            "check": self._check_data,
            "export": self._export,
            "why": self._why,
        }
        while (message := self._orders.get()) is not None:
            order = message.what
            self._current += 1
            with Caught() as caught:
                doing[order["do"]](order)
            e = caught.error
            if isinstance(e, Stopped):
                self._tell({"say": "stopped"})
            elif isinstance(e, UltraadError):
                self._tell({"say": "failed", "error": without_paths(str(e), order)})
            elif e is not None:
                _log.error("an order of kind %s failed: %s", order["do"], where(e))
                self._tell({"say": "failed", "error": f"something went wrong: {without_paths(brief(e), order)}"})
            else:
                self._tell({"say": "finished"})

    def _check(self) -> None:
        """Stop here if the parent wants it.

        Raises:
            Stopped: If so.
        """
        if self._cancelled >= self._current:
            raise Stopped

    def _progress(self, state: str, done: int, total: int) -> None:
        self._tell({"say": "progress", "state": state, "done": done, "total": total})
        self._check()

    def _begin(self, order: Mapping[str, Any]) -> None:
        """Import everything that is slow to import, and say what can be chosen."""
        from ultraad.serve.catalogue import backbones, methods

        self._backbone(order["backbone"])
        self._tell({"say": "catalogue", "methods": methods(), "backbones": backbones()})

    def _backbone(self, name: str) -> Backbone:
        from ultraad.backbones import load_backbone

        if name not in self._backbones:
            self._backbones.clear()  # one at a time: a large one takes gigabytes
            self._features.clear()
            self._models.clear()
            loaded = load_backbone(name, device=self._device)
            loaded.cache.max_bytes = _VIEW_BYTES
            self._features[name] = loaded.new_cache()
            self._features[name].max_bytes = FEATURE_BYTES
            self._backbones[name] = loaded
        return self._backbones[name]

    @contextmanager
    def _seen(self, backbone: Backbone) -> Iterator[None]:
        """Inside, images that were encoded before are not encoded again."""
        cache = self._features.get(backbone.name)
        if cache is None:
            yield
        else:
            with backbone.caching(cache):
                yield

    def _model(self, number: int, folder: str, backbone: str) -> Model:
        """A saved model of the project, on the backbone that is loaded."""
        from ultraad.model.model import load

        if number not in self._models:
            self._models = {number: load(folder, backbone=self._backbone(backbone))}
        return self._models[number]

    def _first(self, order: Mapping[str, Any]) -> None:
        """Make the model that the project begins with: from text alone, or a copy of a saved one."""
        from ultraad.model.adapt import zero_shot
        from ultraad.model.model import load

        if order["model"] is None:
            model = zero_shot(
                backbone=self._backbone(order["backbone"]),
                classes=order["classes"],
                normal_class=order["normal_class"],
                fan=order["fan"],
            )
        else:
            model = load(order["model"], device=self._device)
            self._backbones = {model.backbone.name: model.backbone}
            self._features = {model.backbone.name: model.backbone.new_cache()}
            self._features[model.backbone.name].max_bytes = FEATURE_BYTES
        model.save(order["folder"])
        self._models = {order["number"]: model}
        self._tell({"say": "model", "facts": facts_of(model, order, support=None, seconds=0.0).model_dump(mode="json")})

    def _adapt(self, order: Mapping[str, Any]) -> None:
        """Fit, predict what the user looks at, then thresholds, then the rest."""
        from ultraad.data.support import save_support
        from ultraad.model.adapt import with_thresholds

        support, backbone, number = support_of(order["support"]), self._backbone(order["backbone"]), order["number"]
        model, seconds = self._fit(order, support, backbone)
        self._models = {number: model}
        model.save(order["folder"])  # before anyone hears of it, so that no kill leaves a model that is not there
        facts = facts_of(model, order, support=support, seconds=seconds)
        self._tell({"say": "model", "facts": facts.model_dump(mode="json")})
        early = self._predict(model, number, order["visible"], order["maps"])
        save_support(support, order["support_file"])
        rest = order["rest"]
        early += self._predict(model, number, rest[:_BEFORE_THRESHOLDS], order["maps"])
        model = with_thresholds(
            model,
            support,
            options=order["options"],
            loaded=self._support_images(order, support, backbone),
            progress=lambda done, total: self._progress("calibrating", done, total),
        )
        model.save(order["folder"])
        self._models = {number: model}
        facts = facts_of(model, order, support=support, seconds=seconds)
        self._tell({"say": "model", "facts": facts.model_dump(mode="json")})
        self._grade(model, number, early)
        self._predict(model, number, rest[_BEFORE_THRESHOLDS:], order["maps"])

    def _grade(self, model: Model, number: int, early: Sequence[Mapping[str, Any]]) -> None:
        """Tell the probabilities and sets of frames that were predicted before the cross-validation, as of now."""
        graded = with_sets(model)[0].graded
        now = [(one, *graded(one["probs"])) for one in early]
        found = [{"image": one["image"], "frame": one["frame"], "probs": p, "set": s} for one, p, s in now]
        self._tell({"say": "graded", "number": number, "found": found})

    def _predict_some(self, order: Mapping[str, Any]) -> None:
        model = self._model(order["number"], order["folder"], order["backbone"])
        self._predict(model, order["number"], order["units"], order["maps"])

    def _predict(self, model: Model, number: int, units: Sequence[Sequence[Any]], maps: str) -> list[Mapping[str, Any]]:
        """Predict frames, each (image, frame, path), and tell the parent in small batches; the first one alone."""
        told: list[Mapping[str, Any]] = []
        model, _ = with_sets(model)
        for start, stop in ((0, 1), (1, len(units))):
            for found, vectors in self._batches(model, units[start:stop], Path(maps)):
                self._tell({"say": "predictions", "number": number, "found": found}, vectors)
                told += found
                self._progress("predicting", len(told), len(units))
        return told

    def _batches(
        self, model: Model, units: Sequence[Sequence[Any]], maps: Path
    ) -> Iterator[tuple[list[dict[str, Any]], bytes]]:
        import cv2
        import numpy as np
        import torch

        from ultraad.data.fans import in_fans
        from ultraad.data.loader import iterate
        from ultraad.io.maps import write_map

        maps.mkdir(exist_ok=True)
        places = {f"{image}-{frame}": (image, frame) for image, frame, _ in units}
        plain = [Sample(f"{image}-{frame}", Path(path), frame=frame) for image, frame, path in units]
        samples = in_fans(plain, model.fan)

        def unreadable(sample: Sample, error: DataError) -> None:
            image, frame = places[sample.id]
            text = str(error).replace(str(sample.image), "the file").replace(sample.id, "the image")
            self._tell({"say": "unreadable", "image": image, "frame": frame, "error": text})

        side = model.preprocess.config.size
        loading = iterate(
            samples, model.preprocess, classes=(), normal_class="", batch_size=_BATCH, on_error=unreadable
        )
        try:
            for _, batch in loading:
                self._check()
                with self._seen(model.backbone), torch.no_grad():
                    predictions = model.predict_batch(batch)
                    vectors = model.backbone.encode_image(batch.images).image.cpu().numpy().astype("<f4")
                found = []
                for prediction in predictions:
                    image, frame = places[prediction.id]
                    if prediction.map is not None:
                        small = cv2.resize(prediction.map, (side, side), interpolation=cv2.INTER_AREA)
                        write_map(maps / f"{prediction.id}.png", np.clip(small, 0.0, 1.0))
                    found.append(
                        {
                            "image": image,
                            "frame": frame,
                            "score": prediction.score,
                            "probs": prediction.probs,
                            "set": prediction.prediction_set,
                            "out_of_scope": prediction.out_of_scope,
                            "map": prediction.map is not None,
                            "backbone": model.backbone.fingerprint[:16],
                        }
                    )
                yield found, vectors.tobytes()
        finally:
            loading.close()

    def _warm(self, order: Mapping[str, Any]) -> None:
        """Adapt before it is asked for; where a class is missing, encode, and train a moment for the first gradient."""
        backbone, support = self._backbone(order["backbone"]), support_of(order["support"])
        if order["ready"]:
            self._ahead = None
            self._ahead = (self._made_for(order), *self._fit(order, support, backbone))
        else:
            self._fit({**order, "options": {**order["options"], "train.epochs": 1}}, support, backbone)

    def _fit(self, order: Mapping[str, Any], support: SupportSet, backbone: Backbone) -> tuple[Model, float]:
        """The adapted model and the seconds that it took; at once if it was made ahead, for these marks and options."""
        from ultraad.model.adapt import adapt

        ahead, self._ahead = self._ahead, None  # used once: thresholds of a model may change
        if ahead is not None and ahead[0] == self._made_for(order):
            return ahead[1:]
        started = time.perf_counter()
        model = adapt(
            support,
            method=order["method"],
            backbone=backbone,
            options=order["options"],
            seed=order["seed"],
            calibrate=False,
            loaded=self._support_images(order, support, backbone),
            progress=lambda _, done, total: self._progress("fitting", done, total),
        )
        return model, time.perf_counter() - started

    @staticmethod
    def _made_for(order: Mapping[str, Any]) -> str:
        return json.dumps({key: order[key] for key in FIT}, sort_keys=True)

    def _support_images(self, order: Mapping[str, Any], support: SupportSet, backbone: Backbone) -> Batch:
        """The images of a support set, decoded once as long as nothing about them changes."""
        from ultraad.data.loader import load_batch
        from ultraad.data.preprocess import Preprocess

        state = json.dumps(order["support"], sort_keys=True), support.digest, backbone.fingerprint
        if self._marked is None or self._marked[0] != state:
            loading = Preprocess(backbone.preprocess)
            batch = load_batch(support.samples, loading, classes=support.classes, normal_class=support.normal_class)
            self._marked = state, batch
        return self._marked[1]

    def _thresholds(self, order: Mapping[str, Any]) -> None:
        """Save a model again with thresholds that the user has set."""
        model = self._model(order["number"], order["folder"], order["backbone"])
        changed = {k: order[k] for k in ("image_threshold", "pixel_threshold") if order[k] is not None}
        model.calibration = model.calibration.model_copy(update={**changed, "rule": "set by hand"})
        model.save(order["folder"])
        self._tell({"say": "digest", "number": order["number"], "digest": model.digest})

    def _check_data(self, order: Mapping[str, Any]) -> None:
        from ultraad.serve.checking import check

        self._tell({"say": "checked", **check(order["images"], normal_class=order["normal_class"])})

    def _export(self, order: Mapping[str, Any]) -> None:
        from ultraad.serve.export import export

        model = self._model(order["number"], order["folder"], order["backbone"])
        with self._seen(model.backbone):
            files, size = export(model, order, progress=lambda done, total: self._progress("writing", done, total))
        self._tell({"say": "exported", "files": files, "bytes": size})

    def _why(self, order: Mapping[str, Any]) -> None:
        model = self._model(order["number"], order["folder"], order["backbone"])
        with self._seen(model.backbone):
            self._tell(explained(model, order))


def main() -> None:
    """Run the worker of this process; the device is its only argument."""
    import signal
    import sys

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is for the server, which then ends this
    quiet()
    Worker(parent(), device=sys.argv[1] if len(sys.argv) > 1 else "cpu").run()


if __name__ == "__main__":
    main()
