"""The web application: its routes and its error responses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mtbus_jax import images, types
from mtbus_jax.predict import Prediction
from mtbus_jax.predict.output import png
from mtbus_jax.serve import answer, body
from mtbus_jax.serve.worker import Full, Unusable, Worker

_JSON, _PNG = "application/json", "image/png"
# How long a client is told to wait if no place is free; a picture takes about a second.
RETRY_SECONDS = 2
_NO_ADDRESS = "There is POST /predict and GET /health, nothing else."
_NOT_KEPT = {"Cache-Control": "no-store"}


def create(
    worker: Worker, *, most: int, page: bytes | None = None, hosts: tuple[str, ...] | None = None
) -> Starlette:
    """The application.

    Args:
      worker: warmed up; closed when the application ends.
      most: size limit of a picture in bytes.
      page: HTML page for people, at "/"; None for none.
      hosts: host names that requests may use, in lower case and without port; None for any. Such
        a list stops DNS rebinding: a foreign page can point its own name at this machine's address,
        and a browser would then treat page and server as one origin.
    """
    about = answer.software(worker.predictor)

    def with_json(prediction: Prediction) -> Response:
        return _json(answer.as_json(prediction, about))

    def with_png(prediction: Prediction) -> Response:
        return Response(png(prediction.mask), media_type=_PNG, headers=_NOT_KEPT)

    async def predict(request: Request) -> Response:
        number, finish = _frame_number(request), with_json
        if _prefers_png(request.headers.get("accept", "")):
            finish = with_png
            if types.SEGMENTATION not in worker.predictor.tasks:
                raise HTTPException(406, "This run has no masks; ask for application/json.")
        try:
            with worker.place():
                return await _answered(worker, request, number, finish, most)
        except Full:
            await body.discard(request, most)
            raise HTTPException(
                503,
                f"All {worker.places} places are taken. Try again in a while.",
                {"Retry-After": str(RETRY_SECONDS)},
            ) from None

    async def health(request: Request) -> Response:
        queue = {"taken": worker.taken, "places": worker.places}
        limits = {"max_bytes": most, "upload_seconds": body.SECONDS}
        return _json({"status": "ok", "queue": queue, "limits": limits, "software": about})

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        worker.close()

    async def show(request: Request) -> Response:
        if page is None:
            raise HTTPException(404, "There is no page: mtbus serve --page=FILE serves one.")
        return Response(page, media_type="text/html; charset=utf-8")

    app = Starlette(
        routes=[
            Route("/", show, methods=["GET"]),
            Route("/predict", predict, methods=["POST"]),
            Route("/health", health, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _refused, Exception: _failed},
        lifespan=lifespan,
    )
    if hosts is not None:
        app.add_middleware(_KnownHosts, hosts=hosts)
    app.router.redirect_slashes = False  # many clients take a redirect for the answer
    return app


class _KnownHosts:
    """Refuses requests with an unknown host name."""

    def __init__(self, app: Any, hosts: tuple[str, ...]):
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            name = Headers(scope=scope).get("host", "").lower()
            name = re.sub(r":\d+$", "", name)
            if name not in self._hosts:
                detail = f"This server is not called {name!r}; --allow_host adds a name."
                await _json({"error": detail, "status": 421}, 421)(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _answered(
    worker: Worker,
    request: Request,
    number: int,
    finish: Callable[[Prediction], Response],
    most: int,
) -> Response:
    """Receives a picture and waits for its turn, unless the client leaves first."""
    upload = await body.read(request, most)
    if not images.is_known(upload.content[: images.HEAD_BYTES], upload.name):
        raise HTTPException(
            415, "The body is not a PNG, JPEG, TIFF, BMP, GIF, WebP or DICOM picture."
        )
    job = worker.submit(upload.content, upload.name, number, finish)
    response = asyncio.wrap_future(job)
    left = asyncio.create_task(_client_left(request))
    try:
        await asyncio.wait({response, left}, return_when=asyncio.FIRST_COMPLETED)
        if not response.done():
            job.cancel()  # has no effect once the job is running
        return await response
    except Unusable as error:
        raise HTTPException(422, str(error)) from None
    except asyncio.CancelledError:
        if not job.cancelled():
            raise
        raise HTTPException(body.CLIENT_LEFT, "The client left.") from None
    finally:
        left.cancel()


async def _client_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


def _frame_number(request: Request) -> int:
    for name in request.query_params:
        if name != "frame":
            raise HTTPException(400, f"{name!r} is no parameter; the only one is frame.")
    text = request.query_params.get("frame", "1")
    if not re.fullmatch("[1-9][0-9]{0,6}", text):
        raise HTTPException(400, "frame must be a whole number from 1.")
    return int(text)


def _prefers_png(accept: str) -> bool:
    """Whether a client asks for the mask rather than for JSON, which it gets otherwise."""
    wanted: dict[str, float] = {}
    for part in accept.split(","):
        name, *options = (each.strip().lower() for each in part.split(";"))
        quality = 1.0
        for option in options:
            if option.startswith("q="):
                with contextlib.suppress(ValueError):
                    quality = float(option[2:])
        wanted[name] = quality
    json_quality = max(wanted.get(name, 0.0) for name in (_JSON, "application/*", "*/*"))
    return wanted.get(_PNG, 0.0) > json_quality


def _json(content: dict[str, Any], status: int = 200, headers: dict | None = None) -> Response:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return Response(text, status, _NOT_KEPT | (headers or {}), _JSON)


async def _refused(_: Request, error: HTTPException) -> Response:
    detail = _NO_ADDRESS if error.detail == "Not Found" else error.detail  # starlette's own text
    content = {"error": detail, "status": error.status_code}
    return _json(content, error.status_code, dict(error.headers or {}))


async def _failed(_: Request, error: Exception) -> Response:
    content = {"error": f"The server failed ({type(error).__name__}).", "status": 500}
    return _json(content, 500)
