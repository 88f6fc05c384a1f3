"""Conventions of the house as tests: one-way imports, no TensorFlow, small documented files."""

import ast
import dataclasses
import pathlib
import subprocess
import sys

import ml_collections
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mtbus_jax"

# A file imports only from floors below its own. A room, that is a package, counts as one file, but
# for the rooms that stand on several floors.
FLOORS = [
    {"types", "errors", "locks", "schema"},
    {
        "files",
        "commandline",
        "grouping",
        "losses",
        "refine",
        "splits",
        "augment",
        "metrics",
        "images",
        "models",
    },
    {"configuration", "runtime", "data"},
    {"training"},
    {"evaluation"},
    {"report", "predict", "curate", "export"},
    {"crossval", "check"},
    {"ensemble", "pack", "reproduce"},
    {"cli"},
]


def room_of(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor_of(room: str) -> int:
    found = [i for i, floor in enumerate(FLOORS) if room in floor]
    assert found, f"{room} has no floor: add it to FLOORS"
    return found[0]


def modules() -> list[pathlib.Path]:
    return [p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py"]


def imported_rooms(path: pathlib.Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "mtbus_jax" and len(parts) > 1:
                rooms.add(parts[1])
    return rooms


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
    own = room_of(path)
    for room in imported_rooms(path) - {own}:
        assert floor_of(room) < floor_of(own), f"{own} imports {room}"


def test_the_builder_stands_on_the_lowest_floors_only():
    # Pictures of one's own are searched for near-duplicates as they are built.
    allowed = set().union(*FLOORS[:2]) | {"curate"}
    for path in (ROOT / "tfds_busi").glob("*.py"):
        assert imported_rooms(path) <= allowed, path


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_one_sitting_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350


def test_importing_everything_imports_no_tensorflow():
    names = [
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for p in modules()
    ]
    program = "import importlib, sys\n"
    program += f"for name in {names!r}: importlib.import_module(name)\n"
    program += "bad = [m for m in ('tensorflow', 'torch', 'apache_beam') if m in sys.modules]\n"
    program += "sys.exit(f'imported: {bad}' if bad else 0)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_config_leaf_is_read():
    """Each field of base.py is named somewhere in the library, so no option is dead."""
    from configs import base
    from mtbus_jax import models

    source = "\n".join(p.read_text(encoding="utf-8") for p in modules())

    def leaves(config):
        for key, value in config.items():
            if isinstance(value, ml_collections.ConfigDict):
                yield from (f"{key}.{leaf}" for leaf in leaves(value))
            else:
                yield key

    # Options of a network are its attributes, passed on as a whole.
    attributes = {f.name for cls in models.REGISTRY.values() for f in dataclasses.fields(cls)}
    for leaf in leaves(base.get_config()):
        section, _, name = leaf.rpartition(".")
        if section == "model" and name != "name":
            assert name in attributes, f"no network has the option {name}"
        elif section:
            read = (
                f"config.{leaf}",
                f"{section}.{name}",
                f"config.{section}[",
                f'"{name}"',
                f"**config.{section}",
            )
            assert any(text in source for text in read), f"config.{leaf} is read nowhere"
        else:
            assert f"config.{leaf}" in source or f'config["{leaf}"]' in source, leaf


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.stem)
def test_every_configuration_is_valid(path):
    """Loads, names itself after its file, adds no field, and passes the checks."""
    import importlib

    from configs import base
    from mtbus_jax.training.experiment import Experiment
    from mtbus_jax.training.run_folder import flatten

    config = importlib.import_module(f"configs.{path.stem}").get_config()
    if path.stem != "base":
        assert config.name == path.stem
    if config.model.name == base.get_config().model.name:
        assert flatten(config).keys() == flatten(base.get_config()).keys()
    Experiment.from_config(config)
