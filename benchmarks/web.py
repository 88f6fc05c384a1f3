"""A page of `mtbus export --web` in Chromium: its size, start-up time and seconds per picture.

    python benchmarks/web.py --page=best.html --pictures=PICTURES
    python benchmarks/web.py --page=best.html --pictures=PICTURES --predictions=predictions

The second command also compares the page's table and masks with what `mtbus predict` wrote for the
same pictures: Dice of the masks, differences of probabilities, and answers that differ. Chromium
comes from the PATH or MTBUS_CHROMIUM, the driver with ``pip install -e '.[browser]'``. The start-up
time runs from opening the file until the network is ready.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shutil
import statistics
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def main() -> None:
    """Measures the page and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True, help="a folder")
    parser.add_argument("--predictions", type=Path, help="--out of mtbus predict for them")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    figures: dict[str, Any] = {"megabytes": args.page.stat().st_size / 1e6}
    path = os.environ.get("MTBUS_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        starts = []
        for _ in range(args.starts):
            tab = browser.new_context(offline=True).new_page()
            tab.set_default_timeout(0)
            begun = time.monotonic()
            tab.goto(args.page.resolve().as_uri())
            wait(tab, "Ready")
            starts.append(time.monotonic() - begun)
        figures["seconds_to_start"] = statistics.median(starts)
        pictures = sorted(each for each in args.pictures.iterdir() if each.is_file())
        begun = time.monotonic()
        tab.set_input_files("#files", [str(each) for each in pictures])
        wait(tab, " done")
        figures["pictures"] = len(pictures)
        figures["seconds_a_picture"] = (time.monotonic() - begun) / len(pictures)
        figures["browser"] = browser.version
        if args.predictions:
            figures |= compare(tab, args.predictions)
        browser.close()
    for name, value in figures.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


def wait(tab: Page, words: str) -> None:
    """Waits until the page's status contains ``words``."""
    while words not in tab.locator("#status").text_content():
        if tab.locator("#failure").is_visible():
            raise SystemExit(tab.locator("#failure").text_content())
        tab.wait_for_timeout(20)


def compare(tab: Page, folder: Path) -> dict[str, Any]:
    """Differences between what the page saves and the results in a folder of `mtbus predict`."""
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        expected = {(row["file"], row["frame"]): row for row in csv.DictReader(file)}
    table = csv.DictReader(io.StringIO(saved(tab, "#save-table").decode("utf-8"), newline=""))
    archive = zipfile.ZipFile(io.BytesIO(saved(tab, "#save-masks")))
    dice, pixels, probability, uncertainty, answers = [], [], [0.0], [0.0], 0
    for row in table:
        other = expected.pop((row["file"], row["frame"]))
        mine = np.asarray(Image.open(io.BytesIO(archive.read(row["mask"])))) > 0
        theirs = np.asarray(Image.open(folder / other["mask"])) > 0
        area = int(mine.sum() + theirs.sum())
        dice.append(2 * int((mine & theirs).sum()) / area if area else 1.0)
        pixels.append(int((mine != theirs).sum()))
        names = [name for name in row if name.startswith("probability_")]
        probability += [abs(float(row[name]) - float(other[name])) for name in names]
        if row["uncertainty"]:
            uncertainty.append(abs(float(row["uncertainty"]) - float(other["uncertainty"])))
        answers += row["class"] != other["class"] or row["warning"] != other["warning"]
    return {
        "left_out": len(expected),
        "lowest_dice": min(dice),
        "masks_that_differ": sum(map(bool, pixels)),
        "most_pixels_that_differ": max(pixels),
        "largest_difference_of_probability": max(probability),
        "largest_difference_of_uncertainty": max(uncertainty),
        "other_classes_or_warnings": answers,
    }


def saved(tab: Page, button: str) -> bytes:
    """The content of the file that a button saves."""
    with tab.expect_download() as download:
        tab.click(button)
    return Path(download.value.path()).read_bytes()


if __name__ == "__main__":
    main()
