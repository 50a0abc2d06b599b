"""Which images are set aside for honest numbers: decided when they are added, by chance alone.

The unit is the patient; the image where no patient is known. Of all units that were ever added, a share is set aside,
rounded by chance: ``floor(share * units + phase)`` with a phase in [0, 1) of the project. Among the units that come
together, those with the smallest keyed hash are taken. Neither marks nor any model enter.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from math import floor
from typing import Protocol

from ultraad.serve.database import Database

_SCALE = 1 << 64


class Known(Protocol):
    """An image, as far as it counts here."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def patient(self) -> str | None:
        """None if unknown."""
        ...


def unit(picture: Known) -> str:
    """The unit that an image belongs to."""
    return f"image {picture.id}" if picture.patient is None else f"patient {picture.patient}"


class Aside:
    """The units of a project; whoever calls holds its lock.

    Args:
        database: Of the project.

    Attributes:
        units: {unit: whether it is set aside}.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.units = {name: bool(kept) for name, kept in database.read("SELECT name, aside FROM unit")}

    def choose(self, pictures: Iterable[Known]) -> dict[str, bool]:
        """{unit: whether it is set aside} of the units that these images bring."""
        fresh = {unit(p) for p in pictures} - self.units.keys()
        ordered = sorted(fresh, key=self._place)
        wanted = self._wanted(len(self.units) + len(ordered), self._share) - sum(self.units.values())
        return {name: number < wanted for number, name in enumerate(ordered)}

    def add(self, db: sqlite3.Connection, units: Mapping[str, bool]) -> None:
        """Store what :meth:`choose` gave, as part of a transaction."""
        db.executemany("INSERT INTO unit (name, aside) VALUES (?, ?)", units.items())

    def images(self, pictures: Iterable[Known], *, first: Collection[str]) -> list[str]:
        """The images set aside, in the order in which they are offered.

        Args:
            pictures: All images.
            first: Those that come before the others, because they were offered.
        """
        found = [p.id for p in pictures if self.units[unit(p)]]
        return sorted(found, key=lambda image: (image not in first, self._place(image)))

    def set_share(self, share: float, *, fixed: Collection[str]) -> None:
        """Change the share.

        Args:
            share: In [0, 1].
            fixed: Units that stay as they are: something of them is marked or was offered.
        """
        more = self._wanted(len(self.units), share) - sum(self.units.values())
        able = [name for name, kept in self.units.items() if kept == (more < 0) and name not in fixed]
        able.sort(key=self._place, reverse=more < 0)
        units = dict.fromkeys(able[: abs(more)], more > 0)
        with self._database.write() as db:
            db.executemany("UPDATE unit SET aside = ? WHERE name = ?", [(kept, name) for name, kept in units.items()])
        self._database.set(held_out_share=share)
        self.units |= units

    def forget(self, name: str) -> None:
        """Forget a unit whose last image was removed."""
        with self._database.write() as db:
            db.execute("DELETE FROM unit WHERE name = ?", (name,))
        del self.units[name]

    @property
    def _share(self) -> float:
        return float(self._database.setting("held_out_share"))

    def _wanted(self, units: int, share: float) -> int:
        return floor(share * units + self._place("phase") / _SCALE) if share else 0

    def _place(self, name: str) -> int:
        """Where a unit or an image stands in the random order of the project; 0 to 2**64 - 1."""
        return int.from_bytes(hashlib.blake2b(f"{self._seed}/{name}".encode(), digest_size=8).digest())

    @cached_property
    def _seed(self) -> str:
        return str(self._database.setting("id"))
