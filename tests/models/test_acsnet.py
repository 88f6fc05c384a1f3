"""ACSNet against a PyTorch build, its parts counted, its switches, its encoder's weights."""

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from network_checks import (
    draw,
    drawn_variables,
    flat,
    load,
    output_shapes,
    quick_jit,
    shapes_of,
    thin,
)

from mtbus_jax import models, types
from mtbus_jax.errors import UserError
from mtbus_jax.models import acsnet_parts, resnet
from mtbus_jax.models.acsnet import ACSNet

SWITCHES = ("gates", "deformable_attention", "channel_attention", "multi_scale")
OFF = dict.fromkeys(SWITCHES, False)


@pytest.fixture(scope="module")
def original():
    return load("acsnet")


def counts(**options) -> dict[str, int]:
    """Parameters by submodule."""
    params = shapes_of(ACSNet(**options), (1, 64, 96, 1))["params"]
    return {name: models.parameter_count(tree) for name, tree in params.items()}


def total(**options) -> int:
    return sum(counts(**options).values())


def test_parameter_counts_are_the_released_ones():
    """Part by part, two classes."""
    found = counts(classes=2)
    parts = {
        "gate": 0,
        "attention": 0,
        "up": 0,
        "decoder": 0,
        "encoder": 0,
        "segment": 0,
        "head": 0,
    }
    for name, count in found.items():
        parts[name.split("_")[0]] += count
    assert parts == {
        "encoder": 11_176_512,
        "decoder": 6_362_880,
        "up": 221_696,
        "segment": 147_969,
        "gate": 3_572_362,
        "attention": 9_410_452,
        "head": 933_074,
    }
    assert sum(found.values()) == 31_824_945
    assert total(tasks=("seg",), **OFF) == 17_909_057
    assert total() == 31_824_945 + 641  # a third class


def test_the_paper_gates_the_skips_alone():
    released, paper = (counts(variant=variant) for variant in ("released", "paper"))
    assert released.keys() - paper.keys() == {"gate_bottleneck"}
    assert sum(released.values()) - sum(paper.values()) == 2_657_090


# The paper's Table 1, as docs/networks.md reads it: the tasks and what is on.
ABLATIONS = {
    "UNet": (("seg",), ()),
    "ClsNet": (("cls",), ()),
    "CUNet": (types.TASKS, ()),
    "CU_G": (types.TASKS, ("gates",)),
    "C_A": (types.TASKS, ("channel_attention",)),
    "CU_A": (types.TASKS, ("deformable_attention",)),
    "CU_GA": (types.TASKS, ("gates", "deformable_attention")),
    "C_MS": (types.TASKS, ("multi_scale",)),
    "C_AMS": (types.TASKS, ("channel_attention", "multi_scale")),
    "ACSNet": (types.TASKS, SWITCHES),
}


def test_the_ten_networks_of_table_1_in_closed_form():
    sizes = {
        "gates": 3_572_362,
        "deformable_attention": 9_410_452,
    }
    skeleton, plain = 17_909_057, 512 * 64 + 64 + 64 * 2 + 2
    attention = {c: 2 * c * (c // 16) + c // 16 + c // 16 * c + c for c in (256, 512)}
    for name, (tasks, on) in ABLATIONS.items():
        expected = 11_176_512 if tasks == ("cls",) else skeleton
        expected += sum(sizes.get(switch, 0) for switch in on)
        if "cls" in tasks:
            wide = "multi_scale" in on
            expected += 1280 * 640 + 640 + 640 * 2 + 2 if wide else plain
            read = (256, 512, 512) if wide else (512,)
            expected += sum(attention[c] for c in read) * ("channel_attention" in on)
        switches = {switch: switch in on for switch in SWITCHES}
        assert total(tasks=tasks, classes=2, **switches) == expected, name


def test_every_switch_changes_what_it_names_and_nothing_else():
    names = {
        "gates": {"gate_1", "gate_2", "gate_3", "gate_4", "gate_bottleneck"},
        "deformable_attention": {"attention_1", "attention_2"},
        "channel_attention": {"head/attention_4", "head/attention_5", "head/attention_6"},
    }

    def paths(**options):
        return flax.traverse_util.flatten_dict(
            shapes_of(ACSNet(width=16, **options), (1, 32, 64, 1))["params"], sep="/"
        )

    whole = paths()
    for switch, owners in names.items():
        without = paths(**{switch: False})
        gone = whole.keys() - without.keys()
        assert {"/".join(p.split("/")[: 1 + (p[:4] == "head")]) for p in gone} == owners
        assert all(whole[path].shape == leaf.shape for path, leaf in without.items())
    single = paths(multi_scale=False)
    assert single["head/hidden/kernel"].shape == (128, 16)
    assert whole["head/hidden/kernel"].shape == (320, 160)
    assert {k for k in single if k[:4] != "head"} == {k for k in whole if k[:4] != "head"}


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_outputs_agree_with_pytorch(original, mode):
    """In single precision, with running and with the batch's statistics."""
    module = ACSNet(classes=2)
    variables = drawn_variables(module, original["image"].shape)

    def forward(variables, image):
        return module.apply(variables, image, train=mode == "train", mutable=["batch_stats"])[0]

    outputs = quick_jit(forward)(variables, original["image"])
    (segmentation,) = outputs.segmentation
    expected = original[f"{mode}_segmentation"], original[f"{mode}_class_logits"]
    for name, f, e in zip(
        ("segmentation", "class logits"),
        (segmentation, outputs.class_logits),
        expected,
        strict=True,
    ):
        print(f"ACSNet, {mode}, {name}: {np.abs(f - e).max():.1e} of {np.abs(e).max():.1f}")
        assert np.std(e) > 0.01  # where a difference would show
        np.testing.assert_allclose(f, e, rtol=0, atol=1e-4 * np.abs(e).max())


@pytest.mark.long
def test_gradients_and_statistics_agree_with_pytorch(original):
    """Of every parameter, in double precision, with the batch's statistics."""
    module = ACSNet(classes=2)
    variables = drawn_variables(module, original["image"].shape)
    cotangents = [
        draw(f"cotangent_{i}", original[name].shape)
        for i, name in enumerate(("train_segmentation", "train_class_logits"))
    ]

    def loss(params, batch_stats, image):
        outputs, updates = module.apply(
            {"params": params, "batch_stats": batch_stats},
            image,
            train=True,
            mutable=["batch_stats"],
        )
        found = (outputs.segmentation[0], outputs.class_logits)
        total = sum(jnp.mean(f * c) for f, c in zip(found, cotangents, strict=True))
        return total, (found, updates)

    with jax.enable_x64(True):
        image, variables = jax.tree.map(np.float64, (original["image"], variables))
        step = quick_jit(jax.grad(loss, has_aux=True))
        gradients, (found, updates) = step(variables["params"], variables["batch_stats"], image)
        gradients, found, updates = jax.tree.map(np.asarray, (gradients, found, updates))
    for name, f in zip(("segmentation", "class_logits"), found, strict=True):
        np.testing.assert_allclose(f, original[f"train_{name}"], rtol=1e-6, atol=1e-6)
    stored = {k.removeprefix("grad:"): v for k, v in original.items() if k.startswith("grad:")}
    gradients = flat(gradients)
    assert gradients.keys() == stored.keys()
    largest = max(np.abs(kept).max() for kept in stored.values())
    for path, gradient in gradients.items():
        tolerance = 1e-6 * np.abs(stored[path]).max() + 1e-9 * largest
        np.testing.assert_allclose(
            thin(gradient), stored[path], rtol=0, atol=tolerance, err_msg=path
        )
    before = flat(variables["batch_stats"])
    for path, statistic in flat(updates["batch_stats"]).items():
        expected = original[f"after:{path}"][1:]
        if path.endswith("var"):
            # PyTorch's running variance takes the unbiased one of the batch's n pixels.
            stride = 2 if "stem" in path else 2 ** (int(path.split("_")[1]) + 1)
            pixels = original["image"].size / stride**2
            old = 0.9 * thin(before[path])[1:]
            expected = old + (expected - old) * (pixels - 1) / pixels
        np.testing.assert_allclose(
            thin(statistic)[1:], expected, rtol=1e-5, atol=1e-6, err_msg=path
        )


def test_outputs_for_each_set_of_tasks():
    shape = (2, 32, 64, 1)
    assert output_shapes(ACSNet(width=16), shape) == types.Outputs((shape,), (2, 3), {})
    segments = ACSNet(width=16, tasks=("seg",))
    assert output_shapes(segments, shape) == types.Outputs((shape,), None, {})
    for multi_scale in (False, True):
        classifies = ACSNet(width=16, tasks=("cls",), multi_scale=multi_scale)
        assert output_shapes(classifies, shape) == types.Outputs((), (2, 3), {})


def drawn_gradients(module, image, **options):
    """Of a function of all outputs, by path, in single precision."""
    variables = drawn_variables(module, image.shape)

    def loss(params):
        outputs, _ = module.apply(
            {**variables, "params": params}, image, **options, mutable=["batch_stats"]
        )
        return sum(jnp.mean(jnp.sin(each)) for each in jax.tree.leaves(outputs))

    return flat(quick_jit(jax.grad(loss))(variables["params"]))


@pytest.mark.long
@pytest.mark.parametrize("tasks", [("seg", "cls"), ("cls",)])
def test_every_parameter_has_a_finite_gradient(tasks):
    """On an image that is black in places: many features there are exactly 0."""
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 1)).astype(np.float32)
    image[:, 20:, :50] = 0
    module = ACSNet(width=16, tasks=tasks)
    for path, gradient in drawn_gradients(module, image, train=True).items():
        assert np.isfinite(gradient).all() and np.any(gradient), path


def test_the_largest_value_is_found_and_only_one_has_the_gradient():
    image = np.random.default_rng(0).normal(size=(2, 4, 6, 5)).astype(np.float32)
    image[0, 1, 2] = 7.0  # five channels that are equal
    np.testing.assert_array_equal(acsnet_parts.largest(image, 3), image.max(-1, keepdims=True))
    np.testing.assert_array_equal(acsnet_parts.largest_of_pixels(image), image.max((1, 2)))
    gradient = jax.grad(lambda i: jnp.sum(acsnet_parts.largest(i, 3)))(image)
    np.testing.assert_array_equal(np.sum(gradient, -1), np.ones((2, 4, 6)))
    np.testing.assert_array_equal(gradient[0, 1, 2], [1, 0, 0, 0, 0])


def test_grey_values_are_scaled_as_released():
    """An image of BUSI's mean grey and one a deviation above it: 0 and 1 at the first layer."""
    module = ACSNet(width=16, tasks=("cls",))
    image = jnp.stack([jnp.full((32, 64, 1), 255 * grey) for grey in (0.330, 0.534)])
    variables = drawn_variables(module, image.shape)

    def read_by_the_encoder(image):
        read = []

        def catch(function, args, kwargs, context):
            if context.module.name == "encoder":
                read.append(args[0])
            return function(*args, **kwargs)

        with nn.intercept_methods(catch):
            module.apply(variables, image)
        return read[0]

    read = quick_jit(read_by_the_encoder)(image)
    assert read.shape == (2, 32, 64, 3)
    np.testing.assert_allclose(read[0], 0, atol=1e-5)
    np.testing.assert_allclose(read[1], 1, atol=1e-5)


def torch_state(width: int = 64) -> dict[str, np.ndarray]:
    """A state dict by torchvision's names and shapes, its numbers drawn."""
    state = {}

    def conv(name, inputs, features, kernel):
        state[f"{name}.weight"] = draw(name, (features, inputs, kernel, kernel))

    def norm(name, features):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{leaf}"] = draw(f"{name}.{leaf}", (features,))
        state[f"{name}.num_batches_tracked"] = np.array(7)

    conv("conv1", 3, width, 7)
    norm("bn1", width)
    inputs = width
    for layer, features in enumerate((width, 2 * width, 4 * width, 8 * width), 1):
        for block in range(2):
            owner = f"layer{layer}.{block}"
            conv(f"{owner}.conv1", inputs, features, 3)
            norm(f"{owner}.bn1", features)
            conv(f"{owner}.conv2", features, features, 3)
            norm(f"{owner}.bn2", features)
            if inputs != features:
                conv(f"{owner}.downsample.0", inputs, features, 1)
                norm(f"{owner}.downsample.1", features)
            inputs = features
    state["fc.weight"], state["fc.bias"] = draw("fc", (1000, inputs)), draw("fc.bias", (1000,))
    return state


def test_weights_of_torchvisions_file_go_into_the_encoder(tmp_path):
    """All of the encoder and nothing else; each array where its name belongs."""
    state = torch_state(16)
    path = tmp_path / "resnet18.safetensors"
    safetensors.numpy.save_file(state, path)
    module = models.create("acsnet", width=16, encoder_weights=str(path))
    before = drawn_variables(module, (1, 32, 64, 1))
    after = models.with_encoder_weights(module, before)
    encoder = {name: after[name]["encoder"] for name in after}
    kernel = encoder["params"]["layer_2_0"]["project"]["kernel"]
    np.testing.assert_array_equal(
        kernel, state["layer2.0.downsample.0.weight"].transpose(2, 3, 1, 0)
    )
    norm = encoder["batch_stats"]["layer_4_1"]["norm_2"]["norm"]
    np.testing.assert_array_equal(norm["var"], state["layer4.1.bn2.running_var"])
    np.testing.assert_array_equal(
        encoder["params"]["stem_norm"]["norm"]["scale"], state["bn1.weight"]
    )
    placed = [np.asarray(leaf).sum() for leaf in jax.tree.leaves(encoder)]
    given = [
        each.astype(np.float32).sum()
        for name, each in state.items()
        if name[:2] != "fc" and "tracked" not in name
    ]
    np.testing.assert_allclose(sorted(placed), sorted(given), rtol=1e-4, atol=1e-4)
    for name in after:
        rest = {k: v for k, v in after[name].items() if k != "encoder"}
        old = {k: v for k, v in before[name].items() if k != "encoder"}
        jax.tree.map(np.testing.assert_array_equal, rest, old)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("layer3.1.bn1.running_mean"), "lacks 1 arrays of the encoder"),
        (
            lambda s: s.update({"layer1.0.conv1.weight": s["layer1.0.conv1.weight"][..., :1]}),
            "shape",
        ),
        (lambda s: [s.pop(k) for k in list(s) if k[:6] == "layer4"], "layer_4_0"),
    ],
)
def test_files_of_other_networks_are_refused(tmp_path, change, words):
    state = torch_state(16)
    change(state)
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in state.items()}, path)
    module = models.create("acsnet", width=16, encoder_weights=str(path))
    with pytest.raises(UserError, match=words):
        models.with_encoder_weights(module, drawn_variables(module, (1, 32, 64, 1)))


@pytest.mark.parametrize(
    "name", ["features.0.weight", "layer1.weight", "layer1.0.weight", "fc.bias"]
)
def test_names_without_a_place_are_passed_over(name):
    assert resnet.place(name, np.zeros((3, 3))) is None


def test_imagenet_needs_a_file_and_says_where_it_comes_from(tmp_path):
    module = models.create("acsnet", encoder_weights="imagenet")
    with pytest.raises(UserError, match=r"resnet18-f37072fd\.pth"):
        models.check_encoder_weights(module, (64, 64, 1))
    module = models.create("acsnet", encoder_weights=str(tmp_path / "none.pth"))
    with pytest.raises(UserError, match=r"none\.pth: there is no such file") as caught:
        models.check_encoder_weights(module, (64, 64, 1))
    assert "package" not in str(caught.value)


def test_wrong_options_are_refused():
    with pytest.raises(UserError, match=r"model\.variant: 'printed'.*released, paper"):
        models.create("acsnet", variant="printed")
    with pytest.raises(UserError, match=r"width=24.*multiples of 16"):
        shapes_of(ACSNet(width=24), (1, 32, 64, 1))


def test_frozen_statistics_stay():
    image = np.full((2, 32, 64, 1), 90.0, np.float32)
    # Those of drawn weights say nothing, and never stay.
    for asked, weights in ((False, "file"), (True, "file"), (True, "")):
        frozen = asked and weights != ""
        options = {"frozen_statistics": asked, "encoder_weights": weights}
        module = ACSNet(width=16, tasks=("cls",), **options)
        variables = drawn_variables(module, image.shape)
        _, updates = quick_jit(
            lambda v, m=module: m.apply(v, image, train=True, mutable=["batch_stats"])
        )(variables)
        pairs = zip(
            jax.tree.leaves(variables["batch_stats"]),
            jax.tree.leaves(updates.get("batch_stats", variables["batch_stats"])),
            strict=True,
        )
        same = [np.array_equal(a, b) for a, b in pairs]
        assert all(same) if frozen else not any(same)
