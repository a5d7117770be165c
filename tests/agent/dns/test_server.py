"""The server on real sockets, below 127, with dnspython as the client."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from agent.dns.exchange import ask_server
from agent.dns.listeners import CONNECTIONS_OF_CLIENT_MAX, Clients
from agent.dns.resolv_conf import ResolvConf
from agent.dns.server import DnsServer
from agent.dns.stats import SOCKET_NAME, read_stats
from agent.dns.zone_file import FILE_NAME, write_zone
from agent.network.early_bind import bound_early
from agent.network.table import NetworkTable
from agent.traffic.table import TrafficTable
from tests.agent.dns.builders import (
    WEB,
    a_network,
    a_query,
    a_service,
    a_traffic,
    an_endpoint,
    lines_of,
    read,
    values,
)
from tests.agent.dns.fake_resolver import NAME, an_answer
from tests.agent.dns.fake_server import HOST, FakeServer, a_server

GATEWAY = "127.42.3.1"
WEB_TRAFFIC = a_traffic(a_service(vip="10.96.0.7"))
MANY = a_traffic(a_service(), web=[an_endpoint(f"127.42.3.{n}") for n in range(2, 202)])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of another process's, or task's, making
            await asyncio.sleep(0.01)


class World:
    """A server, its directory, and the outside that it asks."""

    def __init__(self, directory: Path, outside: FakeServer) -> None:
        self.directory = directory
        self.outside = outside
        self.resolv_conf = directory / "resolv.conf"
        self.resolv_conf.write_text(f"nameserver {HOST}\n")
        self.server = DnsServer(
            directory,
            port=0,
            resolv_conf=ResolvConf(self.resolv_conf),
            exchange=partial(ask_server, port=outside.port),
        )

    def write(self, traffic: TrafficTable, network: NetworkTable | None = None) -> None:
        write_zone(self.directory / FILE_NAME, lines_of(traffic, network))

    async def use(self, traffic: TrafficTable, network: NetworkTable | None = None) -> None:
        """Write it, and wait until it is served."""
        network = network or a_network()
        self.write(traffic, network)
        await until(
            lambda: (
                self.server.stats().address == str(network.gateway)
                and self.server.stats().services == len(traffic.services)
            )
        )

    async def ask(self, name: str = WEB, kind: str = "A", *, where: str = GATEWAY) -> dns.message.Message:
        query = dns.message.make_query(name, kind)
        return await dns.asyncquery.udp(query, where, port=self.server.port, timeout=5)

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with (
        a_server(lambda query: [an_answer(query, "192.0.2.1").to_wire()]) as outside,
        running(World(tmp_path, outside)) as world,
    ):
        yield world


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    serving = asyncio.ensure_future(world.server.run())
    try:
        yield world
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


class TestAnswers:
    async def test_from_the_zone(self, world: World) -> None:
        await world.use(WEB_TRAFFIC)
        answer = await world.ask()

        assert values(answer) == ["10.96.0.7"]
        assert answer.flags & dns.flags.AA

    async def test_of_the_outside_for_all_other_names(self, world: World) -> None:
        await world.use(WEB_TRAFFIC)
        answer = await world.ask(NAME)

        assert values(answer) == ["192.0.2.1"]
        assert not answer.flags & dns.flags.AA

    async def test_names_with_a_search_domain_never_leave_the_host(self, world: World) -> None:
        await world.use(WEB_TRAFFIC)

        for below in ("default.svc.cluster.local", "svc.cluster.local", "cluster.local"):
            assert (await world.ask(f"example.com.{below}")).rcode() == dns.rcode.NXDOMAIN
        assert world.outside.datagrams == []

    async def test_an_external_name_comes_with_its_address(self, world: World) -> None:
        await world.use(a_traffic(a_service(external_name="www.example.org")))

        assert values(await world.ask()) == ["www.example.org.", "192.0.2.1"]

    async def test_before_there_are_services_the_outside_is_there(self, world: World) -> None:
        await world.use(a_traffic(version=0))

        assert values(await world.ask(NAME)) == ["192.0.2.1"]
        assert (await world.ask()).rcode() == dns.rcode.SERVFAIL

    async def test_a_pod_that_does_not_want_recursion_gets_none(self, world: World) -> None:
        await world.use(WEB_TRAFFIC)
        query = dns.message.make_query(NAME, "A", flags=0)

        answer = await dns.asyncquery.udp(query, GATEWAY, port=world.server.port, timeout=5)

        assert answer.rcode() == dns.rcode.REFUSED
        assert world.outside.datagrams == []

    async def test_pods_of_a_headless_service_take_turns(self, world: World) -> None:
        await world.use(a_traffic(a_service(), web=[an_endpoint(f"127.42.3.{n}") for n in (7, 8, 9)]))
        first = [values(await world.ask())[0] for _ in range(12)]

        assert {address: first.count(address) for address in first} == dict.fromkeys(
            ("127.42.3.7", "127.42.3.8", "127.42.3.9"), 4
        )

    async def test_that_are_too_large_are_fetched_over_tcp(self, world: World) -> None:
        await world.use(MANY)
        query = dns.message.make_query(WEB, "A")

        answer, was_tcp = await dns.asyncquery.udp_with_fallback(
            query, GATEWAY, port=world.server.port, timeout=5
        )

        assert (was_tcp, len(values(answer))) == (True, 200)

    async def test_several_over_one_connection(self, world: World) -> None:
        """As the C library's `use-vc` does."""
        await world.use(WEB_TRAFFIC)
        reader, writer = await asyncio.open_connection(GATEWAY, world.server.port)
        for wire in (a_query(), a_query(NAME)):
            writer.write(len(wire).to_bytes(2) + wire)
        found = [
            read(await reader.readexactly(int.from_bytes(await reader.readexactly(2)))) for _ in range(2)
        ]
        writer.close()

        assert [values(each) for each in found] == [["10.96.0.7"], ["192.0.2.1"]]


class TestChanges:
    async def test_of_the_zone_are_served_at_once(self, world: World) -> None:
        await world.use(WEB_TRAFFIC)
        assert values(await world.ask()) == ["10.96.0.7"]

        world.write(a_traffic(a_service(vip="10.96.0.8")))
        began_s = world.now_s()
        while values(await world.ask()) != ["10.96.0.8"]:
            assert world.now_s() - began_s < 5

    async def test_a_damaged_zone_leaves_the_old_one(self, world: World) -> None:
        await world.use(WEB_TRAFFIC)
        (world.directory / FILE_NAME).write_text("damaged")
        await until(lambda: "is damaged" in world.server.stats().problem)

        assert values(await world.ask()) == ["10.96.0.7"]
        await world.use(a_traffic(a_service(vip="10.96.0.8"), a_service("db", vip="10.96.0.9")))
        assert world.server.stats().problem == ""

    async def test_a_zone_that_is_gone_leaves_the_old_one(self, world: World) -> None:
        await world.use(WEB_TRAFFIC)
        (world.directory / FILE_NAME).unlink()
        await world.use(a_traffic(), a_network("127.42.4.0/24"))

        assert (await world.ask(where="127.42.4.1")).rcode() == dns.rcode.NXDOMAIN

    async def test_of_the_address_are_followed(self, world: World) -> None:
        await world.use(WEB_TRAFFIC)
        await world.use(WEB_TRAFFIC, a_network("127.42.4.0/24"))

        assert values(await world.ask(where="127.42.4.1")) == ["10.96.0.7"]
        await world.use(WEB_TRAFFIC)
        assert values(await world.ask()) == ["10.96.0.7"]

    async def test_of_the_hosts_servers_are_followed(self, world: World) -> None:
        await world.use(WEB_TRAFFIC)
        await until(lambda: world.server.stats().upstreams == (HOST,))
        world.resolv_conf.write_text("nameserver 127.42.3.1\nnameserver 127.0.0.2\n")

        await until(lambda: world.server.stats().upstreams == ("127.0.0.2",))

    async def test_a_port_that_somebody_has_is_waited_for(self, tmp_path: Path) -> None:
        async with a_server(lambda _: []) as outside:
            with bound_early(socket.SOCK_DGRAM, GATEWAY, 0) as taken:
                world = World(tmp_path, outside)
                world.server = DnsServer(
                    tmp_path, port=taken.getsockname()[1], resolv_conf=ResolvConf(world.resolv_conf)
                )
                async with running(world):
                    world.write(WEB_TRAFFIC)
                    await until(
                        lambda: world.server.stats().problem.startswith("cannot listen at 127.42.3.1: ")
                    )
                    taken.close()
                    await until(lambda: world.server.stats().address == GATEWAY)
                    assert world.server.stats().problem == ""
                    assert values(await world.ask()) == ["10.96.0.7"]


class TestHostileClients:
    async def test_noise_is_survived(self, world: World) -> None:
        await world.use(WEB_TRAFFIC)
        chance = random.Random(4)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
            noise.connect((GATEWAY, world.server.port))
            for number in range(2000):
                wire = bytearray(a_query())
                if number % 2:
                    wire = bytearray(chance.randbytes(chance.randrange(0, 300)))
                else:
                    wire[chance.randrange(len(wire))] = chance.randrange(256)
                noise.send(wire)
                if number % 100 == 0:
                    await asyncio.sleep(0)
            assert values(await world.ask()) == ["10.96.0.7"]
        assert world.server.stats().counters.failed == 0
        assert world.server.stats().counters.malformed > 0

    @pytest.mark.parametrize("sent", [b"\0\0", b"\xff\xff", b"\0\x04junk", b"\0\x0c" + bytes(12), b"\0"])
    async def test_a_connection_that_brings_junk_ends(self, world: World, sent: bytes) -> None:
        await world.use(WEB_TRAFFIC)
        reader, writer = await asyncio.open_connection(GATEWAY, world.server.port)
        writer.write(sent)
        writer.write_eof()
        async with asyncio.timeout(5):
            await reader.read()
        writer.close()

        assert values(await world.ask()) == ["10.96.0.7"]

    async def test_a_client_has_only_so_many_connections(self, world: World) -> None:
        await world.use(WEB_TRAFFIC)
        port = world.server.port
        held = [
            await asyncio.open_connection(GATEWAY, port, local_addr=("127.0.0.66", 0))
            for _ in range(CONNECTIONS_OF_CLIENT_MAX)
        ]
        reader, writer = await asyncio.open_connection(GATEWAY, port, local_addr=("127.0.0.66", 0))
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        other = await dns.asyncquery.tcp(dns.message.make_query(WEB, "A"), GATEWAY, port=port, timeout=5)

        assert values(other) == ["10.96.0.7"]
        for _, each in held:
            each.close()
        async with asyncio.timeout(5):
            while True:
                reader, writer = await asyncio.open_connection(GATEWAY, port, local_addr=("127.0.0.66", 0))
                wire = a_query()
                writer.write(len(wire).to_bytes(2) + wire)
                begun = await reader.read(2)
                writer.close()
                if begun:
                    break

    async def test_names_that_nobody_answers_do_not_hold_up_ours(self, tmp_path: Path) -> None:
        async with a_server(lambda _: []) as outside, running(World(tmp_path, outside)) as world:
            await world.use(WEB_TRAFFIC)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
                flood.connect((GATEWAY, world.server.port))
                for number in range(1000):
                    flood.send(a_query(f"{number}.example.org"))
                    if number % 50 == 0:
                        await asyncio.sleep(0)
                began_s = world.now_s()
                assert values(await world.ask()) == ["10.96.0.7"]
                assert world.now_s() - began_s < 1
            assert world.server.stats().counters.refused > 0

    @pytest.mark.parametrize(
        ("host", "is_one"),
        [
            ("10.42.3.9", True),
            ("10.43.255.255", True),
            ("127.0.0.1", True),
            ("10.44.0.1", False),
            ("192.0.2.1", False),
        ],
    )
    def test_who_may_ask(self, host: str, is_one: bool) -> None:  # noqa: FBT001 - a table
        assert (host in Clients((IPv4Network("10.42.0.0/15"),))) == is_one


class TestStats:
    async def test_are_told_at_its_socket(self, world: World) -> None:
        await world.use(WEB_TRAFFIC)
        for name in (WEB, WEB, f"nothing.{WEB}", NAME):
            await world.ask(name)

        stats = await read_stats(world.directory / SOCKET_NAME)

        assert stats is not None
        assert (stats.address, stats.services, stats.upstreams) == (GATEWAY, 1, (HOST,))
        counted = stats.counters
        assert (counted.queries, counted.ready + counted.own, counted.no_such_name) == (4, 3, 1)
        assert (counted.upstream_queries, counted.upstream_failures) == (1, 0)

    async def test_that_cannot_be_told_hold_up_no_names(self, tmp_path: Path) -> None:
        """Somebody made a directory of that name."""
        in_the_way = tmp_path / SOCKET_NAME
        in_the_way.mkdir()
        async with a_server(lambda _: []) as outside, running(World(tmp_path, outside)) as world:
            await world.use(WEB_TRAFFIC)
            assert values(await world.ask()) == ["10.96.0.7"]
            in_the_way.rmdir()
            async with asyncio.timeout(10):
                while await read_stats(in_the_way) is None:  # noqa: ASYNC110 - as `until`
                    await asyncio.sleep(0.05)

    async def test_of_nobody_there_are_none(self, tmp_path: Path) -> None:
        assert await read_stats(tmp_path / "nothing.sock") is None

    async def test_say_that_there_is_no_zone(self, world: World) -> None:
        assert world.server.stats().problem == "no zone yet: the agent has not written it"
