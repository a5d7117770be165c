"""How errors cross the wire, and what gRPC's own mean in words.

A refused document travels as INVALID_ARGUMENT: the status text is for people, and the trailing
metadata `bayplan-problems-bin` holds a JSON list of {document, path, message}, so that a client
can show each problem at its line of the file it was read from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import grpc
import grpc.aio

PROBLEMS_KEY = "bayplan-problems-bin"

# gRPC refuses trailers above 8 KiB by default, and the status text travels in them too.
_PROBLEMS_BYTES_MAX = 4096
_MESSAGE_CHARACTERS_MAX = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with a document."""

    document: int  # Its position in the request, from 0.
    path: str  # e.g. "spec.template.spec.containers[0].image"; empty: the document as a whole.
    message: str


def problems_to_metadata(problems: Iterable[Problem]) -> tuple[tuple[str, bytes], ...]:
    """Trailing metadata for `context.abort`. What does not fit is counted, not listed."""
    kept: list[dict[str, object]] = []
    size = 0
    left_out = 0
    for problem in problems:
        item = asdict(problem) | {"message": problem.message[:_MESSAGE_CHARACTERS_MAX]}
        size += len(json.dumps(item)) + 2
        if left_out or size > _PROBLEMS_BYTES_MAX:
            left_out += 1
            continue
        kept.append(item)
    if left_out:
        last = kept[-1]["document"] if kept else 0
        kept.append({"document": last, "path": "", "message": f"and {left_out} more problems"})
    return ((PROBLEMS_KEY, json.dumps(kept).encode()),) if kept else ()


def problems_from_error(error: grpc.aio.AioRpcError) -> tuple[Problem, ...]:
    """The inverse of `problems_to_metadata`; empty where the server sent none that can be read."""
    for key, value in error.trailing_metadata() or ():
        if key == PROBLEMS_KEY:
            try:
                items = json.loads(value)
                return tuple(
                    Problem(
                        document=int(item["document"]), path=str(item["path"]), message=str(item["message"])
                    )
                    for item in items
                )
            except (ValueError, TypeError, KeyError):
                return ()
    return ()


OTHER_CLUSTER = "the manager there shows a certificate of another cluster than ours"
# After TLS 1.3's handshake a server that does not accept the client's certificate only closes; one
# that ends just then looks the same.
REFUSED_HANDSHAKE = (
    "the manager closed the connection during the handshake: our certificate may have been issued by another"
    " cluster, or its root was replaced"
)

# What grpc's transport says, in lower case → what a person can act upon. Texts were seen with grpcio
# 1.81 to 1.85. Compiled when first needed: the command line rarely needs them.
_TRANSPORT_WORDS = (
    (
        r"certificate_verify_failed: certificate (has expired|is not yet valid)",
        "the manager's certificate has expired, or is not valid yet: compare the clocks of both hosts",
    ),
    (
        r"certificate_verify_failed: unsupported certificate purpose",
        "what answered there is a member of the cluster, but no manager",
    ),
    (r"certificate_verify_failed|hostname verification check failed", OTHER_CLUSTER),
    (r"wrong_version_number", "what answered there speaks no TLS: no manager, or one without encryption"),
    (r"failed to connect.*(socket closed|connection reset)", REFUSED_HANDSHAKE),
    (r"connection refused", "connection refused: no manager listens there"),
    (r"dns resolution failed|name or service not known|domain name not found", "unknown host"),
    (r"no route to host|network is unreachable", "no route to this host"),
    (r"timed out|timeout|handshaker? shutdown|failed_to_connect", "no answer"),
    (
        r"socket closed|connection reset|endpoint closing|end of tcp|broken pipe|goaway",
        "the connection was closed by the other side",
    ),
    (r"ssl|tls|certificate|wrong_version|http/?2", "something else than a manager answered there"),
    (r"failed to connect|transport|channel", "could not connect"),
)
_NEVER_SENT = r"failed to connect|dns resolution failed|errors resolving"
# Our managers' texts are sentences of ours: none begins as gRPC's do.
_TRANSPORT_TEXT = (
    r"failed to connect|socket closed|dns resolution failed|errors resolving|recvmsg|sendmsg|connection reset|endpoint closing"
    r"|end of tcp|broken pipe|goaway|ping timeout|keepalive|transport closed|channel|connection (closed|dropped)"
    r"|cancelling all calls|failed parsing http/?2|received http2|stream removed"
)


def was_never_sent(error: grpc.aio.AioRpcError) -> bool:
    """Whether the call surely had no effect, because no connection came about."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and bool(
        re.search(_NEVER_SENT, (error.details() or "").lower())
    )


def words_of(error: grpc.aio.AioRpcError) -> str:
    """Why a manager could not answer, in a few words: its own, or ours in place of gRPC's."""
    details = error.details() or ""
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "no answer in time"
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return details or error.code().name
    if is_transport_text(details):
        for pattern, words in _TRANSPORT_WORDS:
            if re.search(pattern, details.lower()):
                return words
    return details or "unavailable"


def is_transport_text(details: str) -> bool:
    """Whether a status text is gRPC's own, not a manager's."""
    return not details or bool(re.match(_TRANSPORT_TEXT, details.lower()))
