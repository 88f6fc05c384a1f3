"""The page reads, resizes, joins and measures as the library does; in a browser, without a network.

Neither npm nor the converter is needed here.
"""

import dataclasses
import json

import dicom_dummies
import numpy as np
import odd_pictures
import pytest
import web_pages
from chromium import launched
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mtbus_jax import augment, images, refine
from mtbus_jax.evaluation import trust
from mtbus_jax.images import preprocess
from mtbus_jax.images.enhancement import equalise_multi_peak
from mtbus_jax.predict import resample

pytestmark = pytest.mark.browser
# Decoders of JPEG may round otherwise: grey values of 255.
DECODERS = 2


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """A page whose functions can be called."""
    path = web_pages.bare_page(tmp_path_factory.mktemp("page") / "page.html")
    with launched() as browser:
        yield web_pages.opened(browser, path, [])


def expected(path):
    """Frames by the library, and why it stopped."""
    frames = []
    try:
        for frame in images.read(path):
            frames.append(frame)
    except images.ReadError as error:
        return frames, error
    return frames, None


def check_file(tab, path, tolerance=0):
    """Every frame, note and spacing of a file; returns the largest difference of a grey value."""
    frames, error = expected(path)
    assert error is None, error
    found = web_pages.read(tab, path)
    assert found["reason"] is None, (path.name, found["reason"])
    assert len(found["frames"]) == len(frames)
    largest = 0
    for mine, theirs in zip(found["frames"], frames, strict=True):
        assert mine["grey"].shape == theirs.grey.shape, path.name
        difference = np.abs(mine["grey"].astype(int) - theirs.grey).max()
        assert difference <= tolerance, path.name
        largest = max(largest, difference)
        assert (mine["number"], mine["count"]) == (theirs.number, theirs.count)
        assert tuple(mine["notes"]) == theirs.notes, path.name
        spacing = mine["spacing"]
        if theirs.spacing is None:
            assert spacing is None
        else:
            pair = [theirs.spacing.row_mm, theirs.spacing.col_mm]
            assert [spacing["row"], spacing["col"]] == pytest.approx(pair)
            assert [tuple(box) for box in spacing["regions"]] == list(theirs.spacing.regions)
    return largest


def test_png_files_are_read_to_the_byte(tab, tmp_path):
    odd_pictures.write_png_files(tmp_path)
    paths = sorted(tmp_path.iterdir())
    assert len(paths) > 20
    for path in paths:
        check_file(tab, path)


def test_jpeg_files_differ_by_what_decoders_differ(tab, tmp_path):
    """Turned by their tag, once; ``-s`` prints the largest difference of each, which was 0."""
    odd_pictures.write_jpeg_files(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        print(f"{path.name}: {check_file(tab, path, tolerance=DECODERS)}")


@pytest.mark.parametrize(
    ("write", "fewest"),
    [("write_dicom_files", 20), ("write_rare_dicom_files", 6)],
    ids=["common", "rare"],
)
def test_dicom_files_are_read_to_the_byte(tab, tmp_path, write, fewest):
    """But for compressed ones, of which ``-s`` prints how far two decoders differ."""
    pytest.importorskip("pydicom", reason="NOT TESTED without mtbus_jax[dicom]")
    getattr(odd_pictures, write)(tmp_path)
    paths = sorted(tmp_path.iterdir())
    assert len(paths) > fewest
    for path in paths:
        compressed = "jpeg" in path.name
        largest = check_file(tab, path, tolerance=DECODERS if compressed else 0)
        if compressed:
            print(f"{path.name}: {largest}")


def test_broken_files_are_refused_where_the_library_does(tab, tmp_path):
    odd_pictures.write_broken_files(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        error = expected(path)[1]
        assert error is not None, path.name
        found = web_pages.read(tab, path)
        assert found["frames"] == [], path.name
        assert found["reason"], path.name
        assert not found["reason"].startswith("bug"), found["reason"]
    # Where neither library nor browser adds words of its own, the words are the same.
    for name in ("empty.png", "too small.png", "rows missing.png", "cut with an end.jpg"):
        reason = expected(tmp_path / name)[1].reason
        assert web_pages.read(tab, tmp_path / name)["reason"] == reason


def test_a_segmentation_is_refused_as_by_the_library(tab, tmp_path):
    pytest.importorskip("pydicom", reason="NOT TESTED without mtbus_jax[dicom]")
    path = tmp_path / "seg.dcm"
    pixels = np.full((1, 32, 48), 200, np.uint8)
    dicom_dummies.write(path, pixels, SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
    reason = expected(path)[1].reason
    assert reason == "is a segmentation, no picture"
    assert web_pages.read(tab, path)["reason"] == reason


def test_a_film_is_read_up_to_where_it_is_cut(tab, tmp_path):
    pytest.importorskip("pydicom", reason="NOT TESTED without mtbus_jax[dicom]")
    odd_pictures.write_dicom_files(tmp_path)
    path = tmp_path / "frames.dcm"
    path.write_bytes(path.read_bytes()[: -3 * odd_pictures.HEIGHT * odd_pictures.WIDTH])
    found = web_pages.read(tab, path)
    assert len(found["frames"]) == 8
    assert found["number"] == 9
    assert found["reason"] == "holds 8 of the 11 frames that it announces"


@pytest.mark.parametrize("method", preprocess.RESIZES)
@pytest.mark.parametrize("size", [(16, 32), (128, 128), (40, 33)])
def test_pictures_are_resized_to_the_byte(tab, method, size):
    rng = np.random.default_rng(0)
    for shape in ((585, 683), (130, 1099), (33, 71), (16, 32), (20, 300), (128, 128)):
        grey = rng.integers(0, 256, shape).astype(np.uint8)
        grey[: shape[0] // 3] = 255
        found = tab.evaluate(
            """([text, from, to, method]) => {
              const grey = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
              return Array.from(resized(grey, from, to, method));
            }""",
            [web_pages.as_text(grey.tobytes()), shape, size, method],
        )
        wanted = preprocess.resize(grey, *size, method=method)
        np.testing.assert_array_equal(np.reshape(found, size), wanted)


@pytest.mark.parametrize("shape", [(585, 683), (33, 71), (1, 40), (5, 3)])
def test_pictures_are_enhanced_to_the_byte(tab, shape):
    rng = np.random.default_rng(0)
    means = np.where(np.arange(shape[1]) % 40 < 20, 60, 180)
    flat = np.full(shape, 9, np.uint8)
    for grey in (np.clip(rng.normal(means, 25, shape), 0, 255).astype(np.uint8), flat):
        found = tab.evaluate(
            """([text, size]) => {
              const grey = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
              return Array.from(enhanced(grey, size, "multi_peak"));
            }""",
            [web_pages.as_text(grey.tobytes()), shape],
        )
        np.testing.assert_array_equal(np.reshape(found, shape), equalise_multi_peak(grey))


@pytest.mark.parametrize("shape", [(23, 37), (16, 32), (9, 70), (200, 31), (333, 401)])
def test_probabilities_are_enlarged_to_the_last_digit(tab, shape):
    probability = np.random.default_rng(1).uniform(size=(16, 32)).astype(np.float32)
    found = tab.evaluate(
        "([values, from, to]) => Array.from(enlarged(Float32Array.from(values), from, to))",
        [probability.ravel().tolist(), (16, 32), shape],
    )
    wanted = resample.to_original(probability, *shape)
    found = np.reshape(np.array(found, np.float32), shape)
    np.testing.assert_allclose(found, wanted, atol=1.2e-7)
    np.testing.assert_array_equal(found > 0.5, wanted > 0.5)


@pytest.mark.parametrize("version", range(8))
def test_versions_are_turned_and_turned_back(tab, version):
    height, width = (6, 6) if version > 3 else (4, 6)
    values = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    turned = augment.symmetry(values[..., None], version)[..., 0]
    found = tab.evaluate(
        """([values, height, width, version]) => {
          const there = transformed(Uint8Array.from(values), height, width, version);
          return [Array.from(there), Array.from(undone(there, height, width, version))];
        }""",
        [values.ravel().tolist(), height, width, version],
    )
    assert found[0] == turned.ravel().tolist()
    assert found[1] == values.ravel().tolist()


def make_trust(rng):
    """Trust of two folds, each with numbers of its own."""

    def logistic(signs):
        return trust.Logistic(float(rng.normal() - 2), tuple(rng.uniform(0, 2, signs).tolist()))

    return {
        fold: trust.FoldTrust(
            temperature=float(rng.uniform(0.5, 2)),
            conformal_threshold=float(rng.uniform(0.1, 0.4)),
            presence=trust.Presence(logistic(2), 0.8),
            class_error=logistic(5),
            mask_error=logistic(5),
            warning_threshold=float(rng.uniform(0.4, 0.9)),
            validation_images=9,
        )
        for fold in (0, 3)
    }


ANSWER = """([members, facts]) => {
  for (const member of members) {
    if (member.probability) member.probability = Float32Array.from(member.probability);
  }
  const found = assess(members, facts);
  const answer = refine(found, facts);
  const judged = facts.trust ? judge(found, answer, facts, [0, 3]) : null;
  return { classProbability: found.classProbability, predictionSet: found.predictionSet,
           coarse: answer.coarse && Array.from(answer.coarse), classId: answer.classId, judged };
}"""


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("tasks", [("seg", "cls"), ("seg",), ("cls",)])
@pytest.mark.parametrize("normal", [2, None])
def test_members_are_joined_refined_and_judged_as_in_the_library(tab, calibrated, tasks, normal):
    rng = np.random.default_rng(4)
    fitted = make_trust(rng) if calibrated else None
    facts = web_pages.FACTS | {"normal": normal, "imageSize": [5, 7]}
    if calibrated:
        facts["trust"] = {str(fold): dataclasses.asdict(each) for fold, each in fitted.items()}
    warnings = set()
    for trial in range(12):
        # Some masks empty, some classes normal.
        offset = (trial % 3 - 1) * 0.4
        maps = np.clip(rng.uniform(size=(4, 1, 5, 7)) + offset, 0, 1).astype(np.float32)
        logits = rng.normal(0, 2, (4, 1, 3)).astype(np.float32)
        folds = [0, 0, 3, 3]
        members = [
            {
                "fold": fold,
                "probability": maps[i, 0].ravel().tolist() if "seg" in tasks else None,
                # But for a constant, as the page has them.
                "logits": (logits[i, 0] + i).tolist() if "cls" in tasks else None,
            }
            for i, fold in enumerate(folds)
        ]
        found = tab.evaluate(ANSWER, [members, json.loads(json.dumps(facts))])
        given = maps if "seg" in tasks else None, logits if "cls" in tasks else None
        if calibrated:
            wanted = trust.assess(*given, fitted, [0, 3], normal=normal)
        else:
            mean = None if given[0] is None else maps.mean(axis=0)
            power = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
            wanted = trust.Assessment(mean, None if given[1] is None else power.mean(axis=0))
        mask = None if given[0] is None else wanted.probability > 0.5
        code = None if given[1] is None else np.argmax(wanted.class_probability, axis=-1)
        if len(tasks) == 2:
            mask, code = refine.refine(mask, wanted.class_probability, normal=normal)
            mask, code = np.asarray(mask), np.asarray(code)
        if mask is not None:
            assert found["coarse"] == mask.astype(int).ravel().tolist()
        if code is not None:
            assert found["classId"] == code[0]
            np.testing.assert_allclose(
                found["classProbability"], wanted.class_probability[0], atol=1e-6
            )
        if calibrated:
            if code is not None:
                assert found["predictionSet"] == wanted.prediction_set[0].tolist()
            judged = trust.judge(wanted, mask, code, fitted, [0, 3])
            assert found["judged"]["uncertainty"] == pytest.approx(judged.uncertainty[0], abs=1e-6)
            assert found["judged"]["warning"] == judged.warning[0]
            warnings.add(bool(judged.warning[0]))
    assert not calibrated or len(tasks) < 2 or warnings == {True, False}


ADD = """async outputs => {
  const picture = { grey: new Uint8Array(20 * 30).fill(9), height: 20, width: 30, notes: ["a note"],
                    number: null, count: 1, spacing: { row: 0.5, col: 0.1, regions: [] } };
  const run = async () => Object.fromEntries(
    Object.entries(outputs).map(([name, data]) => [name, { data, dispose() {} }]));
  const network = { runtime: { Tensor: class {} }, members: [{ run }] };
  await addResult("one.two.png", picture, await predict(network, facts, picture, [0]));
  return results[0].row;
}"""
CLASSES = {"class_probability": [0.2, 0.7, 0.1]}
TUMOUR = {"tumour_probability": [0.9] * 5 + [0.1] * 507}


@pytest.mark.parametrize(
    ("tasks", "outputs", "said"),
    [
        (("cls",), CLASSES, ["malignant", "not calibrated", "Picture"]),
        (("seg",), TUMOUR, ["lesion of", "mm²", "Outline"]),
        (("seg", "cls"), TUMOUR | CLASSES, ["malignant", "lesion of", "Outline"]),
    ],
)
def test_a_single_task_shows_what_it_has(tab, tmp_path, tasks, outputs, said):
    names = web_pages.FACTS["classNames"] if "cls" in tasks else []
    path = web_pages.bare_page(tmp_path / "page.html", tasks=list(tasks), classNames=names)
    other = web_pages.opened(tab.context.browser, path, [])
    row = other.evaluate(ADD, outputs)
    assert row["name"] == "one.two"
    assert ("class" in row) == ("cls" in tasks)
    assert ("area_px" in row) == ("seg" in tasks)
    if "seg" in tasks:
        assert row["area_mm2"] == pytest.approx(row["area_px"] * 0.05, abs=1e-3)
    card = other.locator("article").inner_text()
    for words in (*said, "a note", "Research software, not a medical device."):
        assert words in card
    assert other.locator("canvas").count() == 1 + ("seg" in tasks)
    heads = other.locator("#head th").all_text_contents()
    assert len(heads) == other.locator("#rows tr > *").count()
    assert ("Area, px" in heads) == ("seg" in tasks)
    assert other.locator("#mask-tools").is_visible() == ("seg" in tasks)
    other.context.close()


def test_orientation_in_text_as_imagemagick_keeps_it(tab, tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (40, 64)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = exif.tobytes().hex()
    lines = [raw[i : i + 72] for i in range(0, len(raw), 72)]
    text = "\n".join(["", "exif", f"{len(raw) // 2:8d}", *lines, ""])
    for packed in (False, True):
        info = PngInfo()
        info.add_text("Raw profile type exif", text, zip=packed)
        Image.fromarray(grey).save(tmp_path / "turned.png", pnginfo=info)
        check_file(tab, tmp_path / "turned.png")


def test_tables_of_signed_pixels_where_types_are_left_out(tab, tmp_path):
    import pydicom

    pixels = np.random.default_rng(1).integers(-100, 100, (1, 32, 48)).astype(np.int16)
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "SS", [200, -100, 8])
    item.add_new("LUTData", "OW", np.arange(200, dtype=np.uint16).tobytes())
    elements = {"PixelRepresentation": 1, "VOILUTSequence": [item]}
    for syntax in (pydicom.uid.ImplicitVRLittleEndian, pydicom.uid.ExplicitVRLittleEndian):
        path = tmp_path / "table.dcm"
        dicom_dummies.write(path, pixels.view(np.uint16), syntax=syntax, **elements)
        check_file(tab, path)
