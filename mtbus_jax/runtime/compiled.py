"""Keeps traced programs on disk, so that a second start need not trace and lower them again.

JAX's own cache saves XLA's work at a second start. But before JAX looks up a program there, it
traces and lowers it in Python, which for MT UNet++ takes most of a start. So the result is kept as
well: StableHLO, written and read by `jax.export`, in a folder of JAX's cache and only while that is
on. A file's name holds a digest of everything that its program could depend on, so any change leads
to another file.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import logging
from jax import export

from mtbus_jax import files
from mtbus_jax.errors import UserError
from mtbus_jax.runtime import program_cache

_PACKAGE = Path(__file__).resolve().parent.parent
# Packages whose code is traced or does the tracing.
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")
# A file begins with the SHA-256 of the rest.
_DIGEST_BYTES = 32


class KeptProgram(NamedTuple):
    """A program and what it takes.

    Attributes:
      call: jitted or pmapped.
      shapes: returns its arguments with shapes and types in place of arrays.
    """

    call: Callable
    shapes: Callable[[], tuple]


def kept(
    name: str,
    function: Callable,
    like: Callable[[], tuple],
    *,
    about: Mapping[str, Any],
    **jit_options,
) -> KeptProgram | None:
    """The jitted ``function``, read from disk if it was traced before; else traced and kept.

    Args:
      name: of the program, part of the file's name.
      function: of this package; pure, takes and returns trees of arrays.
      like: returns its arguments, or their shapes; called only if it must be traced.
      about: everything beyond this package's source that decides what ``function`` computes, from
        settings to the shapes of its arguments; written as JSON, or by ``repr``
        where JSON has no form for it.
      **jit_options: for `jax.jit`.

    Returns:
      None if nothing is kept, because JAX's cache is off or its folder is not private, see
      `program_cache.make_private`.
    """
    path = _path(name, about)
    if path is None:
        return None
    exported = _read(path)
    if exported is None:
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), like())
        exported = export.export(jax.jit(function))(*shapes)
        _write(path, exported)
    return _program(exported, **jit_options)


def _path(name: str, about: Mapping[str, Any]) -> Path | None:
    root = jax.config.jax_compilation_cache_dir
    if not root:
        return None
    folder = Path(root) / "traced"
    problem = program_cache.make_private(folder)
    if problem:
        logging.warning("traced programs are not kept: %s", problem)
        return None
    return folder / f"{name}-{_digest(about)}.stablehlo"


def _program(exported: export.Exported, **jit_options) -> KeptProgram:
    return KeptProgram(jax.jit(exported.call, **jit_options), functools.partial(_shapes, exported))


def _shapes(exported: export.Exported) -> tuple:
    leaves = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in exported.in_avals]
    return jax.tree.unflatten(exported.in_tree, leaves)[0]


def _read(path: Path) -> export.Exported | None:
    try:
        content = path.read_bytes()
        digest, program = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(program).digest() != digest:
            raise ValueError("its digest differs")
        return export.deserialize(bytearray(program))
    except FileNotFoundError:
        return None
    except Exception as error:  # the deserialiser promises no type of exception
        logging.warning("%s cannot be read (%r); the program is traced again.", path, error)
        return None


def _write(path: Path, exported: export.Exported) -> None:
    try:
        program = bytes(exported.serialize())
        files.write_bytes(path, hashlib.sha256(program).digest() + program)
    except (UserError, ImportError) as error:  # only here jax.export notices a missing package
        logging.warning("a traced program cannot be kept (%s); the next start takes longer", error)


def _digest(about: Mapping[str, Any]) -> str:
    """Digest of ``about``, this package's source, and everything else that tracing reads."""
    everything = {
        "about": dict(about),
        "source": _source_digest(),
        "python": sys.version,
        "libraries": {each: importlib.metadata.version(each) for each in _LIBRARIES},
        # Read one by one to get the values of this thread: some can be set per thread.
        "jax": {name: getattr(jax.config, name, None) for name in jax.config.values},
        "device": jax.devices()[0].device_kind,
    }
    text = json.dumps(everything, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@functools.cache
def _source_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(_PACKAGE)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
