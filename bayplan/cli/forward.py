"""`bay port-forward`: ports of this computer that lead to a pod, until Ctrl-C.

Each connection goes to a pod of its own choice: one that is named, or of a service or a workload
whichever is ready then, so that it goes on when that one is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bayplan.cli import kinds
from bayplan.cli.failures import CommandError
from bayplan.cli.run import flush, note, say, words_of
from bayplan.cli.text import clean
from bayplan.client.errors import BayplanError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bayplan.client import Client, ForwardedConnection

_READ_BYTES = 32 * 1024
_PORT_MAX = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """One pair."""

    local: int  # 0: any that is free.
    remote: int


def parse_ports(words: Sequence[str]) -> list[Ports]:
    """`8080:80`, `80`, `:80`. Raises CommandError."""
    pairs = []
    for word in words:
        local, colon, remote = word.rpartition(":")
        numbers = (local or "0") if colon else remote, remote
        if not all(number.isdecimal() and int(number) <= _PORT_MAX for number in numbers) or remote in {
            "",
            "0",
        }:
            raise CommandError(
                f'"{clean(word)}" is no pair of ports: write LOCAL:REMOTE, REMOTE or :REMOTE', exit_code=2
            )
        pairs.append(Ports(local=int(numbers[0]), remote=int(numbers[1])))
    return pairs


async def forward(
    client: Client, reference: kinds.Reference, pairs: Sequence[Ports], *, namespace: str, address: str
) -> None:
    """Listen until cancelled. Raises CommandError when a port is taken, or nothing is there to lead to."""
    for ports in pairs:
        await _target(client, reference, ports.remote, namespace)
    with contextlib.ExitStack() as listeners:
        for ports in pairs:
            server = await _listen(client, reference, ports, namespace=namespace, address=address)
            # Not entered: since Python 3.12 leaving it waits until every connection has ended by itself.
            listeners.callback(server.close)
            port = server.sockets[0].getsockname()[1]
            say(f"Forwarding from {address}:{port} -> {ports.remote}")
        flush()
        await asyncio.Event().wait()


async def _listen(
    client: Client, reference: kinds.Reference, ports: Ports, *, namespace: str, address: str
) -> asyncio.Server:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            pod, port = await _target(client, reference, ports.remote, namespace)
            async with client.port_forward(pod, port, namespace=namespace) as connection:
                await _carry(connection, reader, writer)
        except (BayplanError, CommandError) as error:
            # This connection failed; the next may find another pod.
            note(f"error: {words_of(error) if isinstance(error, BayplanError) else error}")
        except OSError:
            pass  # Our own side is gone: nobody is left to tell.
        finally:
            writer.close()

    try:
        return await asyncio.start_server(connected, address, ports.local)
    except OSError as error:
        raise CommandError(f"cannot listen on {clean(address)}:{ports.local}: {error.strerror}") from error


async def _carry(
    connection: ForwardedConnection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    async def send() -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_READ_BYTES):
                await connection.write(data)
        await connection.end_writing()

    sending = asyncio.create_task(send())
    try:
        async for data in connection.data():
            writer.write(data)
            await writer.drain()
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _target(client: Client, reference: kinds.Reference, port: int, namespace: str) -> tuple[str, int]:
    """(pod, its port) to lead to now. Raises CommandError."""
    name = reference.name
    if reference.kind is kinds.SERVICE:
        return await _behind_service(client, name, port, namespace)
    if reference.kind is kinds.POD:
        return kinds.pick_pod(await client.pods(namespace=namespace), name).name, port
    if reference.kind in kinds.WORKLOADS:
        found = await client.pods(namespace=namespace, workload_kind=reference.kind.name, workload=name)
        ready = [pod for pod in found if pod.ready and pod.current]
        if not ready:
            raise CommandError(f"no pod of {kinds.display(reference.kind.name, name)} is ready")
        return ready[0].name, port
    raise CommandError(f"a {reference.kind.full_name} has no ports: name a pod, a workload or a service")


async def _behind_service(client: Client, name: str, port: int, namespace: str) -> tuple[str, int]:
    display = kinds.display("Service", name)
    for service in await client.endpoints(namespace=namespace, service=name):
        for index, known in enumerate(service.ports):
            if known.port != port or known.protocol != "TCP":
                continue
            for endpoint in service.endpoints:
                if endpoint.ready and endpoint.node and endpoint.ports[index]:
                    return endpoint.name, endpoint.ports[index]
            raise CommandError(
                f"no pod behind {display} is ready" + (f": {clean(service.why)}" if service.why else "")
            )
        known_ports = ", ".join(f"{known.port}/{known.protocol}" for known in service.ports) or "none"
        raise CommandError(f"{display} has no port {port}/TCP; it has {known_ports}")
    raise CommandError(f"{display} not found")
