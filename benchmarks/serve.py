"""How many requests a second ``mtbus serve`` answers, and whether it loses any.

    python benchmarks/serve.py --run=runs/best --clients=1,4,16

Starts the server on a free port of this machine's loopback address and talks to nothing else.
``--clients`` at a time send phantoms of several sizes, each over its own connection, which stays
open, and each sends its next picture once it has its answer. A client that is told to come back
(503) waits as long as it is told and sends the same picture again. Every answer is compared with
the answer to the same picture sent alone. Each setting ends after ``--requests`` answers or
``--seconds``, whichever comes first; after the last one the server is stopped.

It fails if an answer is missing or differs, if the server does not end when it is told to, or if
its memory grew by more than ``--growth_mb`` after the first setting.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import io
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import side_by_side
from PIL import Image
from predict import write_run

from mtbus_jax.images.phantom import make_phantoms

_START_SECONDS = 300  # for weights and compiling
_ANSWER_SECONDS = 120
_PICTURES = 8


class Server:
    """The server as a process of its own."""

    def __init__(self, run: Path, queue: int):
        """Waits until it listens."""
        program = "from mtbus_jax.cli import main; main()"
        command = [sys.executable, "-c", program, "serve", f"--run={run}", "--port=0"]
        self._process = subprocess.Popen(
            [*command, f"--queue={queue}"], stdout=subprocess.PIPE, text=True
        )
        watchdog = threading.Timer(_START_SECONDS, self._process.kill)
        watchdog.start()
        for line in self._process.stdout:
            if line.startswith("listening on http://"):
                self.address = line.strip().removeprefix("listening on http://")
                break
        else:
            sys.exit("the server did not start")
        watchdog.cancel()

    def memory(self) -> dict[str, float]:
        """Memory in use now and at its peak, in MB; {} if the system does not report it."""
        status = Path(f"/proc/{self._process.pid}/status")
        if not status.exists():
            return {}
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        names = {"now": "VmRSS", "peak": "VmHWM"}
        return {name: int(lines[key].split()[0]) / 1e3 for name, key in names.items()}

    def stop(self) -> int:
        """Its exit code after SIGTERM."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(60)
        finally:
            self._process.kill()


class Load:
    """Clients that share a number of requests."""

    def __init__(self, server: Server, pictures: list[bytes], expected: list[str | None]):
        """``expected`` is the digest of each picture's answer, None if any answer is accepted."""
        self._server, self._pictures, self._expected = server, pictures, expected
        self._lock = threading.Lock()
        self.seconds: list[float] = []
        self.digests: dict[int, str] = {}
        self.refused = self.wrong = self.errors = self.sent = 0

    def run(self, clients: int, requests: int, limit: float) -> float:
        """Sends the requests; returns the seconds that they took."""
        numbers = iter(range(requests))
        end = time.monotonic() + limit
        threads = [
            threading.Thread(target=self._client, args=(numbers, end)) for _ in range(clients)
        ]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - start

    def _client(self, numbers, end: float) -> None:
        connection = http.client.HTTPConnection(self._server.address, timeout=_ANSWER_SECONDS)
        while time.monotonic() < end:
            with self._lock:
                number = next(numbers, None)
                if number is None:
                    break
                self.sent += 1
            index = number % len(self._pictures)
            start = time.perf_counter()
            try:
                digest = self._answer(connection, self._pictures[index])
            except (OSError, http.client.HTTPException, ValueError) as error:
                print(f"  {type(error).__name__}: {error}", file=sys.stderr)
                with self._lock:
                    self.errors += 1
                connection.close()
                continue
            with self._lock:
                self.seconds.append(time.perf_counter() - start)
                self.digests[index] = digest
                self.wrong += self._expected[index] not in (None, digest)
        connection.close()

    def _answer(self, connection: http.client.HTTPConnection, picture: bytes) -> str:
        while True:
            connection.request("POST", "/predict", picture)
            response = connection.getresponse()
            content = response.read()
            if response.status == 200:
                found = json.loads(content)
                told = found["class"], found["probabilities"], found["mask_png"]
                return hashlib.sha256(repr(told).encode()).hexdigest()
            if response.status != 503:
                raise ValueError(f"status {response.status}: {content[:200]!r}")
            with self._lock:
                self.refused += 1
            time.sleep(float(response.headers["Retry-After"]))


def encode(phantoms) -> list[bytes]:
    """PNG files in RGB, as the public datasets have them."""
    files = []
    for phantom in phantoms:
        buffer = io.BytesIO()
        Image.fromarray(phantom.image).convert("RGB").save(buffer, format="PNG")
        files.append(buffer.getvalue())
    return files


def measure(server: Server, pictures, expected, clients: int, options) -> dict:
    """One setting: its row of the table."""
    load = Load(server, pictures, expected)
    taken = load.run(clients, options.requests, options.seconds)
    seconds = sorted(load.seconds)
    if not seconds:
        sys.exit(f"no answer with {clients} clients")
    return {
        "clients": clients,
        "sent": load.sent,
        "answered": len(seconds),
        "lost": load.sent - len(seconds),
        "wrong": load.wrong,
        "refused": load.refused,
        "per_second": len(seconds) / taken,
        "median_seconds": statistics.median(seconds),
        "p95_seconds": seconds[min(len(seconds) - 1, round(0.95 * len(seconds)))],
        "memory_mb": server.memory(),
    }


def table(rows: list[dict]) -> str:
    """The rows as a table of text."""
    head = ("clients", "answers", "lost", "wrong", "told to wait", "per second", "median", "95 %")
    lines = ["".join(f"{each:>14}" for each in (*head, "MB now", "MB peak"))]
    for row in rows:
        memory = row["memory_mb"]
        cells = [row["clients"], row["answered"], row["lost"], row["wrong"], row["refused"]]
        cells += [f"{row['per_second']:.2f}"]
        cells += [f"{row[name]:.2f} s" for name in ("median_seconds", "p95_seconds")]
        cells += [f"{memory[name]:.0f}" if memory else "–" for name in ("now", "peak")]
        lines.append("".join(f"{each:>14}" for each in cells))
    return "\n".join(lines)


def failures(rows: list[dict], code: int, growth: float) -> list[str]:
    """Descriptions of all failures."""
    found = []
    for row in rows:
        if row["lost"] or row["wrong"]:
            found.append(f"{row['clients']} clients: {row['lost']} lost, {row['wrong']} wrong")
    peaks = [row["memory_mb"]["peak"] for row in rows if row["memory_mb"]]
    if peaks and peaks[-1] > peaks[0] + growth:
        found.append(f"its memory grew from {peaks[0]:.0f} to {peaks[-1]:.0f} MB")
    if code != 128 + signal.SIGTERM:
        found.append(f"it ended with code {code}")
    return found


def main() -> None:
    """Starts the server, measures each number of clients, and stops it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, help="run folder; default: a network of a few steps")
    parser.add_argument("--clients", default="1,4,16", help="at a time, one setting after another")
    parser.add_argument("--requests", type=int, default=64, help="answers of a setting, at most")
    parser.add_argument("--seconds", type=float, default=60, help="of a setting, at most")
    parser.add_argument("--queue", type=int, default=16, help="of the server")
    parser.add_argument("--growth_mb", type=float, default=300, help="of memory, at most")
    parser.add_argument("--size", type=int, default=128, help="without --run: pixels")
    parser.add_argument("--width", type=int, default=24, help="without --run")
    parser.add_argument("--training_steps", type=int, default=10, help="without --run")
    parser.add_argument("--json", help="file for the figures")
    options = parser.parse_args()
    phantoms = list(itertools.islice(make_phantoms(_PICTURES, seed=0), _PICTURES))
    pictures = encode(phantoms)
    with tempfile.TemporaryDirectory() as name:
        run = options.run or Path(name) / "run"
        if options.run is None:
            write_run(run, phantoms, options)
        server = Server(run, options.queue)
        try:
            alone = Load(server, pictures, [None] * len(pictures))
            alone.run(1, len(pictures), _ANSWER_SECONDS)
            if len(alone.digests) < len(pictures):
                sys.exit("the pictures were not answered one by one")
            expected = [alone.digests[index] for index in range(len(pictures))]
            counts = [int(each) for each in options.clients.split(",")]
            rows = [measure(server, pictures, expected, count, options) for count in counts]
        finally:
            code = server.stop()
    print(f"queue {options.queue}, {os.cpu_count()} cores\n{table(rows)}")
    if options.json:
        side_by_side.write(options.json, {"rows": rows, "queue": options.queue})
    if problems := failures(rows, code, options.growth_mb):
        sys.exit("; ".join(problems))


if __name__ == "__main__":
    main()
