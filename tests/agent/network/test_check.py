"""Checks between nodes that are addresses below 127, each with an echo and a name server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import dns.message
import pytest

from agent.dns.resolv_conf import ResolvConf
from agent.dns.server import DnsServer
from agent.dns.zone_file import FILE_NAME, write_zone
from agent.network.check import TRY_S, result_of, try_peers
from agent.network.early_bind import bound_early
from agent.network.echo import Echo
from agent.network.table import NetworkTable
from agent.traffic.table import TrafficTable
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.dns.builders import a_network, a_traffic, lines_of
from tests.agent.dns.fake_resolver import an_answer

WHAT = ["address", "name", "tcp", "udp", "mtu"]


def a_node(number: int, *peers: int) -> NetworkTable:
    """Node `n<number>`, with its bridge at 127.42.<number>.1 and nothing between it and the others."""
    network = a_network(f"127.42.{number}.0/24")
    assert network.settings is not None
    network.settings.mode = pb.NETWORK_MODE_OFF
    return network.fold(
        pb.Network(
            peers=[
                pb.NetworkPeer(node=f"n{peer}", address=f"127.0.0.{peer}", subnet=f"127.42.{peer}.0/24")
                for peer in peers
            ]
        )
    )


def free_port() -> int:
    """Free at every address, for both protocols, a moment ago."""
    with closing(socket.create_server(("0.0.0.0", 0))) as server:
        return int(server.getsockname()[1])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of another task's making
            await asyncio.sleep(0.01)


def listens(host: str, port: int) -> bool:
    with socket.socket() as trying:
        return trying.connect_ex((host, port)) == 0


class World:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.echo_port, self.dns_port = free_port(), free_port()

    @asynccontextmanager
    async def echo(self, node: NetworkTable) -> AsyncIterator[Echo]:
        echo = Echo(port=self.echo_port)
        async with running(echo.run()):
            echo.use(node, TrafficTable())
            await until(lambda: listens(str(node.gateway), self.echo_port))
            yield echo

    @asynccontextmanager
    async def names(self, node: NetworkTable) -> AsyncIterator[None]:
        directory = self.directory / str(node.gateway)
        write_zone(directory / FILE_NAME, lines_of(a_traffic(), node))
        server = DnsServer(directory, port=self.dns_port, resolv_conf=ResolvConf(directory / "none"))
        async with running(server.run()):
            await until(lambda: server.stats().address == str(node.gateway))
            yield

    async def paths(self, network: NetworkTable) -> dict[tuple[str, str], tuple[bool, str]]:
        found = await try_peers("n3", network, echo_port=self.echo_port, dns_port=self.dns_port)
        assert {getattr(path, "from") for path in found} <= {"n3"}
        return {(path.to, path.what): (path.ok, path.detail) for path in found}


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def a_path(to: str, *, ok: bool) -> pb.NetworkPath:
    return pb.NetworkPath(**{"from": "n0"}, to=to, what="tcp", ok=ok)


class TestWhatTheLeaderIsTold:
    def test_is_everything_where_there_are_few_peers(self) -> None:
        result = result_of(7, [a_path(f"n{number}", ok=number != 3) for number in range(1, 31)])

        assert (result.request, len(result.paths), result.healthy, result.failed) == (7, 30, 0, 0)

    def test_is_what_fails_where_there_are_many(self) -> None:
        result = result_of(7, [a_path(f"n{number}", ok=number != 3) for number in range(1, 300)])

        assert ([path.to for path in result.paths], result.healthy, result.failed) == (["n3"], 298, 0)

    def test_is_short_where_nothing_works(self) -> None:
        result = result_of(7, [a_path(f"n{number}", ok=False) for number in range(1, 300)])

        assert (len(result.paths), result.healthy, result.failed) == (100, 0, 199)


class TestCheck:
    async def test_of_peers_that_are_reached(self, world: World) -> None:
        async with AsyncExitStack() as nodes:
            for number in (4, 5):
                await nodes.enter_async_context(world.echo(a_node(number)))
                await nodes.enter_async_context(world.names(a_node(number)))

            paths = await world.paths(a_node(3, 4, 5))

        assert [(to, what) for to, what in paths] == [(to, what) for to in ("n4", "n5") for what in WHAT]
        assert [path for path, (ok, _) in paths.items() if not ok] == []
        assert paths["n4", "address"][1].endswith(" ms")
        # Loopback's MTU is larger than any datagram.
        assert paths["n4", "mtu"][1] == "65535 bytes"

    async def test_of_a_node_alone(self, world: World) -> None:
        assert await world.paths(a_node(3)) == {}
        assert await world.paths(NetworkTable()) == {}

    async def test_where_nobody_listens(self, world: World) -> None:
        paths = await world.paths(a_node(3, 4))

        assert {what: paths["n4", what] for what in WHAT[:4]} == dict.fromkeys(
            WHAT[:4], (False, "connection refused")
        )
        assert paths["n4", "mtu"] == (False, "connection refused")

    async def test_of_one_that_answers_nothing_ends_in_time(self, world: World) -> None:
        """Its packets are dropped: nothing comes back, not even a refusal."""
        with (
            bound_early(socket.SOCK_DGRAM, "127.42.4.1", world.echo_port),
            bound_early(socket.SOCK_DGRAM, "127.42.4.1", world.dns_port),
            bound_early(socket.SOCK_STREAM, "127.42.4.1", world.echo_port) as silent,
        ):
            silent.listen()
            began_s = asyncio.get_running_loop().time()
            paths = await world.paths(a_node(3, 4))
            took_s = asyncio.get_running_loop().time() - began_s

        assert took_s < TRY_S + 1
        for what in ("name", "tcp", "udp"):
            assert paths["n4", what] == (False, "no answer in 2 s")
        assert paths["n4", "mtu"] == (False, "packets of 65535 bytes are lost, and all smaller ones")

    async def test_where_large_packets_are_lost(self, world: World) -> None:
        """A tunnel in a tunnel: what is small passes, what is full size does not."""
        loop = asyncio.get_running_loop()
        with bound_early(socket.SOCK_DGRAM, "127.42.4.1", world.echo_port) as narrow:

            def readable() -> None:
                content, sender = narrow.recvfrom(65535)
                if len(content) + 28 <= 1400:
                    narrow.sendto(content, sender)

            loop.add_reader(narrow, readable)
            paths = await world.paths(a_node(3, 4))
            loop.remove_reader(narrow)

        assert paths["n4", "udp"][0]
        assert paths["n4", "mtu"] == (False, "packets of 65535 bytes are lost, 1400 pass")

    async def test_where_somebody_else_answers_for_names(self, world: World) -> None:
        loop = asyncio.get_running_loop()
        with bound_early(socket.SOCK_DGRAM, "127.42.4.1", world.dns_port) as stranger:
            says = [("192.0.2.66",), ()]

            def readable() -> None:
                wire, sender = stranger.recvfrom(65535)
                stranger.sendto(an_answer(dns.message.from_wire(wire), *says.pop(0)).to_wire(), sender)

            loop.add_reader(stranger, readable)
            found = [(await world.paths(a_node(3, 4)))["n4", "name"] for _ in range(2)]
            loop.remove_reader(stranger)

        assert found == [
            (False, "ns.dns.cluster.local. is 192.0.2.66 there, not 127.42.4.1"),
            (False, "ns.dns.cluster.local. is nothing there, not 127.42.4.1"),
        ]

    async def test_where_the_peers_zone_is_of_another_domain(self, world: World) -> None:
        other = a_network("127.42.4.0/24", domain="corp.example")
        async with world.names(other):
            paths = await world.paths(a_node(3, 4))

        assert paths["n4", "name"] == (False, "ns.dns.cluster.local. SERVFAIL")


class TestEcho:
    async def test_follows_the_address(self, world: World) -> None:
        async with world.echo(a_node(4)) as echo:
            echo.use(a_node(5), TrafficTable())
            await until(lambda: listens("127.42.5.1", world.echo_port))

            assert not listens("127.42.4.1", world.echo_port)

    async def test_does_not_answer_its_like(self, world: World) -> None:
        """A packet with a forged sender would go to and fro for ever."""
        loop = asyncio.get_running_loop()
        async with world.echo(a_node(4)):
            with bound_early(socket.SOCK_DGRAM, "127.42.5.1", world.echo_port) as like:
                like.sendto(b"x", ("127.42.4.1", world.echo_port))
                with bound_early(socket.SOCK_DGRAM, "127.42.5.1", 0) as other:
                    other.sendto(b"y", ("127.42.4.1", world.echo_port))
                    async with asyncio.timeout(5):
                        assert await loop.sock_recv(other, 100) == b"y"
                with pytest.raises(BlockingIOError):
                    like.recv(100)

    async def test_waits_for_a_port_that_somebody_has(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("agent.network.echo.BIND_RETRY_S", 0.01)
        with bound_early(socket.SOCK_DGRAM, "127.42.4.1", world.echo_port):
            echo = Echo(port=world.echo_port)
            echo.use(a_node(4), TrafficTable())
            task = asyncio.ensure_future(echo.run())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not listens("127.42.4.1", world.echo_port)
        await until(lambda: listens("127.42.4.1", world.echo_port))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
