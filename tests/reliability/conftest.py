"""A trained run of the tiny network, of which each test damages a copy."""

import contextlib

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


# For a module and no longer: other tests of the session are to see the real dataset.
@pytest.fixture(scope="module", autouse=True)
def module_in_tiny_world():
    with tiny_world():
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    with tiny_world():
        crossval.train_and_evaluate(make_config(), folder / "run")
    data.save_arrays(CASES, folder / "cases.npz")
    return World(folder / "run", folder / "cases.npz")
