"""In front of every method: who calls, whether they may, and how much at a time.

Who: the certificate that TLS has verified, and nothing that a message says. May: the method's
`callers` option in proto/. A manager that passes a call on says for whom; that is believed of
managers alone. Open streams end when their caller is revoked, or its certificate has run out.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any, NoReturn
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf.message import Message

from bayplan.identity import certificates
from bayplan.identity.names import Identity, IdentityError, Kind, parse_identity
from bayplan.v1 import callers_pb2
from manager.access.audit import Audit, Entry
from manager.access.caller import ON_BEHALF_OF, Caller, DeniedError, role_name, role_words, set_caller
from manager.access.load import Load
from manager.access.methods import FOREIGN, target_of, words_of_callers
from manager.access.registry import Registry
from manager.store.port import StoreError
from manager.store.records import DamagedRecordError

_STREAMS_ENDED_CHECK_S = 1.0
_WORDS_MAX = 2000
_RUN_OUT = "the certificate of this connection has run out: connect again with the new one"
_ROOT_DROPPED = (
    "the root that issued the certificate of this connection is trusted no more: connect again with a newer"
    " one; who has none joins, or logs in, again"
)

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Any  # grpc.RpcMethodHandler, which is generic for type checkers alone


class _RefusedError(Exception):
    def __init__(self, code: grpc.StatusCode, why: str) -> None:
        super().__init__(why)
        self.code = code


class Gate(grpc.aio.ServerInterceptor):
    """Judges calls.

    Args:
        methods: "/package.Service/Method" → who may call it; what is not there is refused.
        cluster: the cluster's id, once it is known.
        manager: this one's id, for the record.
    """

    def __init__(
        self,
        methods: Mapping[str, callers_pb2.Callers],
        *,
        registry: Registry,
        audit: Audit,
        cluster: Callable[[], str],
        manager: str,
        wall_s: Callable[[], float],
        called: Callable[[str, str], None] = lambda _method, _code: None,
    ) -> None:
        """`called` hears of each call that was let through and has ended: its path, and gRPC's name of the outcome."""
        self._methods = methods
        self._called = called
        self._registry = registry
        self._audit = audit
        self._cluster = cluster
        self._manager = manager
        self._wall_s = wall_s
        self._handlers: dict[str, Handler] = {}
        self._open: dict[_Call, None] = {}
        self._load = Load()
        registry.changed.append(self._end_revoked)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The method with this gate before it."""
        method = handler_call_details.method
        if method not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None:  # gRPC answers UNIMPLEMENTED.
                return handler
            self._handlers[method] = self._guarded(method, handler)
        return self._handlers[method]

    # The four kinds of methods, each in both of the styles that gRPC knows.

    def _guarded(self, method: str, handler: Handler) -> Handler:
        makers: dict[tuple[bool, bool], tuple[Any, Callable[..., Handler]]] = {
            (False, False): (handler.unary_unary, grpc.unary_unary_rpc_method_handler),
            (False, True): (handler.unary_stream, grpc.unary_stream_rpc_method_handler),
            (True, False): (handler.stream_unary, grpc.stream_unary_rpc_method_handler),
            (True, True): (handler.stream_stream, grpc.stream_stream_rpc_method_handler),
        }
        behaviour, make = makers[bool(handler.request_streaming), bool(handler.response_streaming)]
        is_generator = handler.response_streaming and not inspect.iscoroutinefunction(behaviour)
        guarded = self._guarded_generator if is_generator else self._guarded_call
        return make(
            guarded(method, behaviour),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _guarded_call(self, method: str, behaviour: Any) -> Any:
        async def call(request: Any, context: Context) -> Any:
            async with self._admitted(method, request, context):
                return await behaviour(request, _Plain(context))

        return call

    def _guarded_generator(self, method: str, behaviour: Any) -> Any:
        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            async with (
                self._admitted(method, request, context),
                contextlib.aclosing(behaviour(request, _Plain(context))) as messages,
            ):
                async for message in messages:
                    yield message

        return stream

    @contextlib.asynccontextmanager
    async def _admitted(self, method: str, request: Any, context: Context) -> AsyncIterator[None]:
        call = await self._judged(method, request, context)
        caller = call.caller
        set_caller(caller)
        is_stream = not isinstance(request, Message)
        if is_stream and method not in FOREIGN:
            # It may last for days: written down when it begins.
            self._note(caller, method, allowed=True, why="", outcome="")
        self._open[call] = None
        try:
            with self._load.opened(caller, context.peer()):
                yield
        except DeniedError as denied:
            caller.denied = str(denied)
            await _abort(context, grpc.StatusCode.PERMISSION_DENIED, str(denied))
        except grpc.aio.AioRpcError as error:
            # What another manager has answered is passed on; gRPC would make UNKNOWN of it, and show our inside.
            await _abort(context, error.code(), error.details() or "")
        except asyncio.CancelledError:
            if not call.ended:
                raise
            # Ended by us: the method has cleaned up, and the caller is told.
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            await _abort(context, call.code, call.ended)
        finally:
            del self._open[call]
            outcome = _outcome(context)
            self._called(method, outcome or "OK")
            if caller.denied or call.ended:
                self._note(caller, method, allowed=False, why=caller.denied or call.ended, outcome=outcome)
            elif not is_stream and method not in FOREIGN:
                # Whether a manager is well, anybody may ask without end: it would fill the record.
                self._note(caller, method, allowed=True, why="", outcome=outcome)

    async def _judged(self, method: str, request: Any, context: Context) -> _Call:
        """Who calls, if they may; else the call is over."""
        caller = Caller(kind="", address=_address(context), target=target_of(request))
        try:
            expires_s, issuer = await self._identify(caller, context)
            self._check_may(caller, method)
            self._check_load(caller, context)
        except _RefusedError as refused:
            self._note(caller, method, allowed=False, why=str(refused), outcome=refused.code.name)
            await _abort(context, refused.code, str(refused))
        return _Call(caller, expires_s, issuer)

    # Who

    async def _identify(self, caller: Caller, context: Context) -> tuple[float, str]:
        """Fill in who calls; when the certificate of its connection ends (0: never), and which key issued it.

        Raises _RefusedError.
        """
        shown = list(context.auth_context().get("x509_pem_cert", ()))
        if not shown:
            return 0.0, ""
        try:
            leaf = _leaf(shown[0])
        except certificates.CertificateError as error:
            raise _RefusedError(grpc.StatusCode.UNAUTHENTICATED, str(error)) from error
        caller.identity = str(leaf.identity)
        caller.expires_ms = int(leaf.expires_s * 1000)
        if leaf.expires_s < self._wall_s():
            # TLS looked at it once: the connection may be older than that. Clients fetch a new one on this code.
            raise _RefusedError(grpc.StatusCode.UNAUTHENTICATED, _RUN_OUT)
        await self._check_issuer(leaf)
        await self._recognise(caller, leaf.identity, leaf.generation)
        if leaf.identity.kind is not Kind.MANAGER:
            return leaf.expires_s, leaf.issuer_key
        behalf = _metadata(context, ON_BEHALF_OF)
        if behalf:
            caller.via, caller.via_generation = leaf.identity.name, leaf.generation
            uri, _, generation = behalf.rpartition("#")
            try:
                identity = parse_identity(uri)
                caller.identity = str(identity)
                await self._recognise(caller, identity, int(generation))
            except (IdentityError, ValueError) as error:
                raise _RefusedError(grpc.StatusCode.UNAUTHENTICATED, str(error)) from error
        # Streams of managers are not cut when the certificate ends that they began with: managers renew
        # by themselves, and what they pass on belongs to others.
        return 0.0, leaf.issuer_key

    async def _check_issuer(self, leaf: certificates.Leaf) -> None:
        """TLS looked at it once: the root may have been dropped since. Raises _RefusedError."""
        if leaf.issuer_key not in self._registry.issuers:
            # Replaced by another manager a moment ago?
            with contextlib.suppress(StoreError):
                await self._registry.read_ca()
        if leaf.issuer_key not in self._registry.issuers:
            raise _RefusedError(grpc.StatusCode.UNAUTHENTICATED, _ROOT_DROPPED)

    async def _recognise(self, caller: Caller, identity: Identity, generation: int) -> None:
        place = (identity.kind.value, identity.name)
        record = self._registry.identities.get(place)
        if identity.cluster != self._cluster():
            raise _RefusedError(
                grpc.StatusCode.UNAUTHENTICATED,
                f"this certificate is for cluster {identity.cluster}, this is {self._cluster()}",
            )
        if record is None or generation > record.generation:
            # Let in by another manager a moment ago?
            with contextlib.suppress(StoreError, DamagedRecordError):
                record, _ = await self._registry.read(*place)
        if record is None:
            raise _RefusedError(
                grpc.StatusCode.UNAUTHENTICATED, f"{identity.words} is not known to this cluster (any more)"
            )
        why = void_reason(record, generation, now_ms=self._wall_s() * 1000)
        if why:
            raise _RefusedError(grpc.StatusCode.UNAUTHENTICATED, why)
        caller.kind, caller.name, caller.role = identity.kind.value, identity.name, record.role
        caller.generation = generation

    # Whether

    def _check_may(self, caller: Caller, method: str) -> None:
        callers = self._methods.get(method)
        if callers is None:
            raise _RefusedError(
                grpc.StatusCode.PERMISSION_DENIED, f"{method} says of nobody that they may call it"
            )
        if callers.anyone:
            return
        if not caller.kind:
            raise _RefusedError(
                grpc.StatusCode.UNAUTHENTICATED,
                "this method needs a certificate of the cluster; none was shown",
            )
        if may_call(callers, caller.kind, caller.role):
            return
        who = (
            f"{caller.name} is {role_words(caller.role)}"
            if caller.kind == Kind.USER
            else f"this is {caller.words}"
        )
        raise _RefusedError(
            grpc.StatusCode.PERMISSION_DENIED,
            f"{who}: {method.rpartition('/')[2]} is for {words_of_callers(callers)}",
        )

    def _check_load(self, caller: Caller, context: Context) -> None:
        if excess := self._load.excess(caller, context.peer()):
            raise _RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, excess)

    # How long

    def _end_revoked(self) -> None:
        for call in list(self._open):
            caller = call.caller
            # What a manager passes on ends with the manager too.
            ends = [(caller.kind, caller.name, caller.generation)] * bool(caller.kind)
            ends += [(Kind.MANAGER.value, caller.via, caller.via_generation)] * bool(caller.via)
            for kind, name, generation in ends:
                if why := self._void_reason(kind, name, generation):
                    call.end(why)

    def _void_reason(self, kind: str, name: str, generation: int) -> str:
        record = self._registry.identities.get((kind, name))
        if record is None:
            return f"{kind} {name} was removed"
        return void_reason(record, generation, now_ms=self._wall_s() * 1000)

    async def run(self) -> None:
        """End streams whose certificate, root or user's access has come to its end, until cancelled."""
        while True:
            await asyncio.sleep(_STREAMS_ENDED_CHECK_S)
            self._end_revoked()
            now_s = self._wall_s()
            for call in list(self._open):
                if call.expires_s and call.expires_s < now_s:
                    call.end(_RUN_OUT, code=grpc.StatusCode.UNAVAILABLE)
                elif call.issuer and call.issuer not in self._registry.issuers:
                    call.end(_ROOT_DROPPED, code=grpc.StatusCode.UNAVAILABLE)

    def _note(self, caller: Caller, method: str, *, allowed: bool, why: str, outcome: str) -> None:
        self._audit.add(
            Entry(
                at_ms=int(self._wall_s() * 1000),
                manager=self._manager,
                who=caller.identity,
                via=caller.via,
                address=caller.address,
                method=method.removeprefix("/"),
                target=caller.target,
                allowed=allowed,
                why=why or (role_name(caller.role) or caller.kind or "open to everybody"),
                outcome=outcome,
            )
        )


class _Plain:
    """The context of a call, whose method says why it fails in words that can be shown.

    They may repeat what the caller sent, and travel in the trailers: gRPC's peers take 8 KiB of those.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """As gRPC's own."""
        await self._context.abort(code, _showable(details), trailing_metadata)
        raise AssertionError("abort returns never")


def _showable(words: str) -> str:
    """Without what steers a terminal, and not too long."""
    if len(words) > _WORDS_MAX:
        words = f"{words[:_WORDS_MAX]}…"
    if words.isprintable():
        return words
    return "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in words)


class _Call:
    """One that is open."""

    def __init__(self, caller: Caller, expires_s: float, issuer: str) -> None:
        self.caller = caller
        self.expires_s = expires_s
        self.issuer = issuer
        self.ended = ""  # Why, if we end it.
        self.code = grpc.StatusCode.UNAUTHENTICATED
        self._task = asyncio.current_task()

    def end(self, why: str, *, code: grpc.StatusCode = grpc.StatusCode.UNAUTHENTICATED) -> None:
        """Stop the method; its caller gets `code`."""
        if not self.ended and self._task is not None:
            self.ended, self.code = why, code
            self._task.cancel()


def void_reason(record: Any, generation: int, *, now_ms: float) -> str:
    """Why certificates of this generation are no good (any more); empty if they are."""
    words = f"{record.kind} {record.name}"
    if record.is_revoked or generation < record.generation:
        return f"the certificate of {words} was revoked"
    if generation > record.generation:
        return f"the certificate of {words} is of a generation that this cluster never issued"
    if record.access_ends_ms and now_ms >= record.access_ends_ms:
        return f"the access of {words} has ended; an admin can make a new one with `bay user create {record.name}`"
    return ""


def may_call(callers: callers_pb2.Callers, kind: str, role: int) -> bool:
    """Whether somebody of this kind, and role if a user, may call a method."""
    if callers.anyone:
        return True
    match kind:
        case Kind.NODE:
            return callers.node
        case Kind.MANAGER:
            return callers.manager
        case Kind.USER:
            return bool(callers.user) and role >= callers.user
    return False


_CODES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}


def _outcome(context: Any) -> str:
    # A number once the call was aborted, whatever the types say; nothing when all went well.
    code = context.code()
    return str(code.name) if isinstance(code, grpc.StatusCode) else _CODES[int(code or 0)]


@lru_cache(maxsize=4096)
def _leaf(pem: bytes) -> certificates.Leaf:
    return certificates.read_leaf(certificates.from_pem(pem)[0])


def _metadata(context: Context, key: str) -> str:
    return next((str(value) for found, value in context.invocation_metadata() or () if found == key), "")


def _address(context: Context) -> str:
    """`ipv4:10.0.0.7:51234` → `10.0.0.7`."""
    scheme, _, rest = unquote(context.peer()).partition(":")
    return rest.rpartition(":")[0].strip("[]") if scheme in {"ipv4", "ipv6"} else rest


async def _abort(context: Context, code: grpc.StatusCode, why: str) -> NoReturn:
    await context.abort(code, _showable(why))
    raise AssertionError("abort returns never")
