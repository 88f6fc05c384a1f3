"""Export: files equal the network and the run's own test results, bad input leaves nothing behind.

Without ONNX, which `test_export_onnx` has.
"""

import hashlib
import json
import pathlib
import shutil
import subprocess
import sys

import in_process
import jax
import jax.export
import jax.numpy as jnp
import network_checks
import numpy as np
import pytest
import tiny
from PIL import Image

from mtbus_jax import bundle, crossval, data, models, types
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import evaluate
from mtbus_jax.export import card, command, formats, interface, source
from mtbus_jax.training import run_folder, trained_folds

ROOT = pathlib.Path(__file__).resolve().parents[2]
STABLEHLO = (formats.STABLEHLO,)
NAMES = list(types.CLASS_NAMES)


@pytest.fixture(scope="module", autouse=True)
def tiny_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    """Two folds of the tiny network, trained and tested."""
    folder = tmp_path_factory.mktemp("trained")
    data.save_arrays(tiny.make_cases(), folder / "cases.npz")
    config = tiny.make_config(epochs=2)
    config.log.tensorboard = False
    config.data.folds, config.data.arrays_file = (0, 1), str(folder / "cases.npz")
    crossval.train_and_evaluate(config, folder / "run")
    return folder / "run"


@pytest.fixture
def own_run(run, tmp_path) -> pathlib.Path:
    """A copy of `run` that a test may spoil."""
    return shutil.copytree(run, tmp_path / "run")


def content(folder: pathlib.Path) -> dict[str, str]:
    """Every file below a folder with its digest, and every folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else ""
        for path in folder.rglob("*")
    }


def call(path: pathlib.Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """What a StableHLO file computes, all images at once."""
    outputs = jax.export.deserialize(path.read_bytes()).call(jnp.asarray(images))
    return jax.device_get(outputs)


def exported(run, out, **options) -> pathlib.Path:
    command.export_run(run, out, wanted=STABLEHLO, **options)
    return out / "model.stablehlo"


# The written file against independent results.


def test_a_fold_gives_what_the_run_wrote_when_it_tested_that_fold(run, tmp_path):
    """cases.csv comes from the resident, batched, mapped evaluation: another way altogether."""
    path = exported(run, tmp_path / "out", folds=(1,))
    rows = evaluate.read_cases(run)
    rows = rows[rows.fold == 1]
    cases = tiny.make_cases()
    index = [int(np.flatnonzero(cases.uid == uid)[0]) for uid in rows.uid]
    outputs = call(path, cases.image[index].astype(np.float32))
    expected = rows[[f"probability_{name}" for name in NAMES]].to_numpy()
    np.testing.assert_allclose(outputs["class_probability"], expected, atol=1e-5)
    mask = outputs["tumour_probability"] > types.MASK_THRESHOLD
    np.testing.assert_array_equal(mask.sum(axis=(1, 2, 3)), rows.predicted_pixels)


def test_several_folds_are_averaged(run, tmp_path):
    images = tiny.make_cases(7, seed=3).image.astype(np.float32)
    single = [call(exported(run, tmp_path / f"{k}", folds=(k,)), images) for k in (0, 1)]
    both = call(exported(run, tmp_path / "both"), images)
    assert both.keys() == {"tumour_probability", "class_probability"}
    for name, found in both.items():
        assert np.abs(single[0][name] - single[1][name]).max() > 1e-3
        np.testing.assert_allclose(found, (single[0][name] + single[1][name]) / 2, atol=1e-6)


def test_the_batch_size_is_free_and_the_platforms_are_several(run, tmp_path):
    path = exported(run, tmp_path / "out")
    again = jax.export.deserialize(path.read_bytes())
    assert set(again.platforms) >= {"cpu", "cuda", "tpu"}
    # Else a GPU would round products to 10 bits.
    text = again.mlir_module()
    assert "HIGHEST" in text
    assert "DEFAULT" not in text
    batch, *rest = again.in_avals[0].shape
    assert not isinstance(batch, int)
    assert rest == [tiny.HEIGHT, tiny.WIDTH, 1]
    images = tiny.make_cases(5).image.astype(np.float32)
    at_once = call(path, images)
    for i, image in enumerate(images):
        for name, found in call(path, image[None]).items():
            np.testing.assert_allclose(found[0], at_once[name][i], atol=1e-6)


@pytest.mark.parametrize(
    ("tasks", "output"), [(("seg",), "tumour_probability"), (("cls",), "class_probability")]
)
def test_a_single_task_exports_what_it_has(run, tmp_path, tasks, output):
    config = run_folder.load_config(run)
    config.tasks = tasks
    module = tiny.TinyNet(tasks=tasks)
    variables = network_checks.drawn_variables(module, (1, tiny.HEIGHT, tiny.WIDTH, 1))
    original = trained_folds.Trained(config, module, (trained_folds.Member(2, variables),))
    images = tiny.make_cases(2).image.astype(np.float32)
    written = formats.write(formats.STABLEHLO, original, images, tmp_path, "")
    assert written.difference < 1e-6
    outputs = call(tmp_path / "model.stablehlo", images)
    assert list(outputs) == [output]
    assert np.ptp(outputs[output]) > 0.01
    assert list(card.preprocessing(original, [written])["outputs"]) == [output]


# What is compared before anything appears.


@pytest.mark.parametrize("fault", [2e-4, np.nan])
def test_a_file_that_differs_is_not_kept(run, tmp_path, monkeypatch, fault):
    right = interface.ensemble

    def wrong(*arguments):
        function = right(*arguments)

        def shifted(image):
            outputs = function(image)
            return outputs | {"class_probability": outputs["class_probability"] + fault}

        return shifted

    monkeypatch.setattr(interface, "ensemble", wrong)
    with pytest.raises(UserError, match="does not equal the network"):
        exported(run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_difference_is_the_largest_one_and_missing_outputs_are_endless():
    expected = {"a": np.zeros((2, 3)), "b": np.zeros(2)}
    found = {"a": np.array([[0, 0.1, 0], [0, -0.3, 0]]), "b": np.array([0.2, 0])}
    assert formats.largest_difference(expected, found) == pytest.approx(0.3)
    assert formats.largest_difference(expected, {"a": found["a"]}) == np.inf
    assert formats.largest_difference(expected, found | {"b": np.zeros(3)}) == np.inf


def test_images_of_the_run_are_taken_where_they_are_at_hand(run):
    config = run_folder.load_config(run)
    images, words = source.check_images(config)
    known = {image.tobytes() for image in tiny.make_cases().image}
    assert len(images) == 6
    assert all(image.astype(np.uint8).tobytes() in known for image in images)
    assert words == "6 images of phantom"
    config.data.arrays_file = "/nowhere/cases.npz"
    config.data.name = "curated_busi"
    images, words = source.check_images(config)
    assert images.shape == (6, tiny.HEIGHT, tiny.WIDTH, 1)
    assert np.ptp(images) > 100
    assert words == "6 simulated images (curated_busi was not on the machine)"


def test_images_of_a_folder_of_ones_own_are_taken_where_they_are_at_hand(run, tmp_path):
    config = run_folder.load_config(run)
    config.data.arrays_file, config.data.name = "", str(tmp_path / "secret" / "mine")
    config.data.class_names = config.data.classes = ("a", "b")
    config.data.data_dir, config.data.cache_dir = str(tmp_path / "b"), str(tmp_path / "c")
    words = "6 simulated images (mine was not on the machine)"
    assert source.check_images(config)[1] == words
    for number in range(8):
        path = tmp_path / "secret" / "mine" / ("a", "b")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (40, 60), np.uint8)
        Image.fromarray(pixels).save(path)
    assert source.check_images(config)[1] == words  # not built
    data.load_cases(
        config.data.name,
        image_size=tuple(config.data.image_size),
        data_dir=config.data.data_dir,
        cache_dir=config.data.cache_dir,
    )
    images, words = source.check_images(config)
    assert words == "6 images of mine" and len(images) == 6


# Refusals.


def spoil_weights(run):
    files = (run / "fold_1" / "checkpoints" / "best").rglob("*")
    largest = max((f for f in files if f.is_file()), key=lambda f: f.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])


def reverse_classes(run):
    summary = json.loads((run / "summary.json").read_text())
    summary["class_names"].reverse()
    (run / "summary.json").write_text(json.dumps(summary))


def change_width(run):
    config = json.loads((run / "config.json").read_text())
    config["model"]["width"] = 5
    (run / "config.json").write_text(json.dumps(config))


def remove(name):
    def spoil(run):
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


@pytest.mark.parametrize(
    ("spoil", "options", "words"),
    [
        (remove("config.json"), {}, ["config.json is missing", "not a run folder"]),
        (remove("splits.json"), {}, ["splits.json is missing"]),
        (remove("summary.json"), {}, ["summary.json is missing"]),
        (remove("fold_1/cases.csv"), {}, ["fold 1", "tested to the end", "--folds=0."]),
        (remove("fold_1/cases.csv"), {"folds": (1,)}, ["fold 1", "tested to the end"]),
        (remove("fold_1/checkpoints"), {}, ["fold 1", "trained and tested", "--folds=0."]),
        (remove("fold_1/checkpoints/best"), {}, ["fold 1", "trained and tested", "--folds=0."]),
        (remove("fold_1/checkpoints/best"), {"folds": (0, 1)}, ["--folds=0,1", "has 0."]),
        (spoil_weights, {}, ["fold_1", "cannot be read"]),
        (change_width, {}, ["fold_0", "another configuration"]),
        (reverse_classes, {}, ["summary.json", "'normal', 'malignant', 'benign'"]),
        (None, {"folds": (0, 3)}, ["--folds=0,3", "has 0, 1"]),
        (None, {"folds": (9,)}, ["--folds=9", "has 0, 1"]),
        (None, {"wanted": ("onx",)}, ["--formats=onx", "stablehlo or onnx"]),
        (None, {"wanted": ()}, ["--formats="]),
    ],
)
def test_bad_runs_are_refused(own_run, tmp_path, spoil, options, words):
    if spoil:
        spoil(own_run)
    before = content(own_run)
    with pytest.raises(UserError) as raised:
        command.export_run(own_run, tmp_path / "out", **({"wanted": STABLEHLO} | options))
    for word in words:
        assert word in str(raised.value)
    assert content(own_run) == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_that_is_nowhere_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        exported(tmp_path / "nowhere", tmp_path / "out")


def test_a_run_is_only_read(own_run, tmp_path):
    before = content(own_run)
    exported(own_run, tmp_path / "out")
    assert content(own_run) == before


def test_without_a_converter_the_two_commands_are_told(run, tmp_path):
    with pytest.raises(UserError) as raised:
        command.export_run(run, tmp_path / "out", onnx_python=str(tmp_path / "python"))
    text = str(raised.value)
    assert "python -m venv .venv-onnx" in text
    assert ".venv-onnx/bin/pip install -r requirements-export.txt" in text
    assert (ROOT / "requirements-export.txt").is_file()
    assert list(tmp_path.iterdir()) == []


def test_a_converter_without_its_packages_says_which(run, tmp_path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(UserError, match=r"lacks .*jax2onnx, onnx, onnxruntime"):
        command.export_run(run, tmp_path / "out", onnx_python=str(bare))
    assert not (tmp_path / "out").exists()


def test_a_converter_that_fails_is_quoted_and_nothing_stays(run, tmp_path):
    """Stands in for jax2onnx meeting a layer it cannot do; StableHLO has been written by then."""
    failing = tmp_path / "python"
    failing.write_text(
        '#!/bin/sh\n[ "$1" = -c ] && exit 0\n'
        "printf 'Traceback (most recent call last):\\n  File x\\n' >&2\n"
        "echo 'NotImplementedError: no such layer' >&2\nexit 1\n"
    )
    failing.chmod(0o755)
    with pytest.raises(UserError, match=r"tiny cannot be converted.*no such layer"):
        command.export_run(run, tmp_path / "out", onnx_python=str(failing))
    assert [path.name for path in tmp_path.iterdir()] == ["python"]


def test_only_an_earlier_export_is_replaced(run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    exported(run, out, folds=(0,))
    first = content(out)
    exported(run, out, folds=(1,))
    second = content(out)
    assert first.keys() == second.keys()
    assert first["model.stablehlo"] != second["model.stablehlo"]

    monkeypatch.setattr(formats, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="does not equal"):
        exported(run, out)
    monkeypatch.undo()
    assert content(out) == second

    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt"):
        exported(run, out)
    assert (out / "notes.txt").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        exported(run, tmp_path / "file")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "file"}


def test_a_folder_with_a_file_called_like_ours_is_not_replaced(run, tmp_path):
    (tmp_path / "preprocessing.json").write_text('{"resize": "bilinear"}')
    with pytest.raises(UserError, match="something other than an earlier export"):
        exported(run, tmp_path)
    assert (tmp_path / "preprocessing.json").read_text() == '{"resize": "bilinear"}'


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run={tmp}/none", "--out={tmp}/out", "--formats=stablehlo"], ["is not a folder"]),
        (["--run={tmp}", "--out={tmp}/out", "--folds=all"], ["--folds=all", "comma-separated"]),
        (["--run={tmp}"], ["--out"]),
    ],
)
def test_the_command_line_refuses_in_one_paragraph(tmp_path, arguments, words):
    given = [each.replace("{tmp}", str(tmp_path)) for each in arguments]
    done = in_process.run("mtbus_jax.export", command.main, given)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    text = " ".join(done.stderr.split())
    for word in words:
        assert word in text
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_exports(run, tmp_path, capsys):
    command.main([f"--run={run}", f"--out={tmp_path / 'out'}", "--formats=stablehlo", "--folds=1"])
    assert "largest difference" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "model.stablehlo",
        "model_card.md",
        "preprocessing.json",
    }


# The card and the facts beside the model.


def test_the_card_has_the_figures_of_the_summary_and_the_warnings(run, tmp_path):
    exported(run, tmp_path / "out")
    text = (tmp_path / "out" / "model_card.md").read_text()
    summary = json.loads((run / "summary.json").read_text())
    raw = summary["results"]["raw"]["figures"]["dsc_average"]
    refined = summary["results"]["refined"]["figures"]["dsc_average"]
    cells = [f"{each['mean']:.3f} ± {each['sd']:.3f}" for each in (raw, refined)]
    assert f"| DSC average | {cells[0]} | {cells[1]} |" in text
    splits = json.loads((run / "splits.json").read_text())
    for fold in (0, 1):
        counts = [len(splits["folds"][fold][part]) for part in ("train", "validation", "test")]
        assert f"| {fold} | {counts[0]} | {counts[1]} | {counts[2]} |" in text
    for words in (
        "not a medical device",
        "best weights of folds 0, 1",
        "has no figure of its own",
        "No recipe is published",
        "10.1016/j.cmpb.2024.108540",
        "6 images of phantom",
    ):
        assert words in text, words
    assert "Leak" not in text

    exported(run, tmp_path / "out", folds=(1,))
    text = (tmp_path / "out" / "model_card.md").read_text()
    assert f"| DSC average | {raw['folds'][1]:.3f} | {refined['folds'][1]:.3f} |" in text
    assert "has no figure of its own" not in text


def test_the_card_tells_leaks_departures_and_unseen_classes(run):
    original = source.load(run, (0,))
    original.config.data.name = "curated_busi"
    original.config.data.classes = ("benign", "malignant")
    result = json.loads((run / "summary.json").read_text())
    result |= {
        "leaking_test_images": 3,
        "departures_from_published_recipe": ["train.epochs = 2 instead of 200"],
    }
    text = card.model_card(
        original,
        [formats.Written("model.onnx", 3e-6, {"onnx": "1.2"})],
        about=card.about(original, result, json.loads((run / "splits.json").read_text())),
        environment={},
        checked_on="images",
    )
    for words in (
        "3 of 24 test images share a patient",
        "train.epochs = 2 instead of 200",
        "never seen the class normal",
        "Al-Dhabyani",
        "belong to their publishers",
        "| `model.onnx` | 3.0e-06 | onnx 1.2 |",
    ):
        assert words in text, words


def test_the_card_counts_devices(run):
    original = source.load(run, (0,))
    text = card.model_card(
        original,
        [],
        about=source.about(run, original),
        environment={"devices": ["gpu: NVIDIA H200", "gpu: NVIDIA H200", "cpu: cpu"]},
        checked_on="images",
    )
    assert "on 2 × NVIDIA H200, CPU; exported" in text


def test_the_facts_say_what_the_library_does(run, tmp_path):
    exported(run, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "preprocessing.json").read_text())
    assert facts["image_size"] == {"height": tiny.HEIGHT, "width": tiny.WIDTH}
    assert facts["class_names"] == NAMES
    assert facts["mask_threshold"] == types.MASK_THRESHOLD
    assert facts["input"]["shape"] == ["batch", tiny.HEIGHT, tiny.WIDTH, 1]
    assert facts["folds"] == [0, 1]
    assert facts["resize"] == "nearest"
    assert facts["refine"] and "empty the mask" in facts["refining"]
    assert "nearest neighbour" in facts["steps"][2]


def test_the_facts_of_a_run_that_does_not_refine(own_run, tmp_path):
    config = json.loads((own_run / "config.json").read_text())
    config["eval"]["refine"] = False
    (own_run / "config.json").write_text(json.dumps(config))
    exported(own_run, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "preprocessing.json").read_text())
    assert (facts["refine"], facts["refining"]) == (False, "none: the run does not refine")


def test_a_run_that_enhances_its_pictures_takes_along_what_does_it(own_run, tmp_path):
    path = own_run / "config.json"
    content = json.loads(path.read_text())
    content["data"] |= {"enhancement": "multi_peak", "arrays_file": ""}
    path.write_text(json.dumps(content))
    exported(own_run, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "preprocessing.json").read_text())
    assert facts["enhancement"] == "multi_peak"
    assert "histogram equalisation" in facts["steps"][2]
    assert "nearest neighbour" in facts["steps"][3]
    # It needs nothing of the library.
    program = "import sys; sys.path.insert(0, '.'); import enhancement, numpy; " + (
        "assert enhancement.enhance(numpy.eye(9, dtype='u1'), method='multi_peak').max() == 255; "
        "assert not [m for m in sys.modules if m.startswith(('mtbus', 'jax'))]"
    )
    subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path / "out", check=True)


def test_a_bundle_is_exported_with_its_own_card(run, tmp_path):
    bundle.make_bundle(run, tmp_path / "bundle")
    out = tmp_path / "out"
    command.export_run(tmp_path / "bundle", out, wanted=STABLEHLO)
    card_of_bundle = (tmp_path / "bundle" / "model_card.md").read_text()
    text = (out / "model_card.md").read_text()
    assert text.rstrip().endswith(card_of_bundle[card_of_bundle.index("## Data") :].rstrip())
    assert "| `model.stablehlo` |" in text and "unknown" not in text
    (tmp_path / "bundle" / "model_card.md").write_text("mine")
    with pytest.raises(UserError, match="not the card of a bundle"):
        command.export_run(tmp_path / "bundle", tmp_path / "other", wanted=STABLEHLO)
    assert not (tmp_path / "other").exists()
