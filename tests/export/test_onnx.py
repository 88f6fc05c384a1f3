"""Export to ONNX: the script that goes with the file, the converter, and every network through it.

What needs the environment of requirements-export.txt is tested where MTBUS_ONNX_PYTHON names its
interpreter, and says NOT TESTED elsewhere.
"""

import ast
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import network_checks
import numpy as np
import pytest
import tiny
from PIL import Image

from mtbus_jax import crossval, data, images, models, predict, refine, types
from mtbus_jax.export import command, formats, interface, predict_onnx, to_onnx
from mtbus_jax.images import enhancement, preprocess
from mtbus_jax.models.cpu import depthwise
from mtbus_jax.predict import resample
from mtbus_jax.training import trained_folds

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = list(types.CLASS_NAMES)

# The script: what it does around the network needs no onnxruntime.

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (23, 37, 4)).astype(np.uint8)
PICTURES = {
    "L": Image.fromarray(COLOUR[..., 0]),
    "1": Image.fromarray(COLOUR[..., 0] > 90),
    "RGB": Image.fromarray(COLOUR[..., :3]),
    "RGBA": Image.fromarray(COLOUR),
    "LA": Image.fromarray(COLOUR).convert("LA"),
    "P": Image.fromarray(COLOUR[..., :3]).convert("P"),
}


@pytest.mark.parametrize("mode", PICTURES)
def test_the_script_reads_pictures_as_the_library_does(tmp_path, mode):
    path = tmp_path / "picture.png"
    PICTURES[mode].save(path)
    found = predict_onnx.read_grey(path)
    (frame,) = images.read(path)
    np.testing.assert_array_equal(found, frame.grey)
    assert found.dtype == np.uint8
    for size in ((16, 32), (64, 48)):
        np.testing.assert_array_equal(
            predict_onnx.resize_nearest(found, *size), preprocess.resize_nearest(found, *size)
        )


def test_the_script_refuses_more_than_8_bits(tmp_path):
    Image.fromarray(COLOUR[..., 0].astype(np.uint16) * 256).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="more than 8 bits"):
        predict_onnx.read_grey(tmp_path / "deep.png")


def test_the_script_has_the_limits_of_the_library(tmp_path, monkeypatch):
    assert predict_onnx.MAX_PIXELS == images.frame.MAX_PIXELS
    assert predict_onnx.MIN_SIDE == images.frame.MIN_SIDE
    assert predict_onnx.MAX_SIDE == images.frame.MAX_SIDE
    path = tmp_path / "picture.png"
    Image.new("L", (15, 400)).save(path)
    with pytest.raises(ValueError, match="less than 16 or more than 65535 pixels"):
        predict_onnx.read_grey(path)
    Image.new("1", (20_000, 20_000)).save(path)
    with pytest.raises(ValueError, match="more than 64 million pixels"):
        predict_onnx.read_grey(path)
    Image.new("1", (8_000, 8_001)).save(path)
    with pytest.raises(ValueError, match="more than 64 million pixels"):
        predict_onnx.read_grey(path)


class Session:
    """Stands in for onnxruntime: returns given outputs and keeps what it was given."""

    def __init__(self, **outputs):
        self.outputs = outputs

    def get_outputs(self):
        return [type("Output", (), {"name": name}) for name in self.outputs]

    def run(self, names, feed):
        self.feed = feed
        return [self.outputs[name] for name in names]


def script_model(session, size, resize="nearest"):
    model = predict_onnx.Model.__new__(predict_onnx.Model)
    model.session, model.size, model.class_names = session, size, NAMES
    model.facts = {"mask_threshold": 0.5, "resize": resize}
    model.enhance = predict_onnx.enhancer(None, model.facts)
    return model


@pytest.mark.parametrize("resize", preprocess.RESIZES)
@pytest.mark.parametrize("tumour", [False, True])
@pytest.mark.parametrize("winner", range(3))
def test_the_script_refines_as_the_library_does(tumour, winner, resize):
    probability = np.full((1, 16, 32, 1), 0.5, np.float32)  # one half is no tumour
    if tumour:
        probability[0, 3:7, 10:21] = 0.9
    classes = np.full((1, 3), 0.2, np.float32)
    classes[0, winner] = 0.6
    session = Session(tumour_probability=probability, class_probability=classes)
    grey = COLOUR[..., 0]
    mask, found, class_id = script_model(session, (16, 32), resize)(grey)
    expected_mask, expected_class = refine.refine(probability > types.MASK_THRESHOLD, classes)
    assert class_id == int(expected_class[0])
    assert mask.shape == grey.shape
    assert mask.any() == expected_mask.any()
    np.testing.assert_array_equal(found, classes[0])
    image = session.feed["image"]
    assert image.dtype == np.float32
    small = preprocess.resize(grey, 16, 32, method=resize)
    np.testing.assert_array_equal(image[0, :, :, 0], small)


def test_the_script_enhances_with_the_file_beside_it(tmp_path):
    (tmp_path / "enhancement.py").write_bytes(pathlib.Path(enhancement.__file__).read_bytes())
    probability = np.full((1, 16, 32, 1), 0.9, np.float32)
    model = script_model(Session(tumour_probability=probability), (16, 32))
    model.enhance = predict_onnx.enhancer(tmp_path, {"enhancement": "multi_peak"})
    grey = COLOUR[..., 0]
    model(grey)
    small = preprocess.to_input(grey, 16, 32, resizing="nearest", enhancement="multi_peak")
    np.testing.assert_array_equal(model.session.feed["image"][0, :, :, 0], small)
    assert (small != preprocess.resize_nearest(grey, 16, 32)).any()


@pytest.mark.parametrize("tumour", [False, True])
@pytest.mark.parametrize("normal", [None, "malignant"])
def test_the_script_knows_which_class_means_no_lesion(tumour, normal):
    probability = np.full((1, 16, 32, 1), 0.9 if tumour else 0.1, np.float32)
    classes = np.array([[0.2, 0.7, 0.1]], np.float32)
    session = Session(tumour_probability=probability, class_probability=classes)
    model = script_model(session, (16, 32), preprocess.NEAREST)
    model.facts["normal_class"] = normal
    mask, _, class_id = model(COLOUR[..., 0])
    code = None if normal is None else NAMES.index(normal)
    refined = refine.refine(probability > types.MASK_THRESHOLD, classes, normal=code)
    assert mask.any() == np.asarray(refined[0]).any()
    assert class_id == int(refined[1][0])


def test_the_script_does_not_refine_for_a_run_that_does_not():
    probability = np.full((1, 16, 32, 1), 0.9, np.float32)
    classes = np.array([[0.2, 0.1, 0.7]], np.float32)
    model = script_model(
        Session(tumour_probability=probability, class_probability=classes), (16, 32)
    )
    assert not model(COLOUR[..., 0])[0].any()  # called normal
    model.facts["refine"] = False
    mask, _, class_id = model(COLOUR[..., 0])
    assert mask.all() and class_id == 2


@pytest.mark.parametrize("size", [(23, 37), (16, 32), (9, 70), (200, 31)])
def test_the_script_enlarges_as_the_library_does(size):
    probability = np.random.default_rng(1).uniform(size=(16, 32)).astype(np.float32)
    found = predict_onnx.enlarge(probability, *size)
    np.testing.assert_allclose(found, resample.to_original(probability, *size), atol=1e-6)


def test_the_script_does_single_tasks():
    grey = COLOUR[..., 0]
    classes = np.array([[0.1, 0.7, 0.2]], np.float32)
    mask, _, class_id = script_model(Session(class_probability=classes), (16, 32))(grey)
    assert mask is None
    assert class_id == 1
    probability = np.full((1, 16, 32, 1), 0.9, np.float32)
    mask, found, class_id = script_model(Session(tumour_probability=probability), (16, 32))(grey)
    assert mask.shape == grey.shape
    assert mask.all()
    assert found is None
    assert class_id is None


def test_the_script_stands_alone():
    """Only the standard library, numpy, Pillow and onnxruntime."""
    tree = ast.parse(pathlib.Path(predict_onnx.__file__).read_text(encoding="utf-8"))
    names = {n.name for node in ast.walk(tree) if isinstance(node, ast.Import) for n in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert foreign == {"numpy", "PIL", "onnxruntime"}


# The converter's side, as far as it works without the converter.

REPLACED = [
    ("unet", {"width": 2}),  # transposed convolution with padding
    ("unetpp", {"width": 2, "head_features": 4}),  # … and without
    ("segresnet", {"width": 8}),  # bilinear resizing
    ("residual_unet", {"width": 2, "legacy": True}),  # dropout at test time
]


@pytest.mark.parametrize(("name", "options"), REPLACED, ids=lambda value: str(value))
def test_replaced_layers_compute_the_same(name, options):
    module = models.create(name, **options)
    variables = network_checks.drawn_variables(module, (1, 32, 48, 1))
    image = np.random.default_rng(0).uniform(0, 255, (2, 32, 48, 1)).astype(np.float32)

    def apply(image):
        return interface.probabilities(module.apply(variables, image, train=False))

    def replaced(image):
        with to_onnx.replaced_layers():
            return apply(image)

    expected, found = jax.jit(apply)(image), jax.jit(replaced)(image)
    for key in ("tumour_probability", "class_probability"):
        assert np.ptp(expected[key]) > 0.01
        np.testing.assert_allclose(found[key], expected[key], atol=1e-5)


def test_a_rule_for_each_platform_becomes_the_one_for_any():
    """As depthwise convolutions have it; the converter knows no program that asks where it runs."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 9, 7, 5)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 1, 5)).astype(np.float32)

    def replaced(image):
        with to_onnx.replaced_layers():
            return depthwise.depthwise_convolution(image, kernel, stride=2)

    expected = np.zeros((2, 5, 4, 5))
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for row, col in np.ndindex(5, 4):
        window = padded[:, 2 * row : 2 * row + 3, 2 * col : 2 * col + 3]
        expected[:, row, col] = (window * kernel[:, :, 0]).sum(axis=(1, 2))
    np.testing.assert_allclose(replaced(image), expected, rtol=1e-4, atol=1e-5)


def test_the_converter_imports_no_more_than_the_networks():
    program = (
        "import sys, mtbus_jax.export.to_onnx; "
        "print(*{'orbax', 'pandas', 'sklearn', 'ml_collections', 'tensorflow_datasets', "
        "'mtbus_jax.setup', 'mtbus_jax.predict'}.intersection(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


# With the converter.


# Without normalisation on the way, grey values 0..255 would drive every sigmoid to its end.
GAINS = {"adityan": 0.6, "residual_unet": 0.4, "acsnet": 0.8}


def onnx_trained(
    name: str, size: tuple[int, int], *, folds=(0,), tasks=types.TASKS, classes=3, **options
) -> trained_folds.Trained:
    """A network with drawn weights, a little smaller from fold to fold, as if a run had them."""
    config = tiny.make_config()
    config.name, config.data.image_size, config.tasks = name, size, tasks
    config.data.class_names = types.CLASS_NAMES[:classes]
    config.model = {"name": name, **options}
    module = models.create(name, tasks=tasks, classes=classes, **options)
    variables = network_checks.drawn_variables(module, (1, *size, 1))
    kernel_gain = GAINS.get(name, 1.0)
    members = []
    for fold in folds:
        scaled = jax.tree.map(
            lambda a, fold=fold: a * np.float32(kernel_gain ** (a.ndim > 1) * (1 - 0.05 * fold)),
            variables["params"],
        )
        members.append(trained_folds.Member(fold, {**variables, "params": scaled}))
    return trained_folds.Trained(config, module, tuple(members))


def test_the_file_is_self_contained_and_its_batch_is_free(onnx_python, tmp_path):
    original = onnx_trained("unet", (32, 48), folds=(0, 1), width=2)
    images = np.random.default_rng(0).uniform(0, 255, (6, 32, 48, 1)).astype(np.float32)
    found, versions = formats.write_onnx(original, images, tmp_path / "model.onnx", onnx_python)
    assert versions["jax2onnx"] == "0.17.1"
    expected = formats.reference(original, images)
    assert np.ptp(expected["tumour_probability"]) > 0.1
    for outputs in found:
        assert formats.largest_difference(expected, outputs) < 1e-5
    look = (
        "import json, onnx, sys; model = onnx.load(sys.argv[1]); graph = model.graph; "
        "shape = lambda v: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]; "
        "print(json.dumps({'inputs': {v.name: shape(v) for v in graph.input}, "
        "'outputs': {v.name: shape(v) for v in graph.output}, "
        "'opset': [o.version for o in model.opset_import if not o.domain], "
        "'weights': sum(len(t.raw_data) for t in graph.initializer), "
        "'properties': {p.key: p.value for p in model.metadata_props}}))"
    )
    done = subprocess.run(
        [onnx_python, "-c", look, str(tmp_path / "model.onnx")], capture_output=True, text=True
    )
    facts = json.loads(done.stdout)
    assert facts["inputs"] == {"image": ["batch", 32, 48, 1]}
    assert facts["outputs"] == {
        "tumour_probability": ["batch", 32, 48, 1],
        "class_probability": ["batch", 3],
    }
    assert facts["opset"] == [to_onnx.OPSET]
    assert facts["properties"]["class_names"] == "benign,malignant,normal"
    parameters = sum(np.asarray(each).nbytes for each in jax.tree.leaves(original.variables))
    assert parameters <= facts["weights"] < 1.1 * parameters


@pytest.fixture(scope="module")
def onnx_export(onnx_python, tmp_path_factory):
    """A trained run of a small U-Net, exported, and its folder."""
    folder = tmp_path_factory.mktemp("onnx")
    arrays = folder / "cases.npz"
    data.save_arrays(tiny.make_cases(), arrays)
    config = tiny.make_config(epochs=1)
    config.log.tensorboard, config.data.arrays_file = False, str(arrays)
    config.data.folds, config.model = (0, 1), {"name": "unet", "width": 2}
    crossval.train_and_evaluate(config, folder / "run")
    command.export_run(folder / "run", folder / "out", onnx_python=onnx_python)
    return folder


def run_script(onnx_python, folder, *arguments):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [onnx_python, "-I", str(folder / "predict_onnx.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
    )


def test_the_script_predicts_what_the_library_predicts(onnx_python, onnx_export, tmp_path):
    paths = []
    for mode in ("L", "RGBA"):
        paths.append(tmp_path / f"{mode}.png")
        PICTURES[mode].save(paths[-1])
    # Without what was fitted afterwards: an export holds the network alone.
    bare = shutil.copytree(onnx_export / "run", tmp_path / "run")
    for path in bare.rglob("trust.json"):
        path.unlink()
    expected = predict.Predictor(bare, tta=False, refine="hard")(paths)
    done = run_script(onnx_python, onnx_export / "out", f"--out={tmp_path / 'masks'}", *paths)
    assert done.returncode == 0, done.stderr
    *lines, notice = done.stdout.splitlines()
    assert notice == "Research software, not a medical device."
    assert len(lines) == 2
    for path, line, prediction in zip(paths, lines, expected, strict=True):
        shown = [float(line.split(f"{name} ")[1].split(";")[0]) for name in NAMES]
        np.testing.assert_allclose(shown, prediction.class_probability, atol=6e-4)
        assert f"class {prediction.class_name}" in line
        found = np.asarray(Image.open(tmp_path / "masks" / f"{path.stem}_mask.png"))
        np.testing.assert_array_equal(found, prediction.mask * np.uint8(255))


def test_the_script_goes_on_after_a_bad_picture(onnx_python, onnx_export, tmp_path):
    out = onnx_export / "out"
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    PICTURES["L"].save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:500])
    names = ["empty", "text", "cut", "good", "missing"]
    paths = [tmp_path / f"{name}.png" for name in names]
    done = run_script(onnx_python, out, f"--out={tmp_path / 'masks'}", *paths)
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert [line.split(":")[0] for line in said] == [
        str(path) for path in paths if path != paths[3]
    ]
    assert "is empty (0 bytes)" in said[0]
    assert "is not a picture" in said[1]
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["good_mask.png"]
    assert f"{paths[3]}; benign" in done.stdout


def test_the_script_refuses_masks_that_overwrite_each_other(onnx_python, onnx_export, tmp_path):
    two = tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"
    done = run_script(onnx_python, onnx_export / "out", *two)
    assert done.returncode == 2
    assert "overwrite each other" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_script_refuses_facts_of_another_export(onnx_python, onnx_export, tmp_path):
    for name in ("model.onnx", "predict_onnx.py"):
        (tmp_path / name).write_bytes((onnx_export / "out" / name).read_bytes())
    facts = json.loads((onnx_export / "out" / "preprocessing.json").read_text())
    facts["class_names"] = NAMES[::-1]
    (tmp_path / "preprocessing.json").write_text(json.dumps(facts))
    done = run_script(onnx_python, tmp_path, "picture.png")
    assert done.returncode == 2
    assert "not of one export" in done.stderr
    assert "Traceback" not in done.stderr
    facts["class_names"], facts["image_size"] = NAMES, {"height": 32, "width": 16}
    (tmp_path / "preprocessing.json").write_text(json.dumps(facts))
    assert "image size" in run_script(onnx_python, tmp_path, "picture.png").stderr


NETWORKS = [
    *(
        (name, {"width": {"segresnet": 8, "swin_unetr": 24, "acsnet": 16}.get(name, 4)})
        for name in models.REGISTRY
        if name != "lite_unet"
    ),
    ("lite_unet", {}),
    ("unetpp", {"width": 4, "head": "printed"}),
    ("residual_unet", {"width": 4, "legacy": True}),
    ("unetpp", {"width": 4, "tasks": ("seg",)}),
    ("nnunet", {"width": 4, "tasks": ("cls",)}),
    ("unet", {"width": 4, "classes": 2}),
]


def in_words(options: dict) -> str:
    return ", ".join(f"{option}={value!r}" for option, value in options.items())


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "options"), NETWORKS, ids=[f"{name}, {in_words(each)}" for name, each in NETWORKS]
)
def test_every_network_converts(onnx_python, tmp_path, name, options):
    """The table of docs/export.md; ``-s`` prints its rows."""
    original = onnx_trained(name, (64, 96), **options)
    images = np.random.default_rng(0).uniform(0, 255, (6, 64, 96, 1)).astype(np.float32)
    expected = formats.reference(original, images)
    paths = [tmp_path / formats.FILES[form] for form in (formats.STABLEHLO, formats.ONNX)]
    hlo = formats.write_stablehlo(original, images, paths[0])
    found, versions = formats.write_onnx(original, images, paths[1], onnx_python)
    differences = [
        max(formats.largest_difference(expected, outputs) for outputs in each)
        for each in (hlo, found)
    ]
    count = models.parameter_count(original.variables[0]["params"])
    cells = [f"`{name}`", in_words(options), f"{count:,}"]
    for difference, path in zip(differences, paths, strict=True):
        cells += [f"{difference:.1e}", f"{path.stat().st_size / 1e3:.0f}"]
    for output in (interface.TUMOUR, interface.CLASSES):
        each = expected.get(output)
        cells.append("" if each is None else f"{each.min():.2f} to {each.max():.2f}")
    print(f"\n{versions}\n| {' | '.join(cells)} |")
    for each in expected.values():
        assert np.mean((each > 0.01) & (each < 0.99)) > 0.9  # where a difference would show
    assert max(differences) <= formats.TOLERANCE


def test_sixteen_bits_of_colour_are_refused(tmp_path):
    import struct
    import zlib

    def chunk(name, content):
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 40, 30, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(40 * 6) for _ in range(30)))
    path = tmp_path / "deep.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    with pytest.raises(ValueError, match="8 bits a channel"):
        predict_onnx.read_grey(path)


def test_a_mask_that_is_there_is_not_replaced(tmp_path, monkeypatch, capsys):
    """BUSI's own masks are called as the results are."""
    Image.new("L", (40, 30)).save(tmp_path / "benign (1).png")
    (tmp_path / "benign (1)_mask.png").write_bytes(b"the truth")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["predict_onnx.py", "benign (1).png"])
    with pytest.raises(SystemExit) as caught:
        predict_onnx.main()
    assert caught.value.code == 2
    assert "benign (1)_mask.png exists" in capsys.readouterr().err
    assert (tmp_path / "benign (1)_mask.png").read_bytes() == b"the truth"
