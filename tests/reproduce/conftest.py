"""Fixtures that tests of several files share."""

import pytest

from mtbus_jax import crossval


@pytest.fixture
def trained(monkeypatch):
    """The runs and folds that are trained from here on."""
    calls = []
    train = crossval.train_and_evaluate

    def watched(config, workdir, *, folds):
        calls.append((config.name, *folds))
        return train(config, workdir, folds=folds)

    monkeypatch.setattr(crossval, "train_and_evaluate", watched)
    return calls
