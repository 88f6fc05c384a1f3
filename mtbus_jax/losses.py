"""The losses of the multi-task framework, one value per image.

Values are per image, so that padding can be left out and a mean over devices stays exact; the
batch mean is taken in `multitask_loss`. Source: Aumente-Maestro et al. 2025, and its released code
where the text leaves a choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtbus_jax import types

# How the Dice loss measures the size of a prediction: Σ p², or Σ p as He et al. 2024 (ACSNet) do.
SQUARED, PLAIN = "squared", "plain"
DICE = (SQUARED, PLAIN)
# How the losses of the two tasks are combined: with fixed or with learned weights.
FIXED, LEARNED = "fixed", "learned"
WEIGHTINGS = (FIXED, LEARNED)


def dice_loss(
    logits: jax.Array, mask: jax.Array, *, sizes: str = SQUARED, smoothing: float = 1.0
) -> jax.Array:
    """Soft Dice loss, 1 − (2·Σ p·y + s)/(Σ p² + Σ y² + s) with p = sigmoid(logits).

    The s in numerator and denominator, 1 as published, makes it 0 where truth and prediction are
    both empty, and keeps its gradient finite there.

    Args:
      logits: ``(batch, height, width, 1)`` float32.
      mask: same shape, 0 or 1.
      sizes: one of `DICE`; plain uses Σ p and Σ y instead of the squares.
      smoothing: s, above 0.

    Returns:
      ``(batch,)`` float32 in [0, 1).

    Raises:
      ValueError: if the shapes differ (broadcasting would hide it), or for unknown ``sizes``.
    """
    if logits.shape != mask.shape:
        raise ValueError(f"logits {logits.shape} and mask {mask.shape} differ in shape")
    if sizes not in DICE:
        raise ValueError(f"sizes={sizes!r} is unknown. Known: {', '.join(DICE)}")
    probability = jax.nn.sigmoid(logits)
    axes = tuple(range(1, logits.ndim))
    overlap = jnp.sum(probability * mask, axes)
    power = 2 if sizes == SQUARED else 1
    size = jnp.sum(probability**power, axes) + jnp.sum(mask**power, axes)
    return 1 - (2 * overlap + smoothing) / (size + smoothing)


def pixel_cross_entropy(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Binary cross-entropy of the tumour probability, mean over the pixels of an image.

    Args:
      logits: ``(batch, height, width, 1)`` float32.
      mask: same shape, 0 or 1.

    Returns:
      ``(batch,)`` float32, ≥ 0.
    """
    # −log p = softplus(−logit), so y·(−log p) + (1 − y)·(−log(1 − p)) = softplus(logit) − y·logit.
    return jnp.mean(jax.nn.softplus(logits) - mask * logits, tuple(range(1, logits.ndim)))


def deep_supervision_loss(
    segmentation: tuple[jax.Array, ...],
    mask: jax.Array,
    *,
    cross_entropy: float = 0.0,
    dice: str = SQUARED,
    dice_smoothing: float = 1.0,
) -> jax.Array:
    """Σ_i (1/i)·Dice_i over the segmentation outputs, i = 1 for the finest map.

    Args:
      segmentation: logits, finest first, each ``(batch, height, width, 1)``.
      mask: ``(batch, height, width, 1)``, 0 or 1.
      cross_entropy: weight of `pixel_cross_entropy` beside each Dice; 0 as published.
      dice: ``sizes`` of `dice_loss`.
      dice_smoothing: ``smoothing`` of `dice_loss`.

    Returns:
      ``(batch,)`` float32.
    """
    total = 0.0
    for i, logits in enumerate(segmentation, start=1):
        of_map = dice_loss(logits, mask, sizes=dice, smoothing=dice_smoothing)
        if cross_entropy:
            of_map = of_map + cross_entropy * pixel_cross_entropy(logits, mask)
        total = total + of_map / i
    return total


def focal_loss(
    class_logits: jax.Array,
    label: jax.Array,
    *,
    gamma: float = 2.0,
    double_softmax: bool = False,
    smoothing: float = 0.0,
    class_weights: tuple[float, ...] = (),
) -> jax.Array:
    """Focal loss α_t·(1 − p_t)^γ·(−log p_t), p_t the softmax probability of the true class.

    Equations 4 and 5 of Lin et al. 2017 (ICCV).

    Args:
      class_logits: ``(batch, classes)`` float32.
      label: ``(batch,)`` integers, 0 to classes − 1.
      gamma: focusing exponent; 0 gives the cross-entropy.
      double_softmax: whether to apply a second softmax to the probabilities, as the released
        single-task nnU-Net classifier does. The probability of the true class then stays below
        e / (e + classes − 1), which is 0.58 for three classes.
      smoothing: share of the target that is spread evenly over all classes (Szegedy et al. 2016).
        The focal loss is then the mean over classes, weighted by the target.
      class_weights: α of each class; () is 1 for all.

    Returns:
      ``(batch,)`` float32, ≥ 0; NaN for a label that is not a class, such as `types.NO_LABEL`.

    Raises:
      ValueError: if ``class_weights`` does not hold one number per class.
    """
    classes = class_logits.shape[-1]
    if class_weights and len(class_weights) != classes:
        raise ValueError(f"{len(class_weights)} class_weights for {classes} classes")
    if double_softmax:
        class_logits = jax.nn.softmax(class_logits)
    log_probability = jax.nn.log_softmax(class_logits)
    if smoothing:
        target = (1 - smoothing) * jax.nn.one_hot(label, classes) + smoothing / classes
        loss = jnp.sum(target * _focal(log_probability, gamma), axis=-1)
    else:
        log_p = jnp.take_along_axis(log_probability, label[:, None], axis=-1)[:, 0]
        loss = _focal(log_p, gamma)
    if class_weights:
        loss = loss * jnp.asarray(class_weights, loss.dtype)[label]
    return jnp.where((label >= 0) & (label < classes), loss, jnp.nan)


def _focal(log_p: jax.Array, gamma: float) -> jax.Array:
    """(1 − p)^γ · (−log p), elementwise."""
    if gamma == 0:
        return -log_p
    # expm1 keeps the digits that 1 − exp(log p) loses as p → 1. Where p has rounded to 1 the
    # derivative of miss**γ is infinite for γ < 1, and ∞ · 0 would be NaN: hence the floor.
    miss = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(log_p.dtype).tiny)
    return miss**gamma * -log_p


def reconstruction_loss(reconstruction: jax.Array, image: jax.Array) -> jax.Array:
    """Mean squared error of a reconstruction of the input, grey values scaled to [0, 1].

    The auto-encoder regulariser of Adityan et al. 2023 (ICIP).

    Args:
      reconstruction: ``(batch, height, width, 1)`` float32 in [0, 1].
      image: same shape, grey values 0..255.

    Returns:
      ``(batch,)`` float32, ≥ 0.

    Raises:
      ValueError: if the shapes differ (broadcasting would hide it).
    """
    if reconstruction.shape != image.shape:
        raise ValueError(f"reconstruction {reconstruction.shape} and image {image.shape} differ")
    return jnp.mean((reconstruction - image / 255) ** 2, tuple(range(1, image.ndim)))


def learned_weighting(
    loss: jax.Array, scale: jax.Array, *, share: jax.Array | float = 1.0
) -> jax.Array:
    """A task's loss L with a weight that training learns, L/(2p²) + ln(1 + p²).

    The first term is the uncertainty weighting of Kendall, Gal and Cipolla 2018 (CVPR), with p in
    place of their noise σ. The second term keeps p from growing without bound. It replaces their
    ln σ, which is negative for p < 1, with a term that is never negative (Liebel and Körner 2018,
    arXiv 1805.06334). The released code of He et al. 2024 (ACSNet) does the same. For a constant L
    the minimum is at p² = (L + √(L² + 8L))/4.

    Args:
      loss: any shape, float32, ≥ 0.
      scale: p, a scalar that is not 0; its sign does not matter.
      share: fraction of the batch that ``loss`` is summed over, 0..1, so that the devices sharing a
        batch add up to one second term.

    Returns:
      The same shape, float32, ≥ 0.
    """
    return 0.5 / scale**2 * loss + share * jnp.log1p(scale**2)


def initial_weights(weighting: str) -> dict[str, jax.Array]:
    """The initial p of `learned_weighting` for each task, 1; empty if the weights are fixed."""
    if weighting == FIXED:
        return {}
    return {name: jnp.ones((), jnp.float32) for name in ("segmentation", "classification")}


class LossParts(NamedTuple):
    """The total and its parts, each a scalar mean over the valid images.

    A part whose task is off, or that the network does not have, is 0.
    """

    total: jax.Array
    segmentation: jax.Array
    classification: jax.Array
    reconstruction: jax.Array


class LossOptions(NamedTuple):
    """The options of `multitask_loss`, under the same names."""

    weight: float
    weighting: str = FIXED
    lossnet: float = 0.0
    gamma: float = 2.0
    reconstruction: float = 1.0
    double_softmax: bool = False
    label_smoothing: float = 0.0
    cross_entropy: float = 0.0
    dice: str = SQUARED
    dice_smoothing: float = 1.0
    class_weights: tuple[float, ...] = ()


def multitask_loss(
    outputs: types.Outputs,
    batch: types.Batch,
    *,
    weight: float,
    weighting: str = FIXED,
    lossnet: float = 0.0,
    gamma: float = 2.0,
    reconstruction: float = 1.0,
    double_softmax: bool = False,
    label_smoothing: float = 0.0,
    cross_entropy: float = 0.0,
    dice: str = SQUARED,
    dice_smoothing: float = 1.0,
    class_weights: tuple[float, ...] = (),
    loss_weights: Mapping[str, jax.Array] | None = None,
    difference: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    count: jax.Array | None = None,
) -> LossParts:
    """λ·segmentation + (1 − λ)·classification, averaged over the valid images.

    With learned weights the training loss is the sum of `learned_weighting` over the two tasks. On
    validation images it is the plain sum of the two losses, because the weights alone could lower
    the weighted one. With only one task, that task's loss has weight 1. ``outputs`` shows which
    tasks are on. A network that reconstructs its input (``outputs.aux["reconstruction"]``) adds
    that loss.

    An image whose mask or label is not known adds nothing to that task's loss. The sum is still
    divided by the number of all valid images, so that every known mask or label has the same
    weight, whatever else is in its batch.

    Args:
      outputs: of the network.
      batch: images with their truth; padding (``valid`` = 0) does not count.
      weight: λ, the share of the segmentation loss, in [0, 1]; for fixed weights only.
      weighting: one of `WEIGHTINGS`.
      lossnet: weight of ``difference`` beside the segmentation loss.
      gamma: exponent of the focal loss.
      reconstruction: weight of the reconstruction loss.
      double_softmax: see `focal_loss`.
      label_smoothing: see `focal_loss`.
      cross_entropy: weight of the pixels' cross-entropy beside the Dice loss of each map.
      dice: ``sizes`` of `dice_loss`.
      dice_smoothing: ``smoothing`` of `dice_loss`.
      class_weights: see `focal_loss`; the true class decides.
      loss_weights: p of each task, see `initial_weights`; None, or empty, on validation images.
      difference: loss ``(batch,)`` between the finest map's logits and the mask, see
        `models.lossnet.loss`; None for no such loss, and on validation images, so that epochs are
        judged without it.
      count: number of valid images to divide by; default: this batch's. Pass it when the batch is
        one device's share, so that the sum over devices is the mean over the whole batch.

    Returns:
      `LossParts`.

    Raises:
      ValueError: for an unknown ``weighting``.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting={weighting!r} is unknown. Known: {', '.join(WEIGHTINGS)}")
    if count is None:
        count = jnp.sum(batch.valid)
    count = jnp.maximum(count, 1)

    def mean(per_image: jax.Array, known: jax.Array | None = None) -> jax.Array:
        weight = batch.valid if known is None else batch.valid * known
        # The loss of an unknown label is NaN.
        return jnp.sum(jnp.where(weight > 0, per_image * weight, 0)) / count

    zero = jnp.zeros((), jnp.float32)
    segmentation = classification = reconstructed = zero
    if outputs.segmentation:
        per_image = deep_supervision_loss(
            outputs.segmentation,
            batch.mask,
            cross_entropy=cross_entropy,
            dice=dice,
            dice_smoothing=dice_smoothing,
        )
        if difference is not None:
            per_image = per_image + lossnet * difference(outputs.segmentation[0], batch.mask)
        segmentation = mean(per_image, batch.mask_known)
    if outputs.class_logits is not None:
        per_image = focal_loss(
            outputs.class_logits,
            batch.label,
            gamma=gamma,
            double_softmax=double_softmax,
            smoothing=label_smoothing,
            class_weights=class_weights,
        )
        classification = mean(per_image, batch.label_known)
    if outputs.class_logits is None:
        total = segmentation
    elif not outputs.segmentation:
        total = classification
    elif weighting == FIXED:
        total = weight * segmentation + (1 - weight) * classification
    elif loss_weights:
        share = mean(jnp.ones_like(batch.valid))
        total = sum(
            learned_weighting(loss, loss_weights[name], share=share)
            for name, loss in (("segmentation", segmentation), ("classification", classification))
        )
    else:
        total = segmentation + classification
    if "reconstruction" in outputs.aux:
        reconstructed = mean(reconstruction_loss(outputs.aux["reconstruction"], batch.image))
        total = total + reconstruction * reconstructed
    return LossParts(total, segmentation, classification, reconstructed)
