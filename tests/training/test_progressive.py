"""Smaller images at first: which epochs, what the network sees, resuming, what is refused."""

import flax.linen as nn
import jax
import numpy as np
import pytest
import tiny
from PIL import Image

from configs import base
from mtbus_jax import data, models, types
from mtbus_jax.errors import UserError
from mtbus_jax.training import progressive
from mtbus_jax.training.checkpoint import Checkpoints
from mtbus_jax.training.experiment import Experiment
from mtbus_jax.training.logbook import read_metrics

FULL, SMALL = (tiny.HEIGHT, tiny.WIDTH), (tiny.HEIGHT // 2, tiny.WIDTH // 2)
SEEN, TRACED = [], []


class Shallow(tiny.TinyNet):
    """Halves once less, and keeps the sizes that it is traced for and trained on."""

    depth = 3

    @nn.compact
    def __call__(self, image, *, train=False):
        if train:
            TRACED.append(image.shape[1:3])
            jax.debug.callback(lambda x: SEEN.append(x.shape[1:3]), image)
        elif not self.is_initializing():
            TRACED.append(("not trained", *image.shape[1:3]))
        return tiny.TinyNet.__call__(self, image, train=train)


class Pinned(tiny.TinyNet):
    """A head that reads all pixels, so that its parameters depend on their number."""

    depth = 3

    @nn.compact
    def __call__(self, image, *, train=False):
        return types.Outputs((), nn.Dense(3, name="cls")(image.reshape(len(image), -1)), {})


@pytest.fixture(autouse=True)
def tiny_world(monkeypatch):
    """Registers the networks; `data.load_cases` gives the tiny dataset."""
    monkeypatch.setitem(models.REGISTRY, "tiny", Shallow)
    monkeypatch.setitem(models.REGISTRY, "pinned", Pinned)
    monkeypatch.setattr(data.arrays, "load_cases", lambda name, **kwargs: tiny.make_cases())


def make_config(**train):
    return tiny.make_config(**{"small_share": 0.6, "small_scale": 0.5, "epochs": 5} | train)


def final_state(config, directory, origin):
    like = Experiment.from_config(config).abstract_state()
    with Checkpoints(directory / "checkpoints", origin) as checkpoints:
        return checkpoints.restore_latest(like)


@pytest.mark.parametrize(
    ("share", "epochs", "small"),
    [(0.0, 5, 0), (0.6, 5, 3), (0.6, 20, 12), (0.29, 100, 29), (0.999, 7, 6), (0.1, 7, 0)],
)
def test_the_first_epochs_are_small(share, epochs, small):
    config = base.get_config()
    config.data.image_size = (128, 96)
    config.train.update(small_share=share, epochs=epochs)
    sizes = [progressive.size(config, epoch) for epoch in range(epochs)]
    assert sizes == [(96, 72)] * small + [None] * (epochs - small)


@pytest.mark.parametrize("new", [(12, 24), (8, 16), (10, 28)])
def test_images_are_resized_as_by_pillow_and_masks_read_at_their_places(new):
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (3, 16, 32, 1)).astype(np.float32)
    mask = (rng.random(image.shape) < 0.4).astype(np.float32)
    mask[1] = 0
    batch = types.Batch(image, mask, np.arange(3), np.ones(3), None, np.ones(3))
    found = jax.jit(progressive.shrunk, static_argnums=1)(batch, new)
    for i in range(3):
        expected = Image.fromarray(image[i, ..., 0]).resize(new[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_allclose(found.image[i, ..., 0], expected, atol=1e-3)
    row, col = (
        np.floor((np.arange(n) + 0.5) * full / n).astype(int)
        for n, full in zip(new, (16, 32), strict=True)
    )
    np.testing.assert_array_equal(found.mask, mask[:, row][:, :, col])
    np.testing.assert_array_equal(found.label, batch.label)
    assert found.mask_known is None


def test_the_network_sees_the_sizes_asked_for_and_is_compiled_once_for_each(tmp_path):
    SEEN.clear(), TRACED.clear()
    config = make_config()
    config.train.mixup, config.train.elastic = 0.4, 0.5  # with other options
    tiny.train_one(config, tmp_path)
    jax.effects_barrier()
    sizes, steps = list(SEEN), len(SEEN) // 5
    assert steps > 5
    assert sizes == [SMALL] * (3 * steps) + [FULL] * (2 * steps)
    trained = [shape for shape in TRACED if len(shape) == 2]
    per_program = len(trained) // 2  # JAX may trace a function more than once for a program
    assert 1 <= per_program <= 2
    assert trained == [SMALL] * per_program + [FULL] * per_program
    assert {shape for shape in TRACED if len(shape) == 3} == {("not trained", *FULL)}
    SEEN.clear(), TRACED.clear()
    tiny.train_one(make_config(epochs=1), tmp_path / "short")  # 0.6 of an epoch is none
    jax.effects_barrier()
    assert set(SEEN) == {FULL}
    assert [shape for shape in TRACED if len(shape) == 2] == [FULL] * per_program


@pytest.mark.parametrize("killed_in", [2, 3, 5])
def test_a_killed_run_goes_on_as_if_never_stopped(tmp_path, killed_in):
    """Its last checkpoint is of the epoch before, so 3 and 5 go on in either phase."""
    config = make_config()
    origin = tiny.train_one(config, tmp_path / "whole")
    with tiny.killed_after(killed_in):
        tiny.train_one(config, tmp_path / "killed")
    SEEN.clear()
    tiny.train_one(config, tmp_path / "killed")
    jax.effects_barrier()
    per_epoch = len(SEEN) // (6 - killed_in)
    assert SEEN.count(SMALL) == per_epoch * (4 - min(killed_in, 4))
    whole, killed = (final_state(config, tmp_path / name, origin) for name in ("whole", "killed"))
    jax.tree.map(np.testing.assert_array_equal, whole, killed)
    rows = [tiny.without_times(read_metrics(tmp_path / name)) for name in ("whole", "killed")]
    assert rows[0] == rows[1]


def test_it_learns_and_differs_from_the_full_size(tmp_path):
    tiny.train_one(make_config(epochs=10), tmp_path / "small")
    tiny.train_one(make_config(epochs=10, small_share=0.0), tmp_path / "full")
    small, full = (read_metrics(tmp_path / name) for name in ("small", "full"))
    assert small[0]["train_loss"] != full[0]["train_loss"]
    assert small[-1]["train_loss"] < 0.8 * small[0]["train_loss"]
    assert small[-1]["validation_loss"] < small[0]["validation_loss"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"train.small_scale": 0.7},
            r"train\.small_scale=0\.7 of data\.image_size=\(128, 96\) is 89\.6 × 67\.2 pixels, but "
            r"sides must be multiples of 16 .*halves the resolution 4 times.* "
            r"Scales that work: 0\.5\.$",
        ),
        (
            {"train.small_scale": 0.5, "data.image_size": (16, 128)},
            r"is 8 × 64 pixels.*There is none; leave train\.small_share at 0\.$",
        ),
    ],
)
def test_sizes_that_the_network_cannot_halve_are_refused(fields, message):
    config = base.get_config()
    config.update_from_flattened_dict(
        {"train.small_share": 0.6, "data.image_size": (128, 96), "model.name": "unetpp"} | fields
    )
    with pytest.raises(UserError, match=message):
        Experiment.from_config(config)
    config.train.small_share = 0.0
    Experiment.from_config(config)


def test_a_network_whose_parameters_depend_on_the_size_is_refused():
    config = make_config()
    config.model = {"name": "pinned"}
    config.tasks = ("cls",)
    with pytest.raises(UserError, match=r"at 8×16 and at 16×32 pixels.* of pinned depend on the"):
        Experiment.from_config(config).check_new()
    config.train.small_share = 0.0
    Experiment.from_config(config).check_new()
    config.train.small_share, config.model.name = 0.6, "tiny"
    Experiment.from_config(config).check_new()
