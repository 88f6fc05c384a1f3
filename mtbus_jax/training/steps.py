"""Pure training and evaluation steps; all they know of devices is a named axis.

The whole dataset is an argument that stays on the device; a step gathers its images by index,
augments them and updates the state. Every random number is a function of (key, step, position in
the global batch), so resuming does not change a run. The number of devices changes it only through
dropout and batch norm, which see a device's share of a batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mtbus_jax import losses, types
from mtbus_jax.models import lossnet
from mtbus_jax.training import mixup, progressive
from mtbus_jax.training.schedule import PlateauSchedule, learning_rate
from mtbus_jax.training.state import TrainState, averaged
from mtbus_jax.training.totals import Totals, sums_of


class Dataset(NamedTuple):
    """A dataset resident on the device, and what training compares its masks with.

    Attributes:
      image: ``(n, height, width, 1)`` uint8.
      mask: ``(n, height, width, 1)`` uint8, 0 or 1.
      label: ``(n,)`` int32, 0 where it is not known.
      mask_known: ``(n,)`` float32, 1 where the mask is known; None if all are.
      label_known: ``(n,)`` float32, 1 where the label is known; None if all are.
      lossnet: fixed weights of LossNet; None where the loss has none, as in evaluation.
    """

    image: jax.Array
    mask: jax.Array
    label: jax.Array
    mask_known: jax.Array | None = None
    label_known: jax.Array | None = None
    lossnet: lossnet.Vgg | None = None


def gather(
    data: Dataset,
    index: jax.Array,
    valid: jax.Array,
    *,
    keys: jax.Array | None = None,
    augmentation: Callable | None = None,
) -> types.Batch:
    """The images at ``index``, augmented if there is an ``augmentation``.

    Args:
      data: the resident dataset.
      index: ``(batch,)`` integers.
      valid: ``(batch,)`` float32, 0 where the index is padding.
      keys: ``(batch,)`` PRNG keys, one per image, for the augmentation.
      augmentation: (key, image, mask) → (image, mask), from `augmentation.of_run`.
    """
    image = data.image[index].astype(jnp.float32)
    mask = data.mask[index].astype(jnp.float32)
    if augmentation is not None:
        image, mask = jax.vmap(augmentation)(keys, image, mask)
    known = (None if each is None else each[index] for each in (data.mask_known, data.label_known))
    return types.Batch(image, mask, data.label[index], valid, *known)


def cast(tree: Any, dtype: jnp.dtype | None) -> Any:
    """Floating-point leaves as ``dtype``; None leaves all as they are."""
    if dtype is None:
        return tree
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def train_step(
    state: TrainState,
    batch: types.Batch,
    *,
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    schedule: PlateauSchedule,
    loss: losses.LossOptions,
    key: jax.Array,
    axis_name: str | None = None,
    compute_dtype: jnp.dtype | None = None,
    vgg: lossnet.Vgg | None = None,
    partners: mixup.Partners | None = None,
) -> tuple[TrainState, Totals]:
    """One optimiser step on one batch (or on this device's share of it).

    Learned weights of the losses are updated by the same optimiser, with separate moments. Their
    gradients do not count towards the norm that clips the network's gradients.

    Args:
      state: before the step.
      batch: this device's images; at least one image of all devices is valid.
      module: the network.
      optimizer: from `optimizer.make_optimizer`.
      schedule: of the learning rate.
      loss: λ and the other numbers of `losses.multitask_loss`.
      key: PRNG key for dropout.
      axis_name: the mapped axis over which the batch is spread, if any.
      compute_dtype: type of the network's activations and of the weights it multiplies them with,
        such as bfloat16 (mixed precision); None uses the type of the parameters. Parameters,
        optimiser and losses keep their own types.
      vgg: weights of LossNet, if the loss has it.
      partners: of mixed images, see `mixup.draw`; None if ``batch`` is not mixed.

    Returns:
      The state after the step and the batch's sums, both the same on every device.
    """

    # One device alone has nothing to add up; XLA would copy everything nevertheless.
    alone = axis_name is None or jax.lax.axis_size(axis_name) == 1

    def over_devices(tree):
        return tree if alone else jax.lax.psum(tree, axis_name)

    count = over_devices(jnp.sum(batch.valid))

    def loss_fn(params, loss_weights):
        variables = {"params": cast(params, compute_dtype), "batch_stats": state.batch_stats}
        outputs, updates = module.apply(
            variables,
            cast(batch.image, compute_dtype),
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        if compute_dtype is not None:
            outputs = cast(outputs, jnp.float32)
        loss_for = functools.partial(
            losses.multitask_loss,
            outputs,
            **loss._asdict(),
            loss_weights=loss_weights,
            difference=None if vgg is None else functools.partial(lossnet.loss, vgg),
            count=count,
        )
        parts = loss_for(batch)
        if partners is not None:
            parts = mixup.of_both(parts, loss_for(partners.batch), partners.share)
        return parts.total, (outputs, parts, updates)

    gradients, (outputs, parts, updates) = jax.grad(loss_fn, argnums=(0, 1), has_aux=True)(
        state.params, state.loss_weights
    )
    # Each device's loss is its share of the global mean, so gradients add up.
    gradients, of_weights = over_devices(gradients)
    sums = over_devices(sums_of(outputs, batch, jax.tree.map(lambda p: p * count, parts)))
    batch_stats = updates.get("batch_stats", state.batch_stats)
    if not alone:
        batch_stats = jax.lax.pmean(batch_stats, axis_name)
    directions, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    rate = learning_rate(
        schedule,
        state.plateau.learning_rate,
        step=state.step,
        total_steps=state.total_steps,
        epoch=state.epoch,
    )
    loss_weights, loss_moments = state.loss_weights, state.loss_moments
    if loss_weights:
        turns, loss_moments = optimizer.update(of_weights, loss_moments, loss_weights)
        loss_weights = jax.tree.map(lambda p, d: p - rate * d, loss_weights, turns)
    after = state.replace(
        step=state.step + 1,
        params=jax.tree.map(lambda p, d: p - rate * d, state.params, directions),
        batch_stats=batch_stats,
        opt_state=opt_state,
        loss_weights=loss_weights,
        loss_moments=loss_moments,
    )
    return averaged(after, schedule), sums


def train_steps(
    state: TrainState,
    totals: Totals,
    data: Dataset,
    index: jax.Array,
    valid: jax.Array,
    key: jax.Array,
    *,
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    schedule: PlateauSchedule,
    loss: losses.LossOptions,
    augmentation: Callable | None,
    mix: float = 0.0,
    size: tuple[int, int] | None = None,
    axis_name: str | None = None,
    compute_dtype: jnp.dtype | None = None,
) -> tuple[TrainState, Totals]:
    """Several optimiser steps as one device program.

    Args:
      state: before the first step.
      totals: sums so far in this epoch.
      data: the resident dataset.
      index: ``(steps, batch)`` integers, this device's share of each batch.
      valid: ``(steps, batch)`` float32, 0 for padding.
      key: PRNG key of the run.
      augmentation: see `gather`; None leaves the images as they are.
      mix: α of `mixup.draw`; 0 does not mix.
      size: (height, width) that augmented images are made smaller to; None leaves them.
      module: see `train_step`.
      optimizer: see `train_step`.
      schedule: see `train_step`.
      loss: see `train_step`.
      axis_name: see `train_step`.
      compute_dtype: see `train_step`.

    Returns:
      The state after the last step and the updated sums.
    """
    share = index.shape[1]
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * share

    def one(carry, step_input):
        state, totals = carry
        step_index, step_valid = step_input
        step_key = jax.random.fold_in(key, state.step)
        dropout_key, augment_key = jax.random.split(step_key)
        keys = None
        if augmentation is not None:
            position = first + jnp.arange(share)
            keys = jax.vmap(lambda i: jax.random.fold_in(augment_key, i))(position)
        batch = gather(data, step_index, step_valid, keys=keys, augmentation=augmentation)
        if size is not None:
            batch = progressive.shrunk(batch, size)
        partners = None
        if mix:
            mix_key = jax.random.split(step_key, 3)[2]
            batch, partners = mixup.draw(mix_key, batch, mix, axis_name=axis_name)
        state, sums = train_step(
            state,
            batch,
            module=module,
            optimizer=optimizer,
            schedule=schedule,
            loss=loss,
            key=jax.random.fold_in(dropout_key, first),
            axis_name=axis_name,
            compute_dtype=compute_dtype,
            vgg=data.lossnet,
            partners=partners,
        )
        totals = jax.tree.map(jnp.add, totals, sums)
        finite = jnp.isfinite(totals.loss).astype(jnp.float32)
        return (state, totals._replace(finite=totals.finite + finite)), None

    return _loop(one, (state, totals), (index, valid))[0]


class Predictions(NamedTuple):
    """Network outputs per image, at network resolution.

    Attributes:
      probability: ``(n, height, width, 1)`` float32, tumour probability of the finest map, or None.
      class_logits: ``(n, classes)`` float32, or None.
    """

    probability: Any
    class_logits: Any


def eval_steps(
    variables: dict[str, Any],
    data: Dataset,
    index: jax.Array,
    valid: jax.Array,
    *,
    module: nn.Module,
    loss: losses.LossOptions,
    axis_name: str | None = None,
) -> tuple[Totals, Predictions]:
    """Loss sums and predictions over several batches as one device program.

    Args:
      variables: of the network.
      data: the resident dataset.
      index: ``(steps, batch)`` integers, this device's share of each batch.
      valid: ``(steps, batch)`` float32, 0 for padding.
      module: the network.
      loss: λ and the other numbers of `losses.multitask_loss`.
      axis_name: the mapped axis over which batches are spread, if any.

    Returns:
      Sums over all devices, and this device's predictions with leading axes ``(steps, batch)``.
    """

    def one(totals, step_input):
        step_index, step_valid = step_input
        batch = gather(data, step_index, step_valid)
        outputs = module.apply(variables, batch.image, train=False)
        one_image = jnp.ones((), jnp.float32)
        parts = losses.multitask_loss(outputs, batch, **loss._asdict(), count=one_image)
        sums = sums_of(outputs, batch, parts)
        probability = None
        if outputs.segmentation:
            probability = jax.nn.sigmoid(outputs.segmentation[0])
        predictions = Predictions(probability, outputs.class_logits)
        return jax.tree.map(jnp.add, totals, sums), predictions

    totals, predictions = _loop(one, Totals.zero(), (index, valid))
    if axis_name is not None:
        totals = jax.lax.psum(totals, axis_name)
    return totals, predictions


def _loop(body: Callable, carry, inputs):
    """`lax.scan`, but without a loop for a single step, as in every program on a CPU."""
    if jax.tree.leaves(inputs)[0].shape[0] == 1:
        carry, output = body(carry, jax.tree.map(lambda x: x[0], inputs))
        return carry, jax.tree.map(lambda x: x[None], output)
    return jax.lax.scan(body, carry, inputs)
