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
    {"types", "errors", "locks", "schema", "pages"},
    {"oversampling"},
    {
        "files",
        "escaping",
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
    {"crossval", "check", "serve"},
    {"bundle", "ensemble", "external", "pack", "reproduce"},
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
    allowed = set().union(*FLOORS[:3]) | {"curate"}
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


def read_names() -> set[str]:
    """What the library reads of some object: ``x.name``, ``x["name"]``, ``x.get("name")``."""
    found = set()
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(node.attr)
            key = None
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
                key = node.slice
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                key = node.args[0] if node.func.attr == "get" and node.args else None
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                found.add(key.value)
    return found


def test_every_config_leaf_is_read():
    """No option is dead: each field of base.py is read, not only named in a table or a message."""
    from configs import base
    from mtbus_jax import losses, models

    read = read_names()
    # Passed on as a whole: to the network, whose attributes they are, and to the loss.
    whole = {
        "model": {f.name for cls in models.REGISTRY.values() for f in dataclasses.fields(cls)},
        "loss": {*losses.LossOptions._fields, *({"lossnet_weights"} & read)},
    }
    for section, fields in base.get_config().items():
        if not isinstance(fields, ml_collections.ConfigDict):
            assert section in read, f"config.{section} is read nowhere"
            continue
        for name in fields:
            known = read | {"name"} if section == "model" else read
            assert name in whole.get(section, known), f"config.{section}.{name} is read nowhere"


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
