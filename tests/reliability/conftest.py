"""A trained run of the tiny network, of which each test damages a copy."""

import jax
import pytest
import tiny
from small_runs import CASES, World, make_config

from mtbus_jax import crossval, data, models


@pytest.fixture(scope="session", autouse=True)
def quick_compilation(tmp_path_factory):
    """The same programs are compiled again and again here; on disk they are at hand."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in zip(names, (str(tmp_path_factory.mktemp("xla")), 0.0), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="session", autouse=True)
def tiny_world():
    """Registers the tiny network; `data.load_cases` gives the tiny dataset."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
        patch.setattr(data.arrays, "load_cases", lambda name, **kwargs: CASES)
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory, tiny_world):
    folder = tmp_path_factory.mktemp("world")
    crossval.train_and_evaluate(make_config(), folder / "run")
    data.save_arrays(CASES, folder / "cases.npz")
    return World(folder / "run", folder / "cases.npz")
