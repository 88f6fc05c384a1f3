"""UNet++ computes rows in two parts of the batch on a CPU; its results are those of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbus_jax import losses, models, types
from mtbus_jax.models.cpu import parts

SIZE = (16, 32)


def module_of(**options):
    return models.create("unetpp", width=4, head_features=8, **options)


def batch_of(count):
    rng = np.random.default_rng(count)
    image = rng.uniform(0, 255, (count, *SIZE, 1)).astype(np.float32)
    mask = (image > 200).astype(np.float32)
    mask[0] = 0  # a normal image
    return types.Batch(image, mask, rng.integers(0, 3, count), np.ones(count, np.float32))


def loss_and_gradients(module, count):
    """(variables, batch) → ((loss, outputs), gradients), the loss a share of ``count`` images'."""

    def total(variables, batch):
        outputs = module.apply(variables, batch.image, train=True)
        return losses.multitask_loss(outputs, batch, weight=0.7, count=count).total, outputs

    # Compiled soon rather than well.
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(jax.value_and_grad(total, has_aux=True), compiler_options=options)


def assert_close(found, expected):
    """Largest difference relative to the largest value of the leaf, in double precision."""
    for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert f.shape == e.shape
        np.testing.assert_allclose(f, e, rtol=0, atol=1e-9 * np.abs(e).max() + 1e-15)


@pytest.mark.parametrize("head", ["released", "printed"])
def test_outputs_and_gradients_are_those_of_the_images_one_by_one(head):
    module, count = module_of(head=head), 3
    apply = loss_and_gradients(module, count)
    variables = models.init(module, jax.random.key(0), (*SIZE, 1))
    # An instance norm of few pixels magnifies rounding, so not in single precision.
    with jax.enable_x64(True):
        as_double = lambda leaf: np.asarray(leaf, np.float64)  # noqa: E731
        variables = jax.tree.map(as_double, variables)
        batch = batch_of(count)
        batch = batch._replace(image=as_double(batch.image), mask=as_double(batch.mask))
        (loss, outputs), gradients = apply(variables, batch)
        assert outputs.class_logits.dtype == np.float64
        single = [jax.tree.map(lambda a, i=i: a[i : i + 1], batch) for i in range(count)]
        alone = [apply(variables, each) for each in single]
        assert_close(loss, sum(each[0][0] for each in alone))
        assert_close(outputs, jax.tree.map(lambda *o: np.concatenate(o), *(a[0][1] for a in alone)))
        assert_close(gradients, jax.tree.map(lambda *g: sum(g), *(a[1] for a in alone)))


@pytest.mark.parametrize("count, halves", [(1, [1]), (2, [1, 1]), (5, [2, 3]), (8, [4, 4])])
def test_a_batch_is_cut_in_two_and_joined_again(count, halves):
    image = jnp.arange(count * 6.0).reshape(count, 2, 3, 1)
    cut = parts.cut(image)
    assert [len(part) for part in cut] == halves
    np.testing.assert_array_equal(parts.join(cut), image)


def convolutions(module, image) -> int:
    variables = models.init(module, jax.random.key(0), (*SIZE, 1))
    text = str(jax.make_jaxpr(lambda v, x: module.apply(v, x))(variables, image))
    return text.count("conv_general_dilated[")


def test_accelerators_and_free_batches_are_not_cut(monkeypatch):
    module = module_of(tasks=("seg",))
    whole = convolutions(module, jnp.zeros((1, *SIZE, 1)))
    assert convolutions(module, jnp.zeros((4, *SIZE, 1))) > whole
    (free,) = jax.export.symbolic_shape("b")
    assert parts.cut(jax.ShapeDtypeStruct((free, *SIZE, 1), jnp.float32))[1:] == []
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    on_gpu = convolutions(module, jnp.zeros((1, *SIZE, 1)))
    assert convolutions(module, jnp.zeros((4, *SIZE, 1))) == on_gpu
