"""How processes of a cluster reach each other.

gRPC (bayplan/transport/grpc.py) in production; an in-memory network on virtual time in
tests (tests/fakes/network.py), on which the same generated stubs and servicers run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

import grpc.aio

# Adds one servicer: e.g. `partial(add_ControlServicer_to_server, servicer)`.
Register = Callable[[grpc.aio.Server], None]


class Contact(Enum):
    """What came of trying a host's port."""

    ANSWERED = "answered"
    REFUSED = "refused"  # The host lives, nobody listens.
    SILENT = "silent"


class Listener(Protocol):
    """A running server."""

    @property
    def port(self) -> int: ...

    @property
    def join_port(self) -> int:
        """Where callers without a certificate are heard; 0 without one."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls at once, cut those that still run after `grace_s`."""
        ...


class Transport(Protocol):
    """One per process. Addresses are "host:port"."""

    def channel(self, address: str) -> grpc.aio.Channel:
        """A new channel; the caller closes it. Connects lazily; a dead peer is noticed within about 3 s."""
        ...

    @property
    def identity_version(self) -> int:
        """Grows when this process shows another certificate: channels from before still show the old one."""
        ...

    async def identity_newer_than(self, version: int) -> None:
        """Wait until `identity_version` is higher; for ever where there are no certificates."""
        ...

    async def serve(
        self,
        host: str,
        port: int,
        services: Sequence[Register],
        names: Sequence[str],
        *,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> Listener:
        """Serve gRPC with health and reflection for the full service `names`. `port` 0: any free one.

        Callers must show a certificate, but for those at the next port up, the join port, who cannot:
        it is for the `interceptors` to let them call nothing but what is for everybody.
        """
        ...

    async def contact(self, host: str, port: int, *, timeout_s: float) -> Contact:
        """Open and close a TCP connection: a sign of life, nothing more."""
        ...

    async def listen_for_contact(self, host: str, port: int) -> Listener:
        """Answer `contact`."""
        ...
