"""Labels by voice: how often the word is understood, refused, or taken for another one.

    python -m perf.voice                                 # the voices that the figures in docs/page.md are of
    python -m perf.voice --voices chosen                 # those that the margins were chosen on
    python -m perf.voice --quick                         # one noise for each clip instead of every one
    python -m perf.voice --most 200                      # so many clips, drawn at random
    python -m perf.voice --keep measured.jsonl           # also what was measured of each clip

Speech is made by espeak-ng (Debian: ``apt-get install espeak-ng``) in several accents, voices, speeds and pitches, and
mixed with noise of a fan, of many people talking, and pink noise. Voices and words outside the grammar are divided:
margins (``serve/voice/hear.py``) were chosen on the first part only. Made speech is not people's speech; no recording
of people may be used here.

    understood     the word that was said is the word that is shown
    refused        "not understood"
    wrong          another word is shown than was said; for words outside the grammar, any
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, lfilter, resample_poly

from ultraad.errors import DataError
from ultraad.rng import seeded
from ultraad.serve.voice.clip import RATE, checked
from ultraad.serve.voice.hear import Heard, Recogniser, model_folder
from ultraad.serve.voice.words import COMMANDS, Dictionary, vocabulary

Sound = NDArray[np.float64]

CLASSES = ("normal", "benign", "malignant", "cyst", "fibroadenoma")
VOICES = {
    "chosen": ("en-us", "en-gb+f2", "en-gb-scotland+m3", "en-us-nyc+f4", "en-gb-x-rp+m1", "en-gb-x-gbclan+m7"),
    "reported": (
        "en-gb",
        "en-us+f1",
        "en-us+m2",
        "en-gb-x-rp+f5",
        "en-us-nyc+m4",
        "en-gb-scotland+f3",
        "en-gb-x-gbcwmd+m5",
        "en-029+m6",
        "en-us+klatt",
        "en-gb-x-gbclan+f1",
    ),
}
OTHERS = {
    "chosen": (
        "design",
        "ship",
        "hello",
        "patient",
        "turn to your left",
        "okay",
        "text",
        "formal",
        "under",
        "kidney",
        "lesion",
        "hold your breath",
        "nine",
        "depth",
        "the next one please",
        "gel",
        "script",
        "magnificent",
        "probe",
        "breathe in",
        "window",
        "seven",
        "menu",
        "exact",
    ),
    "reported": (
        "behind",
        "slip",
        "good morning",
        "doctor",
        "turn to your right",
        "alright",
        "nest",
        "animal",
        "unto",
        "liver",
        "image",
        "breathe out",
        "five",
        "gain",
        "what is next",
        "towel",
        "sketch",
        "militant",
        "doppler",
        "thank you",
        "monitor",
        "eleven",
        "review",
        "expect",
        "combine",
        "list",
        "freeze",
        "moment",
        "save it",
        "up",
    ),
}
MANNERS = ((130, 35), (150, 50), (175, 65))  # words per minute, pitch 0-99
NOISES = ("pink", "fan", "babble")
RATIOS = (None, 20, 10)  # dB; None: a quiet room
TALK = (
    "the probe moves over the skin and the picture shows the tissue below while somebody else is talking on the phone"
)
EDGE = 0.3  # seconds before and after the word
LEVEL = 2500.0


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip: who says what in which noise."""

    voice: str
    text: str
    manner: tuple[int, int]
    noise: str
    ratio: int | None


@cache
def speech(voice: str, text: str, manner: tuple[int, int]) -> Sound:
    """What espeak-ng says, at 16 kHz."""
    speed, pitch = manner
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", text]
    wave = subprocess.run(command, capture_output=True, check=True).stdout  # 22,050 Hz behind a header of 44 bytes
    return resample_poly(np.frombuffer(wave[44:], "<i2").astype(np.float64), 320, 441)


def noise(kind: str, n: int, rng: np.random.Generator) -> Sound:
    """``n`` samples of noise, of unit root mean square."""
    if kind == "babble":
        voices = [
            speech(v, TALK, m)
            for v, m in zip(("en-gb+f4", "en-us+m8", "en-029", "en-gb+m1"), MANNERS * 2, strict=False)
        ]
        found = sum(np.resize(np.roll(v, rng.integers(len(v))), n) for v in voices)
    else:
        spectrum = np.fft.rfft(rng.standard_normal(n))
        found = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)), n)
        if kind == "fan":
            found = lfilter(*butter(2, 900, fs=RATE), rng.standard_normal(n))
            found = found / found.std()
            found += sum(0.5 / k * np.sin(2 * np.pi * 50 * k * np.arange(n) / RATE + k) for k in (1, 2, 3, 4, 6))
    return found / np.sqrt((found**2).mean())


def recorded(clip: Clip, rng: np.random.Generator) -> bytes:
    """A clip as the page sends it."""
    word = np.pad(speech(clip.voice, clip.text, clip.manner), int(EDGE * RATE))
    loud = np.abs(word) > 0.05 * np.abs(word).max()
    word = word * (LEVEL / np.sqrt((word[loud] ** 2).mean()))
    ratio = 45 if clip.ratio is None else clip.ratio
    mixed = word + noise("pink" if clip.ratio is None else clip.noise, len(word), rng) * LEVEL * 10 ** (-ratio / 20)
    return np.clip(mixed, -32768, 32767).astype("<i2").tobytes()


def clips(part: str, *, quick: bool) -> Iterator[tuple[Clip, str | None]]:
    """(clip, the word of the grammar that is said in it, None for other words)."""
    said = [(w, w) for w in (*CLASSES, *COMMANDS)] + [(w, None) for w in OTHERS[part]]
    for v, voice in enumerate(VOICES[part]):
        for w, (text, word) in enumerate(said):
            if word is None and quick and (v + w) % 3:
                continue
            for ratio in RATIOS:
                kinds = NOISES if ratio and not quick else NOISES[(v + w) % 3 :][:1]
                for kind in kinds:
                    yield Clip(voice, text, MANNERS[(v + w) % 3], kind, ratio), word


def measure(
    part: str, *, quick: bool, most: int | None = None
) -> Iterator[tuple[Clip, str | None, Heard | None, float]]:
    """(clip, word, what is heard or None where the clip is refused, seconds of the processor)."""
    folder = model_folder()
    dictionary = Dictionary(folder / "en-us" / "cmudict-en-us.dict")
    recogniser = Recogniser(vocabulary(dictionary, CLASSES, {}), dictionary, folder)
    every = list(clips(part, quick=quick))
    for n in seeded(0, "order").permutation(len(every))[:most]:
        clip, word = every[n]
        data, begun = recorded(clip, seeded(int(n), "voice")), time.process_time()
        try:
            heard = recogniser.measure(checked(data))
        except DataError:
            heard = None
        yield clip, word, heard, time.process_time() - begun


def table(title: str, groups: dict[str, list[str]], *, inside: bool) -> None:
    """One line for each group of results."""
    print(f"\n{title:28s} {'clips':>6s} {'understood':>11s} {'refused':>8s} {'wrong':>7s}")
    for name, results in groups.items():
        share = {kind: results.count(kind) / len(results) for kind in ("understood", "refused", "wrong")}
        understood = f"{share['understood']:11.1%}" if inside else f"{'-':>11s}"
        print(f"{name:28s} {len(results):6d} {understood} {share['refused']:8.1%} {share['wrong']:7.1%}")


def result(word: str | None, heard: Heard | None) -> str:
    """What becomes of a clip."""
    if heard is None or not heard.sure:
        return "refused"
    return "understood" if heard.name == word else "wrong"


def report(found: Sequence[tuple[Clip, str | None, Heard | None, float]]) -> None:
    """Print the tables."""
    for inside, title in ((True, "words of the grammar"), (False, "other words")):
        part = [(clip, word, result(word, heard)) for clip, word, heard, _ in found if (word is not None) == inside]
        by: dict[str, dict[str, list[str]]] = {"voice": {}, "ratio": {}, "word": {}, "all": {}}
        for clip, _, kind in part:
            ratio = "quiet room" if clip.ratio is None else f"{clip.ratio} dB, {clip.noise}"
            for key, name in (("voice", clip.voice), ("ratio", ratio), ("word", clip.text), ("all", "all")):
                by[key].setdefault(name, []).append(kind)
        for key, groups in by.items():
            table(f"{title}, by {key}" if key != "all" else title, dict(sorted(groups.items())), inside=inside)
    said = [(word, heard) for _, word, heard, _ in found if word is not None]
    errors = np.mean([heard is None or heard.name != word for word, heard in said])
    print(f"\nword error rate without refusing: {errors:.1%}")
    print(f"processor time of a clip: {np.median([seconds for *_, seconds in found]):.2f} s (median)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--voices", choices=tuple(VOICES), default="reported")
    parser.add_argument("--most", type=int, help="so many clips, drawn at random")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    found = []
    for clip, word, heard, seconds in measure(args.voices, quick=args.quick, most=args.most):
        found.append((clip, word, heard, seconds))
        if args.keep:
            line = [*astuple(clip), word, heard and astuple(heard)]
            with args.keep.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
    report(found)


if __name__ == "__main__":
    main()
