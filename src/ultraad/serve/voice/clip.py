"""A recorded clip: whether it can be understood at all, and how it is prepared.

16 kHz, one channel, signed 16-bit little-endian, at most :data:`LONGEST` seconds. It lives in memory only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ultraad.errors import DataError

RATE = 16_000  # samples per second, as the acoustic model was trained
LONGEST = 4.0  # seconds; the longest class name takes two
SHORTEST = 0.25  # seconds; a shorter press is a tap
LARGEST = int(LONGEST * RATE) * 2  # bytes

_FRAME = RATE // 100  # samples; 10 ms
_SILENT = 60.0  # root mean square of the loudest frames below which a microphone is off or muted; -55 dB of full scale
_CLIPPED = 0.01  # share of samples at full scale that is too much
_FULL = 32_600
_STANDS_OUT = 6.0  # dB between the loudest and the quietest frames of a clip with speech
_LEVEL = 3000.0  # root mean square of the loudest frames after levelling
_FLOOR = 25.0  # dB below it: steady noise that is added, because the model was trained on rooms, not on digital silence
_EDGE = int(0.25 * RATE)  # samples of this noise before and after
_AROUND = 8  # frames that are kept around what is loud
_SEED = 0


def checked(data: bytes) -> NDArray[np.float64]:
    """The samples of a clip.

    Raises:
        DataError: If it is too long, too short, silent, without anything that stands out, or too loud; the message
            says what to do.
    """
    if len(data) % 2 or len(data) > LARGEST:
        what = f"longer than {LONGEST:.0f} seconds" if len(data) > LARGEST else "not of 16-bit samples"
        msg = f"the clip is {what}; hold the key for one word only"
        raise DataError(msg)
    samples = np.frombuffer(data, "<i2").astype(np.float64)
    if len(samples) < SHORTEST * RATE:
        msg = "the clip is too short; hold the key while you speak, and let it go afterwards"
        raise DataError(msg)
    if (np.abs(samples) >= _FULL).mean() > _CLIPPED:
        msg = "too loud; speak less loudly, or move the microphone away"
        raise DataError(msg)
    loudness = _loudness(samples)
    loud, quiet = np.percentile(loudness, (95, 10))
    if loud < 20 * np.log10(_SILENT):
        msg = "silence; is the microphone the right one, and not muted?"
        raise DataError(msg)
    if loud - quiet < _STANDS_OUT:
        msg = "no word stands out from the noise; speak nearer to the microphone, while the key is down"
        raise DataError(msg)
    return samples


def prepared(samples: NDArray[np.float64]) -> tuple[bytes, int]:
    """(the part with sound, at one level, in front of steady noise; how many 10 ms the sound lasts)."""
    loudness = _loudness(samples)
    quiet, loud = np.percentile(loudness, (10, 95))
    sound = np.flatnonzero(loudness > quiet + 0.35 * (loud - quiet))
    first, last = max(0, sound[0] - _AROUND), min(len(loudness), sound[-1] + 1 + _AROUND)
    kept = samples[first * _FRAME : last * _FRAME]
    kept = np.pad(kept * (_LEVEL / 10 ** (np.percentile(loudness[first:last], 90) / 20)), _EDGE)
    noise = _pink(len(kept)) * _LEVEL * 10 ** (-_FLOOR / 20)
    clear = np.flatnonzero(loudness > (quiet + loud) / 2)
    return np.clip(kept + noise, -32768, 32767).astype("<i2").tobytes(), int(clear[-1] - clear[0] + 1)


def _loudness(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Decibels of each 10 ms, at least 0."""
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    return np.asarray(10 * np.log10((frames**2).mean(1) + 1))


def _pink(n: int) -> NDArray[np.float64]:
    """The same pink noise every time, of unit root mean square."""
    spectrum = np.fft.rfft(np.random.default_rng(_SEED).standard_normal(n))
    spectrum /= np.sqrt(np.arange(1, len(spectrum) + 1))
    noise = np.fft.irfft(spectrum, n)
    return np.asarray(noise / noise.std())
