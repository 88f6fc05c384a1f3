"""Device programs of the tiny network, traced once a session for each way to train it."""

import functools

import tiny

from mtbus_jax.runtime import parallel
from mtbus_jax.training import experiment, steps


def share(patch) -> None:
    """Lets experiments of one kind take one program, where each would trace its own.

    They differ in what is no part of the program: seed, folds, epochs, run folder. Programs of
    real networks, which few tests share, are left alone.

    Args:
      patch: a `pytest.MonkeyPatch`.
    """
    # Equal optimisers are to be one object, since the functions that they are made of differ.
    patch.setattr(experiment, "make_optimizer", functools.cache(experiment.make_optimizer))
    for name in ("pmap_train", "pmap_eval"):
        patch.setattr(parallel, name, _sharing(getattr(parallel, name)))


def _sharing(pmap):
    programs = {}

    def shared(function, devices):
        if type(getattr(function, "keywords", {}).get("module")) is not tiny.TinyNet:
            return pmap(function, devices)
        # Some tests put another step in the place of this one.
        key = (_key(function), steps.train_step, *devices)
        if key not in programs:
            programs[key] = pmap(function, devices)
        return programs[key]

    return shared


def _key(value):
    """Equal for partial functions of equal arguments, which Python tells apart."""
    if not isinstance(value, functools.partial):
        return value
    arguments = sorted(value.keywords.items())
    return (value.func, *((name, _key(each)) for name, each in arguments))
