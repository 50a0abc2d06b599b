"""What every page writes the same way: numbers, counts, shares, lists and names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

Protocol = list[tuple[str, list[tuple[str, str]]]]
"""What is needed to repeat something: headings with their (term, value) entries."""
DASH = "\N{EN DASH}"
"""What is missing; never 0."""


def decimals(value: float | None, digits: int = 3) -> str:
    """A number, or a dash."""
    return DASH if value is None else f"{value:.{digits}f}"


def count(n: int, noun: str) -> str:
    """``"1 image"``, ``"2 images"``."""
    return f"{n} {noun}{'s' * (n != 1)}"


def are(n: int) -> str:
    """``"is"`` for one, ``"are"`` for any other number."""
    return "is" if n == 1 else "are"


def share(part: int, whole: int) -> str:
    """``"75 % (3 of 4)"``, or a dash if there is nothing to count."""
    return f"{100 * part / whole:.0f} % ({part} of {whole})" if whole else DASH


def listing(names: Sequence[str]) -> str:
    """``"a"``, ``"a and b"``, ``"a, b and c"``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def short_id(id_: str) -> str:
    """The last two parts of a sample id: enough to find the image, without the folders of a private computer."""
    return "/".join(id_.split("/")[-2:])


def public_names(groups: Iterable[str]) -> dict[str, str]:
    """Names of patients that may be published: as they are, but numbers in place of ids from DICOM headers."""
    groups = list(groups)
    dicom = [g for g in groups if g.startswith("dicom:")]
    numbers = {g: f"DICOM patient {i}" for i, g in enumerate(dicom, start=1)}
    return {g: numbers.get(g, g) for g in groups}


def breakable(name: str) -> Markup:
    """A name that a browser may break after its underscores."""
    return Markup("_<wbr>").join(name.split("_"))


def known(protocol: Mapping[str, Iterable[tuple[str, object]]]) -> Protocol:
    """A protocol without the entries that are None or empty, and without empty headings."""
    found = {h: [(term, str(v)) for term, v in entries if v not in (None, "")] for h, entries in protocol.items()}
    return [(heading, entries) for heading, entries in found.items() if entries]
