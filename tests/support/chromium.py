"""A headless Chromium for tests, and screenshots that outlast a busy machine."""

import contextlib
import os
import shutil
import time

import pytest

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
# Seconds until a wait counts as a failure; a busy machine may need many.
PATIENCE = 120
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextlib.contextmanager
def launched():
    """The browser; skips the test where there is none."""
    path = os.environ.get("MTBUS_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("NOT TESTED in a browser: no Chromium on the PATH nor in MTBUS_CHROMIUM")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        pytest.skip("NOT TESTED in a browser: pip install -e '.[browser]'")
    with sync_playwright() as driver:
        # As root, as in most containers, Chromium refuses to start its sandbox.
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def take_screenshot(page, path):
    """A PNG to look at; Chromium at times cannot make one while the machine is busy."""
    from playwright.sync_api import Error

    for attempts_left in (2, 1, 0):
        try:
            page.screenshot(path=path, full_page=True)
            return
        except Error as error:
            if "Unable to capture screenshot" not in str(error) or not attempts_left:
                raise
            time.sleep(1)


def wait_until(page, expression, arg=None):
    """Waits for an expression of the page; Playwright's own way needs eval, which is forbidden."""
    end = time.monotonic() + PATIENCE
    while not page.evaluate(expression, arg):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)
