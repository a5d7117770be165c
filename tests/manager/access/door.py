"""A gate with methods behind it, called without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NoReturn

import grpc
import grpc.aio

from bayplan.identity import certificates
from bayplan.v1 import control_pb2
from manager.access.audit import Audit, Entry
from manager.access.caller import ON_BEHALF_OF, Caller, current_caller
from manager.access.gate import Gate
from manager.access.methods import callers_of
from manager.manager import SERVICES
from tests.manager.access.world import CLUSTER, Desk, Member

SCALE, GET, JOIN, CONNECT, FOLLOW, WATCH = (
    f"/bayplan.v1.{path}"
    for path in (
        "Control/Scale", "Control/Get", "Access/Join", "AgentLink/Connect", "ManagerLink/Follow", "Control/Watch",
    )
)  # fmt: skip
WEB = control_pb2.GetRequest(kind="Deployment", namespace="default", name="web")


class FakeContext:
    """What gRPC knows of a call, as its own context answers."""

    def __init__(self, certificate: bytes, metadata: tuple[tuple[str, str], ...], peer: str) -> None:
        self._certificate = certificate
        self._metadata = metadata
        self._peer = peer
        self._code: grpc.StatusCode | int = 0
        self.words = ""

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._certificate]} if self._certificate else {}

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def peer(self) -> str:
        return self._peer

    def code(self) -> grpc.StatusCode | int:
        return self._code

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing: Any = ()) -> NoReturn:
        del trailing
        self._code, self.words = code, details
        raise grpc.aio.AbortError


@dataclass(frozen=True)
class Outcome:
    """How a call ended."""

    code: grpc.StatusCode
    words: str = ""


OK = Outcome(grpc.StatusCode.OK)


class Notes(Audit):
    """The record, in memory."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)


async def nothing(request: Any, context: Any) -> str:
    """A method that does as it is told."""
    del request, context
    return "done"


class Door:
    """A gate, and methods behind it."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.notes = Notes()
        self.seen: list[Caller] = []  # By the methods.
        self.gate = Gate(
            callers_of(SERVICES),
            registry=desk.registry,
            audit=self.notes,
            cluster=lambda: CLUSTER,
            manager="m1",
            wall_s=desk.clock,
        )

    async def call(
        self,
        method: str,
        by: Member | bytes | None = None,
        *,
        behalf: str = "",
        peer: str = "ipv4:10.0.0.7:51234",
        request: Any = WEB,
        behaviour: Callable[[Any, Any], Awaitable[Any]] = nothing,
    ) -> Outcome:
        """Call a method that takes one message and gives one."""

        async def noticed(request: Any, context: Any) -> Any:
            self.seen.append(current_caller())
            return await behaviour(request, context)

        handler = await self._guarded(method, grpc.unary_unary_rpc_method_handler(noticed))
        context = self.context(by, behalf=behalf, peer=peer)
        try:
            # As gRPC does: each call in a task of its own.
            await asyncio.ensure_future(handler.unary_unary(request, context))
        except grpc.aio.AbortError:
            code = context.code()
            assert isinstance(code, grpc.StatusCode)
            return Outcome(code, context.words)
        return OK

    def context(
        self, by: Member | bytes | None = None, *, behalf: str = "", peer: str = "ipv4:10.0.0.7:51234"
    ) -> FakeContext:
        shown = certificates.to_pem(by.leaf.certificate) if isinstance(by, Member) else by or b""
        return FakeContext(shown, ((ON_BEHALF_OF, behalf),) if behalf else (), peer)

    async def _guarded(self, method: str, handler: Any) -> Any:
        async def continuation(_details: Any) -> Any:
            return handler

        # Each call of a test has a behaviour of its own.
        self.gate._handlers.clear()
        details: Any = SimpleNamespace(method=method, invocation_metadata=())
        found: Any = await self.gate.intercept_service(continuation, details)
        return found

    async def open(self, method: str, by: Member, *, behalf: str = "") -> asyncio.Task[Outcome]:
        """A stream that gives one message and then lasts."""
        begun = asyncio.Event()

        async def lasting(_request: Any, _context: Any) -> AsyncIterator[str]:
            yield "first"
            await asyncio.Event().wait()

        handler = await self._guarded(method, grpc.unary_stream_rpc_method_handler(lasting))
        context = self.context(by, behalf=behalf)

        async def read() -> Outcome:
            try:
                async for _ in handler.unary_stream(no_requests(), context):
                    begun.set()
            except grpc.aio.AbortError:
                code = context.code()
                assert isinstance(code, grpc.StatusCode)
                return Outcome(code, context.words)
            return OK

        reading = asyncio.ensure_future(read())
        await begun.wait()
        return reading


async def no_requests() -> AsyncIterator[bytes]:
    """Of a stream whose caller only listens."""
    nothing: tuple[bytes, ...] = ()
    for each in nothing:
        yield each
