"""Traced programs on disk: found again, never mistaken for another, no harm where that fails."""

import contextlib
import dataclasses
import functools
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mtbus_jax import models
from mtbus_jax.runtime import compiled
from mtbus_jax.training import state, steps
from mtbus_jax.training.experiment import Experiment
from mtbus_jax.training.logbook import read_metrics
from mtbus_jax.training.totals import Totals


@pytest.fixture
def cache(tmp_path):
    """JAX's cache, switched on in a folder of its own; gives where traced programs lie."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "xla"))
    yield tmp_path / "xla" / "traced"
    jax.config.update("jax_compilation_cache_dir", before)


class Traced:
    """A function that counts how often it is traced."""

    def __init__(self):
        self.times = 0

    def __call__(self, totals, factor):
        """Scales sums."""
        self.times += 1
        return jax.tree.map(lambda leaf: leaf * factor, totals), jnp.sin(factor)


TOTALS = Totals(*map(np.float32, range(10)))
ARGUMENTS = (TOTALS, np.float32(3))


def kept(function, *, name="scale", about=None, **options):
    return compiled.kept(name, function, lambda: ARGUMENTS, about=about or {}, **options)


def test_nothing_is_kept_without_jaxs_cache(cache):
    jax.config.update("jax_compilation_cache_dir", None)
    assert kept(Traced()) is None
    assert not cache.exists()


def test_a_program_is_traced_once_and_computes_the_same(cache):
    functions = Traced(), Traced()
    first = kept(functions[0])
    assert [path.name.split("-")[0] for path in cache.iterdir()] == ["scale"]
    second = kept(functions[1])
    assert [function.times for function in functions] == [1, 0]
    expected = Traced()(*ARGUMENTS)
    for program in (first, second):
        found = program.call(*ARGUMENTS)
        assert isinstance(found[0], Totals)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), found, expected)
        shapes = program.shapes()
        assert jax.tree.structure(shapes) == jax.tree.structure(ARGUMENTS)
        assert {leaf.shape for leaf in jax.tree.leaves(shapes)} == {()}
    assert functions[1].times == 0


def test_arguments_are_asked_for_only_to_trace(cache):
    kept(Traced())

    def never():
        raise AssertionError("asked again")

    assert compiled.kept("scale", Traced(), never, about={}) is not None


def test_options_of_jit_hold_for_what_is_read_from_disk(cache):
    for _ in range(2):
        totals = jax.tree.map(jnp.asarray, TOTALS)
        kept(Traced(), donate_argnums=0).call(totals, ARGUMENTS[1])
        assert totals.loss.is_deleted()


@pytest.mark.parametrize("change", ["name", "about", "source", "setting", "library"])
def test_whatever_a_program_depends_on_leads_to_another(cache, monkeypatch, change):
    kept(Traced(), about={"width": 4})
    name, about, context = "scale", {"width": 4}, contextlib.nullcontext()
    if change == "name":
        name = "other"
    elif change == "about":
        about = {"width": 5}
    elif change == "source":
        monkeypatch.setattr(compiled, "_source_digest", lambda: "another version")
    elif change == "library":
        monkeypatch.setattr(compiled.importlib.metadata, "version", lambda library: "0.0")
    else:
        context = jax.default_matmul_precision("float32")  # of this thread alone
    function = Traced()
    with context:
        kept(function, name=name, about=about)
    assert function.times == 1
    assert len(list(cache.iterdir())) == 2


def test_the_source_is_that_of_the_whole_package(tmp_path, monkeypatch):
    for path in ("a.py", "ops/b.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("1")
    monkeypatch.setattr(compiled, "_PACKAGE", tmp_path)
    digests = set()
    for path, text in (("a.py", "1"), ("a.py", "2"), ("ops/b.py", "2"), ("c.py", "2")):
        (tmp_path / path).write_text(text)
        digests.add(compiled._source_digest.__wrapped__())
    assert len(digests) == 4


@pytest.mark.parametrize("content", [b"", b"rubbish", "half", "flipped"])
def test_a_damaged_file_is_traced_again_and_replaced(cache, content):
    kept(Traced())
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    if content == "half":
        content = whole[: len(whole) // 2]
    elif content == "flipped":
        content = bytearray(whole)
        content[len(whole) // 2] ^= 1
    path.write_bytes(content)
    functions = Traced(), Traced()
    program = kept(functions[0])
    assert float(program.call(*ARGUMENTS)[0].dice) == 12
    kept(functions[1])
    assert [function.times for function in functions] == [1, 0]


def test_a_folder_that_cannot_be_written_stops_nothing(cache):
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    assert kept(Traced()) is None  # it is traced and compiled each time
    assert os.listdir(cache.parent) == ["traced"]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners of files here")
def test_nothing_is_read_from_a_folder_that_others_can_write_to(cache):
    kept(Traced())
    cache.chmod(0o777)
    assert kept(Traced()) is None


def make_config(**train_fields):
    config = tiny.make_config(devices=1, **train_fields)
    config.model = {"name": "unet", "width": 2}
    return config


# A low learning rate, so that rounding, which LLVM's levels may change, does not grow.
TRAINING = {"epochs": 2, "steps_per_call": 4, "learning_rate": 1e-4}


@pytest.mark.long
def test_training_is_the_same_with_programs_from_disk(tmp_path, cache, monkeypatch):
    """The second time nothing is traced: a step that cannot be taken does not matter."""
    config = make_config(**TRAINING)
    tiny.train_one(config, tmp_path / "written")
    programs = sorted(cache.iterdir())
    # Four steps, the rest at an epoch's end, and the first weights.
    assert [path.name.split("-")[0] for path in programs] == ["init", "train", "train"]
    jax.clear_caches()
    with monkeypatch.context() as patch:
        patch.setattr(steps, "train_step", None)
        tiny.train_one(config, tmp_path / "read")
    assert sorted(cache.iterdir()) == programs
    jax.config.update("jax_compilation_cache_dir", None)
    tiny.train_one(config, tmp_path / "without")
    written, read, without = (
        tiny.without_times(read_metrics(tmp_path / name)) for name in ("written", "read", "without")
    )
    assert written == read
    for row, reference in zip(written, without, strict=True):
        assert row == pytest.approx(reference, rel=1e-4)


def test_another_fold_or_seed_takes_the_same_programs(cache):
    config = make_config()
    first = Experiment.from_config(config).init_state(0)
    config.seed += 1
    other = Experiment.from_config(config).init_state(3)
    assert len(list(cache.iterdir())) == 1
    weights = [jax.tree.leaves(each.params)[0] for each in (first, other)]
    assert not np.array_equal(*weights)


def test_weights_from_disk_are_those_without(cache):
    config = make_config()
    experiment = Experiment.from_config(config)
    found = [experiment.init_state(1), experiment.init_state(1)]
    jax.config.update("jax_compilation_cache_dir", None)
    reference = experiment.init_state(1)
    for each in found:
        assert isinstance(each, state.TrainState)
        assert jax.tree.structure(each) == jax.tree.structure(reference)
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-7), each, reference)


def test_networks_of_others_and_several_devices_are_left_out(cache, monkeypatch):
    """A network outside the package may change without its source being looked at."""
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
    config = tiny.make_config(devices=1)
    Experiment.from_config(config).init_state(0)
    assert not cache.exists()
    config = make_config()
    experiment = Experiment.from_config(config)
    several = dataclasses.replace(experiment, devices=2 * experiment.devices)
    several.init_state(0)
    assert not cache.exists()
    experiment.init_state(0)
    assert cache.exists()


def test_without_what_jax_export_needs_nothing_is_kept_and_training_goes_on(
    tmp_path, cache, monkeypatch
):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)  # importing it fails
    serialization = [name for name in sys.modules if name.startswith("jax._src.export.serial")]
    for name in serialization:
        monkeypatch.delitem(sys.modules, name)
    tiny.train_one(make_config(epochs=1, augment=False), tmp_path)
    assert read_metrics(tmp_path)
    assert list(cache.glob("*.stablehlo")) == []
