"""What goes over the wire: requests and answers, typed, so that a program can drive the same loop as the page.

Lengths are in pixels of the image: x to the right, y down, pixel (0, 0) covers [0, 1] x [0, 1]. Times are ISO 8601,
UTC.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

ImageId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
RowId = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z-]{8,64}$")]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]+$")]
FrameNumber = Annotated[int, Field(ge=0, lt=10_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Coordinate = Annotated[float, Field(ge=-100_000, le=100_000, allow_inf_nan=False)]
Ring = list[float]


class Wire(BaseModel):
    """Base of everything that is sent or received; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, serialize_by_alias=True)


class Fault(Wire):
    """What went wrong, in a sentence for the user."""

    kind: str
    message: str
    fields: list[str] | None = None


class Problem(Wire):
    """The body of every error."""

    error: Fault


class Code(Wire):
    """The one-time code of the printed address."""

    code: Annotated[str, StringConstraints(max_length=200)]


class Address(Wire):
    """An address that opens the page once."""

    address: str


class ClassName(Wire):
    """One class; ``was`` renames."""

    name: Name
    normal: bool = False
    was: Name | None = None


class Readiness(Wire):
    """Whether Adapt can be pressed, and why not."""

    ready: bool
    reason: str = ""
    support: dict[str, int]
    held_out: dict[str, int]
    notes: list[str] = []


class Limits(Wire):
    """The largest project that is taken."""

    file_bytes: int
    request_bytes: int
    files: int
    frames: int
    pixels: int
    disk_bytes: int


class ProjectChange(Wire):
    """Settings to change."""

    title: Name | None = None
    classes: list[ClassName] | None = Field(None, min_length=2, max_length=20)
    held_out_share: Annotated[float, Field(ge=0, le=0.5)] | None = None


class Confirmation(Wire):
    """The project's title, typed by the user who deletes it."""

    confirm: str


class ImportRequest(Wire):
    """A folder or file on this machine, or files uploaded before under one batch id."""

    path: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = None
    batch: RowId | None = None
    layout: Annotated[str, StringConstraints(max_length=64)] = "auto"
    use_marks: bool = True


class Import(Wire):
    """Progress of one import."""

    number: int
    title: str
    state: Literal["running", "done", "failed"]
    found: int = 0
    done: int = 0
    failed: int = 0
    notes: list[str] = []
    error: str | None = None


class Refusal(Wire):
    """A file that was not taken."""

    name: str
    reason: str


class Received(Wire):
    """What became of an upload."""

    received: int
    refused: list[Refusal]


class Layout(Wire):
    """A data layout that can be imported."""

    name: str
    title: str
    layout: str


class Outcome(Wire):
    """What a model says about a frame, or about the most abnormal frame of an image."""

    model: int
    score: float
    abnormal: bool
    class_: str | None = Field(None, alias="class")
    probs: dict[str, float] | None = None
    uncertainty: float
    has_map: bool = False
    out_of_scope: bool = False
    set_: list[str] | None = Field(None, alias="set")


Role = Literal["support", "held_out"]


class Item(Wire):
    """One image in a list."""

    id: ImageId
    name: str
    frames: int
    width: int
    height: int
    patient: str | None
    device: str | None
    label: str | None
    lesions: int
    accepted: int
    role: Role | None
    skipped: bool
    failed: str | None
    best: int
    pred: Outcome | None
    former: Outcome | None
    decision: str | None
    warnings: list[str] = []


class Items(Wire):
    """A page of the list."""

    total: int
    row: int
    items: list[Item]
    order: list[ImageId] = []


class FrameItem(Wire):
    """One frame of an image."""

    frame: int
    label: str | None
    lesions: int
    pred: Outcome | None


class ItemDetail(Item):
    """One image with its frames."""

    spacing_mm: tuple[float, float] | None
    spacing_source: str | None
    frame_items: list[FrameItem]
    site: str | None
    split: str | None
    added: str
    origin: Literal["reference", "upload"]


class Group(Wire):
    """The images of one patient, device or site."""

    name: str | None
    images: int
    marked: int
    abnormal: int
    mean_score: float | None
    wrong: int


class Place(Wire):
    """One frame of one image; stills have frame 0."""

    image: ImageId
    frame: FrameNumber = 0


class LesionPlace(Wire):
    """A lesion on another frame of the same image."""

    frame: FrameNumber
    lesion: RowId


class SuggestionPlace(Wire):
    """A suggestion as the server listed it."""

    model: int
    threshold: Share
    index: Annotated[int, Field(ge=0)]


Tool = Literal["brush", "eraser", "polygon", "box", "scribble"]
Kind = Literal["stroke", "lesion", "remove", "label", "accept", "copy", "role", "skip", "seen", "undo", "redo"]
MOST_POINTS = 20_000


class Row(Place):
    """One thing that a person did; see the kinds in docs/page.md."""

    id: RowId
    kind: Kind
    made: Annotated[str, StringConstraints(max_length=40)] | None = None
    lesion: RowId | None = None
    class_: Name | None = Field(None, alias="class")
    tool: Tool | None = None
    points: list[Coordinate] = Field([], max_length=2 * MOST_POINTS)
    radius: Annotated[float, Field(gt=0, le=2000)] | None = None
    radii: list[Annotated[float, Field(gt=0, le=2000)]] | None = Field(None, max_length=MOST_POINTS)
    suggestion: SuggestionPlace | None = None
    outline: list[Annotated[list[Coordinate], Field(min_length=6, max_length=2 * MOST_POINTS)]] = Field(
        [], max_length=1000
    )
    from_: LesionPlace | None = Field(None, alias="from")
    role: Literal["support", "held_out", "auto"] | None = None
    target: RowId | None = None


class Rows(Wire):
    """Rows of one rater, in the order they were made."""

    rater: Name
    rows: list[Row] = Field(max_length=500)


class SavedRow(Wire):
    """What became of a row."""

    id: str
    row: int | None = None
    status: Literal["saved", "known", "refused"]
    reason: str | None = None


class Lesion(Wire):
    """One lesion as it is now."""

    lesion: str
    number: int
    class_: str | None = Field(None, alias="class")
    origin: Literal["drawn", "accepted", "imported", "copied"]
    rater: str
    outline: list[Ring]
    box: tuple[float, float, float, float]
    pixels: int
    size_px: tuple[float, float]
    size_mm: tuple[float, float] | None
    text: str
    rule: str | None


class FrameMarks(Place):
    """Everything that people said about one frame, as it is now."""

    row: int
    label: str | None
    label_from: Literal["label", "lesions", "import"] | None
    role: Role | None
    conflict: str | None
    skipped: bool
    lesions: list[Lesion]
    undo: str | None
    undo_text: str | None
    redo: str | None
    redo_text: str | None


class Saved(Wire):
    """The answer to :class:`Rows`; everything saved is on the disk."""

    row: int
    saved: list[SavedRow]
    frames: list[FrameMarks]


class Changed(Wire):
    """Frames and images with rows after a given one."""

    row: int
    frames: list[Place]


class PreviewRequest(Place):
    """A box or scribble that has not been made yet."""

    tool: Literal["box", "scribble"]
    points: list[Coordinate] = Field(min_length=2, max_length=2 * MOST_POINTS)
    radius: Annotated[float, Field(gt=0, le=2000)] | None = None


class Preview(Wire):
    """The mask that it would become."""

    outline: list[Ring]
    rule: str
    box: tuple[float, float, float, float] | None
    pixels: int


class Suggestion(Wire):
    """A lesion that the model's map shows."""

    index: int
    outline: list[Ring]
    box: tuple[float, float, float, float]
    class_: str | None = Field(None, alias="class")
    peak: float
    pixels: int
    size_mm: tuple[float, float] | None
    text: str


class Suggestions(Wire):
    """The suggestions of one map at one threshold."""

    model: int
    threshold: float
    suggestions: list[Suggestion]
