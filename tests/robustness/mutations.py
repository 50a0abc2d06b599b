"""Damaged files by the thousand: each is read, or refused with one short error of ours, within limits."""

from __future__ import annotations

import faulthandler
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ultraad.errors import UltraadError

SECONDS = 5.0  # of processor time that one case may take, in this process and in those that it starts
MEMORY = 1 << 30  # bytes that one case may add
HANG = 120.0  # seconds on the clock after which a case ends the tests, with a traceback
_LONGEST = 3000  # characters of a message
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_HEADER = 600  # bytes
_TOKENS = (
    *(b"null", b"NaN", b"-1", b"1e999", b"[]", b"{}", b'""', b"true", b"[[", b'"\\ud800"'),
    *(b"&a", b"*a", b"!!python/x", b": ", b"2020-13-45", b"<!ENTITY x '", b"]]>", b"</", b",,", b"\t"),
)
_INSERTS = (b"[" * 100_000, b"{" * 2000, b"\x00" * 9, b"\xff\xfe", b"\xef\xbb\xbf", b"9" * 5000, b"<a>" * 5000)

Damage = Callable[[bytes, int], bytes]


def damaged_bytes(whole: bytes, seed: int) -> bytes:
    """A binary file with some bytes replaced, most of them near its start, and in a quarter of the cases cut off."""
    draw = random.Random(seed)
    data = bytearray(whole)
    reach = min(len(data), _HEADER) if draw.random() < 0.7 else len(data)
    for _ in range(draw.randint(1, 7)):
        data[draw.randrange(reach)] = draw.choice((0, 255, draw.randrange(256)))
    if draw.random() < 0.25:
        del data[draw.randrange(1, len(data)) :]
    return bytes(data)


def damaged_text(whole: bytes, seed: int) -> bytes:
    """A text file that was cut, flipped, filled with noise, or given a value of another kind."""
    draw = random.Random(seed)
    data = bytearray(whole)
    for _ in range(draw.choice((1, 1, 1, 3))):
        at = draw.randrange(len(data) + 1)
        end = min(len(data), at + draw.choice((1, 2, 8, 64)))
        kind = draw.randrange(8)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            data[at:end] = draw.randbytes(end - at)
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = data[at:end] * draw.choice((1, 50))
        elif kind == 4 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 5:
            data[at:end] = draw.choice(_TOKENS)
        elif kind == 6:
            values = [i for i, c in enumerate(data) if c in b":>,="]
            if values:
                at = draw.choice(values) + 1
                stop = next((i for i in range(at, len(data)) if data[i] in b",\n}<"), len(data))
                data[at:stop] = b" " + draw.choice(_TOKENS)
        else:
            data[at:at] = draw.choice(_INSERTS)
    return bytes(data)


@dataclass
class Tally:
    """What happened to the damaged versions of one file.

    Attributes:
        cases: Damaged files.
        read: Readings that succeeded.
        refused: Readings that raised an error of ours.
        bad: {seed: what was wrong}.
        slowest: Processor seconds of the slowest case.
        peak: Most bytes that a case added.
    """

    cases: int = 0
    read: int = 0
    refused: int = 0
    bad: dict[int, str] = field(default_factory=dict)
    slowest: float = 0.0
    peak: int = 0

    def check(self, record: Callable[[str, object], None]) -> None:
        """Fail if a case went wrong; ``record`` keeps the figures in the JUnit report."""
        for name in ("cases", "read", "refused", "slowest", "peak"):
            record(name, getattr(self, name))
        record("bad", len(self.bad))
        assert not self.bad, "\n".join(f"{seed}: {what}" for seed, what in list(self.bad.items())[:20])


def attack(
    path: Path,
    readers: Callable[[Path], object] | Sequence[Callable[[Path], object]],
    seeds: range,
    *,
    damage: Damage,
    whole: bytes | None = None,
    wanted: type[UltraadError] = UltraadError,
    lines: int = 1,
) -> Tally:
    """Read damaged versions of a file, one for each seed.

    Args:
        path: The file; each version is written here.
        readers: Called with the path.
        seeds: Of the versions.
        damage: Makes a version.
        whole: Content of the undamaged file; read from ``path`` if None.
        wanted: The errors that a reader may raise.
        lines: Most lines of a message.
    """
    whole = path.read_bytes() if whole is None else whole
    tally = Tally()
    for seed in seeds:
        path.write_bytes(damage(whole, seed))
        tally.cases += 1
        measured = _reset_peak()
        before, started = _memory("VmRSS"), _processor()
        faulthandler.dump_traceback_later(HANG, exit=True)
        for read in readers if isinstance(readers, Sequence) else (readers,):
            try:
                read(path)
                tally.read += 1
            except wanted as e:
                tally.refused += 1
                if len(str(e)) > _LONGEST or str(e).count("\n") >= lines:
                    tally.bad[seed] = f"{len(str(e))} characters: {str(e)[:200]}"
            except Exception as e:
                tally.bad[seed] = repr(e)[:300]
        faulthandler.cancel_dump_traceback_later()
        seconds, added = _processor() - started, _memory("VmHWM") - before if measured else 0
        tally.slowest, tally.peak = max(tally.slowest, seconds), max(tally.peak, added)
        if seconds > SECONDS or added > MEMORY:
            tally.bad[seed] = f"{seconds:.1f} s, {added / 1e6:.0f} MB"
    path.write_bytes(whole)
    return tally


def _reset_peak() -> bool:
    """Let VmHWM begin again; False where that is not possible."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak_memory(process: int) -> int:
    """The most bytes that another process had; 0 if it has ended, or where that cannot be known."""
    return _memory("VmHWM", Path(f"/proc/{process}/status"))


def _processor() -> float:
    """Processor seconds of this process, and of those that it started and that have ended."""
    return sum(os.times()[:4])


def _memory(name: str, status: Path = _STATUS) -> int:
    """VmRSS or VmHWM of a process in bytes; 0 where there is no such file."""
    try:
        text = status.read_text()
    except OSError:
        return 0
    return int(text[text.index(f"{name}:") :].split(maxsplit=2)[1]) * 1024 if f"{name}:" in text else 0
