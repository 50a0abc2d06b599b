"""The interface of every method: it writes ``build``, ``learn`` and ``score``; ``fit`` and ``predict`` are final."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from ultraad.backbones._door import Backbone
from ultraad.errors import ConfigError, DataError, NotFittedError
from ultraad.methods._needs import Holding, Needs, missing, notes
from ultraad.nn.class_tokens import without_normal
from ultraad.nn.evidence import Evidence
from ultraad.nn.loop import Checkpoint, Plan
from ultraad.rng import torch_forked
from ultraad.types import Batch, FitReport, MapGrid, Prediction, Scores


class MethodConfig(BaseModel):
    """Base of all method options: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    earlier: ClassVar[Mapping[str, Any]] = {}
    """{dotted option: what models did before there was this option}; a saved model without it goes on like that."""


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """What a method is, and what its users must know.

    Attributes:
        name: Module name, command-line name and the name in every result.
        title: The method's name and what it does, one line.
        paper: Authors, venue, year.
        url: Of the paper.
        reference: Repository and commit of the reference implementation, or where the numbers come from.
        licence: Of the reference implementation.
        outputs: A subset of {"score", "map", "classes"}.
        needs: What ``fit`` requires.
        deviations: Where this implementation differs from the reference, and which option restores the reference.
        zero_shot: Whether an empty support set without an auxiliary set gives a meaningful model.
        idea: How it works, as a predicate that follows "It": "compares patches with sentences".
        learned: What training changes, in words; "nothing" if the method only stores features.
        auxiliary: Whether the method can be trained on an auxiliary set.
        auxiliary_alone: With an auxiliary set, the support images are not used.
        baseline: Not among the methods that UltraAD's paper compares.
    """

    name: str
    title: str
    paper: str
    url: str
    reference: str
    licence: str
    outputs: frozenset[str]
    needs: Needs
    deviations: tuple[str, ...] = ()
    zero_shot: bool = False
    idea: str = ""
    learned: str = ""
    auxiliary: bool = False
    auxiliary_alone: bool = False
    baseline: bool = False


class Method(ABC, nn.Module):
    """One method. It defines ``info``, ``Config``, ``learn``, ``score`` and, where needed, ``prepare`` and ``build``.

    Args:
        backbone: The frozen backbone; not a submodule, so ``state_dict`` holds the learned state only.
        config: Options; defaults if None.
        classes: Class names in label order.
        normal_class: The member of ``classes`` that means "no lesion".

    Raises:
        ConfigError: If there are fewer than two classes, a class is named twice, or the normal class is not among them.
    """

    info: ClassVar[MethodInfo]
    Config: ClassVar[type[MethodConfig]]
    normal_seen: torch.Tensor
    """Of a method that grades: False if the support set had lesions only, so that p(normal) is that of the texts."""
    resizable: ClassVar[tuple[str, ...]] = ()
    """Parameters and buffers whose size depends on the support set, such as a memory of its images."""
    learned_buffers: ClassVar[tuple[str, ...]] = ()
    """Buffers that ``learn`` computes without gradients, for example by a solver; ``FitReport.learned`` counts them."""
    seedless: ClassVar[bool] = False
    """Nothing is random with the default options: every seed gives the same result."""
    long: ClassVar[bool] = False
    """Training takes minutes: it passes :attr:`course` on, and thresholds come from fewer folds."""
    untraceable: ClassVar[str] = ""
    """Why ``score`` cannot become a graph for other runtimes (:mod:`ultraad.export`); empty if it can."""

    def __init__(
        self,
        backbone: Backbone,
        config: MethodConfig | None = None,
        *,
        classes: Sequence[str],
        normal_class: str,
    ) -> None:
        super().__init__()
        if len(classes) < 2 or len(set(classes)) != len(classes):
            msg = f"a method needs at least two different classes, got {list(classes)}"
            raise ConfigError(msg)
        if normal_class not in classes:
            msg = f"the normal class {normal_class!r} is not among the classes {list(classes)}; name one of them"
            raise ConfigError(msg)
        object.__setattr__(self, "backbone", backbone)  # not a submodule: frozen and shared
        self.backbone: Backbone
        self.config: Any = config if config is not None else self.Config()
        self.classes = tuple(classes)
        self.normal_class = normal_class
        self.fitted = False
        self.progress: Callable[[int, int], None] | None = None
        """Called during ``fit`` with (epochs done, epochs); for progress bars."""
        self.announce: Callable[[Plan], None] | None = None
        """Called by a ``long`` method before it trains."""
        self.checkpoint: Checkpoint | None = None
        """Where a ``long`` method keeps its training, to go on after an interruption."""
        self.notes: tuple[str, ...] = ()
        """Sentences for every :class:`~ultraad.types.FitReport`; set in ``prepare``."""
        self.prepare()
        self._rebuild(seed=0)

    @property
    def course(self) -> dict[str, Any]:
        """What :func:`ultraad.nn.loop.train` needs to know about a training of minutes."""
        return {"progress": self.progress, "announce": self.announce, "checkpoint": self.checkpoint}

    @property
    def normal_index(self) -> int:
        """Label number of the normal class."""
        return self.classes.index(self.normal_class)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002
        """Strict load; ``resizable`` values get their saved size, and ``normal_seen`` is True if it is not named."""
        if "classes" in self.info.outputs:
            state_dict = {"normal_seen": torch.tensor(True), **state_dict}  # noqa: FBT003
        for name in self.resizable:
            if name in state_dict:
                own: torch.Tensor = getattr(self, name)
                fresh = torch.zeros_like(state_dict[name], device=own.device)
                if isinstance(own, nn.Parameter):
                    fresh = nn.Parameter(fresh, requires_grad=own.requires_grad)
                setattr(self, name, fresh)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def prepare(self) -> None:
        """Compute what never changes, such as the tapped layers or the class texts. Called once, before ``build``."""

    def build(self, *, seed: int) -> None:
        """Create fresh parameters and buffers, replacing those of an earlier ``fit``.

        Random initialisers of torch may be called directly: torch's generator is seeded here and restored afterwards.

        Args:
            seed: For random streams of another kind, see :mod:`ultraad.rng`.
        """

    @abstractmethod
    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Adapt the fresh state to the images; called by :meth:`fit` in training mode.

        Args:
            support: Labelled images. Empty for zero-shot, and beside an auxiliary set.
            auxiliary: Batches of a second data set; see :class:`ultraad.nn.labelled.TrainingSet`.
            seed: For random streams, see :mod:`ultraad.rng`.

        Returns:
            Selection rule, losses and notes; ``fit`` adds the time and the number of learned values.
        """

    @final
    def fit(self, support: Batch, *, auxiliary: Iterable[Batch] | None = None, seed: int) -> FitReport:
        """Adapt to the support set; an empty batch means zero-shot.

        Args:
            support: Labelled images, in memory.
            auxiliary: Batches of a second data set; ignored by methods that cannot be trained on one.
            seed: Same seed, same support, same result, bit for bit on CPU.

        Raises:
            DataError: If the support lacks something in ``info.needs``.
        """
        started = time.perf_counter()
        told, auxiliary = self.notes, auxiliary if self.info.auxiliary else None
        if self.info.auxiliary_alone and auxiliary is not None:
            support = support.select([])
            told += ("trained on the auxiliary set; no support image was used",)
        if len(support) and support.labels is None:
            msg = f"{self.info.name} got a batch without labels; pass the labelled support, not batch.unlabelled()"
            raise DataError(msg)
        held = Holding.of_batch(support, self.classes, self.normal_class)
        if lack := self.missing(held, self.config, auxiliary=auxiliary is not None):
            msg = f"{self.info.name} {lack}"
            raise DataError(msg)
        self._rebuild(seed=seed)
        if "classes" in self.info.outputs:
            self.normal_seen.fill_(held.only != "lesions")
        self.train()
        report = self.learn(support, auxiliary=auxiliary, seed=seed)
        self.eval()
        self.fitted = True
        learned = {} if len(support) == 0 and auxiliary is None else self._learned()
        seconds = time.perf_counter() - started
        return replace(
            report,
            seconds=seconds,
            learned=learned,
            notes=(*told, *notes(held, outputs=self.info.outputs), *report.notes),
        )

    def _rebuild(self, *, seed: int) -> None:
        self.fitted = False
        if "classes" in self.info.outputs:
            self.register_buffer("normal_seen", torch.tensor(True))  # noqa: FBT003
        with torch_forked(seed, "init"):
            self.build(seed=seed)
        self.to(self.backbone.device)

    def _learned(self) -> dict[str, int]:
        """{name: number of values} of everything that ``learn`` may change by training or solving."""
        values = {name: p for name, p in self.named_parameters() if p.requires_grad and p.numel()}
        values |= {name: getattr(self, name) for name in self.learned_buffers}
        return {name: value.numel() for name, value in values.items()}

    @final
    def for_loss(self, logits: torch.Tensor) -> torch.Tensor:
        """Class logits (b c) for a loss: it must not teach p(normal) if no support image is normal."""
        return logits if self.normal_seen else without_normal(logits, normal_index=self.normal_index)

    @abstractmethod
    def score(self, images: torch.Tensor) -> Scores:
        """Scores of images (b 3 s s); depends on these images and the fitted state only."""

    def evidence(self, images: torch.Tensor) -> Evidence | None:
        """What the class logits of images (b 3 s s) are made of; None if the method cannot tell."""
        return None

    @final
    @torch.no_grad()
    def predict(self, batch: Batch) -> list[Prediction]:
        """Predictions on the original pixel grid of each file.

        Args:
            batch: Images; labels are ignored (pass ``batch.unlabelled()`` to be sure).

        Returns:
            One prediction per image, in order.

        Raises:
            NotFittedError: If ``fit`` was not called (or a state loaded) before.
        """
        if not self.fitted:
            msg = f"{self.info.name} was asked to predict before fit; call fit(support, seed=...) or load a bundle"
            raise NotFittedError(msg)
        self.eval()
        scores = self.score(batch.images.to(self.backbone.device))
        probs = None if scores.logits is None else scores.logits.float().softmax(-1).cpu()
        out = []
        for i, (id_, geometry) in enumerate(zip(batch.ids, batch.geometry, strict=True)):
            grid = None if scores.map is None else MapGrid(scores.map[i].float().cpu().numpy(), geometry)
            map_ = None if grid is None else grid.on_pixels()
            p = None if probs is None else dict(zip(self.classes, probs[i].tolist(), strict=True))
            score = float(scores.score[i])
            out.append(Prediction(id=id_, score=score, map=map_, probs=p, method=self.info.name, grid=grid))
        return out

    @classmethod
    def missing(cls, held: Holding, config: MethodConfig, *, auxiliary: bool) -> str:
        """What ``fit`` would lack, as the end of a sentence; empty if nothing.

        Args:
            held: What the support set holds.
            config: Options of the method.
            auxiliary: Whether there is an auxiliary set.
        """
        info = cls.info
        if info.needs.auxiliary and not auxiliary:
            return "needs an auxiliary data set with masks, and none was given; pass auxiliary=..."
        if not held.normal and not held.abnormal:
            if info.zero_shot or (info.auxiliary and auxiliary):
                return ""
            other = " or an auxiliary set with masks" if info.auxiliary else ""
            return f"learns from images and got none; give it a support set{other}"
        lack = missing(info.needs, held, outputs=info.outputs)
        return lack or ("" if auxiliary else cls.also_missing(held, config))

    @classmethod
    def also_missing(cls, held: Holding, config: Any) -> str:  # noqa: ANN401, ARG003  the method's own options
        """What else a support set lacks under these options, as :meth:`missing`; not asked with an auxiliary set."""
        return ""
