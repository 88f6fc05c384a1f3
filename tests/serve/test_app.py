"""The server's answers, through the library's own test client; no socket is opened."""

import asyncio
import base64
import io
import os
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import dicom_dummies
import numpy as np
import predict_dummies
import pytest
import tiny
from PIL import Image

from mtbus_jax import images, models, types
from mtbus_jax.predict import Predictor

pytest.importorskip("starlette", reason="NOT TESTED without mtbus_jax[serve]")
testclient = pytest.importorskip("starlette.testclient", reason="NOT TESTED without httpx")

from mtbus_jax.serve import app, body, command  # noqa: E402
from mtbus_jax.serve.worker import Worker  # noqa: E402

MOST = 300_000


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
        predict_dummies.write_run(workdir)
        predict_dummies.write_trust(workdir, (0, 1))
        yield Predictor(workdir, batch_size=1)


@pytest.fixture
def worker(predictor):
    worker = Worker(predictor, queue=1)
    worker.warm_up()
    yield worker
    worker.close()


@pytest.fixture
def client(worker):
    served = app.create(worker, most=MOST)
    with testclient.TestClient(served, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def pictures():
    return predict_dummies.pictures()


def as_file(pixels, file_format="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=file_format)
    return buffer.getvalue()


def as_dicom(tmp_path, frames, **elements):
    pytest.importorskip("pydicom", reason="NOT TESTED without mtbus_jax[dicom]")
    path = tmp_path / "a.dcm"
    dicom_dummies.write(path, frames, **elements)
    return path.read_bytes()


def said_to_one_that_leaves(served, content, *, whole):
    """The messages of the app to a client that sends ``content``, all or a part, and hangs up."""
    sent = []
    messages = [
        {"type": "http.request", "body": content, "more_body": not whole},
        {"type": "http.disconnect"},
    ]

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/predict", "query_string": b"",
        "headers": [], "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 80),
    }  # fmt: skip
    asyncio.run(served(scope, receive, send))
    return sent


def mask_of(content):
    return np.asarray(Image.open(io.BytesIO(content))) > 0


def refused(response, status):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    content = response.json()
    assert content["status"] == status
    return content["error"]


class TestAnswers:
    def test_is_what_the_predictor_says(self, client, predictor, pictures):
        for pixels in pictures:
            (wanted,) = predictor([pixels])
            response = client.post("/predict", content=as_file(pixels))
            assert response.status_code == 200
            assert response.headers["cache-control"] == "no-store"
            found = response.json()
            assert found["class"] == wanted.class_name
            assert list(found["probabilities"]) == list(types.CLASS_NAMES)
            probabilities = list(found["probabilities"].values())
            np.testing.assert_allclose(probabilities, wanted.class_probability, atol=1e-6)
            assert found["uncertainty"] == pytest.approx(wanted.uncertainty, abs=1e-6)
            assert found["warning"] == wanted.warning
            assert found["prediction_set"] == list(wanted.prediction_set)
            assert (found["height"], found["width"]) == pixels.shape
            assert found["area_px"] == wanted.mask.sum()
            mask = mask_of(base64.b64decode(found["mask_png"]))
            np.testing.assert_array_equal(mask, wanted.mask)
            assert (found["spacing"], found["area_mm2"]) == (None, None)
            assert found["software"]["network"] == "tiny"
            assert found["software"]["weights"] == predictor.trained.digest()
            assert "not a medical device" in found["disclaimer"]

    def test_a_form_is_as_good_as_a_body(self, client, pictures):
        content = as_file(pictures[0])
        raw = client.post("/predict", content=content).json()
        form = client.post("/predict", files={"file": ("scan.png", content)}, data={"a": "b"})
        assert form.json() == raw

    @pytest.mark.parametrize(
        ("accept", "is_png"),
        [
            ("image/png", True),
            ("image/png, application/json;q=0.5", True),
            ("image/png;q=0.5, */*", False),
            ("*/*", False),
            ("text/html,image/webp,*/*;q=0.8", False),
            ("image/png;q=high", True),
            ("", False),
        ],
    )
    def test_the_mask_alone(self, client, predictor, pictures, accept, is_png):
        headers = {"Accept": accept}
        response = client.post("/predict", content=as_file(pictures[0]), headers=headers)
        assert response.status_code == 200
        kind = "image/png" if is_png else "application/json"
        assert response.headers["content-type"] == kind
        if is_png:
            (wanted,) = predictor([pictures[0]])
            np.testing.assert_array_equal(mask_of(response.content), wanted.mask)

    def test_dicom_has_millimetres_and_no_patient(self, client, pictures, tmp_path):
        box = (0, 0, *pictures[0].shape)
        content = as_dicom(
            tmp_path,
            pictures[0][None],
            SequenceOfUltrasoundRegions=[dicom_dummies.region(box, 0.02, 0.01)],
        )
        response = client.post("/predict", content=content)
        found = response.json()
        assert found["spacing"] == {"row_mm": 0.2, "col_mm": 0.1}
        assert found["area_mm2"] == pytest.approx(found["area_px"] * 0.02, abs=1e-3)
        assert dicom_dummies.SECRET.lower() not in response.text.lower()

    def test_one_frame_of_a_clip(self, client, predictor, pictures, tmp_path):
        frames = np.stack([np.roll(pictures[0], 9 * i, axis=1) for i in range(3)])
        content = as_dicom(tmp_path, frames)
        for number in (1, 3):
            found = client.post(f"/predict?frame={number}", content=content).json()
            (wanted,) = predictor([frames[number - 1]])
            assert (found["frame"], found["frames"]) == (number, 3)
            mask = mask_of(base64.b64decode(found["mask_png"]))
            np.testing.assert_array_equal(mask, wanted.mask)
        error = refused(client.post("/predict?frame=4", content=content), 422)
        assert error == "The file has 3 pictures, so there is no 4."

    def test_dicom_without_a_preamble_needs_its_type(self, client, pictures, tmp_path):
        content = as_dicom(tmp_path, pictures[0][None])[132:]
        refused(client.post("/predict", content=content), 415)
        headers = {"Content-Type": "application/dicom"}
        assert client.post("/predict", content=content, headers=headers).status_code == 200
        form = {"file": ("IM1.dcm", content)}
        assert client.post("/predict", files=form).status_code == 200

    def test_health(self, client, worker):
        found = client.get("/health").json()
        assert found["status"] == "ok"
        assert found["queue"] == {"taken": 0, "places": 2}
        assert found["limits"]["max_bytes"] == MOST
        assert found["software"]["folds"] == [0, 1]

    @pytest.mark.parametrize("tasks", [("seg",), ("cls",)])
    def test_single_tasks(self, tmp_path, pictures, monkeypatch, tasks):
        monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
        predict_dummies.write_run(tmp_path / "run", folds=(0,), tasks=tasks)
        worker = Worker(Predictor(tmp_path / "run", batch_size=1), queue=0)
        with testclient.TestClient(app.create(worker, most=MOST)) as client:
            found = client.post("/predict", content=as_file(pictures[0])).json()
            assert (
                (found["class"] is None) == (found["probabilities"] is None) == (tasks == ("seg",))
            )
            assert (found["mask_png"] is None) == (found["area_px"] is None) == (tasks == ("cls",))
            assert found["warning"] == "not calibrated"
            if tasks == ("cls",):
                headers = {"Accept": "image/png"}
                response = client.post("/predict", content=as_file(pictures[0]), headers=headers)
                assert "has no masks" in refused(response, 406)


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "status", "words"),
        [
            (b"", 400, "no picture"),
            (b"GIF no", 415, "is not a PNG"),
            (b"%PDF-1.7" + bytes(200), 415, "is not a PNG"),
            (b"{}", 415, "is not a PNG"),
            (b"GIF89a", 422, "is not a PNG"),
            (bytes(128) + b"DICM" + bytes(100), 422, "The file is not a DICOM file that holds"),
        ],
    )
    def test_bodies(self, client, content, status, words):
        assert words in refused(client.post("/predict", content=content), status)

    def test_cut_pictures(self, client, pictures):
        content = as_file(pictures[0])
        assert "cut" in refused(client.post("/predict", content=content[:-200]), 422)

    def test_sizes_that_are_no_picture(self, client):
        small = as_file(np.zeros((8, 200), np.uint8))
        assert "too small" in refused(client.post("/predict", content=small), 422)
        bomb = as_file(np.zeros((1, 1), np.uint8))
        header = b"IHDR" + (30_000).to_bytes(4, "big") * 2 + bomb[24:29]
        bomb = bomb[:12] + header + zlib.crc32(header).to_bytes(4, "big") + bomb[33:]
        assert "decompression bombs" in refused(client.post("/predict", content=bomb), 422)

    def test_larger_than_the_limit(self, client, worker):
        for extra in (1, 10 * MOST):
            response = client.post("/predict", content=bytes(MOST + extra))
            assert "larger than the limit of 0.3 MB" in refused(response, 413)

        def parts():  # without an announced length
            for _ in range(20):
                yield bytes(MOST // 10)

        assert "larger" in refused(client.post("/predict", content=parts()), 413)
        assert worker.taken == 0

    def test_as_large_as_the_limit(self, client, pictures):
        content = as_file(pictures[0])
        padded = content + bytes(MOST - len(content))
        assert client.post("/predict", content=padded).status_code == 200

    @pytest.mark.parametrize("frame", ["0", "-1", "1.5", "x", "", "²", "99999999999"])
    def test_frame_numbers(self, client, pictures, frame):
        response = client.post("/predict", params={"frame": frame}, content=as_file(pictures[0]))
        assert "whole number" in refused(response, 400)

    def test_parameters_that_do_not_exist(self, client, pictures):
        response = client.post("/predict?fram=2", content=as_file(pictures[0]))
        assert "'fram' is no parameter" in refused(response, 400)

    def test_forms(self, client, pictures):
        content = as_file(pictures[0])
        two = [("file", ("a.png", content)), ("file", ("b.png", content))]
        assert "2 files" in refused(client.post("/predict", files=two), 400)
        headers = {"Content-Type": "multipart/form-data; boundary=abc"}
        text = b'--abc\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--abc--\r\n'
        response = client.post("/predict", content=text, headers=headers)
        assert "0 files" in refused(response, 400)
        cut = text.replace(b'name="a"', b'name="a"; filename="a.png"')[:-12]
        for wrong in (cut, content, b"--abc\r\n"):
            response = client.post("/predict", content=wrong, headers=headers)
            assert "is incomplete" in refused(response, 400)
        headers = {"Content-Type": "multipart/form-data"}
        assert "is incomplete" in refused(
            client.post("/predict", content=text, headers=headers), 400
        )

    def test_addresses_and_methods(self, client):
        # No redirection, which clients that do not follow would take for an answer.
        refused(client.post("/predict/", content=b"", follow_redirects=False), 404)
        assert "/predict" in refused(client.get("/elsewhere"), 404)
        response = client.get("/predict")
        refused(response, 405)
        assert response.headers["allow"] == "POST"

    def test_a_failure_of_the_server_says_no_more_than_its_type(
        self, client, worker, pictures, monkeypatch
    ):
        def failing(*_):
            raise ZeroDivisionError("secret")

        monkeypatch.setattr(worker, "_work", failing)
        response = client.post("/predict", content=as_file(pictures[0]))
        assert refused(response, 500) == "The server failed (ZeroDivisionError)."
        monkeypatch.undo()
        assert client.post("/predict", content=as_file(pictures[0])).status_code == 200
        assert worker.taken == 0


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class TestQueue:
    def test_more_than_it_holds_are_told_to_come_back(self, client, worker, pictures):
        gate = threading.Event()
        worker._pool.submit(gate.wait)  # busy
        contents = [as_file(pixels) for pixels in pictures[:2]]
        with ThreadPoolExecutor(3) as senders:
            sent = [senders.submit(client.post, "/predict", content=each) for each in contents]
            until(lambda: worker.taken == 2)
            content = as_file(pictures[2])
            late = senders.submit(client.post, "/predict", content=content)
            try:  # let in, it would wait for the gate, and the gate for it
                late = late.result(20)
            except TimeoutError:
                gate.set()
                raise
            assert "All 2 places are taken" in refused(late, 503)
            assert int(late.headers["retry-after"]) == app.RETRY_SECONDS
            assert client.get("/health").json()["queue"]["taken"] == 2
            gate.set()
            for response, pixels in zip(sent, pictures, strict=False):
                found = response.result(20)
                assert found.status_code == 200
                assert (found.json()["height"], found.json()["width"]) == pixels.shape
        assert worker.taken == 0
        assert client.post("/predict", content=contents[0]).status_code == 200

    def test_a_client_that_leaves_gives_its_place_back(self, worker, pictures):
        """Before its turn; nobody waits for the answer then, and it is not computed."""
        gate = threading.Event()
        worker._pool.submit(gate.wait)
        served = app.create(worker, most=MOST)
        predicted = []
        worker._work = lambda *args: predicted.append(args)
        sent = said_to_one_that_leaves(served, as_file(pictures[0]), whole=True)
        assert sent[0]["status"] == body.CLIENT_LEFT
        assert worker.taken == 0
        gate.set()
        worker.close()
        assert predicted == []

    def test_one_that_leaves_while_it_sends(self, worker):
        served = app.create(worker, most=MOST)
        sent = said_to_one_that_leaves(served, b"abc", whole=False)
        assert sent[0]["status"] == body.CLIENT_LEFT
        assert worker.taken == 0

    def test_one_that_sends_too_slowly(self, client, worker, monkeypatch):
        monkeypatch.setattr(body, "SECONDS", 0.05)

        async def never(self):
            await asyncio.sleep(10)
            yield b""

        monkeypatch.setattr(body.Request, "stream", never)
        assert "0.05 seconds" in refused(client.post("/predict", content=b"abc"), 408)
        assert worker.taken == 0


class _Opened:
    """Files that this process opens to write; audit hooks stay for good, so there is one."""

    paths: list | None = None

    def __call__(self, event, args):
        if event == "open" and self.paths is not None:
            path, _, flags = args
            writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
            if isinstance(flags, int) and flags & writes:
                self.paths.append(path)


def test_nothing_is_written_to_disk(worker, pictures, tmp_path):
    """Not even the large form that servers put into a temporary file."""
    opened = _Opened()
    sys.addaudithook(opened)
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1400)).astype(np.uint8)
    content = as_file(noise)
    assert len(content) > 2_000_000
    dicom = as_dicom(tmp_path, pictures[0][None])
    with testclient.TestClient(app.create(worker, most=10_000_000)) as client:
        opened.paths = []
        for each in (content, dicom):
            assert client.post("/predict", files={"file": ("a.bin", each)}).status_code == 200
            assert client.post("/predict", content=each).status_code == 200
        found, opened.paths = opened.paths, []
        (tmp_path / "control").write_text("x")
        control, opened.paths = opened.paths, None
    assert len(control) == 1
    assert [path for path in found if path != os.devnull] == []


def test_frames_after_the_one_asked_for_are_not_decoded(worker, pictures, tmp_path, monkeypatch):
    decoded = []
    original = images.read_content

    def counted(*args):
        for frame in original(*args):
            decoded.append(frame.number)
            yield frame

    monkeypatch.setattr(images, "read_content", counted)
    content = as_dicom(tmp_path, np.repeat(pictures[0][None], 5, axis=0))
    number = worker.submit(content, "a.dcm", 2, lambda found: found.frame.number).result()
    assert number == 2
    assert decoded == [1, 2]


def test_a_page_for_people(worker, client):
    assert client.get("/").status_code == 404
    assert "--page" in client.get("/").text
    page = "<!DOCTYPE html><title>ä</title>".encode()
    with testclient.TestClient(app.create(worker, most=MOST, page=page)) as other:
        shown = other.get("/")
        assert shown.status_code == 200 and shown.content == page
        assert shown.headers["content-type"] == "text/html; charset=utf-8"
        assert other.post("/").status_code == 405


def test_other_names_of_the_server_are_refused(worker, pictures):
    """Else a page could give its own name this machine's address, and read the answers."""
    served = app.create(worker, most=MOST, hosts=("localhost", "[::1]"))
    with testclient.TestClient(served) as client:
        for name, status in (
            ("localhost", 200), ("LOCALHOST:8000", 200), ("[::1]:8000", 200),
            ("rebound.example:8000", 421), ("localhost.example", 421), ("", 421),
        ):  # fmt: skip
            response = client.get("/health", headers={"Host": name})
            assert response.status_code == status, name
        response = client.post(
            "/predict", content=as_file(pictures[0]), headers={"Host": "evil.example"}
        )
        assert "--allow_host" in refused(response, 421)


@pytest.mark.parametrize(
    ("flags", "known", "unknown"),
    [
        ([], {"127.0.0.1", "localhost"}, {"0.0.0.0", "example.org"}),
        (["--host=::1"], {"[::1]", "localhost"}, {"example.org"}),
        (["--allow_host=Example.org,other"], {"example.org", "other", "localhost"}, {"third"}),
        (["--host=192.0.2.7", "--allow_host=scan"], {"192.0.2.7", "scan"}, {"third"}),
    ],
)
def test_the_names_that_a_server_answers_to(flags, known, unknown):
    hosts = command._hosts(command._parser("mtbus serve").parse_args(flags))
    assert known <= set(hosts) and not unknown & set(hosts)


def test_on_an_address_for_others_any_name_will_do():
    assert command._hosts(command._parser("mtbus serve").parse_args(["--host=0.0.0.0"])) is None
