"""As much of HTTP/1.1 as the app needs: requests from a stream, answers to it, kept connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

HEAD_BYTES_MAX = 16 * 1024
BODY_BYTES_MAX = 64 * 1024
END_OF_HEAD = b"\r\n\r\n"


class BadRequestError(ValueError):
    """What came is no request: say so, and end the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One, its body read and thrown away."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)  # Names in lower case.

    @property
    def is_last(self) -> bool:
        """The client wants no other answer on this connection."""
        return self.headers.get("connection", "").lower() == "close"


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next one; None if the connection ends before it. Raises BadRequestError."""
    try:
        head = await reader.readuntil(END_OF_HEAD)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise BadRequestError("it ends in the middle") from error
        return None
    except asyncio.LimitOverrunError as error:
        raise BadRequestError(f"its head is longer than {HEAD_BYTES_MAX} bytes") from error
    request = _parse(head)
    await _skip_body(reader, request)
    return request


def head(status: HTTPStatus, headers: Mapping[str, str]) -> bytes:
    """All of an answer that comes before its body."""
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def as_json(document: Mapping[str, Any]) -> bytes:
    """On one line, so that shells can read it too."""
    return json.dumps(document).encode() + b"\n"


def _parse(text: bytes) -> Request:
    first, *lines = text.removesuffix(END_OF_HEAD).decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequestError("its first line is not HTTP/1.1")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequestError("a header has no colon")
        headers[name.strip().lower()] = value.strip()
    if words[2] == "HTTP/1.0":
        headers.setdefault("connection", "close")
    url = urlsplit(words[1])
    return Request(method=words[0], path=url.path, query=dict(parse_qsl(url.query)), headers=headers)


async def _skip_body(reader: asyncio.StreamReader, request: Request) -> None:
    if "transfer-encoding" in request.headers:
        raise BadRequestError("bodies in pieces are not taken")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > BODY_BYTES_MAX:
        raise BadRequestError(f"its body is longer than {BODY_BYTES_MAX} bytes")
    try:
        await reader.readexactly(int(length))
    except asyncio.IncompleteReadError as error:
        raise BadRequestError("its body ends in the middle") from error
