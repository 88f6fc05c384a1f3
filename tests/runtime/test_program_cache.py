"""Compiled programs on disk: signed, checked, and never taken from a folder of others."""

import os
import pathlib
import subprocess
import sys

import pytest

from mtbus_jax.runtime import program_cache

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Compiles one program, reports whether JAX read it from its cache, and prints a number.
PROGRAM = """
import jax, jax.numpy as jnp, logging, sys
logging.getLogger("jax._src.compiler").setLevel(logging.DEBUG)
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from mtbus_jax.runtime import program_cache
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
program_cache.open_cache()
@jax.jit
def sum_of_squares(x):
    return (x * x).sum()
print("result", float(sum_of_squares(jnp.arange(64.0))))
print("folder", jax.config.jax_compilation_cache_dir)
"""


def start(cache_home, **environment) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPI")} | {
        "XDG_CACHE_HOME": str(cache_home),
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        **environment,
    }
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def entries(folder):
    return sorted(folder.glob("jit_sum_of_squares*-cache"))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "mtbus_jax" / "xla"


def test_an_entry_is_signed_and_read_again(tmp_path, folder):
    first, second = start(tmp_path), start(tmp_path)
    for done in (first, second):
        assert done.returncode == 0, done.stderr
        assert "result 85344.0" in done.stdout
    assert len(entries(folder)) == 1
    signed = folder / "digests" / entries(folder)[0].name
    assert len(signed.read_text()) == 64
    assert "Persistent compilation cache hit for 'jit_sum_of_squares'" in second.stdout


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_a_flipped_bit_is_compiled_again(tmp_path, folder, where):
    start(tmp_path)
    (path,) = entries(folder)
    whole = path.read_bytes()
    content = bytearray(whole)
    content[int(where * len(content))] ^= 4
    path.write_bytes(bytes(content))
    done = start(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "result 85344.0" in done.stdout
    assert "cache hit for 'jit_sum_of_squares'" not in done.stdout
    assert path.read_bytes() != bytes(content)


def test_what_was_not_signed_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "a-cache").write_bytes(b"whole")
    program_cache.sign(tmp_path)
    (tmp_path / "b-cache").write_bytes(b"of a killed process")
    (tmp_path / "notes.txt").write_text("mine")
    assert program_cache.forget_changed(tmp_path) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-cache", "digests", "notes.txt"]


def test_a_signature_is_not_renewed(tmp_path):
    (tmp_path / "a-cache").write_bytes(b"whole")
    program_cache.sign(tmp_path)
    (tmp_path / "a-cache").write_bytes(b"whale")
    program_cache.sign(tmp_path)
    assert program_cache.forget_changed(tmp_path) == 1
    assert not list((tmp_path / "digests").iterdir())


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners of files here")
def test_a_folder_that_others_can_write_to_is_not_used(tmp_path, folder):
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    done = start(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "folder None" in done.stdout
    assert "can be written by others" in done.stderr
    assert not list(folder.iterdir())


def test_a_new_folder_is_for_its_owner_alone(tmp_path):
    assert program_cache.make_private(tmp_path / "new") == ""
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be made" in program_cache.make_private(tmp_path / "file" / "inner")


def test_a_place_that_the_user_chose_is_left_as_it_is(tmp_path, folder):
    own = tmp_path / "own"
    own.mkdir()
    (own / "x-cache").write_bytes(b"somebody's")
    done = start(tmp_path, JAX_COMPILATION_CACHE_DIR=str(own))
    assert done.returncode == 0, done.stderr
    assert f"folder {own}" in done.stdout
    assert (own / "x-cache").read_bytes() == b"somebody's"
