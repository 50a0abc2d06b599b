"""``ultraad deidentify``."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultraad.cli.console import SOME_FAILED, list_failures, progress, say, warn
from ultraad.cli.options import split_names

if TYPE_CHECKING:
    from ultraad.dicom.deidentify.review import Review
    from ultraad.dicom.deidentify.run import Outcome


def deidentify(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Folder with images, or one image.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the de-identified images.")],
    *,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Secret from which new IDs are made; the file is made if needed. The same key gives the same IDs. "
            "Default: a secret that is forgotten, so that nothing can be linked, and nothing resumed.",
        ),
    ] = None,
    confirm: Annotated[
        Path | None,
        typer.Option(metavar="REVIEW", help="Write the images: you have looked at this review, and answer for it."),
    ] = None,
    page: Annotated[
        bool,
        typer.Option(
            "--page", help="Look, decide about each picture on a page in the browser, and write what you confirm there."
        ),
    ] = False,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="With --page: of the page, for this machine only.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="With --page: open it in the browser.")] = True,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes",
            help="Look and write at once; all that looks like text is blanked, unseen, and nothing is declared clean.",
        ),
    ] = False,
    review: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder for the review. Default: OUT with '-review'.")
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(metavar="X0,Y0,X1,Y1", help="Of images without ultrasound regions, blank all but this rectangle."),
    ] = None,
    retain: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Options of the profile: dates (shifted by days that the key decides), patient (sex, age, size, "
            "weight), device (station, serial number). Default: none.",
        ),
    ] = None,
    keep_names: Annotated[
        bool, typer.Option("--keep-names", help="Keep the names of files and folders: they identify nobody.")
    ] = False,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each cine to search for text.")] = 5,
) -> None:
    """Remove identities from DICOM, PNG and JPEG images: from headers, around the image, and from text in the pixels.

    The first run writes nothing but a review: a page with every picture and what looks like text. Look at it, correct
    boxes.csv, and run again with --confirm. Or add --page, which shows the same with buttons, saves every decision at
    once, and writes the images when all are decided. The review holds patient data; it and the key are never in OUT.
    For a script, --yes does both.

    Lesion masks that are named after an image are not searched for text: they are written pixel by pixel, with their
    image. One without an image, and one that does not look like a mask, is refused.

    Files that are refused or cannot be read are listed at the end and in errors.jsonl of the review. Exits with 3 if
    there are some, with 1 if nothing could be used.

    Example: ultraad deidentify scans clean --key project.key
    """
    from ultraad.dicom.deidentify.run import deidentify
    from ultraad.dicom.deidentify.visible import parse_rectangle
    from ultraad.errors import ConfigError

    if confirm is not None and review is not None:
        msg = "--confirm names the review already; leave --review out"
        raise ConfigError(msg)
    if page:
        from ultraad.serve.server import needs_server

        with needs_server():  # before the search, which takes long
            import ultraad.serve.review_app  # noqa: F401
    with ExitStack() as stack:
        bars = [stack.enter_context(progress())]

        def decide(review: Review) -> bool:
            from ultraad.serve.review import decide_on_page

            stack.close()  # no bar while the page is open
            decided = decide_on_page(review, port=port, ready=partial(_open, browser=browser))
            bars.append(stack.enter_context(progress()))
            return decided

        try:
            done = deidentify(
                source,
                output,
                key=key,
                review=confirm or review,
                confirm=confirm is not None,
                yes=yes,
                decide=decide if page else None,
                keep=None if keep is None else parse_rectangle(keep),
                retain=split_names(retain),
                keep_names=keep_names,
                frames=frames,
                progress=lambda what, n, total: bars[-1](what, n, total),
            )
        except KeyboardInterrupt:
            warn("interrupted; run the same command again to resume", style="bold")
            raise typer.Exit(130) from None
    _tell(done, output, key)
    if done.failed:
        nothing = not done.looked if done.waiting else not done.written + done.skipped + done.dropped
        raise typer.Exit(1 if nothing else SOME_FAILED)


def _open(address: str, *, browser: bool) -> None:
    say(f"open once: {address}", style="bold")
    say("decide about every picture there; Ctrl-C ends, and the same command goes on later")
    if browser:
        import webbrowser

        webbrowser.open(address)


def _tell(done: Outcome, output: Path, key: Path | None) -> None:
    list_failures(done.failed, what="file(s) were not de-identified", rest=str(done.review / "errors.jsonl"))
    if done.without_regions:
        warn(
            f"{len(done.without_regions)} file(s) have no usable ultrasound regions and no --keep, such as "
            f"{done.without_regions[0]}: nothing around the image is blanked, and they are not declared free of text"
        )
    if done.waiting:
        say(
            f"{done.looked} file(s) looked at, {done.boxes} place(s) look like text; nothing is written to {output} yet"
        )
        if done.masks:
            say(f"{done.masks} of them are masks: not searched for text, and to be written as they are")
        given = f" --key {key}" if key else ""
        say(f"Look at {done.review / 'review.html'}, correct boxes.csv beside it, and run again with")
        say(f"  --confirm {done.review}{given}")
        say("Or run the same command with --page, and click")
        return
    skipped = f", {done.skipped} were there already" if done.skipped else ""
    dropped = f", {done.dropped} left out by the review" if done.dropped else ""
    say(f"{done.written} written{skipped}{dropped}, {len(done.failed)} failed; images in {output}")
    if done.masks:
        say(f"{done.masks} of them are masks: not searched for text, written as they were")
    say(f"{done.declared} declared free of identity in header and pixels")
    say(f"{done.review} holds patient data: keep it in the house, or remove it")
    if key is not None:
        say(f"who has {key} can link these images to their patients: keep it apart from them")
