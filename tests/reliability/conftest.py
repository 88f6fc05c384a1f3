"""A trained run of the tiny network, of which each test damages a copy."""

import contextlib

import jax
import pytest
import tiny
from small_runs import CASES, World, make_config

from mtbus_jax import crossval, data, models


@contextlib.contextmanager
def tiny_world():
    """The tiny network is registered, and `data.load_cases` gives the tiny dataset."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
        patch.setattr(data.arrays, "load_cases", lambda name, **kwargs: CASES)
        yield


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    return tmp_path_factory.mktemp("xla")


# For a module and no longer: other tests of the session are to see the real dataset.
@pytest.fixture(scope="module", autouse=True)
def quick_tiny_world(compiled):
    """As `tiny_world`; the same programs are compiled again and again, so they are kept on disk."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in zip(names, (str(compiled), 0.0), strict=True):
        jax.config.update(name, value)
    with tiny_world():
        yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    with tiny_world():
        crossval.train_and_evaluate(make_config(), folder / "run")
    data.save_arrays(CASES, folder / "cases.npz")
    return World(folder / "run", folder / "cases.npz")
