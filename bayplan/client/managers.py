"""Which manager to ask, how long to wait, and when to ask again.

Every manager serves the whole API, so a call goes to the one that answered last, and to the
next when that one cannot. A call is repeated only where that is harmless: when it changes
nothing if done twice, or when it surely never arrived. A watch that breaks starts anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio

from bayplan.client import wire
from bayplan.client.errors import (
    AccessDeniedError,
    BayplanError,
    ConflictError,
    ForbiddenStateError,
    InvalidDocumentError,
    ManagerFailedError,
    NotFoundError,
    UnavailableError,
    UnknownOutcomeError,
)
from bayplan.client.types import Mark
from bayplan.transport.errors import (
    OTHER_CLUSTER,
    REFUSED_HANDSHAKE,
    is_transport_text,
    problems_from_error,
    was_never_sent,
    words_of,
)
from bayplan.transport.port import Transport
from bayplan.v1.control_pb2_grpc import ControlStub

if TYPE_CHECKING:
    from bayplan.client.renewal import Renewal
    from bayplan.v1.control_pb2_grpc import ControlAsyncStub  # exists in the .pyi alone

# A manager that is dead or frozen is noticed by its connection within about 3 s; one that is
# merely slow (etcd may take 800 ms a write) gets this long before another is asked.
# (A manager without a leader waits 5 s for the next before it says so.)
ATTEMPT_S = 6.0
# Where no connection comes about with any manager, more patience helps only while they restart.
UNREACHABLE_S = 3.0
_PAUSE_MIN_S = 0.05
_PAUSE_MAX_S = 1.0

_Reply = TypeVar("_Reply")

# Unknown to the manager for a moment, not for good: ask another one.
_TRY_ANOTHER = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}

_ERRORS: dict[grpc.StatusCode, type[BayplanError]] = {
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: ConflictError,
    grpc.StatusCode.ABORTED: ConflictError,
    grpc.StatusCode.FAILED_PRECONDITION: ForbiddenStateError,
    grpc.StatusCode.PERMISSION_DENIED: AccessDeniedError,
    grpc.StatusCode.UNAUTHENTICATED: AccessDeniedError,
}


class StreamBrokenError(UnavailableError):
    """A stream that had begun ended early: open it again."""


class RepeatedNotFoundError(NotFoundError):
    """It is not there, maybe because an attempt whose answer was lost has removed it."""


class Managers:
    """The managers of one cluster, a channel each. `mark` is that of the last answer.

    With a `renewal`, every call and every stream begins with a certificate that is fresh.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        transport: Transport,
        *,
        timeout_s: float,
        renewal: Renewal | None = None,
    ) -> None:
        if not addresses:
            raise ValueError("name at least one manager")
        self.addresses = tuple(addresses)
        self.mark = Mark()
        self.timeout_s = timeout_s
        self._transport = transport
        self._renewal = renewal
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._identity_version = transport.identity_version  # That `_channels` show.
        # They show the certificate before this one; streams go on there until the manager cuts them.
        self._outdated: list[grpc.aio.Channel] = []
        self._current = 0
        self._seen = Mark()

    async def aclose(self) -> None:
        channels, self._channels = [*self._outdated, *self._channels.values()], {}
        self._outdated = []
        for channel in channels:
            await channel.close()

    async def call(
        self,
        method: Callable[[ControlAsyncStub], Callable[..., grpc.aio.UnaryUnaryCall[Any, _Reply]]],
        request: Any,
        *,
        may_repeat: bool,
        extra_s: float = 0.0,
    ) -> _Reply:
        """Call a method of Control until somebody answers; see `call_on`."""
        return await self.call_on(
            lambda channel: method(ControlStub(channel)), request, may_repeat=may_repeat, extra_s=extra_s
        )

    async def call_on(
        self,
        method: Callable[[grpc.aio.Channel], Callable[..., grpc.aio.UnaryUnaryCall[Any, _Reply]]],
        request: Any,
        *,
        may_repeat: bool,
        extra_s: float = 0.0,
    ) -> _Reply:
        """Call until somebody answers.

        Args:
            method: makes the call on a channel.
            request: its `seen` is filled in where it has one.
            may_repeat: doing it twice does no harm.
            extra_s: on top of the usual time, for work that takes longer.

        Raises:
            RepeatedNotFoundError: not found, but an earlier attempt may have had its effect.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout_s + extra_s
        give_up_early = loop.time() + min(UNREACHABLE_S, self.timeout_s)
        failures: dict[str, str] = {}
        repeated = was_reached = False
        for attempt in range(1_000_000):
            address = self.addresses[self._current]
            left_s = max(deadline - loop.time(), 0.01)
            alone = len(self.addresses) == 1 or not may_repeat
            attempt_s = left_s if alone else min(left_s, ATTEMPT_S + extra_s)
            self._fill_in_seen(request)
            channel = await self._fresh_channel(address)
            shown = self._identity_version
            try:
                reply = await method(channel)(request, timeout=attempt_s)
            except grpc.aio.AioRpcError as error:
                if await self._has_fresher(shown, error):
                    continue
                if error.code() not in _TRY_ANOTHER:
                    ours = to_error(error)
                    if repeated and isinstance(ours, NotFoundError):
                        ours = RepeatedNotFoundError(str(ours))
                    raise ours from error
                if address not in failures or error.code() is grpc.StatusCode.UNAVAILABLE:
                    failures[address] = words_of(error)  # What a manager says itself tells more than silence.
                never_sent = was_never_sent(error)
                # A manager that says itself why it cannot answer has done nothing.
                refused = error.code() is grpc.StatusCode.UNAVAILABLE and not is_transport_text(
                    error.details() or ""
                )
                if not (may_repeat or never_sent or refused):
                    raise UnknownOutcomeError(
                        f"the answer of manager {address} was lost ({failures[address]}):"
                        " whether the request was carried out is not known. Look before you repeat it."
                    ) from error
                repeated = repeated or not (never_sent or refused)
                was_reached = was_reached or not never_sent
                self._current = (self._current + 1) % len(self.addresses)
                pause_s = self._pause_s(attempt)
                unreachable = not was_reached and len(failures) == len(self.addresses)
                if loop.time() + pause_s >= (give_up_early if unreachable else deadline):
                    raise self._unavailable(failures) from error
                await asyncio.sleep(pause_s)
            else:
                self.observe(reply)
                return reply
        raise AssertionError("the deadline ends the loop")

    async def stream(
        self,
        method: Callable[[ControlAsyncStub], Callable[..., grpc.aio.UnaryStreamCall[Any, _Reply]]],
        request: Any,
        *,
        first_within_s: float | None,
    ) -> AsyncGenerator[_Reply, None]:
        """One stream, from the first manager that serves it.

        Args:
            method: picks the call from a stub.
            request: its `seen` is filled in where it has one.
            first_within_s: the first message comes this soon, or another manager is asked;
                None: it may be silent for as long as it likes.

        Raises:
            UnavailableError: nobody serves it.
            StreamBrokenError: it broke after messages had come.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout_s
        failures: dict[str, str] = {}
        for attempt in range(1_000_000):
            address = self.addresses[self._current]
            self._fill_in_seen(request)
            channel = await self._fresh_channel(address)
            shown = self._identity_version
            began = loop.time()
            call = method(ControlStub(channel))(request)
            is_first = True
            try:
                while True:
                    async with asyncio.timeout(first_within_s if is_first else None):
                        message = await call.read()
                    if message is grpc.aio.EOF:
                        return
                    is_first = False
                    self.observe(message)
                    yield message  # type: ignore[misc]  # EOF was returned above
            except TimeoutError:
                failures[address] = "no answer in time"
                cause: Exception | None = None
            except grpc.aio.AioRpcError as error:
                may_begin_anew = await self._has_fresher(shown, error)
                if error.code() not in _TRY_ANOTHER and not may_begin_anew:
                    raise to_error(error) from error
                if not is_first:
                    raise StreamBrokenError(f"manager {address}: {words_of(error)}") from error
                failures[address] = words_of(error)
                cause = error
            finally:
                call.cancel()
            if loop.time() - began > self.timeout_s:
                deadline = loop.time() + self.timeout_s  # It was open, and silent: this is a new beginning.
            self._current = (self._current + 1) % len(self.addresses)
            pause_s = self._pause_s(attempt)
            if loop.time() + pause_s >= deadline:
                raise self._unavailable(failures) from cause
            await asyncio.sleep(pause_s)

    async def open(
        self, method: Callable[[ControlAsyncStub], Callable[..., grpc.aio.StreamStreamCall[Any, Any]]]
    ) -> tuple[grpc.aio.StreamStreamCall[Any, Any], str]:
        """A stream in both directions to the manager that answered last, and its address."""
        address = self.addresses[self._current]
        return method(ControlStub(await self._fresh_channel(address)))(), address

    def seen(self) -> Any:
        """The highest mark seen, as the wire's message."""
        return wire.to_mark(self._seen)

    def observe(self, reply: Any) -> None:
        """Remember how recent an answer was."""
        if "mark" not in reply.DESCRIPTOR.fields_by_name or not reply.HasField("mark"):
            return
        self.mark = wire.from_mark(reply.mark)
        if not self.mark.store:
            return  # It could not read the store: nothing to compare later answers with.
        if self.mark.store != self._seen.store:
            self._seen = self.mark  # Another history: what was seen of the old one says nothing.
            return
        self._seen = Mark(
            store=self.mark.store,
            revision=max(self.mark.revision, self._seen.revision),
            epoch=max(self.mark.epoch, self._seen.epoch),
        )

    def _fill_in_seen(self, request: Any) -> None:
        if "seen" in request.DESCRIPTOR.fields_by_name:
            request.seen.CopyFrom(self.seen())

    async def renew(self) -> None:
        """Show a new certificate from now on, where there are any."""
        if self._renewal is not None:
            await self._renewal.renew_now()

    async def _fresh_channel(self, address: str) -> grpc.aio.Channel:
        if self._renewal is not None:
            await self._renewal.refresh()
        if self._identity_version != self._transport.identity_version:
            self._identity_version = self._transport.identity_version
            # Two renewals apart the certificate has run out, and managers have cut what stood on it.
            ended, self._outdated = self._outdated, list(self._channels.values())
            self._channels = {}
            for channel in ended:
                await channel.close()
        found = self._channels.get(address)
        if found is None:
            found = self._channels[address] = self._transport.channel(address)
        return found

    async def _has_fresher(self, shown: int, error: grpc.aio.AioRpcError) -> bool:
        """Whether a call was refused for its certificate, and there is a newer one by now."""
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED or self._renewal is None:
            return False
        await self._renewal.refresh()
        return self._transport.identity_version != shown

    def _unavailable(self, failures: dict[str, str]) -> UnavailableError:
        hint = "Check that the managers and etcd run, and that --managers or BAYPLAN_MANAGERS names them."
        if self._renewal is not None:
            context = self._renewal.context
            hint = (
                f'Check that the managers and etcd run, and that context "{context.name}"'
                f" (cluster {context.cluster[:8]}) names them, or --managers."
            )
            if {OTHER_CLUSTER, REFUSED_HANDSHAKE} & set(failures.values()):
                hint += " If they are right, log in again: `bay login`."
        lines = [f"  {address}: {words}" for address, words in failures.items()]
        return UnavailableError("\n".join(["no manager can answer right now:", *lines, hint]))

    def _pause_s(self, attempt: int) -> float:
        """Before the next attempt: next to none until each manager was asked once, then growing."""
        rounds = (attempt + 1) // len(self.addresses)
        return min(_PAUSE_MAX_S, _PAUSE_MIN_S * 2 ** min(rounds, 10)) if rounds else 0.0


def to_error(error: grpc.aio.AioRpcError) -> BayplanError:
    """gRPC's error as one of ours."""
    code, words = error.code(), words_of(error)
    if code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE}:
        return InvalidDocumentError(words, problems_from_error(error))
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # gRPC's own text, or a manager's that too much is open already.
        return (
            InvalidDocumentError(f"too large: {words}") if "larger than" in words else UnavailableError(words)
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return ManagerFailedError(
            "this manager does not know the call: it is of another version (see `bay version`)"
        )
    if code in _ERRORS:
        return _ERRORS[code](words)
    return ManagerFailedError(f"the manager failed ({code.name}): {words}. Its log says more.")
