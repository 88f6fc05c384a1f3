"""Reads the body of a request within limits of size and time, and only into memory."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

SECONDS = 30.0  # for a client to send its picture
CLIENT_LEFT = 499  # the status that servers log for it; it is never sent
_PATIENCE = 2  # multiple of the limit that is read, so that a client gets to its answer
_MULTIPART, _DICOM = b"multipart/form-data", b"application/dicom"


class Upload(NamedTuple):
    """A picture as it was sent.

    Attributes:
      content: content of the file.
      name: the client's name for it, or one that tells its type; "" if neither is known.
    """

    content: bytes
    name: str


async def read(request: Request, most: int) -> Upload:
    """The one picture of a request: its body, or the one file of a form.

    Args:
      request: whose body has not been read.
      most: size limit of the body in bytes.

    Raises:
      HTTPException: 400 if there is no picture or more than one, 408 if it takes too long to come,
        413 if it is too large, 499 if the client leaves.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    content = await _received(request, most)
    if content is None:
        raise HTTPException(413, f"The picture is larger than the limit of {most / 1e6:g} MB.")
    if kind == _MULTIPART:
        # Parsing a form with many parts takes a while, and the event loop has other clients.
        upload = await asyncio.to_thread(_file_of_form, content, options.get(b"boundary"))
    else:
        upload = Upload(content, "picture.dcm" if kind == _DICOM else "")
    if not upload.content:
        raise HTTPException(400, "There is no picture: send the file as the body of the request.")
    return upload


async def discard(request: Request, most: int) -> None:
    """Reads a body and discards it: a client that is still sending would not see the answer.

    Args:
      request: whose body has not been read.
      most: size limit of the body in bytes; the rest of a far larger body is not read.

    Raises:
      HTTPException: 408 or 499, as for `read`.
    """
    await _received(request, most, keep=False)


async def _received(request: Request, most: int, *, keep: bool = True) -> bytes | None:
    """The body; None if it is larger than ``most``, or not to be kept."""
    content, size = bytearray(), 0
    try:
        async with asyncio.timeout(SECONDS):
            async for part in request.stream():
                size += len(part)
                if keep and size <= most:
                    content += part
                else:
                    content.clear()
                if size > _PATIENCE * most:
                    break
    except TimeoutError:
        raise HTTPException(408, f"The picture did not come in {SECONDS:g} seconds.") from None
    except ClientDisconnect:
        raise HTTPException(CLIENT_LEFT, "The client left.") from None
    return bytes(content) if keep and size <= most else None


def _file_of_form(content: bytes, boundary: bytes | None) -> Upload:
    """The one part of a form that has a file name."""
    files: list[Upload] = []
    header, value, disposition, data = bytearray(), bytearray(), bytearray(), bytearray()

    def begin() -> None:
        disposition.clear()
        data.clear()

    def end_header() -> None:
        if header.lower() == b"content-disposition":
            disposition[:] = value
        header.clear()
        value.clear()

    def end() -> None:
        _, options = parse_options_header(bytes(disposition))
        if b"filename" in options:
            name = options[b"filename"].decode("utf-8", "replace")
            files.append(Upload(bytes(data), name))

    def into(buffer: bytearray):
        def take(part: bytes, start: int, stop: int) -> None:
            buffer.extend(part[start:stop])

        return take

    ended: list[bool] = []
    callbacks = {
        "on_part_begin": begin,
        "on_header_field": into(header),
        "on_header_value": into(value),
        "on_header_end": end_header,
        "on_part_data": into(data),
        "on_part_end": end,
        "on_end": lambda: ended.append(True),
    }
    try:
        if not boundary:
            raise FormParserError("no boundary")
        parser = MultipartParser(boundary, callbacks)
        parser.write(content)
        parser.finalize()
    except FormParserError:
        ended.clear()
    if not ended:
        raise HTTPException(400, "The form is incomplete or is not multipart/form-data.")
    if len(files) != 1:
        raise HTTPException(400, f"The form has {len(files)} files; send one picture a request.")
    return files[0]
