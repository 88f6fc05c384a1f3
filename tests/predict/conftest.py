"""A run of the tiny network, and pictures for it."""

import predict_dummies
import pytest
import tiny

from mtbus_jax import models


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch):
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A run of two folds: (its folder, configuration, variables by fold)."""
    workdir = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
        return workdir, *predict_dummies.write_run(workdir)


@pytest.fixture(scope="module")
def pictures():
    return predict_dummies.pictures()
