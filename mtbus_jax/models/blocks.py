"""Building blocks shared by the networks; all take and return (batch, height, width, channels)."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtbus_jax.errors import UserError
from mtbus_jax.models.cpu import convolution as conv_op
from mtbus_jax.models.cpu import drawing, normalisation, pooling, precomputed, upsampled

# PyTorch's default for convolutions and dense layers, U(-1/√fan_in, 1/√fan_in): the published
# runs started from it.
torch_default_init = drawing.Initializer("uniform")


def torch_default_bias_init(fan_in: int) -> nn.initializers.Initializer:
    """PyTorch's default for biases, U(-1/√fan_in, 1/√fan_in), with the layer's ``fan_in``."""
    return drawing.Initializer("uniform", fan_in=fan_in)


def convolution_layer(
    channels: int,
    features: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    use_bias: bool = True,
    kernel_init: nn.initializers.Initializer = torch_default_init,
    name: str,
) -> nn.Conv:
    """A square convolution with zero padding ``kernel // 2``, created inside a compact module."""
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=kernel // 2,
        use_bias=use_bias,
        kernel_init=kernel_init,
        bias_init=torch_default_bias_init(kernel * kernel * channels),
        conv_general_dilated=conv_op.conv_general_dilated,
        name=name,
    )


def convolution(image: jax.Array, features: int, *, name: str, **options) -> jax.Array:
    """The `convolution_layer` of these options, applied once."""
    return convolution_layer(image.shape[-1], features, name=name, **options)(image)


def convolution_of_all(
    maps: Sequence[jax.Array],
    up: upsampled.Upsampled | None,
    features: int,
    *,
    use_bias: bool = True,
    bias_cancels: bool = False,
    kernel_init: nn.initializers.Initializer = torch_default_init,
    name: str,
) -> jax.Array:
    """A 3×3 `convolution` of the concatenation of ``maps`` and, if there is one, of ``up``."""
    layer = ConvolutionOfBoth(features, use_bias, kernel_init, bias_cancels, name=name)
    return layer(maps, up)


class ConvolutionOfBoth(nn.Module):
    """3×3 convolution of maps and any upsampled map; parameters are named as in `nn.Conv`.

    Attributes:
      features: channels of the output.
      use_bias: whether there is a bias.
      kernel_init: initialiser of the kernel, ``(3, 3, in, features)``, ``in`` of all maps together.
      bias_cancels: whether the next layer removes the bias again, as an instance norm does. The
        bias is then a parameter, as in the original, but is not added. This saves one pass over the
        map, and another for a gradient of zero.
    """

    features: int
    use_bias: bool
    kernel_init: nn.initializers.Initializer
    bias_cancels: bool = False

    @nn.compact
    def __call__(
        self,
        maps: Sequence[jax.Array],
        up: upsampled.Upsampled | None,
    ) -> jax.Array:
        """Maps of ``(batch, height, width, any)`` to ``(batch, height, width, features)``."""
        channels = sum(each.shape[-1] for each in maps) + (up.kernel.shape[2] if up else 0)
        kernel = self.param("kernel", self.kernel_init, (3, 3, channels, self.features))
        image = self._convolve(maps, up, kernel)
        if self.use_bias:
            bias = self.param("bias", torch_default_bias_init(9 * channels), (self.features,))
            image = image if self.bias_cancels else image + bias
        return image

    def _convolve(self, maps, up, kernel):
        arranged = precomputed.of(self, lambda: upsampled.arrange(maps, up, kernel))
        if arranged is None:
            return upsampled.convolution_of_both(maps, up, kernel)
        return upsampled.convolution_with_arranged(maps, up, arranged)


def batch_norm(image: jax.Array, *, train: bool, frozen: bool = False, name: str) -> jax.Array:
    """Batch normalisation with PyTorch's defaults, created inside a compact module.

    Flax's running variance averages each batch's biased variance, PyTorch's the unbiased one.

    Args:
      image: ``(batch, height, width, channels)``.
      train: whether to normalise by the batch's statistics and update the running ones.
      frozen: whether training, too, normalises by the running statistics and leaves them unchanged.
      name: of the submodule.
    """
    # Momentum 0.9 here is PyTorch's 0.1. Inputs are grey values 0..255: E[x²] − E[x]² loses too
    # many digits there.
    return nn.BatchNorm(
        use_running_average=frozen or not train,
        momentum=0.9,
        epsilon=1e-5,
        use_fast_variance=False,
        name=name,
    )(image)


def instance_norm(image: jax.Array, *, affine: bool = True, name: str) -> jax.Array:
    """Instance normalisation with ε 1e-5, created inside a compact module.

    Raises:
      UserError: for a map of one pixel, which would become 0 or its bias, whatever its value.
    """
    if image.shape[1] * image.shape[2] == 1:
        raise UserError(
            "data.image_size is too small for this network: it leaves a feature map of one pixel, "
            "which instance norm makes the same for every image. Make a side twice as long."
        )
    if normalisation.applies(image):
        return InstanceNorm(affine, name=name)(image)
    # Inputs are grey values 0..255: E[x²] − E[x]² loses too many digits there.
    return nn.InstanceNorm(
        epsilon=normalisation.EPSILON,
        use_fast_variance=False,
        use_bias=affine,
        use_scale=affine,
        name=name,
    )(image)


class InstanceNorm(nn.Module):
    """`normalisation.instance_norm` with parameters; those of `nn.InstanceNorm` by name and shape.

    Attributes:
      affine: whether there are scale and bias.
    """

    affine: bool

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Of the same shape as ``image``, ``(batch, height, width, channels)``."""
        shape = image.shape[-1:]
        if not self.affine:
            return normalisation.instance_norm(
                image, jnp.ones(shape, image.dtype), jnp.zeros(shape, image.dtype)
            )
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        return normalisation.instance_norm(
            image, scale.astype(image.dtype), bias.astype(image.dtype)
        )


def dense(vector: jax.Array, features: int, *, name: str) -> jax.Array:
    """A dense layer with PyTorch's default initialisation, created inside a compact module."""
    return nn.Dense(
        features,
        kernel_init=torch_default_init,
        bias_init=torch_default_bias_init(vector.shape[-1]),
        name=name,
    )(vector)


class ConvBlock(nn.Module):
    """Two × (3×3 convolution, instance norm with ε 1e-5, LeakyReLU).

    Attributes:
      features: channels of the output.
      hidden: channels between the two convolutions; 0 takes ``features``.
      use_bias: whether the convolutions have a bias.
      affine: whether the normalisation has scale and bias.
      negative_slope: slope of LeakyReLU below zero.
      kernel_init: initialiser of the convolutions' kernels.
    """

    features: int
    hidden: int = 0
    use_bias: bool = True
    affine: bool = True
    negative_slope: float = 0.1
    kernel_init: nn.initializers.Initializer = torch_default_init

    @nn.compact
    def __call__(self, *maps: jax.Array, up: upsampled.Upsampled | None = None) -> jax.Array:
        """Maps ``(batch, height, width, any)`` to ``(batch, height, width, features)``.

        Several maps, and one that is upsampled first, are read as if they were concatenated.
        """
        for i, features in enumerate((self.hidden or self.features, self.features), 1):
            image = convolution_of_all(
                maps,
                up,
                features,
                use_bias=self.use_bias,
                bias_cancels=True,
                kernel_init=self.kernel_init,
                name=f"conv_{i}",
            )
            image = instance_norm(image, affine=self.affine, name=f"norm_{i}")
            image = nn.leaky_relu(image, self.negative_slope)
            maps, up = (image,), None
        return image


class DownBlock(nn.Module):
    """2×2 max-pool, then a `ConvBlock`."""

    features: int

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Maps ``(batch, height, width, any)`` to ``(batch, height/2, width/2, features)``."""
        return ConvBlock(self.features, name="block")(pooling.max_pool(image))


class Upsample(nn.Module):
    """Transposed convolution with kernel = stride = ``factor``: multiplies height and width.

    Attributes:
      features: channels of the output.
      factor: by how much height and width grow.
      use_bias: whether there is a bias.
      kernel_init: initialiser of the kernel; None is PyTorch's default.
    """

    features: int
    factor: int = 2
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer | None = None

    def __call__(self, image: jax.Array) -> jax.Array:
        """Maps ``(batch, height, width, any)`` to ``(batch, f·height, f·width, features)``."""
        return self.deferred(image).computed()

    @nn.compact
    def deferred(self, image: jax.Array) -> upsampled.Upsampled:
        """The result of ``__call__``, not yet computed, for a convolution that can do without."""
        # PyTorch takes the fan-in from dimension 1 of the weight, which a transposed convolution
        # stores as (in, out, f, f): its bound depends on the output channels.
        uniform = torch_default_bias_init(self.factor**2 * self.features)
        return TransposedConvolution(
            self.features,
            self.factor,
            use_bias=self.use_bias,
            kernel_init=self.kernel_init or uniform,
            bias_init=uniform,
            name="deconv",
        )(image)


class TransposedConvolution(nn.Module):
    """`upsampled.Upsampled` with parameters; those of `nn.ConvTranspose` by name and shape.

    Attributes:
      features: channels of the output.
      factor: kernel size and stride.
      use_bias: whether there is a bias.
      kernel_init: initialiser of the kernel, ``(factor, factor, features, in)``.
      bias_init: initialiser of the bias, ``(features,)``.
    """

    features: int
    factor: int
    use_bias: bool
    kernel_init: nn.initializers.Initializer
    bias_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, image: jax.Array) -> upsampled.Upsampled:
        """The layer on ``(batch, height, width, in)``, not yet computed."""
        shape = (self.factor, self.factor, self.features, image.shape[-1])
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", self.bias_init, (self.features,)) if self.use_bias else None
        return upsampled.Upsampled(image, kernel, bias)
