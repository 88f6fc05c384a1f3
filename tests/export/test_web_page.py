"""The whole page: pictures through `mtbus predict` and through a browser give the same."""

import base64
import contextlib
import csv
import io
import json
import pathlib
import zipfile

import numpy as np
import odd_pictures
import pytest
import tiny
import web_pages
from chromium import PHONE, launched, take_screenshot, wait_until
from PIL import Image

from mtbus_jax import crossval, data
from mtbus_jax.errors import UserError
from mtbus_jax.export import command
from mtbus_jax.export.web import runtime
from mtbus_jax.predict import command as predict_command

# Training and converting the run takes over half a minute.
pytestmark = [pytest.mark.browser, pytest.mark.long]


@pytest.fixture(scope="module")
def chromium():
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def made(onnx_python, tmp_path_factory):
    """(run folder, its page): two folds of a small U-Net, with trust and flipped versions."""
    try:
        runtime.load()
    except UserError as error:
        pytest.skip(f"NOT TESTED with a runtime: {error}")
    folder = tmp_path_factory.mktemp("web")
    data.save_arrays(tiny.make_cases(), folder / "cases.npz")
    config = tiny.make_config(epochs=6)
    config.log.tensorboard, config.data.arrays_file = False, str(folder / "cases.npz")
    config.data.folds, config.model = (0, 1), {"name": "unet", "width": 2}
    config.name = "<b>small</b> & tiny"
    crossval.train_and_evaluate(config, folder / "run")
    command.main([f"--run={folder / 'run'}", "--web", f"--out={folder / 'page.html'}",
                  f"--onnx_python={onnx_python}"])  # fmt: skip
    return folder / "run", folder / "page.html"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of odd pictures, broken ones among them."""
    folder = tmp_path_factory.mktemp("pictures")
    odd_pictures.write_png_files(folder)
    odd_pictures.write_jpeg_files(folder)
    with contextlib.suppress(ModuleNotFoundError):  # without pydicom, without DICOM
        odd_pictures.write_dicom_files(folder)
    odd_pictures.write_broken_files(folder)
    return folder


class Results:
    """What was saved from a page."""

    def __init__(self, tab, folder):
        with tab.expect_download() as table:
            tab.get_by_role("button", name="Save the table (CSV)").click()
        table.value.save_as(folder / "table.csv")
        with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
            self.rows = list(csv.DictReader(file))
        with tab.expect_download() as masks:
            tab.get_by_role("button", name="Save all masks (ZIP of PNG)").click()
        masks.value.save_as(folder / "masks.zip")
        self._masks = zipfile.ZipFile(folder / "masks.zip")
        assert self._masks.testzip() is None

    def mask(self, row):
        return np.asarray(Image.open(io.BytesIO(self._masks.read(row["mask"]))))


def open_page(chromium, path, **options):
    """A tab with a started network, and the list of what it asks for."""
    requests = []
    tab = web_pages.opened(chromium, path, requests, **options)
    wait_until(tab, "document.getElementById('status').textContent === 'Ready.'")
    return tab, requests


def give(tab, paths):
    """Chooses files and waits for the end."""
    tab.get_by_label("Choose breast-ultrasound pictures").set_input_files([str(p) for p in paths])
    wait_until(tab, "/ done/.test(document.getElementById('status').textContent)")


def predicted(run, folder, out, *flags):
    """Rows of `mtbus predict` by file and frame, and the files it could not read."""
    predict_command.main([f"--run={run}", f"--input={folder}", f"--out={out}", *flags])
    tables = []
    for name in ("predictions.csv", "failures.csv"):
        with (out / name).open(encoding="utf-8", newline="") as file:
            tables.append(list(csv.DictReader(file)))
    return {(r["file"], r["frame"]): r for r in tables[0]}, {
        pathlib.Path(row["file"]).name for row in tables[1]
    }


def dice(first, second):
    total = (first > 0).sum() + (second > 0).sum()
    return 2 * ((first > 0) & (second > 0)).sum() / total if total else 1.0


EXACT = (
    *("height", "width", "class", "prediction_set", "parts"),
    *("refined", "class_unrefined", "warning", "notes"),
)
NAMES = ("benign", "malignant", "normal")
CLOSE = {"uncertainty": 1e-3} | {f"probability_{name}": 1e-3 for name in NAMES}
MM = ("area_mm2", "bbox_height_mm", "bbox_width_mm", "spacing_row_mm", "spacing_col_mm")


def test_a_folder_of_odd_pictures_gives_what_predict_gives(chromium, made, pictures, tmp_path):
    run, path = made
    wanted, unreadable = predicted(run, pictures, tmp_path / "out")
    tab, requests = open_page(chromium, path)
    files = sorted(each for each in pictures.iterdir())
    give(tab, files)
    found = Results(tab, tmp_path)
    assert len(found.rows) == len(wanted) > 50
    masks = set()
    for row in found.rows:
        other = wanted[row["file"], row["frame"]]
        for column in EXACT:
            assert row[column] == other[column], (row["file"], column)
        for column, tolerance in CLOSE.items():
            assert abs(float(row[column]) - float(other[column])) <= tolerance, row["file"]
        mask, expected = found.mask(row), np.asarray(Image.open(tmp_path / "out" / other["mask"]))
        assert mask.shape == expected.shape == (int(row["height"]), int(row["width"]))
        assert set(np.unique(mask)) <= {0, 255}
        assert dice(mask, expected) >= 0.999, row["file"]
        for column in MM:
            assert (row[column] == "") == (other[column] == ""), (row["file"], column)
            if row[column]:
                assert float(row[column]) == pytest.approx(float(other[column]), rel=2e-3)
        masks.add(bool(mask.any()))
    assert masks == {True, False}  # else little was compared
    said = tab.locator("#failed li").all_text_contents()
    assert {line.partition(":")[0] for line in said} == unreadable
    assert len(unreadable) >= 8
    assert "could not be read" in tab.get_by_role("status").text_content()
    # Itself, and the module that it holds; no element or script asked for more.
    assert [url for url in requests if not url.startswith("blob:")] == [path.as_uri()]


def test_a_few_pictures_on_a_phone(chromium, made, tmp_path):
    run, path = made
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(odd_pictures.grey(150, 210)).save(folder / "one.png")
    Image.fromarray(odd_pictures.grey(70, 60)).save(folder / "=two.png")
    (folder / "<img src=x onerror=alert(1)>.png").write_bytes(b"broken")
    tab, requests = open_page(chromium, path, viewport=PHONE)
    give(tab, sorted(folder.iterdir()))
    assert tab.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    take_screenshot(tab, tmp_path / "phone.png")
    assert tab.locator("#failed li").text_content().startswith("<img src=x onerror=alert(1)>.png: ")
    assert tab.locator("img").count() == 0
    assert tab.get_by_role("status").text_content() == "2 pictures done; 1 file could not be read."
    assert tab.locator("h1").text_content() == "<b>small</b> & tiny: breast-ultrasound pictures"
    found = Results(tab, tmp_path)
    assert [row["name"] for row in found.rows] == ["'=two", "one"]
    assert found.rows[0]["mask"] == "masks/=two.png" or found.rows[0]["mask"] == "'masks/=two.png"
    wanted, _ = predicted(run, folder, tmp_path / "out")
    for row in found.rows:
        name = row["file"].removeprefix("'")
        other = next(r for (file, _), r in wanted.items() if file.removeprefix("'") == name)
        assert float(row["uncertainty"]) == pytest.approx(float(other["uncertainty"]), abs=1e-3)
    assert [url for url in requests if not url.startswith("blob:")] == [path.as_uri()]


def test_one_version_of_each_picture_is_enough_where_it_is_asked_for(chromium, made, tmp_path):
    run, path = made
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(odd_pictures.grey()).save(folder / "one.png")
    tab, _ = open_page(chromium, path)
    answers = []
    for flag in ((), ("--no-tta",)):
        wanted, _ = predicted(run, folder, tmp_path / f"out{len(flag)}", *flag)
        tab.get_by_role("checkbox").set_checked(not flag)
        give(tab, folder.iterdir())
        row, (other,) = Results(tab, tmp_path).rows[-1], wanted.values()
        answers.append([float(row[column]) for column in CLOSE])
        for column, tolerance in CLOSE.items():
            assert abs(float(row[column]) - float(other[column])) <= tolerance
    assert answers[0] != answers[1]
    assert [row["name"] for row in Results(tab, tmp_path).rows] == ["one", "one (2)"]


def test_keyboard_and_screen_reader(chromium, made, tmp_path):
    _, path = made
    Image.fromarray(odd_pictures.grey(150, 210)).save(tmp_path / "one.png")
    tab, _ = open_page(chromium, path)
    give(tab, [tmp_path / "one.png"])
    # Every control is reached by Tab, in the order of the page.
    tab.evaluate("document.body.focus()")
    reached = []
    for _ in range(12):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.id || document.activeElement.tagName"))
    order = ["A", "files", "versions", "save-table", "save-masks", "opacity"]
    assert [each for each in reached if each in order][: len(order)] == order
    # Each control has a name, each picture a description.
    for role in ("button", "checkbox", "slider"):
        for control in tab.get_by_role(role).all():
            assert control.evaluate(
                "e => e.ariaLabel || e.textContent.trim() || e.labels[0].textContent.trim()"
            )
    labels = [each.get_attribute("aria-label") for each in tab.locator("canvas").all()]
    assert labels[0] == "Picture one"
    assert labels[1].startswith("Outline in one: ") and "lesion" in labels[1]
    # The answer is announced, no cell is silent, and no probability goes by its class alone.
    (status,) = tab.get_by_role("status").all_text_contents()
    said = tab.locator(".answer").text_content()
    assert status == f"1 picture done: one, {said}, {labels[1].removeprefix('Outline in one: ')}."
    assert all(cell.strip("– ") for cell in tab.locator("#rows td").all_text_contents())
    heads = tab.get_by_role("columnheader").all_text_contents()
    assert heads[1:5] == ["Class", *(f"{name}, probability" for name in NAMES)]
    tab.get_by_label("Opacity of the mask").fill("40")
    assert tab.get_by_label("Opacity of the mask").get_attribute("aria-valuetext") == "40 %"
    assert tab.locator("#rows th[scope=row]").text_content() == "one"
    tab.get_by_role("button", name="Save the mask of one as PNG").focus()
    with tab.expect_download() as saved:
        tab.keyboard.press("Enter")
    assert saved.value.suggested_filename == "one.png"
    assert tab.get_by_text("Research software, not a medical device").count() >= 4


def test_the_slider_tints_the_mask_and_nothing_else(chromium, made, tmp_path):
    _, path = made
    Image.fromarray(odd_pictures.grey(150, 210)).save(tmp_path / "one.png")
    tab, _ = open_page(chromium, path)
    give(tab, [tmp_path / "one.png"])
    mask = Results(tab, tmp_path)
    inside = mask.mask(mask.rows[0]) > 0
    assert 0 < inside.mean() < 1

    def drawn(opacity):
        tab.get_by_label("Opacity of the mask").fill(str(opacity))
        texts = tab.evaluate(
            """() => new Promise(done => requestAnimationFrame(() => setTimeout(done))).then(() =>
              [...document.querySelectorAll("canvas")].map(canvas => {
                const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                return btoa(latin1(new Uint8Array(all.data.buffer)));
              }))"""
        )
        pixels = [np.frombuffer(base64.b64decode(text), np.uint8) for text in texts]
        return [np.reshape(each, (150, 210, 4)) for each in pixels]

    (bare, none), (_, full) = drawn(0), drawn(100)
    np.testing.assert_array_equal(bare[..., 0], odd_pictures.grey(150, 210))
    for picture in (none, full):
        np.testing.assert_array_equal(picture[~inside], bare[~inside])
    assert np.ptp(full[inside], axis=0).tolist() == [0, 0, 0, 0]
    changed = (none != bare).any(axis=-1)
    assert 0 < changed.sum() < inside.sum()  # the outline stays
    assert tab.locator("#opacity-text").text_content() == "100 %"


def test_pictures_may_be_dropped(chromium, made):
    _, path = made
    tab, _ = open_page(chromium, path)
    buffer = io.BytesIO()
    Image.fromarray(odd_pictures.grey()).save(buffer, format="PNG")
    tab.evaluate(
        """text => {
          const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], "dropped.png"));
          document.querySelector("main").dispatchEvent(
            new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
        }""",
        web_pages.as_text(buffer.getvalue()),
    )
    wait_until(tab, "/ done/.test(document.getElementById('status').textContent)")
    assert tab.locator("#cards h3").text_content() == "dropped"


def test_the_card_is_in_the_page(chromium, made):
    run, path = made
    tab, _ = open_page(chromium, path)
    tab.get_by_text("Data, cross-validated figures, limits, licence").click()
    text = tab.locator(".card-text").inner_text()
    figure = json.loads((run / "summary.json").read_text())["results"]["raw"]["figures"]
    figure = figure["dsc_average"]
    assert f"{figure['mean']:.3f} ± {figure['sd']:.3f}" in text
    for words in ("Not for decisions about patients", "16-bit integers", "Apache License 2.0"):
        assert words in text
    tab.get_by_text("Licence of the runtime").click()
    assert tab.get_by_text("Copyright (c) Microsoft Corporation").is_visible()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("delete window.DecompressionStream", "lacks DecompressionStream"),
        ("delete window.WebAssembly", "lacks WebAssembly with SIMD"),
        ("WebAssembly.validate = () => false", "lacks WebAssembly with SIMD"),
        ("URL.createObjectURL = () => 'blob:null/none'", "cannot be started in this browser"),
    ],
)
def test_a_browser_that_lacks_something_is_told(chromium, made, script, words):
    context = chromium.new_context(offline=True)
    context.add_init_script(script)
    tab = context.new_page()
    tab.goto(made[1].as_uri())
    wait_until(tab, "!document.getElementById('failure').hidden")
    assert words in tab.get_by_role("alert").text_content()
    context.close()


def test_without_javascript_the_page_says_so(chromium, made):
    tab = web_pages.opened(chromium, made[1], [], java_script_enabled=False)
    assert tab.get_by_text("This page needs JavaScript").is_visible()
    assert tab.locator("#work").is_hidden()


def test_the_policy_stops_requests(chromium, made):
    tab, _ = open_page(chromium, made[1])
    assert tab.evaluate(
        "fetch('http://127.0.0.1:9/').then(() => 'sent', error => error.name)"
    ) == "TypeError"  # fmt: skip
    blocked = tab.evaluate(
        """() => new Promise(done => {
          document.addEventListener("securitypolicyviolation", e => done(e.effectiveDirective));
          fetch("http://127.0.0.1:9/").catch(() => {});
        })"""
    )
    assert blocked == "connect-src"


def test_an_earlier_page_stays_where_export_fails(made, onnx_python, tmp_path, monkeypatch):
    from mtbus_jax.export.web import contents

    path = tmp_path / "page.html"
    path.write_text("earlier")
    monkeypatch.setitem(contents.TOLERANCES, "float32", -1.0)
    with pytest.raises(UserError, match="do not equal the original"):
        command.main([f"--run={made[0]}", "--web", f"--out={path}", "--weights=float32",
                      f"--onnx_python={onnx_python}"])  # fmt: skip
    assert [each.name for each in pathlib.Path(tmp_path).iterdir()] == ["page.html"]
    assert path.read_text() == "earlier"
