"""Mixup: a network sees weighted means of two images and is trained on the truths of both.

Zhang et al. 2018 (ICLR), mixup: Beyond Empirical Risk Minimization. An image x_i of the batch
becomes λ·x_i + (1 − λ)·x_j, and its loss λ·L(prediction, truth_i) + (1 − λ)·L(prediction,
truth_j). As in the code of the paper, one λ ~ Beta(α, α) is drawn for a batch, and j is a random
permutation of it. Truths are not mixed, so masks stay 0 or 1.

Here λ is the larger of the two shares, so that truth_i is always the one that prevails in the
image; metrics of the training images compare with it. This changes no pair's probability: j = π(i)
with λ is i = π⁻¹(j) with 1 − λ, and π⁻¹ is as likely as π.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtbus_jax import losses, types


class Partners(NamedTuple):
    """The second images of the pairs.

    Attributes:
      batch: the mixed images, with the truth of the second image of each pair.
      share: λ, scalar float32 in [0.5, 1], the share of the first image.
    """

    batch: types.Batch
    share: jax.Array


def draw_share(key: jax.Array, alpha: float) -> jax.Array:
    """The larger of λ and 1 − λ with λ ~ Beta(α, α), scalar float32.

    Args:
      key: PRNG key.
      alpha: α, above 0; near 0 images are hardly mixed, at 1 all λ are equally likely.
    """
    # Below 1e-6, where λ is 0 or 1 in any case, logarithms in the drawing would overflow.
    alpha = max(alpha, 1e-6)
    share = jax.random.beta(key, alpha, alpha)
    return jnp.maximum(share, 1 - share)


def draw_partner(key: jax.Array, valid: jax.Array) -> jax.Array:
    """A random permutation in which the padding of an incomplete batch keeps to itself.

    So padding is in no image that counts. An image may be its own partner; then it stays as it is.

    Args:
      key: PRNG key.
      valid: ``(batch,)`` float32, 1 for real images and 0 for padding.

    Returns:
      ``(batch,)`` int32: the partner of each image.
    """
    padding = valid == 0
    places = jnp.argsort(padding)  # stable: the real images, then padding
    drawn = jnp.argsort(jnp.where(padding, 2.0, jax.random.uniform(key, valid.shape)))
    return jnp.zeros(valid.shape, jnp.int32).at[places].set(drawn.astype(jnp.int32))


def mix(
    batch: types.Batch, everyone: types.Batch, partner: jax.Array, share: jax.Array
) -> tuple[types.Batch, Partners]:
    """Mixes images with their partners.

    Args:
      batch: this device's images.
      everyone: the images of all devices; ``batch`` again if there is one.
      partner: ``(batch,)`` integers into ``everyone``: the partner of each of this device's images.
      share: λ, scalar in 0..1.

    Returns:
      The mixed images with the truth of the first, and with that of the second.
    """
    second = jax.tree.map(lambda leaf: leaf[partner], everyone)
    image = share * batch.image + (1 - share) * second.image
    first = batch._replace(image=image)
    return first, Partners(second._replace(image=image, valid=batch.valid), share)


def draw(
    key: jax.Array, batch: types.Batch, alpha: float, *, axis_name: str | None = None
) -> tuple[types.Batch, Partners]:
    """Draws λ and the pairs of a batch, and mixes its images.

    Both depend on the whole batch and not on how it is spread: devices exchange their images.

    Args:
      key: PRNG key of the step, the same on all devices.
      batch: this device's images.
      alpha: see `draw_share`.
      axis_name: the mapped axis over which the batch is spread, if any.

    Returns:
      See `mix`.
    """
    share_key, partner_key = jax.random.split(key)
    everyone, first = batch, 0
    if axis_name is not None and jax.lax.axis_size(axis_name) > 1:
        everyone = jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, axis_name, tiled=True), batch)
        first = jax.lax.axis_index(axis_name) * len(batch.valid)
    partner = draw_partner(partner_key, everyone.valid)
    own = jax.lax.dynamic_slice_in_dim(partner, first, len(batch.valid))
    return mix(batch, everyone, own, draw_share(share_key, alpha))


def of_both(
    first: losses.LossParts, second: losses.LossParts, share: jax.Array
) -> losses.LossParts:
    """λ·first + (1 − λ)·second, for the total and each part.

    All parts are linear in the losses of the images, so this is the mean of the mixed losses. What
    does not depend on the truth, such as the loss of a reconstruction, is the same in both.

    Args:
      first: losses with the truth of the first images.
      second: losses with the truth of their partners.
      share: λ, scalar.
    """
    return jax.tree.map(lambda a, b: share * a + (1 - share) * b, first, second)
