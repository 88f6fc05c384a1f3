"""Training steps that cannot fit are refused before anything is compiled."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from configs import base
from mtbus_jax import crossval, models, splits
from mtbus_jax.errors import UserError
from mtbus_jax.training import memory
from mtbus_jax.training.experiment import Experiment


def experiment(name="unet", size=(64, 96), batch=2, **options):
    config = base.get_config()
    config.model.name = name
    config.model.update(options)
    config.data.image_size = size
    config.train.batch_size = batch
    config.train.devices = 1
    return Experiment.from_config(config)


def test_parameters_gradients_moments_and_kept_weights_count():
    built = experiment(width=8)
    count = models.parameter_count(models.init_shapes(built.module, (64, 96, 1))["params"])
    assert memory.least(built) == 5 * 4 * count


@pytest.mark.parametrize(("name", "width"), [("unet", 8), ("unetpp", 4), ("residual_unet", 4)])
def test_it_is_less_than_xla_takes(name, width, monkeypatch):
    """Else a training that fits could be refused."""
    monkeypatch.setattr(memory, "_COUNTED_FROM", 0)
    built = experiment(name, width=width)
    variables = models.init(built.module, jax.random.key(0), (64, 96, 1))

    def loss(params, image, key):
        outputs, _ = built.module.apply(
            {**variables, "params": params},
            image,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        return outputs.class_logits.sum() + sum(each.sum() for each in outputs.segmentation)

    image = jax.numpy.zeros((2, 64, 96, 1))
    program = jax.jit(jax.grad(loss)).lower(variables["params"], image, jax.random.key(0)).compile()
    maps = memory.least(built) - 5 * 4 * models.parameter_count(variables["params"])
    assert 0 < maps <= program.memory_analysis().temp_size_in_bytes


def test_feature_maps_grow_with_batch_and_image(monkeypatch):
    monkeypatch.setattr(memory, "_COUNTED_FROM", 0)
    shapes = models.init_shapes(experiment(width=8).module, (64, 96, 1))
    parameters = 5 * 4 * models.parameter_count(shapes["params"])
    one, double = (memory.least(experiment(width=8, batch=n)) - parameters for n in (2, 4))
    assert double == pytest.approx(2 * one, rel=0.01)


def test_what_cannot_fit_is_refused_in_words_and_leaves_no_folder(tmp_path):
    config = base.get_config()
    config.data.name = "phantom"
    config.data.image_size = (4096, 4096)
    config.train.batch_size = 4096
    with pytest.raises(UserError, match=r"image_size=\(4096, 4096\).*at least .*GB of memory"):
        crossval.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_each_process_looks_at_a_device_of_its_own(monkeypatch):
    """JAX tells nothing of the memory of other processes' GPUs."""

    class Device:
        platform = "gpu"

        def __init__(self, process_index, limit):
            self.process_index, self.limit = process_index, limit

        def memory_stats(self):
            assert self.process_index == jax.process_index(), "only supported for addressable"
            return {"bytes_limit": self.limit}

    built = experiment(width=8)
    devices = [Device(1, 10**12), Device(0, 10**12)]
    memory.check(dataclasses.replace(built, devices=devices))
    devices[1].limit = 10
    with pytest.raises(UserError, match="gpu has"):
        memory.check(dataclasses.replace(built, devices=devices))


def test_an_unknown_memory_refuses_nothing(monkeypatch):
    monkeypatch.setattr(memory, "at_hand", lambda device: None)
    memory.check(experiment(size=(4096, 4096), batch=4096, width=8))


def test_a_container_has_less_than_its_machine(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CGROUP", limit)
    whole = memory.at_hand(jax.devices("cpu")[0])
    limit.write_text("max\n")
    assert memory.at_hand(jax.devices("cpu")[0]) == whole
    limit.write_text("1000000\n")
    assert memory.at_hand(jax.devices("cpu")[0]) == 1_000_000


def test_a_batch_far_larger_than_the_training_set_is_refused():
    split = splits.Split(np.arange(27), np.arange(27, 30), np.arange(30, 40))
    config = tiny.make_config(batch_size=108)
    memory.check_batch(config, split, 0)
    config.train.batch_size = 109
    with pytest.raises(UserError, match="batch_size=109: fold 0 has 27 training images"):
        memory.check_batch(config, split, 0)
    few = splits.Split(np.arange(2), np.arange(2, 3), np.arange(3, 4))
    config.train.batch_size = 64
    memory.check_batch(config, few, 0)
