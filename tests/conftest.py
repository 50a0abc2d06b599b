"""Fixtures shared by all tests: one tiny data set of each layout. Tests must not change them; copy first."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from tests import helpers

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultraad.model.model import Model

    Once = Callable[[str, Callable[[Path], object]], Path]


def pytest_configure() -> None:
    """No garbage collection while modules are imported: they stay."""
    gc.disable()


def pytest_collection_finish() -> None:
    """And none of these modules later: they are a million objects."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """A folder by its name, made by the first who asks: for what takes seconds, in one of pytest-xdist's processes."""
    root = tmp_path_factory.getbasetemp()
    shared = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "once"
    shared.mkdir(exist_ok=True)

    def made(name: str, make: Callable[[Path], object]) -> Path:
        with FileLock(shared / f"{name}.lock"):
            if not (shared / name).exists():
                shutil.rmtree(shared / f"{name}.part", ignore_errors=True)  # of one who failed
                make(shared / f"{name}.part")
                (shared / f"{name}.part").rename(shared / name)
        return shared / name

    return made


@pytest.fixture(scope="session")
def layouts() -> dict[str, Callable[[Path], Path]]:
    """{layout name: writes such a data set to a folder and returns it}; the functions are ``helpers.write_<name>``."""
    from ultraad.data import sources

    writers = {name: getattr(helpers, f"write_{name}", None) for name in sources.available()}
    return {name: write for name, write in writers.items() if write}


@pytest.fixture(scope="session")
def busi_dir(once: Once) -> Path:
    """BUSI, 4 images of each class."""
    return once("busi", helpers.write_busi)


@pytest.fixture(scope="session")
def bus_uclm_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BUS-UCLM, 4 patients with 2 images of each class; COPE is the test patient, HESN is misaligned."""
    return helpers.write_bus_uclm(tmp_path_factory.mktemp("bus_uclm"))


@pytest.fixture(scope="session")
def folder_dir(once: Once) -> Path:
    """Class folders with masks beside the images, 4 images of each class."""
    return once("folder", helpers.write_folder)


@pytest.fixture(scope="session")
def synthetic_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated set, 3 patients with one image of each class."""
    return helpers.write_synthetic(tmp_path_factory.mktemp("synthetic"))


@pytest.fixture(scope="session")
def dicom_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of DICOM files; the second normal file has three frames."""
    root = tmp_path_factory.mktemp("dicom")
    helpers.write_dicom(root / "normal" / "a.dcm", patient="Doe")
    helpers.write_dicom(root / "normal" / "b.dcm", patient="Roe", frames=3, seed=10)
    helpers.write_dicom(root / "lesion" / "c.dcm", patient="Doe", seed=20)
    return root


@pytest.fixture(scope="session")
def busi_model(busi_dir: Path, once: Once) -> Model:
    """UltraAD adapted to ``busi_dir``: score, map and classes."""
    from tests.adapted import adapted
    from ultraad.model.model import load

    return load(once("busi-model", lambda folder: adapted(busi_dir).save(folder)))


@pytest.fixture(scope="session")
def folder_bundle(folder_dir: Path, once: Once) -> Path:
    """UltraAD adapted to ``folder_dir``, saved."""
    from tests.adapted import adapted

    return once("folder-model", lambda folder: adapted(folder_dir).save(folder))


@pytest.fixture(scope="session")
def onnx_dir(busi_model: Model, once: Once) -> Path:
    """``busi_model``, exported for ONNX Runtime, which takes many seconds."""
    from ultraad.export import write

    return once("onnx", lambda folder: write.export(busi_model, folder))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the real data sets; the test is skipped where there are none."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data on this machine")
    return folder
