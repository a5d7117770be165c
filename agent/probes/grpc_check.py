"""gRPC's health protocol, asked of a container.

The one place beside `bayplan.transport` that makes a channel: what answers is a user's program, not a part of ours, so
nothing of ours holds for it, neither certificates nor retries nor keepalive.
"""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

import bayplan
from agent.probes.model import GrpcCheck
from agent.probes.port import SUCCESS, Outcome

_OPTIONS = (
    ("grpc.primary_user_agent", f"bayplan-probe/{bayplan.__version__}"),
    # Without a pool of its own a channel would share the connection, and the pauses after failures, of the last one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 * 1024),
)


async def check_grpc(address: str, check: GrpcCheck, *, timeout_s: float) -> Outcome:
    """Ask once, within `timeout_s`."""
    target = f"[{address}]:{check.port}" if ":" in address else f"{address}:{check.port}"
    async with grpc.aio.insecure_channel(target, options=_OPTIONS) as channel:
        request = health_pb2.HealthCheckRequest(service=check.service)
        try:
            reply = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return Outcome.failure(f"{_words(error, timeout_s)} at {check.place}")
    if reply.status == health_pb2.HealthCheckResponse.SERVING:
        return SUCCESS
    state = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    return Outcome.failure(f"it says {state} at {check.place}")


def _words(error: grpc.aio.AioRpcError, timeout_s: float) -> str:
    match error.code():
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"no answer within {timeout_s:g} s"
        case grpc.StatusCode.UNIMPLEMENTED:
            return "the server does not know gRPC's health protocol"
        case grpc.StatusCode.NOT_FOUND:
            return "the server knows no such service"
        case grpc.StatusCode.UNAVAILABLE if "refused" in (error.details() or ""):
            return "connection refused"
        case grpc.StatusCode.UNAVAILABLE:
            return "no gRPC connection"
        case code:
            return f"the server says {code.name}"
