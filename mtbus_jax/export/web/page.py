"""Assembles the page: one file, with a security policy that forbids it to load anything else."""

from __future__ import annotations

import base64
import gzip
import html
import re

import numpy as np

import mtbus_jax
from mtbus_jax import pages
from mtbus_jax.escaping import json_element
from mtbus_jax.export.web.contents import Contents
from mtbus_jax.export.web.runtime import PACKAGE, VERSION, Runtime

_HERE = "mtbus_jax.export.web"

# They run in this order, once the body is loaded; all but the first share one scope.
SCRIPTS = (
    *("check.js", "bytes.js", "picture.js", "png.js", "jpeg.js"),
    *("dicom_file.js", "dicom_shown.js", "dicom.js", "read.js"),
    *("enhance.js", "resample.js", "network.js", "trust.js", "answer.js", "measure.js"),
    *("draw.js", "save.js", "results.js", "main.js"),
)


def document(contents: Contents, runtime: Runtime, about: str) -> str:
    """The whole page.

    Args:
      contents: facts and networks.
      runtime: the code that runs the networks.
      about: HTML about the network.
    """
    facts = contents.facts
    style = pages.style(_HERE, "style.css")
    codes = [pages.text(_HERE, name) for name in SCRIPTS]
    data = [
        json_element("facts", facts),
        _bytes_element("runtime-code", runtime.code),
        _bytes_element("runtime-wasm", runtime.wasm),
        *(_bytes_element(f"member-{i}", planes(each)) for i, each in enumerate(contents.members)),
    ]
    slots = {
        "policy": html.escape(policy(style, codes)),
        "title": html.escape(f"{facts['name']}: breast-ultrasound pictures"),
        "style": style,
        "summary": html.escape(_summary(facts)),
        "versions": html.escape(
            f"Predict each picture in {len(facts['versions'])} versions, as it is and flipped or "
            "turned, as in the run's evaluation, to which uncertainty and warnings were fitted. "
            "A single version is faster."
        ),
        "about": f"{_about(about)}\n{_licence()}",
        "version": html.escape(mtbus_jax.__version__),
        "data": "\n".join(data),
        "scripts": "\n".join(f"<script>{code}</script>" for code in codes),
    }
    # In one pass, since the text that fills a slot may itself contain braces.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: slots[found[1]], pages.text(_HERE, "page.html"))


def planes(content: bytes) -> bytes:
    """The bytes at even places, then those at odd ones, so that 16-bit numbers compress better."""
    numbers = np.frombuffer(content, np.uint8)
    return np.concatenate([numbers[0::2], numbers[1::2]]).tobytes()


def policy(style: str, codes: list[str]) -> str:
    """The security policy: only these texts and what they create may style or run; no requests.

    Args:
      style: the style sheet.
      codes: the scripts. The runtime comes from a Blob that they create, and compiles WebAssembly.
    """
    scripts = " ".join(map(pages.source, codes))
    return (
        f"default-src 'none'; connect-src 'none'; img-src data:; style-src {pages.source(style)}; "
        f"script-src {scripts} blob: 'wasm-unsafe-eval'; base-uri 'none'; form-action 'none'"
    )


def _bytes_element(name: str, content: bytes) -> str:
    packed = base64.b64encode(gzip.compress(content, 9, mtime=0)).decode("ascii")
    return f'<script type="application/octet-stream" id="{name}">{packed}</script>'


def _summary(facts: dict) -> str:
    folds = list(dict.fromkeys(member["fold"] for member in facts["members"]))
    does = {"seg": "outlines the lesion", "cls": f"tells {', '.join(facts['classNames'])}"}
    height, width = facts["imageSize"]
    return (
        f"{' and '.join(does[task] for task in facts['tasks']).capitalize()}; "
        f"fold{'s' * (len(folds) > 1)} {', '.join(map(str, folds))}; network input {height} × "
        f"{width} pixels."
    )


def _about(about: str) -> str:
    return (
        "<details><summary>Data, cross-validated figures, limits, licence</summary>"
        f'<div class="card-text">{about}</div></details>'
    )


def _licence() -> str:
    return (
        f"<details><summary>Licence of the runtime, {PACKAGE} {VERSION}</summary>"
        "<p>ThirdPartyNotices.txt of its source names what others contributed to it.</p>"
        f"<pre>{html.escape(pages.text(_HERE, 'runtime_licence.txt'))}</pre></details>"
    )
