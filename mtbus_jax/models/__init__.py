"""Networks by name: `create(name, **options)` gives a Flax (linen) module.

Every network's ``__call__(image, *, train)`` takes a ``(batch, height, width, channels)`` float32
image with grey values 0..255 and returns `mtbus_jax.types.Outputs`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import numbers
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.models import (
    acsnet,
    adityan,
    attention_unet,
    bts_unet,
    lite_unet,
    nnunet,
    residual_mtl,
    residual_unet,
    segresnet,
    swin_unetr,
    unet,
    unetpp,
    weights,
)
from mtbus_jax.models.cpu import drawing

REGISTRY: dict[str, type[nn.Module]] = {
    "unetpp": unetpp.UNetPlusPlus,
    "nnunet": nnunet.NNUNet,
    "adityan": adityan.Adityan,
    "unet": unet.UNet,
    "attention_unet": attention_unet.AttentionUNet,
    "basic_unetpp": unetpp.BasicUNetPlusPlus,
    "residual_unet": residual_unet.ResidualUNet,
    "segresnet": segresnet.SegResNet,
    "swin_unetr": swin_unetr.SwinUNETR,
    "bts_unet": bts_unet.BTSUNet,
    "lite_unet": lite_unet.LiteUNet,
    "acsnet": acsnet.ACSNet,
    "residual_mtl": residual_mtl.ResidualMTL,
}

# Options that take one of a few names. Every option is checked against its default's type.
_CHOICES = {
    "head": unetpp.HEADS,
    "encoder": lite_unet.ENCODERS,
    "variant": acsnet.VARIANTS,
}


def create(name: str, *, tasks: tuple[str, ...] = types.TASKS, **options) -> nn.Module:
    """The network ``name`` with ``options``.

    Args:
      name: a key of `REGISTRY`.
      tasks: outputs to compute, a non-empty subset of `types.TASKS`.
      **options: attributes of that network, such as ``width=24``.

    Raises:
      UserError: for an unknown name, task or option, or an option value that is not allowed.
    """
    if name not in REGISTRY:
        raise UserError(_unknown("model.name", name, sorted(REGISTRY)))
    tasks = tuple(tasks)
    for task in tasks:
        if task not in types.TASKS:
            raise UserError(_unknown("tasks", task, types.TASKS))
    if not tasks or len(set(tasks)) != len(tasks):
        raise UserError(f"tasks={tasks!r} must name seg or cls, or both, once each.")
    cls = REGISTRY[name]
    known = [f.name for f in dataclasses.fields(cls) if f.name not in ("parent", "name")]
    for key, value in options.items():
        if key not in known:
            raise UserError(_unknown(f"model option of {name}", key, known))
        if key in _CHOICES and value not in _CHOICES[key]:
            raise UserError(_unknown(f"model.{key}", value, _CHOICES[key]))
        _check_type(key, value, getattr(cls, key))
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    return cls(tasks=tasks, **options)


def _check_type(name: str, value: object, default: object) -> None:
    """Refuses a value whose type differs from the option's default; integers must be 1 or more."""
    if isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "True or False"
    elif isinstance(default, int):
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        fits, wanted = whole and value >= 1, "a whole number from 1"
    elif isinstance(default, str):
        fits, wanted = isinstance(value, str), "a text"
    else:
        return
    if not fits:
        raise UserError(f"model.{name}={value!r}: give {wanted}.")


def check_image_size(module: nn.Module, size: tuple[int, ...]) -> None:
    """Refuses an image size that the network cannot halve often enough.

    Args:
      module: from `create`.
      size: (height, width) in pixels.

    Raises:
      UserError: if a side is not a multiple of 2 to the power of ``module.depth``.
    """
    multiple = 2**module.depth
    if len(size) != 2 or any(side <= 0 or side % multiple for side in size):
        raise UserError(
            f"data.image_size={size}: give (height, width) in pixels, both multiples of {multiple} "
            f"(this network halves the resolution {module.depth} times), such as (128, 128)."
        )


def init(module: nn.Module, key: jax.Array, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Draws a network's initial variables: as ``module.init`` distributes them, but faster.

    Args:
      module: from `create`.
      key: PRNG key.
      image_shape: (height, width, channels) of the images it will see.

    Returns:
      Variables for ``module.apply``: ``params`` and, with batch normalisation, ``batch_stats``.

    Raises:
      UserError: for a size that the network does not accept.
    """
    return _init_program(module, tuple(image_shape))(key)


def check_encoder_weights(
    module: nn.Module, image_shape: tuple[int, int, int]
) -> weights.Start | None:
    """Refuses encoder weights that `with_encoder_weights` would refuse; draws nothing.

    Args:
      module: from `create`.
      image_shape: (height, width, channels) of the images it will see.

    Returns:
      What will not be loaded; None if the module names no weights.

    Raises:
      UserError: if the weights cannot be found, are damaged, or belong to another network.
    """
    if not getattr(module, "encoder_weights", ""):
        return None
    return _start(module, init_shapes(module, image_shape))[1]


def with_encoder_weights(module: nn.Module, variables: dict[str, Any]) -> dict[str, Any]:
    """Puts published weights into the encoder of freshly drawn variables if the module names any.

    Args:
      module: from `create`.
      variables: from `init`.

    Raises:
      UserError: if the weights cannot be found, or belong to another network.
    """
    if not getattr(module, "encoder_weights", ""):
        return variables
    return _start(module, variables)[0]


def _start(module: nn.Module, variables: dict[str, Any]) -> tuple[dict[str, Any], weights.Start]:
    """The variables with the encoder's weights, and what was not loaded."""
    path = weights.find(module.encoder_weights, module.encoder)
    found, unused = weights.put_into(
        variables,
        weights.read(path),
        scope=module.encoder_scope,
        place=module.place_encoder_weights,
        path=path,
    )
    # PyTorch's count of batches, which only its norms without a momentum read.
    unused = sorted(name for name in unused if not name.endswith("num_batches_tracked"))
    drawn = [name for name in variables["params"] if name != module.encoder_scope]
    return found, weights.Start(path.name, unused, drawn)


def init_shapes(module: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Shapes and types of what `init` gives, without drawing anything.

    Args:
      module: from `create`.
      image_shape: (height, width, channels) of the images it will see.
    """
    return _drawing(module, tuple(image_shape)).eval_shape(jax.random.key(0))


def draw(module: nn.Module, key: jax.Array, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """`init` for a caller that traces it and compiles it with `INIT_COMPILER_OPTIONS`."""
    return _drawing(module, tuple(image_shape))(key)


# A hundred small draws that run once are not worth XLA's optimiser, which takes longer over them
# than over a training step.
INIT_COMPILER_OPTIONS = {"xla_backend_optimization_level": 0}


@functools.lru_cache(maxsize=8)
def _init_program(module: nn.Module, image_shape: tuple[int, int, int]):
    return jax.jit(_drawing(module, image_shape), compiler_options=INIT_COMPILER_OPTIONS)


@functools.lru_cache(maxsize=8)  # so that shapes and values are traced once
def _drawing(module: nn.Module, image_shape: tuple[int, int, int]):
    check_image_size(module, image_shape[:2])
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    # lazy_init leaves the forward pass out of the program.
    return jax.jit(
        lambda key: drawing.draw_together(
            lambda key: module.lazy_init(key, image, train=False), key
        )
    )


def parameter_count(params) -> int:
    """Number of scalars in a tree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _unknown(what: str, value: str, known) -> str:
    close = difflib.get_close_matches(str(value), [str(k) for k in known], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{what}: {value!r} is unknown.{hint} Known: {', '.join(map(str, known))}."
