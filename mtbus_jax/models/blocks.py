"""Building blocks shared by the networks; all take and return (batch, height, width, channels)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# PyTorch's default for convolutions and dense layers, U(-1/√fan_in, 1/√fan_in): the published
# runs started from it. Variance 1/(3·fan_in).
torch_default_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_default_bias_init(fan_in: int) -> nn.initializers.Initializer:
    """PyTorch's default for biases, U(-1/√fan_in, 1/√fan_in), ``fan_in`` that of the layer."""
    bound = 1 / np.sqrt(fan_in)

    def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def convolution(
    image: jax.Array,
    features: int,
    *,
    kernel: int = 3,
    use_bias: bool = True,
    name: str,
) -> jax.Array:
    """A stride-1 square convolution with zero padding, created inside a compact module."""
    fan_in = kernel * kernel * image.shape[-1]
    return nn.Conv(
        features,
        (kernel, kernel),
        padding=kernel // 2,
        use_bias=use_bias,
        kernel_init=torch_default_init,
        bias_init=torch_default_bias_init(fan_in),
        name=name,
    )(image)


def dense(vector: jax.Array, features: int, *, name: str) -> jax.Array:
    """A dense layer with PyTorch's default initialisation, created inside a compact module."""
    return nn.Dense(
        features,
        kernel_init=torch_default_init,
        bias_init=torch_default_bias_init(vector.shape[-1]),
        name=name,
    )(vector)


def max_pool(image: jax.Array) -> jax.Array:
    """2×2 max-pool with stride 2; an odd last row or column is dropped, as PyTorch does."""
    return nn.max_pool(image, window_shape=(2, 2), strides=(2, 2))


class ConvBlock(nn.Module):
    """Two × (3×3 convolution with bias, affine instance norm with ε 1e-5, LeakyReLU).

    Attributes:
      features: channels of the output (and between the two convolutions).
      negative_slope: slope of LeakyReLU below zero.
    """

    features: int
    negative_slope: float = 0.1

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Maps ``(batch, height, width, any)`` to ``(batch, height, width, features)``."""
        for i in (1, 2):
            image = convolution(image, self.features, name=f"conv_{i}")
            # Inputs are grey values 0..255: E[x²] − E[x]² loses too many digits there.
            image = nn.InstanceNorm(epsilon=1e-5, use_fast_variance=False, name=f"norm_{i}")(image)
            image = nn.leaky_relu(image, self.negative_slope)
        return image


class DownBlock(nn.Module):
    """2×2 max-pool, then a `ConvBlock`."""

    features: int

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Maps ``(batch, height, width, any)`` to ``(batch, height/2, width/2, features)``."""
        return ConvBlock(self.features, name="block")(max_pool(image))


class Upsample(nn.Module):
    """2×2 transposed convolution with stride 2 and bias: doubles height and width."""

    features: int

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Maps ``(batch, height, width, any)`` to ``(batch, 2·height, 2·width, features)``."""
        # PyTorch takes the fan-in from dimension 1 of the weight, which a transposed convolution
        # stores as (in, out, 2, 2): its bound depends on the output channels.
        fan_in = 4 * self.features
        uniform = torch_default_bias_init(fan_in)
        return nn.ConvTranspose(
            self.features,
            kernel_size=(2, 2),
            strides=(2, 2),
            padding="VALID",
            transpose_kernel=True,
            kernel_init=uniform,
            bias_init=uniform,
            name="deconv",
        )(image)
