"""A request to a container, as kubelet makes it.

200 to 399 is success. Redirects are followed within one host, ten times; one that leads elsewhere is a success, for the
container has answered. Certificates are not verified. What answers may be anything: of a body no more is read
than kubelet reads, nothing is unpacked, no cookie is kept, and the caller's deadline ends what never ends.
"""

from __future__ import annotations

import os
import socket
from http import HTTPStatus

import aiohttp
from yarl import URL

import bayplan
from agent.probes.model import HttpGet
from agent.probes.names import Names
from agent.probes.port import SUCCESS, Outcome

BODY_MAX_BYTES = 10 * 1024
REQUESTS_MAX = 10
USER_AGENT = f"bayplan-probe/{bayplan.__version__}"
_REDIRECTS = (301, 302, 303, 307, 308)
# The first that fits; what is left are the kernel's errors.
_ERRORS: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientSSLError, "the TLS handshake failed"),
    (aiohttp.ClientConnectorDNSError, "unknown host"),
    (aiohttp.ServerDisconnectedError, "the connection was closed without an answer"),
    (aiohttp.ClientPayloadError, "the connection was closed within the answer"),
    (aiohttp.ClientResponseError, "what answered speaks no HTTP"),
    (aiohttp.NonHttpUrlClientError, "redirected to what is no URL"),
    (ValueError, "redirected to what is no URL"),
)


class HttpProber:
    """One per agent. Made anywhere, used inside one event loop, closed with `aclose`."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._session: aiohttp.ClientSession | None = None

    async def get(self, address: str, request: HttpGet, *, any_answer: bool = False) -> Outcome:
        """Ask once, without a deadline of its own.

        Args:
            address: the container's.
            request: what to ask for.
            any_answer: whatever the answer says is a success, as for hooks.
        """
        try:
            return await self._follow(_url(address, request), request, any_answer=any_answer)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome.failure(f"{_words(error)} at {request.place}")

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _follow(self, url: URL, request: HttpGet, *, any_answer: bool) -> Outcome:
        for _ in range(REQUESTS_MAX):
            status, location = await self._ask(url, request)
            if any_answer:
                return SUCCESS
            if not 200 <= status < 400:
                return Outcome.failure(f"HTTP {_status(status)} at {request.place}")
            if status not in _REDIRECTS or location is None:
                return SUCCESS
            target = url.join(URL(location))
            if target.host != url.host:
                return SUCCESS
            url = target
        return Outcome.failure(f"redirected {REQUESTS_MAX} times at {request.place}")

    async def _ask(self, url: URL, request: HttpGet) -> tuple[int, str | None]:
        """(status, where it redirects to)."""
        response = await self._opened().get(
            url,
            headers=_headers(request),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            allow_redirects=False,
        )
        try:
            left_bytes = BODY_MAX_BYTES
            while left_bytes > 0 and (piece := await response.content.read(left_bytes)):
                left_bytes -= len(piece)
        finally:
            response.close()  # Not release(): that would read on.
        return response.status, response.headers.get("Location")

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # A connection for each check, as clients that come anew have it; and any number of them at once.
                connector=aiohttp.TCPConnector(limit=0, force_close=True, ssl=False, resolver=self._names),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session


def _url(address: str, request: HttpGet) -> URL:
    host = request.host or address
    bracketed = f"[{host}]" if ":" in host else host
    scheme = "https" if request.is_tls else "http"
    # As it was written: normalised, a path might be another one.
    return URL(f"{scheme}://{bracketed}:{request.port}{request.path}", encoded=True)


def _headers(request: HttpGet) -> list[tuple[str, str]]:
    """An empty User-Agent or Accept leaves the header out, as in Kubernetes."""
    said = {name.lower() for name, _ in request.headers}
    defaults = [("User-Agent", USER_AGENT), ("Accept", "*/*")]
    return [header for header in defaults if header[0].lower() not in said] + [
        (name, value)
        for name, value in request.headers
        if value or name.lower() not in ("user-agent", "accept")
    ]


def _status(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _words(error: Exception) -> str:
    for kind, words in _ERRORS:
        if isinstance(error, kind):
            return words
    return words_of(error) if isinstance(error, OSError) else type(error).__name__


def words_of(error: OSError) -> str:
    """The kernel's words without the address, e.g. "connection refused"."""
    if isinstance(error, socket.gaierror):
        return "unknown host"
    return os.strerror(error.errno).lower() if error.errno else str(error) or type(error).__name__
