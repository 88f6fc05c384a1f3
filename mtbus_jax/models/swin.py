"""Swin transformer encoder: self-attention in windows, shifted by half a window every other block.

Paper: Liu et al. 2021 (ICCV), as in MONAI's `SwinUNETR` with its defaults (`swin_unetr` has the
shapes). Tokens are kept as maps, ``(batch, height, width, channels)``.

Two details of that implementation are kept, because they change results. Padding tokens that fill
the last windows take part in the attention. A map smaller than a window is one window of the map's
size, and its n tokens use the relative position biases of the first n tokens of a full window.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mtbus_jax.models import blocks

# Added to the attention scores between tokens that only the shift made neighbours.
MASKED = -100.0


def layer_norm(tokens: jax.Array, *, affine: bool = True, name: str) -> jax.Array:
    """Layer normalisation over channels with ε 1e-5, created inside a compact module."""
    # The residual path carries grey values 0..255: E[x²] − E[x]² loses too many digits there.
    return nn.LayerNorm(
        epsilon=1e-5, use_fast_variance=False, use_bias=affine, use_scale=affine, name=name
    )(tokens)


def partition(tokens, window: tuple[int, int]):
    """Cuts a map into windows.

    Args:
      tokens: ``(batch, height, width, channels)``, a numpy or JAX array.
      window: (height, width) of a window; they divide those of the map.

    Returns:
      ``(batch, windows, tokens per window, channels)``, row by row.
    """
    batch, height, width, channels = tokens.shape
    rows, cols = window
    cut = tokens.reshape(batch, height // rows, rows, width // cols, cols, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, rows * cols, channels)


def join(windows: jax.Array, window: tuple[int, int], size: tuple[int, int]) -> jax.Array:
    """Undoes `partition`: windows back to a map of ``size`` (height, width)."""
    batch, _, _, channels = windows.shape
    (height, width), (rows, cols) = size, window
    cut = windows.reshape(batch, height // rows, width // cols, rows, cols, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, channels)


def relative_position_index(window: int) -> np.ndarray:
    """Row of the bias table for each pair of tokens in a square window.

    Returns:
      ``(window², window²)`` int, (row offset + window − 1)·(2·window − 1) + column offset +
      window − 1, offsets from the second token to the first.
    """
    row, col = np.divmod(np.arange(window**2), window)
    span = 2 * window - 1
    return (row[:, None] - row + window - 1) * span + col[:, None] - col + window - 1


def shift_mask(
    size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]
) -> np.ndarray:
    """What to add to attention scores after a cyclic shift: 0 within a region, else `MASKED`.

    Args:
      size: (height, width) of the padded map.
      window: (height, width) of a window.
      shift: rows and columns by which the map was shifted; 0 where the window spans the map.

    Returns:
      ``(windows, tokens, tokens)`` float32.
    """
    # Along an axis the shifted map has three regions: the full windows, the part of the last
    # window that stayed, and the part that wrapped around from the other end.
    row, col = (
        (np.arange(n) >= n - full).astype(int) + (np.arange(n) >= n - moved)
        for n, full, moved in zip(size, window, shift, strict=True)
    )
    region = partition((3 * row[:, None] + col)[None, :, :, None], window)[0, :, :, 0]
    return np.where(region[:, :, None] == region[:, None, :], 0.0, MASKED).astype(np.float32)


class WindowAttention(nn.Module):
    """Multi-head self-attention within each window, with a relative position bias.

    Attributes:
      heads: attention heads; they share the channels evenly.
      window: side of a full window, which sizes the table of biases.
    """

    heads: int
    window: int

    @nn.compact
    def __call__(self, windows: jax.Array, mask: np.ndarray | None) -> jax.Array:
        """Maps ``(batch, windows, tokens, channels)`` to the same shape.

        Args:
          windows: from `partition`.
          mask: from `shift_mask`, or None without a shift.
        """
        batch, count, tokens, channels = windows.shape
        qkv = blocks.dense(windows, 3 * channels, name="qkv")
        qkv = qkv.reshape(batch, count, tokens, 3, self.heads, channels // self.heads)
        query, key, value = jnp.moveaxis(qkv, 3, 0)
        scores = jnp.einsum("bwqhc,bwkhc->bwhqk", query * query.shape[-1] ** -0.5, key)
        # The original truncates at 100 standard deviations, which has no effect.
        table = self.param(
            "relative_position_bias",
            nn.initializers.normal(0.02),
            ((2 * self.window - 1) ** 2, self.heads),
        )
        bias = table[relative_position_index(self.window)[:tokens, :tokens]]
        scores += jnp.moveaxis(bias, -1, 0)
        if mask is not None:
            scores += jnp.asarray(mask, scores.dtype)[:, None]
        weights = nn.softmax(scores)
        attended = jnp.einsum("bwhqk,bwkhc->bwqhc", weights, value)
        return blocks.dense(attended.reshape(windows.shape), channels, name="projection")


class SwinBlock(nn.Module):
    """Window attention, then a two-layer perceptron, each on normalised tokens and added to them.

    Attributes:
      heads: attention heads.
      window: side of a window; a map that is smaller along an axis is one window along it.
      shifted: whether windows are shifted by half their side, along axes with more than one.
    """

    heads: int
    window: int
    shifted: bool

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps ``(batch, height, width, channels)`` to the same shape."""
        normed = layer_norm(tokens, name="norm_1")
        tokens = tokens + self._attend(normed)
        hidden = layer_norm(tokens, name="norm_2")
        channels = tokens.shape[-1]
        hidden = nn.gelu(blocks.dense(hidden, 4 * channels, name="hidden"), approximate=False)
        return tokens + blocks.dense(hidden, channels, name="output")

    def _attend(self, tokens: jax.Array) -> jax.Array:
        size = tokens.shape[1:3]
        window = tuple(min(n, self.window) for n in size)
        shift = tuple(self.window // 2 if self.shifted and n > self.window else 0 for n in size)
        padding = tuple(-n % full for n, full in zip(size, window, strict=True))
        padded_size = tuple(n + more for n, more in zip(size, padding, strict=True))
        tokens = jnp.pad(tokens, ((0, 0), (0, padding[0]), (0, padding[1]), (0, 0)))
        mask = None
        if any(shift):
            tokens = jnp.roll(tokens, (-shift[0], -shift[1]), axis=(1, 2))
            mask = shift_mask(padded_size, window, shift)
        windows = partition(tokens, window)
        windows = WindowAttention(self.heads, self.window, name="attention")(windows, mask)
        tokens = join(windows, window, padded_size)
        if any(shift):
            tokens = jnp.roll(tokens, shift, axis=(1, 2))
        return tokens[:, : size[0], : size[1]]


class PatchMerging(nn.Module):
    """Halves height and width: 2×2 neighbours side by side, layer norm, dense to 2·channels."""

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps ``(batch, 2·height, 2·width, any)`` to ``(batch, height, width, 2·any)``."""
        batch, height, width, channels = tokens.shape
        tokens = tokens.reshape(batch, height // 2, 2, width // 2, 2, channels)
        # The original lists the left column's two tokens before the right column's.
        tokens = tokens.transpose(0, 1, 3, 4, 2, 5)
        tokens = tokens.reshape(batch, height // 2, width // 2, 4 * channels)
        tokens = layer_norm(tokens, name="norm")
        return nn.Dense(
            2 * channels, use_bias=False, kernel_init=blocks.torch_default_init, name="reduction"
        )(tokens)


class SwinEncoder(nn.Module):
    """Patch embedding and stages, each of attention blocks and a patch merging.

    Attributes:
      width: channels of the embedding; every stage doubles them.
      depths: attention blocks of each stage.
      heads: attention heads of each stage.
      window: side of a window, in tokens.
    """

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int

    @nn.compact
    def __call__(self, image: jax.Array) -> list[jax.Array]:
        """Maps an image ``(batch, height, width, channels)`` to one map per resolution.

        Returns:
          Normalised maps ``(batch, height/2^(k+1), width/2^(k+1), width·2^k)``, k = 0 for the
          embedding and otherwise for the output of stage k.
        """
        # blocks.convolution pads, patches do not overlap.
        tokens = nn.Conv(
            self.width,
            (2, 2),
            strides=(2, 2),
            padding="VALID",
            kernel_init=blocks.torch_default_init,
            bias_init=blocks.torch_default_bias_init(4 * image.shape[-1]),
            name="embedding",
        )(image)
        maps = [layer_norm(tokens, affine=False, name="norm_0")]
        for i, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True), 1):
            for j in range(depth):
                block = SwinBlock(heads, self.window, shifted=j % 2 == 1, name=f"stage_{i}_{j}")
                tokens = block(tokens)
            tokens = PatchMerging(name=f"merge_{i}")(tokens)
            maps.append(layer_norm(tokens, affine=False, name=f"norm_{i}"))
        return maps
