"""Pages of `mtbus export --web` in a browser, and what they say."""

import base64
import pathlib

import numpy as np
from chromium import DESKTOP, PATIENCE

from mtbus_jax.export.web import contents, page, runtime

FACTS = {
    "name": "dummy",
    "version": "0",
    "tasks": ["seg", "cls"],
    "imageSize": [16, 32],
    "resize": "area",
    "enhancement": "none",
    "classNames": ["benign", "malignant", "normal"],
    "normal": 2,
    "threshold": 0.5,
    "refine": True,
    "versions": [0, 1, 2, 3],
    "members": [{"fold": 0}],
    "trust": None,
    "colours": [[86, 180, 233], [230, 120, 0], [200, 200, 200]],
    "noClassColour": [240, 228, 66],
}


def bare_page(path: pathlib.Path, about: str = "", **facts) -> pathlib.Path:
    """A page without a runtime: its functions are there, its network cannot start."""
    held = contents.Contents({**FACTS, **facts}, [b"no model"], "float32", 0.0, "nothing", {})
    path.write_text(page.document(held, runtime.Runtime(b"nothing", b"nothing"), about), "utf-8")
    return path


def opened(browser, path, requests, **options):
    """A tab with the page; all that it asks for is added to ``requests``."""
    context = browser.new_context(**{"viewport": DESKTOP, "offline": True} | options)
    tab = context.new_page()
    tab.set_default_timeout(PATIENCE * 1000)
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(path.as_uri())
    return tab


def as_text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


READ = """async ([text, name]) => {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const found = { frames: [], reason: null, number: null };
  try {
    for await (const { grey, ...rest } of readPicture(bytes, name)) {
      found.frames.push({ ...rest, text: btoa(latin1(grey)) });
    }
  } catch (error) {
    found.reason = error instanceof Unusable ? error.message : `bug: ${error.stack}`;
    found.number = error.number || null;
  }
  return found;
}"""


def read(tab, path: pathlib.Path) -> dict:
    """What the page reads of a file: its frames, each with ``grey``, and why it stopped."""
    found = tab.evaluate(READ, [as_text(path.read_bytes()), path.name])
    for frame in found["frames"]:
        content = base64.b64decode(frame.pop("text"))
        size = frame["height"], frame["width"]
        frame["grey"] = np.frombuffer(content, np.uint8).reshape(size)
    return found
