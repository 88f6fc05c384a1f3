"""``mtbus serve`` as a process of its own: it listens on this machine, answers, and ends."""

import concurrent.futures
import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import predict_dummies
import pytest
from PIL import Image

from mtbus_jax.errors import UserError
from mtbus_jax.predict import Predictor
from mtbus_jax.serve import command

pytest.importorskip("uvicorn", reason="NOT TESTED without mtbus_jax[serve]")

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECONDS = 120


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("serve") / "run"
    predict_dummies.write_small_run(workdir)
    return workdir


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where one process finds what another has compiled."""
    return {
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.fixture
def server(run, cache):
    """(process, address)."""
    program = [sys.executable, "-m", "mtbus_jax.serve", f"--run={run}", "--port=0", "--queue=16"]
    process = subprocess.Popen(
        program,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | cache | {"JAX_PLATFORMS": "cpu"},
        # Where the tests run in the background, the shell has them ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        for line in process.stdout:
            if found := re.match(r"listening on (http://127\.0\.0\.1:\d+)$", line.strip()):
                break
        else:
            pytest.fail(process.stderr.read())
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def as_file(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def ask(address, content):
    request = urllib.request.Request(f"{address}/predict", content, method="POST")
    with urllib.request.urlopen(request, timeout=SECONDS) as response:
        return json.load(response)


def test_answers_to_many_and_ends_with_its_signal(server, run):
    process, address = server
    pictures = [np.roll(predict_dummies.pictures()[0], 7 * i, axis=1) for i in range(12)]
    wanted = Predictor(run)(pictures)
    with concurrent.futures.ThreadPoolExecutor(6) as senders:
        found = list(senders.map(lambda each: ask(address, as_file(each)), pictures))
    for answer, prediction in zip(found, wanted, strict=True):
        assert answer["class"] == prediction.class_name
        assert answer["area_px"] == prediction.mask.sum()
        probabilities = list(answer["probabilities"].values())
        np.testing.assert_allclose(probabilities, prediction.class_probability, atol=1e-5)
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(address, b"no picture")
    assert caught.value.code == 415
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGTERM
    assert err == "mtbus_jax.serve: stopped by SIGTERM.\n"
    assert out == ""  # nothing is said about what was sent


def test_a_request_under_way_is_answered_before_it_ends(server):
    process, address = server
    host, port = address.removeprefix("http://").split(":")
    content = as_file(predict_dummies.pictures()[1])
    with socket.create_connection((host, int(port)), timeout=SECONDS) as client:
        head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(content)}\r\n\r\n"
        client.sendall(head.encode() + content[:-10])
        while json.load(urllib.request.urlopen(f"{address}/health"))["queue"]["taken"] == 0:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        end = time.monotonic() + SECONDS
        with pytest.raises(OSError):  # soon there are no new ones
            while time.monotonic() < end:
                urllib.request.urlopen(f"{address}/health", timeout=5)
                time.sleep(0.05)
        assert process.poll() is None
        client.sendall(content[-10:])
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"not a medical device" in answer
    process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGINT


def test_an_address_that_is_taken_is_said_before_anything_is_read(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"--port={port} cannot be listened on"):
            command.main([f"--run={tmp_path / 'nowhere'}", f"--port={port}"])


def test_wrong_use(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        command.main([f"--run={tmp_path / 'nowhere'}", "--port=0"])
    with pytest.raises(UserError, match="cannot be listened on"):
        command.main([f"--run={tmp_path}", "--host=no.such.host.invalid", "--port=0"])
    for wrong in ("--port=70000", "--queue=-1", "--max_mb=0"):
        with pytest.raises(UserError, match=wrong):
            command.main([f"--run={tmp_path}", wrong])


def test_without_its_packages(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match=r"needs uvicorn: pip install -e '\.\[serve\]'"):
        command.main([f"--run={tmp_path}"])


@pytest.mark.parametrize(
    ("host", "warned"),
    [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True)],
)
def test_other_machines_are_warned_of(run, capsys, host, warned):
    arguments = command._parser("p").parse_args([f"--run={run}", f"--host={host}"])
    command._announce(Predictor(run), arguments, 8000)
    said = capsys.readouterr().out
    assert ("can be reached by other machines" in said) == warned
    assert said.endswith(f"http://{'[::1]' if host == '::1' else host}:8000\n")


def test_by_default_only_this_machine_is_served(run):
    assert command._parser("p").parse_args([f"--run={run}"]).host == "127.0.0.1"
    with command._bound("127.0.0.1", 0) as door:
        assert door.getsockname()[0] == "127.0.0.1"
        with pytest.raises(OSError):  # it does not listen yet
            socket.create_connection(door.getsockname(), timeout=1)


def test_what_is_no_page_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        command.main([f"--run={tmp_path}", "--port=0", f"--page={tmp_path / 'none.html'}"])
    (tmp_path / "a.html").write_text("<title>mine</title>")
    with pytest.raises(UserError, match="is not a page of"):
        command.main([f"--run={tmp_path}", "--port=0", f"--page={tmp_path / 'a.html'}"])
    (tmp_path / "b.html").write_text('<script type="application/json" id="facts">{}</script>')
    assert command._read_page(tmp_path / "b.html").startswith(b"<script")
