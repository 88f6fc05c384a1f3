"""The registry, and MT UNet++ against a stored PyTorch original."""

import pathlib

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_checks import quick_jit

from mtbus_jax import losses, models, types
from mtbus_jax.errors import UserError
from mtbus_jax.models import blocks, heads

FIXTURE = pathlib.Path(__file__).resolve().parents[1] / "fixtures" / "unetpp.npz"
TASKS = [("seg", "cls"), ("seg",), ("cls",)]


def shapes_of(module, image=(2, 32, 48, 1)):
    return jax.eval_shape(lambda key: module.init(key, jnp.zeros(image)), jax.random.key(0))


def random_variables(module):
    """Weights from numpy: compiling the initialisers would take most of these tests' time."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.normal(0, 0.2, s.shape).astype(s.dtype), shapes_of(module))


def count(**options) -> int:
    module = models.create("unetpp", **options)
    return models.parameter_count(shapes_of(module, (1, 128, 128, 1))["params"])


def test_parameter_count_is_the_released_one():
    assert count() == 14_927_455


def test_parameter_count_without_head_in_closed_form():
    """Counted from the paper's grid: two 3×3 convolutions and norms per node, plus the rest."""

    def block(inputs, outputs):
        return 9 * inputs * outputs + 9 * outputs * outputs + 2 * 3 * outputs

    width = [24, 48, 96, 192, 384]
    total = block(1, 24) + sum(block(width[i - 1], width[i]) for i in range(1, 5))
    for j in range(1, 5):
        for i in range(5 - j):
            up = width[i + 1] // (2 if i else 1)
            total += 4 * width[i + 1] * up + up + block(j * width[i] + up, width[i])
    total += 4 * (24 + 1)
    assert count(tasks=("seg",)) == total


@pytest.mark.parametrize("name", models.REGISTRY)
def test_every_network_takes_every_setting_of_the_tasks(name):
    for tasks in TASKS:
        module = models.create(name, tasks=tasks)
        image = jnp.zeros((1, 2**module.depth, 2 * 2**module.depth, 1))
        outputs = jax.eval_shape(
            lambda m=module, i=image: m.init_with_output(jax.random.key(0), i)[0]
        )
        assert bool(outputs.segmentation) == ("seg" in tasks)
        assert {m.shape for m in outputs.segmentation} <= {image.shape}
        if "cls" in tasks:
            assert outputs.class_logits.shape == (1, 3)
        else:
            assert outputs.class_logits is None


@pytest.mark.parametrize("tasks", TASKS[1:])
def test_outputs_and_gradients(tasks):
    """Non-square input, one empty mask: right shapes, and a finite gradient on every parameter.

    Both tasks at once are held against PyTorch below, on such a batch.
    """
    module = models.create("unetpp", tasks=tasks, width=2)
    image = jax.random.uniform(jax.random.key(0), (2, 32, 48, 1), maxval=255)
    variables = random_variables(module)
    outputs = jax.eval_shape(lambda: module.apply(variables, image, train=False))
    if "seg" in tasks:
        assert outputs.segmentation[0].shape == (2, 32, 48, 1)
    else:
        assert outputs.segmentation == ()
    if "cls" in tasks:
        assert outputs.class_logits.shape == (2, 3)
    else:
        assert outputs.class_logits is None
    mask = jnp.zeros_like(image).at[0, 4:9, 5:20].set(1)
    batch = types.Batch(image, mask, jnp.array([0, 2]), jnp.ones(2))

    def loss(params):
        out = module.apply({**variables, "params": params}, image, train=False)
        return losses.multitask_loss(out, batch, weight=0.5).total

    gradients = flax.traverse_util.flatten_dict(
        quick_jit(jax.grad(loss))(variables["params"]), sep="/"
    )
    for path, gradient in gradients.items():
        assert np.all(np.isfinite(gradient)), path
        # A convolution's bias in front of an instance norm has no effect, up to rounding.
        if "conv_" not in path or not path.endswith("bias"):
            assert np.any(gradient != 0), path


@pytest.mark.parametrize("head", ["released", "printed"])
def test_head_variants_differ_and_share_the_backbone(head):
    module = models.create("unetpp", head=head, width=2, head_features=4)
    params = shapes_of(module)["params"]
    assert ("head_down" in params) == (head == "released")
    assert ("head_conv" in params) == (head == "printed")
    # Encoder 16, decoder 16 and upsampled bottleneck 16 channels; or three times 32.
    first = params["head_conv"] if head == "printed" else params["head_block"]["conv_1"]
    assert first["kernel"].shape[2] == (48 if head == "printed" else 96)


def test_without_deep_supervision_only_the_finest_map():
    module = models.create("unetpp", width=2, deep_supervision=False)
    outputs = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), jnp.zeros((1, 32, 48, 1)))[0]
    )
    assert [m.shape for m in outputs.segmentation] == [(1, 32, 48, 1)]


def test_segmentation_only_network_equals_the_multitask_one_without_its_head():
    image = jax.random.uniform(jax.random.key(0), (1, 32, 48, 1), maxval=255)
    both = models.create("unetpp", width=2)
    params = random_variables(both)["params"]
    backbone = {k: v for k, v in params.items() if k[:4] not in ("head", "clas")}
    alone = models.create("unetpp", width=2, tasks=("seg",))
    np.testing.assert_allclose(
        quick_jit(alone.apply)({"params": backbone}, image).segmentation[0],
        quick_jit(both.apply)({"params": params}, image).segmentation[0],
        rtol=1e-5,
    )


@pytest.fixture(scope="module")
def original():
    with np.load(FIXTURE) as stored:
        return dict(stored)


def port(original, prefix):
    flat = {k.removeprefix(prefix): v for k, v in original.items() if k.startswith(prefix)}
    return flax.traverse_util.unflatten_dict(flat, sep="/")


@pytest.fixture(scope="module")
def forward(original):
    """Outputs of the stored network for its image, as a function of its parameters."""
    program = quick_jit(models.create("unetpp", width=2, head_features=6).apply)
    return lambda params: program({"params": params}, original["image"])


def test_outputs_agree_with_pytorch(original, forward):
    module = models.create("unetpp", width=2, head_features=6)
    params = port(original, "param:")
    fresh = shapes_of(module)["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda s: s.shape, fresh)
    outputs = forward(params)
    found = [*outputs.segmentation, outputs.class_logits]
    wanted = [*(original[f"segmentation_{i}"] for i in range(4)), original["class_logits"]]
    print("outputs:", max(np.abs(f - w).max() for f, w in zip(found, wanted, strict=True)))
    for i, logits in enumerate(outputs.segmentation):
        np.testing.assert_allclose(logits, original[f"segmentation_{i}"], atol=1e-4)
    np.testing.assert_allclose(outputs.class_logits, original["class_logits"], atol=1e-4)


def test_loss_and_gradients_agree_with_pytorch(original):
    """In double precision; in single, PyTorch's own gradients are up to 0.3 % off here."""
    gradients, parts = losses_and_gradients(original, np.float64)
    np.testing.assert_allclose(parts.segmentation, original["segmentation_loss"], rtol=1e-9)
    np.testing.assert_allclose(parts.classification, original["focal_loss"], rtol=1e-9)
    np.testing.assert_allclose(parts.total, original["total_loss"], rtol=1e-9)
    for path, gradient in gradients.items():
        expected = original[f"grad:{path}"]
        # A bias in front of an instance norm changes nothing: its gradient is 0, and what stands in
        # both is rounding.
        tolerance = 1e-6 * np.abs(expected).max() + 1e-12
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=tolerance, err_msg=path)


def test_losses_and_gradients_in_single_precision(original):
    gradients, parts = losses_and_gradients(original, np.float32)
    np.testing.assert_allclose(parts.segmentation, original["segmentation_loss"], rtol=1e-5)
    np.testing.assert_allclose(parts.classification, original["focal_loss"], rtol=1e-5)
    np.testing.assert_allclose(parts.total, original["total_loss"], rtol=1e-5)
    for path, gradient in gradients.items():
        expected = original[f"grad:{path}"]
        tolerance = 5e-3 * np.abs(expected).max() + 3e-7
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=tolerance, err_msg=path)


def losses_and_gradients(original, dtype):
    """Of the stored network and batch, in single or double precision: gradients by path, losses."""
    module = models.create("unetpp", width=2, head_features=6)

    def loss(params, batch):
        outputs = module.apply({"params": params}, batch.image)
        parts = losses.multitask_loss(outputs, batch, weight=0.85)
        return parts.total, parts

    with jax.enable_x64(dtype == np.float64):
        image, mask = original["image"].astype(dtype), original["mask"].astype(dtype)
        batch = types.Batch(image, mask, original["label"], np.ones(2, dtype))
        params = jax.tree.map(lambda a: a.astype(dtype), port(original, "param:"))
        gradients, parts = quick_jit(jax.grad(loss, has_aux=True))(params, batch)
        gradients, parts = jax.tree.map(np.asarray, (gradients, parts))
    names = ("segmentation", "classification", "total")
    stored = [original[f"{name}_loss"] for name in ("segmentation", "focal", "total")]
    found = [getattr(parts, name) for name in names]
    off = {n: float(abs(f / s - 1)) for n, f, s in zip(names, found, stored, strict=True)}
    print(dtype.__name__, "losses:", off)
    assert parts.total.dtype == dtype
    gradients = flax.traverse_util.flatten_dict(gradients, sep="/")
    shares = {
        path: np.abs(gradient - original[f"grad:{path}"]).max() / np.abs(gradient).max()
        for path, gradient in gradients.items()
        if "conv_" not in path or not path.endswith("bias")
    }
    worst = max(shares, key=shares.get)
    print(dtype.__name__, "gradients:", shares[worst], "of the largest, in", worst)
    return gradients, parts


@pytest.mark.parametrize("order", [(0, 2, 1), (2, 1, 0)])
def test_another_order_of_the_heads_channels_would_be_seen(original, forward, order):
    """The fixture tells encoder, bottleneck, decoder from every other order."""
    params = port(original, "param:")
    kernel = params["head_block"]["conv_1"]["kernel"]
    thirds = np.split(kernel, 3, axis=2)
    params["head_block"]["conv_1"]["kernel"] = np.concatenate([thirds[i] for i in order], axis=2)
    found = forward(params).class_logits
    assert np.abs(found - original["class_logits"]).max() > 1e-2


def first_leaves(module, *inputs):
    """Parameters of one building block, by name, flat."""
    params = jax.jit(module.init)(jax.random.key(0), *inputs)["params"]
    return flax.traverse_util.flatten_dict(params, sep="/")


def test_initial_weights_follow_pytorchs_rule():
    """U(-1/√fan_in, 1/√fan_in): bound and variance, for each kind of layer."""
    image = jnp.zeros((1, 8, 8, 64))
    block = first_leaves(blocks.ConvBlock(48), image)
    up = first_leaves(blocks.Upsample(32), image)
    head = first_leaves(heads.PooledClassifier(), image)
    cases = [
        (block["conv_1/kernel"], 9 * 64),
        (block["conv_2/kernel"], 9 * 48),
        (block["conv_1/bias"], 9 * 64),
        # PyTorch takes a transposed convolution's fan-in from its output channels.
        (up["deconv/kernel"], 4 * 32),
        (head["hidden/kernel"], 64),
        (head["logits/kernel"], 256),
    ]
    for array, fan_in in cases:
        bound = 1 / np.sqrt(fan_in)
        assert np.abs(array).max() <= bound
        assert np.abs(array).max() > 0.9 * bound
        assert np.std(array) == pytest.approx(bound / np.sqrt(3), rel=0.2)


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("unetp", {}, "unetpp"),
        ("unetpp", {"head": "relased"}, "released"),
        ("unetpp", {"witdh": 3}, "width"),
        ("unetpp", {"tasks": ("segm",)}, "seg"),
        ("unetpp", {"tasks": ()}, "once"),
        ("unetpp", {"tasks": ("seg", "seg")}, "once"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(name, options, word):
    with pytest.raises(UserError, match=word):
        models.create(name, **options)


# All but these normalise a map of one pixel by itself where the input is as small as depth allows.
BATCH_NORM_ALONE = ("acsnet", "adityan", "lite_unet", "residual_mtl")


@pytest.mark.parametrize("name", models.REGISTRY)
def test_a_map_of_one_pixel_is_refused_where_it_would_be_emptied(name):
    module = models.create(name)
    side = 2**module.depth
    if name in BATCH_NORM_ALONE:
        models.init_shapes(module, (side, side, 1))
        return
    with pytest.raises(UserError, match=r"data\.image_size is too small"):
        models.init_shapes(module, (side, side, 1))
    models.init_shapes(module, (side, 2 * side, 1))


@pytest.mark.parametrize("name", models.REGISTRY)
def test_mixed_precision_reaches_the_outputs(name):
    module = models.create(name)
    side = 2**module.depth
    shape = (1, 2 * side, 3 * side, 1)
    half = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16),
        models.init_shapes(module, shape[1:])["params"],
    )
    rest = {k: v for k, v in models.init_shapes(module, shape[1:]).items() if k != "params"}
    outputs, _ = jax.eval_shape(
        lambda params, rest, image, key: module.apply(
            {"params": params} | rest,
            image,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        ),
        half,
        rest,
        jax.ShapeDtypeStruct(shape, jnp.bfloat16),
        jax.random.key(0),
    )
    assert {each.dtype for each in outputs.segmentation} == {jnp.dtype(jnp.bfloat16)}
    assert outputs.class_logits.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unetpp", {"width": "24"}),
        ("unetpp", {"width": 2.5}),
        ("unetpp", {"width": 0}),
        ("unetpp", {"width": True}),
        ("nnunet", {"classes": 0}),
        ("unetpp", {"deep_supervision": "no"}),
        ("lite_unet", {"encoder_weights": 1}),
    ],
)
def test_options_of_another_type_are_refused(name, options):
    ((field, value),) = options.items()
    with pytest.raises(UserError, match=rf"model\.{field}={value!r}: give "):
        models.create(name, **options)
    assert models.create("unetpp", width=np.int64(8)).width == 8


def test_options_may_be_lists():
    module = models.create("swin_unetr", heads=[3, 6, 12, 24])
    assert models.init_shapes(module, (64, 64, 1))


def test_an_attention_gate_needs_two_channels():
    with pytest.raises(UserError, match=r"model\.width=1"):
        models.init_shapes(models.create("attention_unet", width=1), (32, 48, 1))


@pytest.mark.parametrize("name", models.REGISTRY)
def test_a_size_that_cannot_be_halved_is_refused(name):
    module = models.create(name)
    for shape in ((100, 128, 1), (128, 100, 1)):
        with pytest.raises(UserError, match=rf"multiples of {2**module.depth} "):
            models.init(module, jax.random.key(0), shape)
