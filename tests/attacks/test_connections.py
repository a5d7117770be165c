"""How many connections one address may hold: counted at this process's own sockets."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from manager.access.connections import ConnectionLimits, Connections
from tests.attacks.world import free_host

LIMITS = ConnectionLimits(main=3, joining=1)


class Server:
    """Listens on a main and a join port, and accepts as a manager does."""

    def __init__(self, stack: ExitStack, family: socket.AddressFamily = socket.AF_INET) -> None:
        self._stack = stack
        self._family = family
        host = "127.0.0.1" if family is socket.AF_INET else "::1"
        self._listening = [
            stack.enter_context(socket.create_server((host, 0), family=family)) for _ in (1, 2)
        ]
        self.main, self.joining = (int(each.getsockname()[1]) for each in self._listening)
        self._accepted: list[socket.socket] = []
        self.connections = Connections((self.main, self.joining), LIMITS)

    def connected(self, host: str, port: int) -> socket.socket:
        """The client's end."""
        listening = self._listening[port == self.joining]
        client = self._stack.enter_context(
            socket.create_connection(listening.getsockname()[:2], source_address=(host, 0))
        )
        self._accepted.append(self._stack.enter_context(listening.accept()[0]))
        return client

    def close_all(self) -> None:
        """The server's ends."""
        while self._accepted:
            self._accepted.pop().close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
def server(stack: ExitStack) -> Server:
    return Server(stack)


def is_cut(client: socket.socket) -> bool:
    client.setblocking(False)
    with suppress(BlockingIOError):
        return client.recv(1) == b""
    return False


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Of those that this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    taken = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class TestConnections:
    def test_of_one_address_those_beyond_the_limit_are_cut_the_newest_first(self, server: Server) -> None:
        host = free_host()
        clients = [server.connected(host, server.main) for _ in range(3)]
        assert server.connections.look() == {}
        clients += [server.connected(host, server.main) for _ in range(2)]

        assert server.connections.look() == {(server.main, host): 2}
        assert [is_cut(each) for each in clients] == [False, False, False, True, True]

    def test_who_was_there_before_the_flood_stays(self, server: Server) -> None:
        """The descriptors of the flood may have lower numbers than theirs."""
        host = free_host()
        spare = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
        agents = [server.connected(host, server.main) for _ in range(3)]
        server.connections.look()
        for descriptor in spare:
            os.close(descriptor)
        flood = [server.connected(host, server.main) for _ in range(8)]
        server.connections.look()

        assert not any(is_cut(each) for each in agents)
        assert all(is_cut(each) for each in flood)

    def test_addresses_are_counted_apart(self, server: Server) -> None:
        clients = [server.connected(free_host(), server.main) for _ in range(8)]

        assert server.connections.look() == {}
        assert not any(is_cut(each) for each in clients)

    def test_the_join_port_has_a_limit_of_its_own(self, server: Server) -> None:
        host = free_host()
        joining = [server.connected(host, server.joining) for _ in range(2)]
        main = [server.connected(host, server.main) for _ in range(3)]

        assert server.connections.look() == {(server.joining, host): 1}
        assert [is_cut(each) for each in joining + main] == [False, True, False, False, False]

    def test_room_comes_back_when_connections_end(self, server: Server) -> None:
        host = free_host()
        for _ in range(4):
            clients = [server.connected(host, server.main) for _ in range(3)]

            assert server.connections.look() == {}
            assert not any(is_cut(each) for each in clients)
            server.close_all()

    def test_sockets_on_other_ports_are_left_alone(self, stack: ExitStack) -> None:
        """A manager's own connections to etcd, and its streams to other managers."""
        server, other = Server(stack), Server(stack)
        host = free_host()
        clients = [other.connected(host, other.main) for _ in range(8)]
        # Connections that this process made to a port are not connections at it.
        assert server.connections.look() == {}
        assert not any(is_cut(each) for each in clients)

    def test_a_manager_has_no_limit(self, stack: ExitStack) -> None:
        """It passes agents on, a connection for each."""
        server, host = Server(stack), free_host()
        server.connections = Connections(
            (server.main, server.joining), LIMITS, managers=lambda: [f"{host}:7400", "nowhere.invalid:7400"]
        )
        clients = [server.connected(host, server.main) for _ in range(8)]
        flood = [server.connected(free_host(), server.main) for _ in range(1)]

        assert server.connections.look() == {}
        assert not any(is_cut(each) for each in clients + flood)

    def test_when_no_descriptor_is_left_the_flood_is_cut_all_the_same(self, server: Server) -> None:
        host = free_host()
        server.connections.look()
        clients = [server.connected(host, server.main) for _ in range(5)]
        with no_descriptor_left():
            assert server.connections.look() == {(server.main, host): 2}

        assert [is_cut(each) for each in clients] == [False, False, False, True, True]

    def test_a_host_with_many_addresses_of_ipv6_is_one(self, stack: ExitStack) -> None:
        try:
            server = Server(stack, socket.AF_INET6)
        except OSError:
            pytest.skip("this host has no IPv6")
        clients = [server.connected("::1", server.main) for _ in range(4)]

        assert server.connections.look() == {(server.main, "0000:0000:0000:0000"): 1}
        assert [is_cut(each) for each in clients] == [False, False, False, True]

    def test_what_it_looks_at_stays_open_and_as_it_was(self, server: Server) -> None:
        """The sockets are gRPC's: neither closed nor made blocking."""
        clients = [server.connected(free_host(), server.main) for _ in range(3)]
        server.connections.look()
        before = _descriptors()
        for _ in range(3):
            server.connections.look()

        assert _descriptors() == before
        assert not any(is_cut(each) for each in clients)


def _descriptors() -> dict[str, str]:
    """What each descriptor of this process is."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # The directory's own, closed by now.
            found[entry.name] = str(entry.readlink())
    return found
