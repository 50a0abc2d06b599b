"""Why a prediction is as it is: what :meth:`ultraad.model.model.Model.why` returns. Needs no torch.

The decision is that for the most probable class of the method, before any scaling: log p / (1 - p), its log-odds
against all other classes. Where the logits are a sum, it falls apart exactly into what each support image, each
sentence and the map add; what is left is the ``rest``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

MARKS = 0.1
"""Least change of the score from which it can rest on marks; smaller ones decide little."""
GAINS = (0.8, 0.9, 1.1, 1.25)
"""Small changes of gain: factors of the brightness."""
CROPS = (0.02, 0.05)
"""Small changes of the crop: shares of width and height that are cut off at each side."""
SHOWN = 5
"""Support images and sentences that are named, those with the largest shares."""

EXPORTED = "an exported model has no sentences and no memory, so it cannot say why; ask the model it was made from"


class _Reason(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Part(_Reason):
    """A part of the decision."""

    log_odds: float = Field(description="what it adds to `log_odds` of the decision; negative speaks against the class")
    share: float = Field(description="the same over the sum of all absolute parts, so absolute shares sum to 1")


class SupportReason(_Reason):
    """What one support image does to a prediction."""

    id: str = Field(description="sample id of the support image")
    label: str = Field(description="its class")
    similarity: float = Field(description="cosine of the class tokens, of the image and of it, -1 to 1")
    part: Part | None = Field(None, description="its exact part of the decision; null: the method cannot tell")
    score: float | None = Field(None, description="score if the memory lacked it; null: not offered for the method")
    probs: dict[str, float] | None = Field(None, description="class probabilities if the memory lacked it, likewise")
    image: str | None = Field(None, description="path of its file; null: not found, or changed since")
    frame: int = Field(0, description="0-based frame of a file with several")
    sha256: str = Field("", description="of its file, with `#frame` for all but the first frame")


class SentenceReason(_Reason):
    """What one sentence of the text bank does to a prediction."""

    label: str = Field(description="the class that it describes")
    text: str = Field(description="the sentence")
    similarity: float = Field(description="cosine with the class token of the image, -1 to 1")
    part: Part | None = Field(None, description="its exact part of the decision; null: the method cannot tell")


class Marks(_Reason):
    """The score with marks painted out: coloured ones, calipers and rows of letters."""

    area: float = Field(description="share of the pixels that are marks; 0: none were found")
    score: float | None = Field(None, description="score without them; null: there is nothing to paint out")
    change: float | None = Field(None, description="score with them less score without them")
    rests: bool | None = Field(
        None,
        description="whether the score rests on them: `change` is at least 0.1 either way, and more than any change of "
        "`stability` causes; null: nothing was painted out",
    )


class Changed(_Reason):
    """A prediction of the same image, changed a little."""

    change: str = Field(description="what was changed, such as `gain x 0.8` or `crop 5 %`")
    score: float = Field(description="the score then")
    label: str | None = Field(None, description="the most probable class then; null if the method does not grade")


class Stability(_Reason):
    """How a prediction holds when gain and crop change a little."""

    changes: tuple[Changed, ...] = Field(description="each change, with what is predicted then")
    low: float = Field(description="lowest score, that of the image as it is included")
    high: float = Field(description="highest score, likewise")
    labels: tuple[str, ...] = Field((), description="every most probable class; one if it holds")


class Why(_Reason):
    """Why a prediction is as it is."""

    label: str | None = Field(
        None, description="the decision: the most probable class; null: the method has no classes"
    )
    log_odds: float | None = Field(None, description="its log-odds against all other classes; null: as above")
    support: tuple[SupportReason, ...] = Field(
        (), description="the support images with the largest shares, else those that are most similar"
    )
    support_total: Part | None = Field(None, description="what all support images add together; null: not known")
    without: tuple[float, float] | None = Field(
        None, description="lowest and highest score if the memory lacked any one support image; null: not offered"
    )
    turns: int | None = Field(
        None, description="support images without which another class would be the most probable; null: not offered"
    )
    sentences: tuple[SentenceReason, ...] = Field((), description="the same of sentences")
    sentences_total: Part | None = Field(None, description="what all sentences add together; null: not known")
    map: Part | None = Field(None, description="what the map adds, which refines the classes of `ultraad`")
    rest: Part | None = Field(
        None, description="what is left: that the other classes divide the rest among them, and rounding"
    )
    marks: Marks = Field(description="marks painted out")
    stability: Stability = Field(description="small changes of gain and crop")
    notes: tuple[str, ...] = Field((), description="what is not offered for this method, and why")

    def sentences_in_words(self) -> list[str]:
        """The findings as sentences, for pages."""
        told = [*_decision(self), *_influence(self), _marks(self.marks), _stability(self.stability), *self.notes]
        gone = sum(one.image is None for one in self.support)
        if gone:
            told.append(f"{gone} of the named support images cannot be shown: not where they were, or changed since")
        return told


def parts(named: Mapping[str, Sequence[float]], log_odds: float) -> tuple[dict[str, list[Part]], Part]:
    """The parts of a decision with their shares, and the rest.

    Args:
        named: Groups of additive parts.
        log_odds: What they explain; the rest is what they leave.
    """
    rest = log_odds - sum(sum(some) for some in named.values())
    whole = sum(abs(x) for some in named.values() for x in some) + abs(rest)

    def part(x: float) -> Part:
        return Part(log_odds=x, share=x / whole if whole else 0.0)

    return {name: [part(x) for x in some] for name, some in named.items()}, part(rest)


def total(some: Sequence[Part]) -> Part:
    """Parts together."""
    return Part(log_odds=sum(p.log_odds for p in some), share=sum(p.share for p in some))


def rests(change: float, stability: Stability, score: float) -> bool:
    """Whether a score rests on marks: it changes by more without them than by a little gain or crop."""
    moved = max((abs(one.score - score) for one in stability.changes), default=0.0)
    return abs(change) >= MARKS and abs(change) > moved


def _decision(why: Why) -> list[str]:
    if why.label is None or why.log_odds is None:
        return []
    known = (
        ("support images", why.support_total),
        ("sentences", why.sentences_total),
        ("the map", why.map),
        ("rest", why.rest),
    )
    told = ", ".join(f"{name} {part.log_odds:+.2f}" for name, part in known if part is not None and part.log_odds)
    return [f"{why.label}: log-odds {why.log_odds:+.2f}" + (f" = {told}" if told else "")]


def _influence(why: Why) -> list[str]:
    if why.without is None:
        return []
    low, high = why.without
    turned = "the class stays" if not why.turns else f"the class changes without {why.turns} of them"
    return [f"without any one support image the score is between {low:.2f} and {high:.2f}; {turned}"]


def _marks(marks: Marks) -> str:
    if marks.score is None or marks.change is None:
        if not marks.area:
            return "no marks were found (coloured ones, calipers and rows of letters are looked for)"
        return (
            f"{100 * marks.area:.0f} % of the pixels are coloured or look like letters: Doppler, a photograph or "
            "a page, so nothing was painted out"
        )
    said = "this score rests on marks" if marks.rests else "this score does not rest on them"
    return f"with marks painted out the score is {marks.score:.2f} in place of {marks.score + marks.change:.2f}: {said}"


def _stability(stability: Stability) -> str:
    held = "the class holds" if len(stability.labels) < 2 else f"the class varies: {' or '.join(stability.labels)}"
    return (
        f"with a gain of x {min(GAINS):g} to {max(GAINS):g} or up to {100 * max(CROPS):g} % cut off at each side, the "
        f"score is between {stability.low:.2f} and {stability.high:.2f}; {held}"
    )
