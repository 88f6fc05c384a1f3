"""What the tests of single networks share: drawn weights, and comparison with a stored original."""

import pathlib

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from drawn_weights import draw, thin

from mtbus_jax import losses, types

FIXTURES = pathlib.Path(__file__).resolve().parents[1] / "fixtures"


def load(name: str) -> dict[str, np.ndarray]:
    """A stored fixture; the image as float32."""
    with np.load(FIXTURES / f"{name}.npz") as stored:
        arrays = dict(stored)
    return arrays | {"image": arrays["image"].astype(np.float32)}


def shapes_of(module, image_shape: tuple[int, ...]):
    """Shapes of a network's variables."""
    return jax.eval_shape(lambda key: module.init(key, jnp.zeros(image_shape)), jax.random.key(0))


def output_shapes(module, image_shape: tuple[int, ...]) -> types.Outputs:
    """Shapes of a network's outputs."""
    shapes = jax.eval_shape(
        lambda key: module.init_with_output(key, jnp.zeros(image_shape))[0], jax.random.key(0)
    )
    return jax.tree.map(lambda leaf: leaf.shape, shapes)


def parameter_count(module) -> int:
    """Number of parameters at 128×128 input."""
    leaves = jax.tree.leaves(shapes_of(module, (1, 128, 128, 1))["params"])
    return sum(leaf.size for leaf in leaves)


def head_count(channels: int) -> int:
    """Parameters of `heads.FusionHead` on maps of so many channels, in closed form."""
    fused = 9 * channels * 512 + 512 + 2 * 512
    return fused + 512 * 256 + 256 + 256 * 3 + 3


def drawn_variables(module, image_shape: tuple[int, ...]) -> dict:
    """Variables from `drawn_weights`, which the fixtures were made with."""
    shapes = flax.traverse_util.flatten_dict(shapes_of(module, image_shape))
    # A path without its collection: an original has parameters and statistics under one name.
    drawn = {path: draw("/".join(path[1:]), leaf.shape) for path, leaf in shapes.items()}
    return flax.traverse_util.unflatten_dict(drawn)


def flat(tree) -> dict[str, np.ndarray]:
    """A tree's leaves by path."""
    return flax.traverse_util.flatten_dict(tree, sep="/")


def assert_agrees(module, original: dict[str, np.ndarray], *, batch_stats=None, is_zero=None):
    """The original's outputs to 1e-4 in single precision; in double, also its gradients, to 1e-6.

    Prints the largest differences, which docs/parity.md lists.

    Args:
      module: the network with ``tasks=("seg",)``; its parameters must be the original's.
      original: from `load`.
      batch_stats: running statistics of a network with batch norm.
      is_zero: if given, the gradients are held against it as in `check_tasks`.

    Returns:
      The statistics after the step, double precision, or None.
    """
    image = original["image"]
    variables = drawn_variables(module, image.shape)
    if batch_stats is not None:
        variables["batch_stats"] = batch_stats
    stored = {k.removeprefix("grad:"): v for k, v in original.items() if k.startswith("grad:")}
    assert flat(variables["params"]).keys() == stored.keys()

    def forward(variables, image):
        outputs, updates = module.apply(variables, image, train=True, mutable=["batch_stats"])
        return outputs.segmentation, updates

    def loss(params, variables, image):
        maps, updates = forward({**variables, "params": params}, image)
        total = sum(
            jnp.mean(logits * draw(f"cotangent_{i}", logits.shape)) for i, logits in enumerate(maps)
        )
        return total, (maps, updates)

    maps, _ = quick_jit(forward)(variables, image)
    single = [np.asarray(logits) for logits in maps]
    assert len(maps) == sum(k.startswith("segmentation_") for k in original)
    for i, logits in enumerate(maps):
        assert logits.dtype == jnp.float32
        np.testing.assert_allclose(logits, original[f"segmentation_{i}"], rtol=0, atol=1e-4)

    with jax.enable_x64(True):
        image, variables = jax.tree.map(np.float64, (image, variables))
        step = quick_jit(jax.grad(loss, has_aux=True))
        gradients, (maps, updates) = step(variables["params"], variables, image)
        gradients, maps, updates = jax.tree.map(np.asarray, (gradients, maps, updates))
    for i, logits in enumerate(maps):
        np.testing.assert_allclose(logits, original[f"segmentation_{i}"], rtol=1e-6, atol=1e-6)
    gradients = flat(gradients)
    if is_zero is not None:
        assert_gradients(gradients, is_zero)
    largest = max(np.abs(kept).max() for kept in stored.values())
    print_differences(type(module).__name__, original, single, maps, gradients, stored)
    for path, gradient in gradients.items():
        tolerance = 1e-6 * np.abs(stored[path]).max() + 1e-9 * largest
        np.testing.assert_allclose(
            thin(gradient), stored[path], rtol=0, atol=tolerance, err_msg=path
        )
    return updates.get("batch_stats")


def print_differences(name, original, single, double, gradients, stored) -> None:
    """Largest differences of outputs, and of gradients as a share of an array's largest."""
    outputs = [
        max(np.abs(logits - original[f"segmentation_{i}"]).max() for i, logits in enumerate(maps))
        for maps in (single, double)
    ]
    largest = max(np.abs(kept).max() for kept in stored.values())
    shares = [
        np.abs(thin(gradients[path]) - kept).max() / np.abs(kept).max()
        for path, kept in stored.items()
        if np.abs(kept).max() > 1e-9 * largest  # else it vanishes, but for rounding
    ]
    print(
        f"{name}: outputs {outputs[0]:.1e} in single precision, {outputs[1]:.1e} in double; "
        f"gradients {max(shares):.1e} of the largest in their array"
    )


def quick_jit(function):
    """`jax.jit` for one call: compiling takes most of the time, the optimiser most of that."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def check_tasks(module, *, size: tuple[int, int], is_zero=lambda path: False) -> set[str]:
    """Outputs and gradients of one setting of the tasks, on a non-square image with an empty mask.

    Args:
      module: the network.
      size: height and width of the image.
      is_zero: function of a parameter's path, whether its gradient vanishes up to rounding.

    Returns:
      Names of the network's submodules.
    """
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, *size, 1)).astype(np.float64)
    mask = np.zeros_like(image)
    mask[0, 4:9, 5:20] = 1
    batch = types.Batch(image, mask, np.array([0, 2]), np.ones(2))
    variables = drawn_variables(module, image.shape)

    def loss(params):
        outputs, _ = module.apply(
            {**variables, "params": params},
            batch.image,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )
        return losses.multitask_loss(outputs, batch, weight=0.5).total, outputs

    # In double precision a gradient that should vanish is told from one that is only small.
    with jax.enable_x64(True):
        params = jax.tree.map(np.float64, variables["params"])
        gradients, outputs = quick_jit(jax.grad(loss, has_aux=True))(params)
        gradients = jax.tree.map(np.asarray, gradients)
    segments, classifies = (task in module.tasks for task in types.TASKS)
    assert [m.shape for m in outputs.segmentation] == [(2, *size, 1)] * segments
    if classifies:
        assert outputs.class_logits.shape == (2, len(types.CLASS_NAMES))
    else:
        assert outputs.class_logits is None
    assert outputs.aux == {}
    assert_gradients(flat(gradients), is_zero)
    return set(variables["params"])


def assert_gradients(gradients: dict[str, np.ndarray], is_zero) -> None:
    """All finite, and, in double precision, zero up to rounding exactly where expected."""
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for path, gradient in gradients.items():
        assert np.all(np.isfinite(gradient)), path
        vanishes = np.abs(gradient).max() < 1e-12 * largest
        assert vanishes == is_zero(path), f"{path}: {np.abs(gradient).max()} of {largest}"
