"""Answers pictures sent over HTTP, with class and mask; by default for this machine only.

    mtbus serve --run=runs/best
    curl --data-binary @scan.png http://127.0.0.1:8000/predict

Nothing that is sent is written to disk. There is no authentication and no encryption: docs/serve.md
says what to put in front of the server before other machines may reach it. It needs
pip install -e '.[serve]', and '.[dicom]' for DICOM files.
"""

from __future__ import annotations

import argparse
import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path

from mtbus_jax import commandline
from mtbus_jax.errors import UserError, reason
from mtbus_jax.predict import Predictor
from mtbus_jax.predict.command import add_ensemble_flags
from mtbus_jax.runtime import backend, host_memory, program_cache, stopping
from mtbus_jax.serve.worker import Worker
from mtbus_jax.training import bundled

_LOOPBACK = "127.0.0.1"
_OWN_NAMES = ("localhost", _LOOPBACK, "[::1]")
# Connections beyond the places: for /health, and to tell clients that no place is free.
_MORE_CONNECTIONS = 64
_GRACE_SECONDS = 30  # for requests under way, after a signal to stop
_BACKLOG = 128


def main(argv: Sequence[str], *, program: str = "mtbus_jax.serve") -> None:
    """Serves until it is stopped.

    Args:
      argv: arguments.
      program: the command's name in messages.

    Raises:
      UserError: for wrong use, a run that cannot be read, or an address that is not available.
      Stopped: after SIGTERM; Ctrl-C ends with `KeyboardInterrupt`.
    """
    args = _parser(program).parse_args(argv)
    try:
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    except ModuleNotFoundError as error:
        raise UserError(
            f"serving needs {error.name}: pip install -e '.[serve]' in a checkout of mtbus_jax."
        ) from None
    from mtbus_jax.serve import app

    page = None if args.page is None else _read_page(Path(args.page))
    with _bound(args.host, args.port) as door, stopping.on_sigterm():
        host_memory.keep_for_prediction(1)
        program_cache.open_cache()
        backend.check()
        predictor = Predictor(
            args.run, folds=args.folds, tta=args.tta, refine=args.refine, batch_size=1
        )
        worker = Worker(predictor, queue=args.queue)
        worker.warm_up()
        config = uvicorn.Config(
            app.create(worker, most=round(args.max_mb * 1e6), page=page, hosts=_hosts(args)),
            http="h11",
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=worker.places + _MORE_CONNECTIONS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        door.listen(_BACKLOG)
        _announce(predictor, args, door.getsockname()[1])
        uvicorn.Server(config).run(sockets=[door])


def _parser(program: str) -> commandline.Parser:
    parser = commandline.Parser(program, __doc__)
    parser.add_paths(
        run="run folder of main.py, or a folder of mtbus bundle; default: the network that comes "
        "with the library",
        page="page of mtbus export --web to show at /; it computes in the browser",
    )
    parser.add_argument(
        "--host", default=_LOOPBACK, help="address to listen on; default: %(default)s, this machine"
    )
    parser.add_argument(
        "--port",
        type=commandline.within(int, 0, 65535),
        default=8000,
        help="default: %(default)s; 0 takes a free one, which is printed",
    )
    parser.add_argument(
        "--allow_host",
        type=commandline.names,
        default=(),
        help="host names that requests may use, separated by commas, besides the server's own "
        "address and localhost; without it, any name is allowed if --host is no loopback address",
    )
    add_ensemble_flags(parser)
    parser.add_argument(
        "--queue",
        type=commandline.within(int, 0, 1000),
        default=16,
        help="requests that may wait; others are told to try again later; default: %(default)s",
    )
    parser.add_argument(
        "--max_mb",
        type=commandline.within(float, 0.001, 1000),
        default=32,
        help="largest picture in MB (10⁶ bytes); default: %(default)s",
    )
    return parser


def _read_page(path: Path) -> bytes:
    """A page of ``mtbus export --web``.

    Raises:
      UserError: if it cannot be read or is another file.
    """
    try:
        page = path.read_bytes()
    except OSError as error:
        raise UserError(f"--page={path} cannot be read: {reason(error)}.") from None
    if b'<script type="application/json" id="facts">' not in page:
        raise UserError(f"--page={path} is not a page of `mtbus export --web --out={path.name}`.")
    return page


def _bound(host: str, port: int) -> socket.socket:
    """A socket that is bound to the address but does not listen yet.

    Raises:
      UserError: if the address is not available.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((host, port))
    except OSError as error:
        door.close()
        raise UserError(
            f"--host={host} --port={port} cannot be listened on ({error.strerror or error}). Give "
            "another port, or --port=0 for any free one."
        ) from None
    return door


def _announce(predictor: Predictor, args: argparse.Namespace, port: int) -> None:
    host = f"[{args.host}]" if ":" in args.host else args.host
    print(
        f"serving fold{'s' * (len(predictor.folds) > 1)} {', '.join(map(str, predictor.folds))} of "
        f"{args.run or bundled.PRETRAINED}; research software, not a medical device"
    )
    if not _is_loopback(args.host):
        print(f"{args.host} can be reached by other machines, and there is no authentication")
    print(f"listening on http://{host}:{port}", flush=True)


def _hosts(args: argparse.Namespace) -> tuple[str, ...] | None:
    """Names that requests may call the server by; None for any."""
    if not args.allow_host and not _is_loopback(args.host):
        return None
    own = f"[{args.host}]" if ":" in args.host else args.host
    return tuple({own.lower(), *_OWN_NAMES, *(name.lower() for name in args.allow_host)})


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
