"""Writes a model file of each format, runs it and compares its output with the network's."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import jax.export
import jax.numpy as jnp
import numpy as np

import mtbus_jax
from mtbus_jax.errors import UserError
from mtbus_jax.export import interface, to_onnx
from mtbus_jax.training.trained_folds import Trained

STABLEHLO, ONNX = "stablehlo", "onnx"
FILES = {STABLEHLO: "model.stablehlo", ONNX: "model.onnx"}
PLATFORMS = ("cpu", "cuda", "tpu")

# Largest difference allowed between a probability from a file and the network's, and the batch
# sizes at which they are compared.
TOLERANCE = 1e-4
BATCH_SIZES = (1, 3)

Outputs = dict[str, np.ndarray]  # by name, a row for each image

ONNX_PYTHON = ".venv-onnx/bin/python"
_SET_UP = (
    f"Set up an environment for the converter once, with the two commands: python -m venv "
    f".venv-onnx; .venv-onnx/bin/pip install -r requirements-export.txt. It is looked for "
    f"where MTBUS_ONNX_PYTHON says, else at {ONNX_PYTHON}; or give --onnx_python=…. Without it, "
    f"--formats={STABLEHLO} works; --web does not."
)


@dataclasses.dataclass(frozen=True)
class Written:
    """A file that was written, read again and found to equal the original.

    Attributes:
      name: of the file.
      difference: largest absolute difference of a probability.
      versions: versions of the packages that wrote and ran it, by name.
    """

    name: str
    difference: float
    versions: dict[str, str]


def check_available(formats: tuple[str, ...], onnx_python: str) -> None:
    """Refuses formats that cannot be written here, before anything is written.

    Raises:
      UserError: for an unknown format, or if ONNX's environment or a package in it is missing.
    """
    unknown = [each for each in formats if each not in FILES]
    if unknown or not formats:
        raise UserError(
            f"--formats={','.join(formats)}: give {' or '.join(FILES)}, or both with a comma."
        )
    if ONNX in formats:
        look = (
            "import importlib.util; "
            f"missing = [p for p in {to_onnx.PACKAGES} if importlib.util.find_spec(p) is None]; "
            "print(', '.join(missing))"
        )
        try:
            done = _run_python(onnx_python, "-c", look)
        except OSError as error:
            raise UserError(
                f"--onnx_python={onnx_python} cannot be started ({error.strerror}). {_SET_UP}"
            ) from None
        if done.returncode or done.stdout.strip():
            lacks = done.stdout.strip() or _last_line(done.stderr)
            raise UserError(f"--onnx_python={onnx_python} lacks {lacks}. {_SET_UP}")


def write(
    form: str, trained: Trained, images: np.ndarray, folder: Path, onnx_python: str
) -> Written:
    """Writes one file and compares what it computes with the original.

    Args:
      form: `STABLEHLO` or `ONNX`.
      trained: the networks.
      images: to compare on; ``(n, height, width, 1)`` float32.
      folder: where to write.
      onnx_python: interpreter of the converter's environment.

    Raises:
      UserError: if the network cannot be converted, or the file does not equal the original.
    """
    path = folder / FILES[form]
    if form == STABLEHLO:
        found, versions = write_stablehlo(trained, images, path), {"jax": jax.__version__}
    else:
        found, versions = write_onnx(trained, images, path, onnx_python)
    expected = reference(trained, images)
    difference = max(largest_difference(expected, outputs) for outputs in found)
    if not difference <= TOLERANCE:
        raise UserError(
            f"{path.name} does not equal the network: a probability differs by {difference:.1e}, "
            f"more than {TOLERANCE:.0e} ({trained.config.model.name}, folds "
            f"{', '.join(map(str, trained.folds))}). No file was kept."
        )
    return Written(path.name, difference, versions)


def reference(trained: Trained, images: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs that a file must give, by name, one row per image; see `interface.reference`."""
    return interface.reference(trained.module, trained.variables, images)


def largest_difference(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> float:
    """The largest absolute difference over all outputs; ∞ if one is missing or shapes differ."""
    same = expected.keys() == found.keys() and all(
        expected[name].shape == np.shape(found[name]) for name in expected
    )
    if not same:
        return np.inf
    return max(float(np.max(np.abs(expected[name] - found[name]))) for name in expected)


def write_stablehlo(
    trained: Trained, images: np.ndarray, path: Path
) -> list[dict[str, np.ndarray]]:
    """Writes a `jax.export` file with a free batch size, and runs it.

    Args:
      trained: the networks.
      images: ``(n, height, width, 1)`` float32.
      path: of the file.

    Returns:
      Outputs by name, n rows each, for each of `BATCH_SIZES`.
    """
    height, width = trained.image_size
    shape = jax.export.symbolic_shape(f"batch, {height}, {width}, 1")
    # By default, accelerators round products to fewer digits. The file would then not give there
    # the values that were compared here.
    function = interface.ensemble(trained.module, trained.variables)
    with jax.default_matmul_precision("highest"):
        exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(
            jax.ShapeDtypeStruct(shape, jnp.float32)
        )
    path.write_bytes(exported.serialize())
    return [run_stablehlo(path, images, batch_size) for batch_size in BATCH_SIZES]


def run_stablehlo(path: Path, images: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
    """Runs a file of `write_stablehlo` on the CPU.

    Args:
      path: of the file.
      images: ``(n, height, width, 1)`` float32.
      batch_size: images per call.

    Returns:
      Outputs by name, n rows each.
    """
    call = jax.jit(jax.export.deserialize(path.read_bytes()).call)
    with interface.on_cpu():
        parts = [
            jax.device_get(call(images[start : start + batch_size]))
            for start in range(0, len(images), batch_size)
        ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def write_onnx(
    trained: Trained, images: np.ndarray, path: Path, onnx_python: str
) -> tuple[list[dict[str, np.ndarray]], dict[str, str]]:
    """Writes an ONNX file with a free batch size and runs it with onnxruntime.

    Both happen in a separate process in the converter's environment, see `to_onnx`.

    Args:
      trained: the networks.
      images: ``(n, height, width, 1)`` float32.
      path: of the file.
      onnx_python: interpreter of that environment.

    Returns:
      Outputs by name, n rows each, for each of `BATCH_SIZES`; and versions of packages.

    Raises:
      UserError: if the converter fails.
    """
    with tempfile.TemporaryDirectory(prefix="mtbus_jax_") as job:
        found, versions = _convert(trained, images, Path(job), onnx_python)
        shutil.move(Path(job) / FILES[ONNX], path)
    return found["model"], versions


def onnx_members(
    trained: Trained, images: np.ndarray, onnx_python: str, *, short: bool
) -> tuple[list[bytes], list[Outputs], dict[str, str]]:
    """An ONNX file for each member, and what onnxruntime computes with it.

    Args:
      trained: the networks.
      images: ``(n, height, width, 1)`` float32.
      onnx_python: interpreter of the converter's environment.
      short: whether large weights are stored in 16 bits, see `to_onnx.shorten`.

    Returns:
      Contents of the files; outputs by name, n rows each, for each file; and versions of packages.

    Raises:
      UserError: if the converter fails.
    """
    with tempfile.TemporaryDirectory(prefix="mtbus_jax_") as job:
        found, versions = _convert(
            trained, images, Path(job), onnx_python, apart=True, short=short, batch_sizes=(1,)
        )
        contents = [(Path(job) / f"{name}.onnx").read_bytes() for name in found]
    return contents, [outputs[0] for outputs in found.values()], versions


def _convert(
    trained: Trained, images: np.ndarray, job: Path, onnx_python: str, **how: Any
) -> tuple[dict[str, list[Outputs]], dict[str, str]]:
    """Runs `to_onnx` in a folder: outputs for each batch size by file, and versions of packages."""
    task = _write_job(trained, images, job, **how)
    done = _run_python(onnx_python, "-m", to_onnx.__name__, str(job), packages=job)
    if done.returncode:
        raise UserError(
            f"{trained.config.model.name} cannot be converted to ONNX: "
            f"{_last_line(done.stderr)}. Report this; --formats={STABLEHLO} works without ONNX, "
            "--web does not."
        )
    with np.load(job / "outputs.npz") as stored:
        arrays = {tuple(key.split("/")): array for key, array in stored.items()}
    versions = json.loads((job / "versions.json").read_text(encoding="utf-8"))
    found: dict[str, list[Outputs]] = {}
    for size in task["batch_sizes"]:
        for file in dict.fromkeys(file for file, _, _ in arrays):
            outputs = {key[2]: each for key, each in arrays.items() if key[:2] == (file, str(size))}
            found.setdefault(file, []).append(outputs)
    return found, versions


def _write_job(
    trained: Trained,
    images: np.ndarray,
    job: Path,
    *,
    apart: bool = False,
    short: bool = False,
    batch_sizes: tuple[int, ...] = BATCH_SIZES,
) -> dict[str, Any]:
    """Writes everything that `to_onnx.main` reads, with a copy of the library's code beside it."""
    members = []
    for number, variables in enumerate(trained.variables):
        members.append(f"member_{number}")
        arrays = flax.traverse_util.flatten_dict(variables, sep="/")
        np.savez(job / f"{members[-1]}.npz", **arrays)
    np.savez(job / "images.npz", images=images)
    task = {
        "network": trained.config.model.name,
        "options": {k: v for k, v in trained.config.model.items() if k != "name" and v is not None},
        "tasks": list(trained.config.tasks),
        "classes": len(trained.classes),
        "image_size": list(trained.image_size),
        "members": members,
        "batch_sizes": list(batch_sizes),
        "apart": apart,
        "short": short,
        "properties": properties(trained),
    }
    (job / "job.json").write_text(json.dumps(task), encoding="utf-8")
    # A copy, because the folder around the package may hold other versions of its dependencies.
    package = Path(mtbus_jax.__file__).parent
    shutil.copytree(package, job / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    return task


def properties(trained: Trained) -> dict[str, str]:
    """Metadata stored in an ONNX file."""
    return {
        "class_names": ",".join(trained.classes.names),
        "run": trained.config.name,
        "folds": ",".join(map(str, trained.folds)),
        "notice": "Research software, not a medical device.",
    }


def _run_python(
    python: str, *arguments: str, packages: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs another Python on the CPU, with ``packages`` on its path and without our settings."""
    # XLA_FLAGS is for this jaxlib; another version aborts at a flag that it does not know.
    own = ("PYTHONPATH", "PYTHONHOME", "XLA_FLAGS")
    environment = {k: v for k, v in os.environ.items() if k not in own}
    environment["JAX_PLATFORMS"] = "cpu"
    if packages is not None:
        environment["PYTHONPATH"] = str(packages)
    return subprocess.run([python, *arguments], capture_output=True, text=True, env=environment)


def _last_line(text: str) -> str:
    """The line of a traceback that names the error."""
    lines = [line for line in text.strip().splitlines() if line and not line.startswith(" ")]
    errors = [line for line in lines if "Error" in line.partition(":")[0]]
    return (errors or lines or ["it failed without a message"])[-1].rstrip(".")
