"""The README's commands, and the example of docs/python.md, do what they say."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """Lines of the README's plain code blocks and of its table that start main.py."""
    blocks = re.findall(r"^```\n(.*?)^```", README, flags=re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(python main\.py [^`]*)`", README)
    return [line for line in lines if line.startswith("python main.py")]


def overrides() -> list[str]:
    return sorted(set(re.findall(r"`(--config\.[^`]*=[^`]*)`", README)))


def parse(arguments: list[str]) -> subprocess.CompletedProcess:
    """Reads the configuration as main.py does, without running anything."""
    program = (
        "import sys; from mtbus_jax import configuration as c; given, _ = c.take(sys.argv[1:]); "
        "given.file and c.read(given)"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_there_are_commands_to_check():
    assert len(commands()) >= 3
    assert len(overrides()) >= 7


def test_every_main_command_and_override_parses():
    # Checked in one process each side: every override is a field of the base configuration.
    for line in commands():
        done = parse(shlex.split(line)[2:])
        assert done.returncode == 0, (line, done.stderr)
    done = parse(["--config=configs/mt_unetpp.py", *(shlex.split(o)[0] for o in overrides())])
    assert done.returncode == 0, done.stderr


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, flags=re.M):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


@pytest.mark.long
def test_python_example_runs(tmp_path, phantom_data_dir):
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    example = next(
        each for each in re.findall(r"```python\n(.*?)```", page, flags=re.S) if "create(" in each
    )
    # Smaller, so that compiling takes seconds.
    example = example.replace("(128, 128)", "(32, 48)").replace("width=24", "width=2")
    example += "\nassert mask.shape == (2, 32, 48, 1) and class_id.shape == (2,)\n"
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"TFDS_DATA_DIR": str(phantom_data_dir), "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
