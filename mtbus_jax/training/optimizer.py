"""Adam as used here, with weight decay, gradient clipping and a rate for the encoder."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax


def make_optimizer(
    *,
    b1: float,
    b2: float,
    epsilon: float,
    weight_decay: float = 0.0,
    l2: float = 0.0,
    clip_norm: float = 0.0,
    encoder_rate: float = 1.0,
) -> optax.GradientTransformation:
    """Adam, or AdamW, without its learning rate, which `learning_rate` gives for each step.

    Args:
      b1: decay of the mean of gradients.
      b2: decay of the mean of their squares.
      epsilon: added to the root of the latter.
      weight_decay: decoupled decay (Loshchilov and Hutter 2019, AdamW) of arrays with two axes or
        more, in units of the learning rate; 0 is Adam.
      l2: coupled decay: this multiple of every array is added to its gradient, as PyTorch's Adam
        does with its ``weight_decay``, but here before clipping.
      clip_norm: gradients are scaled down to this norm over all arrays; 0 leaves them.
      encoder_rate: learning rate of the submodule ``encoder``, relative to the others'.
    """

    def scaled(path, direction):
        of_encoder = encoder_rate != 1 and getattr(path[0], "key", None) == "encoder"
        return encoder_rate * direction if of_encoder else direction

    def update(gradients, moments, params=None):
        if l2:
            gradients = jax.tree.map(lambda g, p: g + l2 * p, gradients, params)
        if clip_norm:
            norm = optax.tree.norm(gradients)
            factor = clip_norm / jnp.maximum(norm, clip_norm)
            gradients = jax.tree.map(lambda g: g * factor, gradients)
        after = optax.ScaleByAdamState(
            count=optax.safe_increment(moments.count),
            mu=optax.tree.update_moment(gradients, moments.mu, b1, 1),
            nu=optax.tree.update_moment(gradients, moments.nu, b2, 2),
        )
        mean = optax.tree.bias_correction(after.mu, b1, after.count)
        square = optax.tree.bias_correction(after.nu, b2, after.count)
        directions = jax.tree.map(lambda m, s: m / (jnp.sqrt(s) + epsilon), mean, square)
        if weight_decay:
            directions = jax.tree.map(
                lambda d, p: d + weight_decay * p if p.ndim > 1 else d, directions, params
            )
        return jax.tree.map_with_path(scaled, directions), after

    def init(params):
        return optax.scale_by_adam(b1=b1, b2=b2, eps=epsilon).init(params)

    return optax.GradientTransformation(init, update)
