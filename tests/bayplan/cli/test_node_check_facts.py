from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bayplan.cli.node_check_facts import (
    EngineFacts,
    HostFacts,
    Route,
    gather,
    read_ip_routes,
    read_proc_routes,
)

GIB = 1 << 30


class TestReadingRoutes:
    def test_of_ip(self) -> None:
        text = json.dumps(
            [
                {"dst": "default", "gateway": "10.0.0.254", "dev": "eth0"},
                {"dst": "10.42.3.0/24", "dev": "eth1", "protocol": "kernel"},
                {"type": "local", "dst": "10.42.3.1", "dev": "eth1", "table": "local"},
                {"type": "broadcast", "dst": "10.42.3.255", "dev": "eth1", "table": "local"},
            ]
        )
        assert read_ip_routes(text) == [
            Route(network="10.42.3.0/24", device="eth1"),
            Route(network="10.42.3.1/32", device="eth1"),
        ]

    def test_of_proc(self) -> None:
        text = """\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	FE00000A	0003	0	0	0	00000000	0	0	0
eth0	0000000A	00000000	0001	0	0	0	00FFFFFF	0	0	0
wg0	00002A0A	00000000	0001	0	0	0	0000FFFF	0	0	0
"""
        assert read_proc_routes(text.splitlines()) == [
            Route(network="10.0.0.0/24", device="eth0"),
            Route(network="10.42.0.0/16", device="wg0"),
        ]


@contextmanager
def engine_that_says(path: Path, version: dict[str, Any], info: dict[str, Any]) -> Iterator[None]:
    """An engine's socket, for two requests."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        for body in (json.dumps(version), json.dumps(info)):
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # Not everything was asked for, and the test is over.
            with connection:
                connection.recv(65536)
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall((head + body).encode())

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    try:
        yield
    finally:
        # A close alone would leave the thread where it waits, with a descriptor that others get.
        listener.shutdown(socket.SHUT_RDWR)
        server.join()
        listener.close()


class TestGather:
    def facts(self, socket_path: Path, data_dir: Path, *, port: int = 7443) -> HostFacts:
        return gather(engine_socket=str(socket_path), data_dir=str(data_dir), witness_port=port, managers=[])

    def test_reads_this_host(self, tmp_path: Path) -> None:
        """What every Linux on which the tests run has."""
        facts = self.facts(tmp_path / "none.sock", tmp_path)

        assert facts.kernel == os.uname().release
        assert facts.memory_bytes > GIB // 8
        assert facts.engine_problem == "No such file or directory"
        assert all("/" in route.network for route in facts.routes)
        assert [disk.path for disk in facts.disks] == [str(tmp_path)]

    def test_asks_the_engine(self, tmp_path: Path) -> None:
        info = {"Driver": "overlay2", "DockerRootDir": str(tmp_path), "SecurityOptions": ["name=rootless"]}
        with engine_that_says(tmp_path / "docker.sock", {"Version": "20.10.24"}, info):
            facts = self.facts(tmp_path / "docker.sock", tmp_path)

        assert facts.engine == EngineFacts(
            version="20.10.24", driver="overlay2", root_dir=str(tmp_path), is_rootless=True
        )
        assert len(facts.disks) == 2

    def test_knows_what_is_no_engine(self, tmp_path: Path) -> None:
        with engine_that_says(tmp_path / "docker.sock", {"hello": "world"}, {}):
            facts = self.facts(tmp_path / "docker.sock", tmp_path)

        assert facts.engine is None
        assert facts.engine_problem == "something else than an engine answers (KeyError)"

    def test_finds_who_has_a_port(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]

            facts = self.facts(tmp_path / "none.sock", tmp_path, port=port)

        assert facts.listening[port] != ""

    def test_finds_who_holds_a_port_and_whether_at_every_address(self, tmp_path: Path) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as one, socket.create_server(("0.0.0.0", 0)) as every:
            one.bind(("127.0.0.1", 0))
            udp, tcp = one.getsockname()[1], every.getsockname()[1]

            facts = gather(
                engine_socket=str(tmp_path / "none.sock"),
                data_dir=str(tmp_path),
                witness_port=7443,
                managers=[],
                ports=[("udp", udp), ("tcp", tcp)],
            )

        assert [(each.port, each.protocol, each.is_everywhere) for each in facts.holders] == [
            (udp, "udp", False),
            (tcp, "tcp", True),
        ]
        assert all(each.program for each in facts.holders)

    @pytest.mark.parametrize(
        ("name", "says", "version"),
        [
            ("haproxy", "HAProxy version 2.6.12-1+deb12u2 2023/09/19 - https://haproxy.org/", "2.6.12"),
            ("nft", "nftables v1.0.6 (Lester Gooch #5)", "1.0.6"),
            ("iptables", "iptables v1.8.9 (nf_tables)", "1.8.9"),
            ("iptables", "?", ""),
        ],
    )
    def test_asks_programs_for_their_version(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str, version: str
    ) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

        assert self.facts(tmp_path / "none.sock", tmp_path).programs[name] == version

    def test_a_directory_that_is_missing_yet_is_on_its_parents_disk(self, tmp_path: Path) -> None:
        facts = self.facts(tmp_path / "none.sock", tmp_path / "a/b/c")

        assert facts.disks[0].total_bytes > 0

    def test_a_manager_that_is_not_there(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        facts = gather(
            engine_socket=str(tmp_path / "none.sock"),
            data_dir=str(tmp_path),
            witness_port=7443,
            managers=[f"127.0.0.1:{port}", "nonsense"],
        )

        assert facts.managers[0].main_problem == "Connection refused"
        assert facts.managers[0].join_problem == "Connection refused"
        assert facts.managers[1].main_problem == "it is not host:port"
