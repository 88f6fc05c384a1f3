"""A packed dataset is the dataset, and what is not one is refused."""

import pathlib
import subprocess
import sys

import in_process
import numpy as np
import pytest
import tiny

from mtbus_jax import data, pack
from mtbus_jax.errors import UserError
from mtbus_jax.images import phantom

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIZE = (tiny.HEIGHT, tiny.WIDTH)


def test_round_trip(tmp_path):
    cases = tiny.make_cases()
    data.save_arrays(cases, tmp_path / "packed.npz")
    found = data.load_arrays(tmp_path / "packed.npz", name="phantom", image_size=SIZE)
    assert data.fingerprint(found) == data.fingerprint(cases)
    for name in ("group", "test_fold", "original_size"):
        np.testing.assert_array_equal(getattr(found, name), getattr(cases, name))
    assert [p.name for p in tmp_path.iterdir()] == ["packed.npz"]


def test_what_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "packed.npz"
    with pytest.raises(UserError, match="no such file"):
        data.load_arrays(path, name="phantom", image_size=SIZE)
    data.save_arrays(tiny.make_cases(), path)
    with pytest.raises(UserError, match="asks for busi"):
        data.load_arrays(path, name="busi", image_size=SIZE)
    with pytest.raises(UserError, match=r"\(32, 16\)"):
        data.load_arrays(path, name="phantom", image_size=(32, 16))
    with pytest.raises(UserError, match=r"\(nearest\).*\(area\).*data\.resize"):
        data.load_arrays(path, name="phantom", image_size=SIZE, resize="area")
    data.save_arrays(tiny.make_cases(), path, resize="area")
    with pytest.raises(UserError, match=r"\(area\).*\(nearest\)"):
        data.load_arrays(path, name="phantom", image_size=SIZE)
    data.load_arrays(path, name="phantom", image_size=SIZE, resize="area")
    with pytest.raises(UserError, match=r"\(area\).*\(multi_peak, area\)"):
        data.load_arrays(
            path, name="phantom", image_size=SIZE, resize="area", enhancement="multi_peak"
        )
    data.save_arrays(tiny.make_cases(), path, resize="area", enhancement="multi_peak")
    with pytest.raises(UserError, match=r"data\.enhancement"):
        data.load_arrays(path, name="phantom", image_size=SIZE, resize="area")
    data.load_arrays(path, name="phantom", image_size=SIZE, resize="area", enhancement="multi_peak")
    data.save_arrays(tiny.make_cases(), path, resize="area")
    with np.load(path) as stored:
        old = {name: stored[name] for name in stored.files if name != "format"}
    np.savez_compressed(path, **old)
    with pytest.raises(UserError, match="another version"):
        data.load_arrays(path, name="phantom", image_size=SIZE, resize="area")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match="Write it again"):
        data.load_arrays(path, name="phantom", image_size=SIZE)
    with pytest.raises(UserError, match="cannot be written"):
        data.save_arrays(tiny.make_cases(), tmp_path / "missing" / "packed.npz")


def test_the_command_packs_the_phantoms(tmp_path, monkeypatch):
    """Twelve of them; all are built where a test trains on them."""
    few = [phantom.make_phantom(index, label=label) for index in range(4) for label in (2, 0, 1)]
    monkeypatch.setattr(phantom, "make_phantoms", lambda: iter(few))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "phantom.npz"

    def run(*arguments):
        given = [f"--out={out}", "--height=32", "--width=48", *arguments]
        return in_process.run("mtbus_jax.pack", pack.main, given)

    arguments = ["--name=phantom", f"--data_dir={tmp_path / 'built'}"]
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    cases = data.load_arrays(out, name="phantom", image_size=(32, 48))
    assert set(cases.uid.tolist()) == {each.uid for each in few}
    done = run(*arguments, "--resize=area")
    assert done.returncode == 0, done.stderr
    areas = data.load_arrays(out, name="phantom", image_size=(32, 48), resize="area")
    np.testing.assert_array_equal(areas.mask, cases.mask)
    assert (areas.image != cases.image).mean() > 0.5


def test_the_command_refuses_an_unknown_dataset(tmp_path):
    command = [sys.executable, "-m", "mtbus_jax.pack", f"--out={tmp_path / 'busy.npz'}"]
    refused = subprocess.run([*command, "--name=busy"], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "Did you mean 'busi'" in refused.stderr
    assert "Traceback" not in refused.stderr
