"""The report in a real browser: it opens from disk, moves, and asks for nothing from elsewhere."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
import report_runs
import tiny
from chromium import DESKTOP, PATIENCE, PHONE, launched, take_screenshot, wait_until

from mtbus_jax import report
from mtbus_jax.evaluation import stored_predictions
from mtbus_jax.report import compare, compare_page
from mtbus_jax.training import run_folder

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium():
    """A headless browser that is offline."""
    with launched() as browser:
        yield browser


@pytest.fixture
def visit(chromium):
    """Opens a file; fails the test if it says anything on the console or asks for anything."""
    contexts, problems = [], []

    def open_page(path, fragment="", **options):
        context = chromium.new_context(**{"viewport": DESKTOP, "offline": True} | options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.on("console", lambda message: complain(message.type, message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: record(request.url, path))
        page.goto(path.as_uri() + fragment)
        return page

    def complain(kind, text):
        # The tests read canvases back, which Chromium would rather know beforehand.
        if "willReadFrequently" not in text:
            problems.append(f"{kind}: {text}")

    def record(url, path):
        if not url.startswith(("data:", path.as_uri())):
            problems.append(f"request: {url}")

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(report, run folder, dataset) of a small run."""
    workdir = tmp_path_factory.mktemp("runs") / "small"
    cases = report_runs.write_run(workdir)
    return report.write_report(workdir, cases), workdir, cases


def rows_of(workdir):
    tested = [pd.read_csv(path) for path in sorted(workdir.glob("fold_*/cases.csv"))]
    trusted = pd.read_csv(workdir / "trust.csv", keep_default_na=False)
    kept = trusted[["uid", "uncertainty", "warning", "wrong", "correction"]]
    return pd.concat(tested).merge(kept, on="uid")


def listed(page):
    """Names of the rows in sight, from the top."""
    return page.evaluate(
        """() => [...document.querySelectorAll("#list [role=option]:not([hidden])")]
        .sort((a, b) => a.ariaPosInSet - b.ariaPosInSet)
        .map(row => row.querySelector(".name").textContent)"""
    )


def wait_for_case(page, uid):
    """Waits until the pictures of a case are painted."""
    wait_until(page, "uid => document.getElementById('viewer').dataset.painted === uid", uid)


def wait_for_count(page, text):
    wait_until(page, "text => document.getElementById('count').textContent === text", text)


def current(page):
    return page.locator("#case-name").text_content()


FILTERS = {
    "class": lambda rows: {
        "malignant": rows.label == "malignant",
        "normal": rows.label == "normal",
    },
    "predicted": lambda rows: {"benign": rows.refined_predicted == "benign"},
    "correct": lambda rows: {
        "right": ~rows.wrong,
        "wrong": rows.wrong,
        "class_right": rows.refined_predicted == rows.label,
        "class_wrong": rows.refined_predicted != rows.label,
        "mask_good": rows.refined_dice >= 0.5,
        "mask_poor": rows.refined_dice < 0.5,
    },
    "warning": lambda rows: {"yes": rows.warning, "no": ~rows.warning},
    "correction": lambda rows: {
        "any": rows.correction != "",
        "no": rows.correction == "",
        "emptied": rows.correction == "mask emptied",
        "renamed": rows.correction == "class set to normal",
    },
    "fold": lambda rows: {"0": rows.fold == 0, "1": rows.fold == 1},
}


def test_filters_choose_the_cases_they_say(visit, made):
    path, workdir, _ = made
    page, rows = visit(path), rows_of(workdir)
    for name, values in FILTERS.items():
        assert page.locator("#count").text_content() == f"{len(rows)} cases"
        for value, chosen in values(rows).items():
            page.select_option(f"[name={name}]", value)
            expected = rows.uid[chosen].tolist()
            assert 0 < len(expected) < len(rows), (name, value)
            assert page.locator("#count").text_content() == f"{len(expected)} of {len(rows)} cases"
            seen = listed(page)
            assert seen == expected[: len(seen)] and len(seen) >= min(len(expected), 5)
            assert page.locator("[role=option]").first.get_attribute("aria-setsize") == str(
                len(expected)
            )
        page.select_option(f"[name={name}]", "")


def test_filters_work_together_and_reset(visit, made):
    path, workdir, _ = made
    page, rows = visit(path), rows_of(workdir)
    page.select_option("[name=class]", "malignant")
    page.select_option("[name=warning]", "yes")
    warned = (rows.label == "malignant") & rows.warning
    # Without its last digit the name of one of them is also that of some without a warning.
    part = rows.uid[warned].iloc[-1][2:-1]
    page.fill("[name=find]", part.upper())
    chosen = warned & rows.uid.str.contains(part)
    assert 0 < chosen.sum() < min(warned.sum(), rows.uid.str.contains(part).sum())
    assert listed(page) == rows.uid[chosen].tolist()
    page.fill("[name=find]", "no such name")
    assert page.locator("#count").text_content() == "No case passes these filters."
    assert page.locator("#viewer").is_hidden() and listed(page) == []
    page.click("button[type=reset]")
    wait_for_count(page, "64 cases")
    assert page.locator("#viewer").is_visible()
    assert listed(page)[0] == rows.uid[0]


def test_sorting_begins_with_what_was_asked_for(visit, made):
    path, workdir, _ = made
    page, rows = visit(path), rows_of(workdir)
    for value, column, ascending in (
        ("dice", "refined_dice", True),
        ("-dice", "refined_dice", False),
        ("uncertainty", "uncertainty", True),
        ("-uncertainty", "uncertainty", False),
    ):
        before = current(page)
        page.keyboard.press("j")
        assert current(page) != before
        page.select_option("[name=sort]", value)
        order = rows[column].round(4).sort_values(ascending=ascending, kind="stable").index
        expected = rows.uid[order].tolist()
        seen = listed(page)
        assert seen == expected[: len(seen)] and len(seen) > 5
        assert current(page) == expected[0]
        page.locator("body").click(position={"x": 2, "y": 2})  # where letters are keys again


def panel_pixels(page, layer):
    """Colours at the middle of every pixel of the mask, ``(height, width, 3)`` uint8."""
    values = page.evaluate(
        """layer => {
          const canvas = document.querySelector(`[data-layer=${layer}] canvas`);
          const { width, height } = run;
          const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          const found = [];
          for (let row = 0; row < height; row++) for (let col = 0; col < width; col++) {
            const y = Math.floor((row + 0.5) * canvas.height / height);
            const x = Math.floor((col + 0.5) * canvas.width / width);
            const at = 4 * (y * canvas.width + x);
            found.push(data[at], data[at + 1], data[at + 2]);
          }
          return found;
        }""",
        layer,
    )
    return np.array(values, np.uint8).reshape(tiny.HEIGHT, tiny.WIDTH, 3)


def set_opacity(page, value):
    page.evaluate(
        """value => {
          const slider = document.getElementById("opacity");
          slider.value = value;
          slider.dispatchEvent(new Event("input", { bubbles: true }));
        }""",
        value,
    )


# Okabe and Ito's colours, as in the paper's figure.
TRUTH, FOUND, BESIDE, MISSED = (0, 158, 115), (0, 114, 178), (213, 94, 0), (240, 228, 66)


def test_panels_show_image_truth_prediction_and_refined_to_the_pixel(visit, made):
    path, workdir, cases = made
    rows = rows_of(workdir)
    kept = stored_predictions.read(run_folder.fold_dir(workdir, 0))
    predicted = dict(zip(kept.uid.tolist(), kept.probability > 0.5, strict=True))
    first = rows[rows.fold == 0]
    emptied = first.uid[(first.correction == "mask emptied") & (first.label != "normal")].iloc[0]
    plain = first.uid[(first.correction == "") & (first.refined_dice.between(0.5, 0.99))].iloc[0]
    page = visit(path)
    for uid in (emptied, plain):
        page.fill("[name=find]", uid)
        wait_for_case(page, uid)
        set_opacity(page, 100)
        case = cases.uid.tolist().index(uid)
        truth, mask = cases.mask[case, ..., 0] > 0, predicted[uid]
        assert truth.any() and mask.any() and (mask & ~truth).any() and (truth & ~mask).any()
        shown = panel_pixels(page, "truth")
        assert (shown[truth] == TRUTH).all() and not (shown[~truth] == TRUTH).all(-1).any()
        refined = mask & (uid != emptied)
        for layer, marked in (("prediction", mask), ("refined", refined)):
            shown = panel_pixels(page, layer)
            assert (shown[marked & truth] == FOUND).all()
            assert (shown[marked & ~truth] == BESIDE).all()
            assert (shown[truth & ~marked] == MISSED).all()
            outside = shown[~truth & ~marked]
            assert (np.ptp(outside.astype(int), axis=-1) == 0).all()  # grey
        grey = panel_pixels(page, "image").astype(float)
        assert np.ptp(grey, axis=-1).max() == 0
        error = np.abs(grey[..., 0] - cases.image[case, ..., 0]).mean()
        assert error < 20  # smoothed and JPEG; the images are mostly noise
        brightness = grey[truth, 0].mean() - grey[~truth, 0].mean()
        assert brightness > 100  # lesions are the bright boxes


def test_the_slider_changes_the_marks_and_only_them(visit, made):
    path, workdir, cases = made
    rows = rows_of(workdir)
    uid = rows.uid[rows.label == "malignant"].iloc[0]
    page = visit(path)
    page.fill("[name=find]", uid)
    wait_for_case(page, uid)
    truth = cases.mask[cases.uid.tolist().index(uid), ..., 0] > 0
    slider = page.get_by_role("slider", name="Opacity of the marks")
    image, before = panel_pixels(page, "image"), panel_pixels(page, "truth")
    slider.focus()
    page.keyboard.press("Home")
    assert page.locator("#opacity-text").text_content() == "0 %"
    assert page.locator("#opacity").get_attribute("aria-valuetext") == "0 %"
    np.testing.assert_array_equal(panel_pixels(page, "truth"), image)
    page.keyboard.press("ArrowRight")  # the slider moves, not the case
    assert current(page) == uid and page.locator("#opacity-text").text_content() == "5 %"
    page.keyboard.press("End")
    after = panel_pixels(page, "truth")
    assert (after[truth] != before[truth]).any(-1).all()
    np.testing.assert_array_equal(after[~truth], image[~truth])
    np.testing.assert_array_equal(panel_pixels(page, "image"), image)
    slider.click(position={"x": 8, "y": slider.bounding_box()["height"] / 2})
    assert int(slider.input_value()) < 20


def test_keys_go_to_the_next_and_the_previous_case(visit, made):
    path, workdir, _ = made
    page, uid = visit(path), rows_of(workdir).uid.tolist()
    places = [("j", 1), ("ArrowRight", 2), ("k", 1), ("ArrowLeft", 0), ("k", 0)]
    for key, place in places:
        page.keyboard.press(key)
        assert current(page) == uid[place], key
        assert page.locator("#position").text_content() == f"{place + 1} of {len(uid)}"
    page.get_by_role("button", name="Next").click()
    assert current(page) == uid[1]
    page.get_by_role("button", name="Previous").click()
    assert current(page) == uid[0]
    page.locator("#list").focus()
    for key, place in [("ArrowDown", 1), ("End", len(uid) - 1), ("Home", 0), ("ArrowUp", 0)]:
        page.keyboard.press(key)
        assert current(page) == uid[place], key
        selected = page.locator("[role=option][aria-selected=true]:not([hidden])")
        assert selected.get_attribute("aria-posinset") == str(place + 1)
        assert page.locator("#list").get_attribute("aria-activedescendant") == (
            selected.get_attribute("id")
        )
        assert selected.evaluate(
            """row => { const box = row.closest("#list").getBoundingClientRect();
            const own = row.getBoundingClientRect();
            return own.top >= box.top - 1 && own.bottom <= box.bottom + 1; }"""
        )
    page.keyboard.press("PageDown")
    assert uid.index(current(page)) > 3


def test_letters_can_be_typed_and_switched_off(visit, made):
    path, workdir, _ = made
    page, uid = visit(path), rows_of(workdir).uid.tolist()
    page.focus("[name=find]")
    page.keyboard.type("j")
    assert page.input_value("[name=find]") == "j"  # typed; a name filter, not a step
    page.click("button[type=reset]")
    wait_for_count(page, "64 cases")
    page.uncheck("#keys")
    page.keyboard.press("j")
    assert current(page) == uid[0]
    page.check("#keys")
    page.keyboard.press("j")
    assert current(page) == uid[1]


def test_screen_readers_hear_the_case_and_find_the_controls(visit, made):
    path, workdir, _ = made
    rows = rows_of(workdir)
    at = rows.index[(rows.correction == "mask emptied") & rows.warning][0]
    page = visit(path)
    page.select_option("[name=correction]", "emptied")
    page.select_option("[name=warning]", "yes")
    page.locator("#list").focus()
    page.keyboard.press("End")
    page.keyboard.press("Home")
    words = page.locator("#announcement")
    wait_until(page, "document.getElementById('announcement').textContent !== ''")
    text = words.text_content()
    row = rows.loc[at]
    assert words.get_attribute("aria-live") == "polite"
    assert row.uid in text and "warning" in text and "corrected: mask emptied" in text
    assert f"true class {row.label}, predicted {row.refined_predicted}" in text
    snapshot = page.locator("main").aria_snapshot()
    for control in (
        'listbox "Cases"',
        'slider "Opacity of the marks"',
        'combobox "True class"',
        'combobox "Sort"',
        'searchbox "Name contains"',
        'button "Next',
        'img "Reliability diagram"',
    ):
        assert control in snapshot, control
    # The correction is visible in the row, in the badges and in the panel.
    shown = page.locator("[role=option][aria-selected=true]:not([hidden])")
    assert "mask emptied" in shown.text_content() and "warning" in shown.text_content()
    assert "mask emptied" in page.locator("#badges").text_content()
    wait_for_case(page, row.uid)
    assert "mask emptied" in page.locator("[data-layer=refined] figcaption").text_content()
    label = page.locator("[data-layer=refined] canvas").get_attribute("aria-label")
    assert re.search(r"Refined\. mask emptied.*0 lesion pixels found, \d+ missed, 0 marked", label)


def test_the_address_keeps_filters_and_case(visit, made):
    path, workdir, _ = made
    rows = rows_of(workdir)
    page = visit(path)
    assert "#" not in page.url
    page.select_option("[name=class]", "malignant")
    page.select_option("[name=sort]", "-dice")
    page.keyboard.press("j")
    uid = current(page)
    wait_until(page, "uid => location.hash.includes('case=' + uid)", uid)
    fragment = "#" + page.url.split("#")[1]
    again = visit(path, fragment)
    assert current(again) == uid
    assert again.input_value("[name=class]") == "malignant"
    assert again.input_value("[name=sort]") == "-dice"
    assert again.locator("#count").text_content().startswith(str((rows.label == "malignant").sum()))
    assert again.evaluate("document.getElementById('cases').getBoundingClientRect().top") < 900
    again.evaluate("location.hash = 'class=normal&fold=none&case=nobody'")
    wait_until(again, "document.getElementById('case-name').textContent.includes('normal')")
    assert again.input_value("[name=fold]") == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_one_way_only(visit, made, scheme, tmp_path):
    path, workdir, _ = made
    page = visit(
        path, viewport=PHONE, color_scheme=scheme, is_mobile=True, has_touch=True,
        device_scale_factor=2,
    )  # fmt: skip
    rows = rows_of(workdir)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.locator("#filters").is_hidden()  # folded away
    page.locator("#filter-box summary").tap()
    page.select_option("[name=class]", "benign")
    page.locator("[role=option]").nth(2).tap()
    assert current(page) == rows.uid[rows.label == "benign"].iloc[2]
    wait_for_case(page, current(page))
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    page.get_by_role("button", name="Next").tap()
    boxes = [panel.bounding_box() for panel in page.locator(".panel canvas").all()]
    assert all(box["width"] > 140 and box["x"] + box["width"] <= 390 for box in boxes)
    take_screenshot(page, tmp_path / "phone.png")


def luminance(colour):
    """WCAG 2: relative luminance of ``rgb(…)``."""
    channels = np.array([int(v) for v in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_light_and_dark(visit, made, scheme, tmp_path):
    path, _, _ = made
    page = visit(path, color_scheme=scheme)
    take_screenshot(page, tmp_path / f"{scheme}.png")
    assert (luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) < 0.2) == (
        scheme == "dark"
    )
    for ink, ground in [
        ("ink", "page"),
        ("ink", "card"),
        ("soft", "page"),
        ("soft", "card"),
        ("soft", "tint"),
        ("accent", "page"),
        ("accent", "tint"),
        ("good", "good-tint"),
        ("bad", "bad-tint"),
        ("bad", "card"),
        ("bad", "tint"),
        ("warn", "warn-tint"),
        ("ink", "warn-tint"),
    ]:
        colours = page.evaluate(
            """names => names.map(name => {
              const probe = document.createElement("p");
              probe.style.color = `var(--${name})`;
              document.body.append(probe);
              const colour = getComputedStyle(probe).color;
              probe.remove();
              return colour;
            })""",
            [ink, ground],
        )
        dim, bright = sorted(map(luminance, colours))
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, (ink, ground)


def test_five_thousand_cases_leave_the_page_small(visit, tmp_path):
    workdir = tmp_path / "large"
    cases = report_runs.write_run(workdir)
    cases = report_runs.multiply(workdir, cases, 79)
    path = report.write_report(workdir, cases)
    assert path.stat().st_size < 20e6
    page = visit(path)

    def count(selector="*"):
        return page.evaluate("s => document.querySelectorAll(s).length", selector)

    assert page.locator("#count").text_content() == "5056 cases"
    nodes = count()
    assert nodes < 3500
    assert count("#list *") < 400
    rows = rows_of(workdir)
    page.select_option("[name=correct]", "wrong")
    page.select_option("[name=sort]", "-uncertainty")
    assert page.locator("#count").text_content() == f"{rows.wrong.sum()} of 5056 cases"
    page.locator("#list").focus()
    page.keyboard.press("End")
    last = rows[rows.wrong].uncertainty.round(4)
    last = rows.uid[last.sort_values(ascending=False, kind="stable").index].iloc[-1]
    assert current(page) == last
    wait_for_case(page, last)
    page.click("button[type=reset]")
    wait_for_count(page, "5056 cases")
    page.evaluate("document.getElementById('list').scrollTop = 150000")
    wait_until(
        page,
        """() => [...document.querySelectorAll("#list [role=option]")]
        .some(row => Math.abs(row.ariaPosInSet - 150000 / row.offsetHeight) < 3)""",
    )
    assert count() <= nodes + 60  # rows are used again; some have badges, some have not
    assert page.evaluate("keptBlocks.size") <= 8


def test_hostile_names_stay_text(visit, tmp_path):
    cases = report_runs.make_cases()
    hostile = "<img src=x onerror=alert(1)>&case=a"
    uid = cases.uid.astype(object)
    uid[report_runs.make_folds(len(cases))[0].test[0]] = hostile
    cases = dataclasses.replace(cases, uid=uid.astype(str), group=uid.astype(str))
    report_runs.write_run(tmp_path / "run", cases)
    page = visit(report.write_report(tmp_path / "run", cases))
    page.fill("[name=find]", "onerror")
    wait_for_case(page, hostile)
    assert current(page) == hostile
    assert listed(page) == [hostile]
    wait_until(page, "location.hash.includes('case=')")
    again = visit(tmp_path / "run" / "report.html", "#" + page.url.split("#")[1])
    assert current(again) == hostile
    assert again.evaluate("document.querySelectorAll('img[src=x]').length") == 0


def test_the_policy_stops_foreign_scripts_and_requests(chromium, made):
    path, _, _ = made
    context = chromium.new_context()
    page = context.new_page()
    page.goto(path.as_uri())
    page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          document.body.append(script);
        }"""
    )
    assert page.evaluate("window.ran === undefined")
    assert page.evaluate(
        "fetch('http://127.0.0.1:9/').then(() => 'sent', error => error.name)"
    ) == "TypeError"  # fmt: skip
    blocked = page.evaluate(
        """() => new Promise(done => {
          document.addEventListener("securitypolicyviolation", e => done(e.effectiveDirective));
          fetch("http://127.0.0.1:9/").catch(() => {});
        })"""
    )
    assert blocked == "connect-src"
    context.close()


@pytest.mark.parametrize("tasks", [("seg",), ("cls",)])
def test_one_task_and_no_pictures_open_too(visit, tmp_path, tasks):
    workdir = tmp_path / "run"
    cases = report_runs.write_run(workdir, tasks=tasks)
    page = visit(report.write_report(workdir, cases))
    wait_for_case(page, current(page))
    page.keyboard.press("j")
    terms = page.locator("#facts dt").all_text_contents()
    assert ("Dice" in terms) == (tasks == ("seg",))
    assert ("Predicted class" in terms) == (tasks == ("cls",))
    assert page.locator(".panel").count() == (3 if tasks == ("seg",) else 2)
    bare = visit(report.write_report(workdir, None))
    bare.keyboard.press("j")
    assert current(bare) == current(page)
    assert bare.locator("#pictures").is_hidden()
    for name in ("trust.csv", "trust.json"):
        (workdir / name).unlink()
    visit(report.write_report(workdir, cases)).keyboard.press("j")


def test_without_scripts_all_but_the_browser_is_there(visit, made):
    page = visit(made[0], java_script_enabled=False)
    assert page.get_by_text("The case browser needs JavaScript").is_visible()
    assert page.locator("#browser").is_hidden()
    assert page.get_by_role("table").first.is_visible()


def test_a_comparison_opens_and_fits_a_phone(visit, made, tmp_path):
    _, workdir, _ = made
    report_runs.write_run(tmp_path / "other", seed=5)
    found = compare.compare([workdir, tmp_path / "other"])
    path = tmp_path / "compare.html"
    compare_page.write_comparison(found, path)
    for viewport in (DESKTOP, PHONE):
        page = visit(path, viewport=viewport)
        assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
        assert page.get_by_text("Paired tests").first.is_visible()
