"""Fixtures that several test files share."""

import gc
import importlib.metadata
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

# Compiling takes most of the tests' time, for programs that run once, so the compiler is told to
# hurry: without LLVM's optimiser, and up to JAX 0.10, after which there is no choice, without MLIR
# for fused operations. JAX reads this when it starts, here and in every process of a test.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")


def pytest_collection_finish():
    """Tracing makes objects by the million, which Python's collector would look through often.

    What has been imported stays to the end and is left out; the rest is looked through less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """XLA compiles a program once a session, however many tests trace it; then forgotten.

    In a folder of this process and of those it starts and waits for: JAX writes an entry in place,
    where another one could read the half of it. Commands that open a cache of their own find this
    one and leave it.
    """
    import jax

    folder = str(tmp_path_factory.mktemp("xla"))
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@pytest.fixture(scope="session", autouse=True)
def programs_shared(compiled_once):
    """Where tests train the tiny network, they share its device programs."""
    if "tiny" not in sys.modules:
        yield
        return
    import shared_programs

    with pytest.MonkeyPatch.context() as patch:
        shared_programs.share(patch)
        yield


@pytest.fixture(scope="session")
def real_data_dir() -> pathlib.Path:
    """The folder with Dataset_BUSI_with_GT/ and BUS-UCLM/, named by MTBUS_DATA_DIR."""
    folder = os.environ.get("MTBUS_DATA_DIR")
    if not folder:
        pytest.skip("NOT TESTED on real images: MTBUS_DATA_DIR names no folder")
    if not pathlib.Path(folder).is_dir():
        pytest.fail(f"MTBUS_DATA_DIR={folder} is not a folder")
    return pathlib.Path(folder)


@pytest.fixture(scope="session")
def phantom_data_dir(tmp_path_factory) -> pathlib.Path:
    """A folder with the built phantom dataset."""
    from mtbus_jax import data

    folder = tmp_path_factory.mktemp("built")
    data.load_cases(
        "phantom", image_size=(32, 48), data_dir=folder / "tfds", cache_dir=folder / "cache"
    )
    return folder / "tfds"


@pytest.fixture(scope="module")
def busi(tmp_path_factory):
    """A small folder in BUSI's layout: (its parent, expected pictures by uid)."""
    from raw_dummies import write_busi

    root = tmp_path_factory.mktemp("busi")
    return root, write_busi(root)


@pytest.fixture(scope="module")
def bus_uclm(tmp_path_factory):
    """A small folder in BUS-UCLM's layout: (its parent, expected pictures by uid)."""
    from raw_dummies import write_bus_uclm

    root = tmp_path_factory.mktemp("uclm")
    return root, write_bus_uclm(root)
