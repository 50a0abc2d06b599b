"""Fast methods for the tests of the benchmark; some of them fail."""

from __future__ import annotations

import os

import torch

from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.loop import train
from ultraad.types import FitReport, Scores


def info(name: str) -> MethodInfo:
    return MethodInfo(
        name=f"tests.bench.toys:{name}",
        title=name,
        paper="none",
        url="none",
        reference="none",
        licence="none",
        outputs=frozenset({"score", "map", "classes"}),
        needs=Needs(),
        zero_shot=True,
    )


class Options(MethodConfig):
    epochs: int = 4
    jump: float = 1.0


class Swinging(Method):
    """Scores image brightness times one number that training moves by ``jump`` each epoch, from -2 upwards."""

    info = info("Swinging")
    Config = Options

    def build(self, *, seed):
        self.number = torch.nn.Parameter(torch.tensor(-2.0))

    def learn(self, support, *, auxiliary, seed):
        history = ()
        if len(support):
            self.backbone.cache.encode(support.images, layers=(1,))
            history = train(
                lambda index, epoch: -self.number,
                [{"params": [self.number], "lr": self.config.jump}],
                count=len(support),
                batch_size=len(support),
                seed=seed,
                epochs=self.config.epochs,
                optimiser="sgd",
                momentum=0.0,
                schedule="constant",
                progress=self.progress,
            )
        return FitReport("last epoch", history)

    def score(self, images):
        features = self.backbone.encode_image(images, layers=self.backbone.default_layers)
        bright = images.mean((1, 2, 3)) + 1e-3 * features.image.mean(-1)
        score = (self.number * bright).sigmoid()
        logits = torch.stack([1 - score, score / 2, score / 2], -1).log()[:, : len(self.classes)]
        return Scores(score=score, map=(self.number * images.mean(1)).sigmoid(), logits=logits)


class Failing(Swinging):
    info = info("Failing")

    def learn(self, support, **options):
        msg = "this method always fails"
        raise RuntimeError(msg)


class FailingLate(Swinging):
    info = info("FailingLate")

    def score(self, images):
        msg = "no score today"
        raise RuntimeError(msg)


class Dying(Swinging):
    """Takes its process with it."""

    info = info("Dying")

    def learn(self, support, **options):
        os._exit(7)
