"""Pictures that are no ultrasound, from packages that ship them and from drawing programs; nothing is downloaded.

Each kind is a list of pictures uint8 (h w 3). Those of scikit-learn, matplotlib and pydicom come with the extra
``dev``, those of scikit-image with ``bench``; ``pip install nilearn nibabel`` adds an atlas of the head. A package
that is not installed adds nothing: its kinds are smaller or missing.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

Picture = np.ndarray

PHOTOGRAPHS = (
    "astronaut", "chelsea", "coffee", "rocket", "motorcycle_left", "color", "camera", "coins", "horse", "clock_motion",
)  # fmt: skip
SURFACES = ("brick", "grass", "gravel")
CUTS = 6  # random parts of each photograph, beside the whole


def strangers(seed: int) -> dict[str, list[Picture]]:
    """{kind: pictures}; the drawn ones and the cuts differ from seed to seed, the whole pictures do not."""
    rng = np.random.default_rng([seed, 20])
    photographs = list(_photographs())
    surfaces, micro = list(_skimage(SURFACES)), list(_skimage(("ihc", "cell", "microaneurysms", "retina")))
    heads = [*_magnetic_resonance(), *_atlas(rng)]
    found = {
        "photographs": [x for p in photographs for x in (p, *_cuts(p, rng))],
        "photographs in grey": [_grey(x) for p in photographs for x in (p, *_cuts(p, rng))],
        "faces": list(_faces(rng)),
        "surfaces": [x for p in surfaces for x in (p, *_cuts(p, rng))],
        "microscopy and fundus": [x for p in micro for x in (p, *_cuts(p, rng))],
        "MRI and CT": [x for p in heads for x in (p, _cut(p, rng))],
        "drawn heads": [_head(rng) for _ in range(40)],
        "charts": list(_charts(rng)),
        "screens and pages": [*_skimage(("page", "text", "logo")), *(_screen(rng) for _ in range(40))],
        "blank": list(_blank(rng)),
        "noise": list(_noise(rng)),
    }
    return {kind: pictures for kind, pictures in found.items() if pictures}


def _rgb(image: np.ndarray) -> Picture:
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, -1)
    return np.ascontiguousarray(image[..., :3].astype(np.uint8))


def _grey(image: Picture) -> Picture:
    return _rgb(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def _stretched(values: np.ndarray) -> Picture:
    """Any values as grey, from the 1st to the 99.5th percentile."""
    low, high = np.percentile(values, (1, 99.5))
    return _rgb(255 * np.clip((values - low) / max(high - low, 1e-6), 0, 1))


def _cut(image: Picture, rng: np.random.Generator) -> Picture:
    h, w = image.shape[:2]
    height, width = int(h * rng.uniform(0.35, 0.9)), int(w * rng.uniform(0.35, 0.9))
    y, x = int(rng.integers(0, h - height + 1)), int(rng.integers(0, w - width + 1))
    return np.ascontiguousarray(image[y : y + height, x : x + width])


def _cuts(image: Picture, rng: np.random.Generator) -> list[Picture]:
    return [_cut(image, rng) for _ in range(CUTS)]


def _inside(package: str, *parts: str) -> Path | None:
    """A file of an installed package; the package is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))).joinpath(*parts)
    return path if path.is_file() else None


def _skimage(names: tuple[str, ...]) -> Iterator[Picture]:
    for name in names:
        for end in ("png", "jpg"):
            if (path := _inside("skimage", "data", f"{name}.{end}")) is not None:
                yield _rgb(np.asarray(Image.open(path).convert("RGB")))


def _photographs() -> Iterator[Picture]:
    from sklearn.datasets import load_sample_image

    yield from (_rgb(load_sample_image(name)) for name in ("china.jpg", "flower.jpg"))
    if (path := _inside("matplotlib", "mpl-data", "sample_data", "grace_hopper.jpg")) is not None:
        yield _rgb(np.asarray(Image.open(path).convert("RGB")))
    yield from _skimage(PHOTOGRAPHS)


def _faces(rng: np.random.Generator) -> Iterator[Picture]:
    """Of Labeled Faces in the Wild, 25 pixels wide."""
    path = _inside("skimage", "data", "lfw_subset.npy")
    if path is not None:
        every = np.load(path)
        for i in rng.choice(len(every), 40, replace=False):
            yield _rgb(
                cv2.resize(255 * every[i].astype(np.float32), (200, 200), interpolation=cv2.INTER_CUBIC).clip(0, 255)
            )


def _magnetic_resonance() -> Iterator[Picture]:
    """Single slices of MRI and CT, and the Shepp-Logan head."""
    if (path := _inside("matplotlib", "mpl-data", "sample_data", "s1045.ima.gz")) is not None:
        yield _stretched(np.frombuffer(gzip.decompress(path.read_bytes()), ">u2").reshape(256, 256).astype(float))
    import pydicom
    from pydicom.data import get_testdata_file

    for name in ("CT_small.dcm", "MR_small.dcm"):
        found = get_testdata_file(name, download=False)
        if found is not None:
            yield _stretched(pydicom.dcmread(str(found)).pixel_array.astype(float))
    yield from _skimage(("phantom",))


def _atlas(rng: np.random.Generator) -> Iterator[Picture]:
    """Slices through the T1 atlas of the head that nilearn ships (ICBM 152), in three directions."""
    path = _inside("nilearn", "datasets", "data", "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")
    if path is None or importlib.util.find_spec("nibabel") is None:
        return
    import nibabel

    volume = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)
    for axis in range(3):
        size = volume.shape[axis]
        for i in rng.choice(np.arange(int(0.2 * size), int(0.8 * size)), 16, replace=False):
            part = np.rot90(np.take(volume, i, axis))
            noisy = np.hypot(
                part + rng.normal(0, 0.02 * part.max(), part.shape), rng.normal(0, 0.02 * part.max(), part.shape)
            )
            yield _stretched(noisy)


def _head(rng: np.random.Generator) -> Picture:
    """Skull, brain, ventricles and a few spots, with the noise of MRI (Rician) or the grey of CT."""
    side = int(rng.integers(160, 360))
    image = np.zeros((side, side), np.float32)
    centre, tall = (side // 2, side // 2), rng.uniform(0.36, 0.46) * side
    wide = tall * rng.uniform(0.7, 0.95)
    tilt, ct = float(rng.uniform(-15, 15)), rng.random() < 0.4

    def oval(scale: float, value: float) -> None:
        cv2.ellipse(image, centre, (int(wide * scale), int(tall * scale)), tilt, 0, 360, value, -1)

    oval(1.0, 0.9 if ct else 0.75)
    oval(0.93, 0.95 if ct else 0.08)
    oval(0.87, float(rng.uniform(0.35, 0.55)))
    texture = gaussian_filter(rng.normal(0, 1, image.shape), side / 40)
    image = np.where(image > 0.3, image + 0.05 * texture / texture.std(), image).astype(np.float32)
    for sign in (-1, 1):
        at = (centre[0] + int(sign * 0.14 * wide), centre[1] - int(0.05 * tall))
        cv2.ellipse(image, at, (int(0.1 * wide), int(0.32 * tall)), tilt + sign * 12, 0, 360, 0.12, -1)
    image = gaussian_filter(image, side / 220)
    noise = 0.03 * rng.normal(0, 1, (2, *image.shape))
    return _rgb(255 * np.hypot(image + noise[0], noise[1]).clip(0, 1))


def _charts(rng: np.random.Generator, count: int = 42) -> Iterator[Picture]:
    """Lines, bars, points, boxes, a pie, a heat map and a box plot, on white and on black."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def draw(kind: int) -> Picture:
        figure = Figure(figsize=(rng.uniform(3, 6), rng.uniform(2.5, 5)), dpi=80)
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        x, y = np.arange(12), rng.normal(0, 1, (3, 12)).cumsum(1)
        plots: list[Callable[[], object]] = [
            lambda: axes.plot(x, y.T),
            lambda: axes.bar(x, np.abs(y[0])),
            lambda: axes.scatter(*rng.normal(0, 1, (2, 80)), s=12),
            lambda: axes.pie(np.abs(y[0, :5]) + 0.1, labels=[*"abcde"]),
            lambda: axes.imshow(rng.random((9, 9)), cmap=str(rng.choice(["viridis", "gray", "magma"]))),
            lambda: axes.boxplot(list(rng.normal(0, 1, (4, 30)))),
            lambda: axes.hist(rng.normal(0, 1, 300), bins=20),
        ]
        plots[kind]()
        axes.set_title(f"run {int(rng.integers(1000))}")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        return _rgb(np.asarray(Image.open(buffer).convert("RGB")))

    for i in range(count):
        with mpl.rc_context(mpl.rcParamsDefault), mpl.style.context("dark_background" if i % 3 == 2 else "default"):
            yield draw(i % 7)


def _screen(rng: np.random.Generator) -> Picture:
    """A window with text, buttons and a table, light or dark; or a page of text."""
    w, h = int(rng.integers(320, 800)), int(rng.integers(240, 600))
    dark = rng.random() < 0.5
    back, ink = ((18, 20, 24), (225, 225, 225)) if dark else ((248, 248, 248), (20, 20, 20))
    image = Image.new("RGB", (w, h), back)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(int(rng.integers(10, 22)))
    colour = tuple(int(v) for v in rng.integers(40, 220, 3))
    if rng.random() < 0.7:
        draw.rectangle((0, 0, w, h // 12), fill=colour)
        draw.rectangle((0, h // 12, w // 5, h), fill=tuple(int(0.85 * v + 15) for v in back))
    left, y = int(rng.choice([20, w // 5 + 12])), h // 10 + 8
    letters = np.array([*"abcdefghijklmnopqrstuvwxyz     0123456789"])
    while y < h - 20:
        draw.text((left, y), "".join(rng.choice(letters, int(rng.integers(10, 60)))), font=font, fill=ink)
        y += int(font.size * rng.uniform(1.3, 2.6))
        if rng.random() < 0.12:
            draw.rounded_rectangle((left, y, left + 90, y + 24), 5, outline=ink, fill=colour)
            y += 34
    return np.asarray(image)


def _blank(rng: np.random.Generator) -> Iterator[Picture]:
    """Black, white, grey, coloured, and ramps."""
    for value in (0, 3, 16, 64, 128, 200, 255):
        yield np.full((240, 320, 3), value, np.uint8)
    for _ in range(6):
        yield np.broadcast_to(rng.integers(0, 256, 3).astype(np.uint8), (200, 260, 3)).copy()
    ramp = np.linspace(0, 255, 300)
    for grey in (np.tile(ramp, (220, 1)), np.tile(ramp[:, None], (1, 260)), np.add.outer(ramp, ramp) / 2):
        yield _rgb(grey)
        yield _rgb(255 - grey)


def _noise(rng: np.random.Generator) -> Iterator[Picture]:
    """White, normal and filtered noise, in grey and in colour; and speckle without any tissue."""
    for i in range(40):
        shape = (int(rng.integers(160, 400)), int(rng.integers(160, 400)))
        if i % 4 == 0:
            yield rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
        elif i % 4 == 1:
            yield _rgb(rng.normal(rng.uniform(60, 190), rng.uniform(10, 60), shape).clip(0, 255))
        elif i % 4 == 2:
            yield _stretched(gaussian_filter(rng.normal(0, 1, shape), rng.uniform(1, 12)))
        else:
            field = gaussian_filter(rng.normal(0, 1, (2, *shape)), (0, *rng.uniform(0.6, 2.5, 2)))
            yield _stretched(20 * np.log10(np.hypot(*field) + 1e-4))
