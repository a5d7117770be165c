"""The proxy's smaller parts: counters, the master's answers, variables, the command, the simulated one."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.network.table import NetworkTable
from agent.traffic.environment import service_variables
from agent.traffic.haproxy_backends import Backend
from agent.traffic.haproxy_socket import (
    HaproxySocket,
    NotRunningError,
    Processes,
    ProxyAnswerError,
    parse_processes,
)
from agent.traffic.haproxy_stats import Row, ServiceCounters
from agent.traffic.main import haproxy_arguments, run
from agent.traffic.simulated import SimulatedProxy
from agent.traffic.table import TrafficTable
from agent.traffic.taken_ports import taken_ports
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.traffic.world import db, web


def a_row(sessions: int, errors: int = 0, proxy: str = "shop.web.80") -> Row:
    return Row(
        proxy=proxy,
        server="BACKEND",
        kind="1",
        is_http=True,
        open=1,
        queued=0,
        sessions=sessions,
        errors=errors,
    )


def a_backend(name: str = "shop.web.80") -> Backend:
    return Backend(
        name=name, service="shop/web", port=80, is_http=True, options=(), server_options="", servers={}
    )


def look(counters: ServiceCounters, worker: int, *rows: Row, at_s: float, is_announced: bool = False) -> None:
    counters.look(worker, rows, is_announced=is_announced, now_s=at_s)


@pytest.fixture
def counters() -> ServiceCounters:
    """Worker 7 has been seen, and asked about once."""
    counters = ServiceCounters()
    look(counters, 7, a_row(100, 10), at_s=0.0)
    counters.take([a_backend()])
    return counters


class TestCounters:
    def test_what_was_before_the_first_look_is_nobodys(self) -> None:
        counters = ServiceCounters()
        assert counters.take([a_backend()]) == []
        look(counters, 7, a_row(100), at_s=5.0)
        assert counters.take([a_backend()]) == []
        look(counters, 7, a_row(130), at_s=10.0)
        assert [use.requests for use in counters.take([a_backend()])] == [30]

    def test_what_went_through_since(self, counters: ServiceCounters) -> None:
        look(counters, 7, a_row(130, 12), at_s=10.0)
        (use,) = counters.take([a_backend()])
        assert (use.requests, use.errors, use.connections, use.window_ms) == (30, 2, 1, 10_000)
        look(counters, 7, a_row(130, 12), at_s=20.0)
        (use,) = counters.take([a_backend()])
        assert (use.requests, use.errors) == (0, 0)

    def test_a_window_is_as_long_as_what_was_counted(self, counters: ServiceCounters) -> None:
        """Ten requests a second, looked at every 5.3 s, taken every 10 s: the rate is the same each time."""
        rates = []
        looks_s = iter([5.3, 10.6, 15.9, 21.2, 26.5, 31.8])
        at_s = next(looks_s)
        for taken_s in (10.0, 20.0, 30.0):
            while at_s < taken_s:
                look(counters, 7, a_row(100 + round(10 * at_s), 10), at_s=at_s)
                at_s = next(looks_s)
            (use,) = counters.take([a_backend()])
            rates.append(use.requests * 1000 / use.window_ms)
        assert rates == [10.0, 10.0, 10.0]

    def test_while_haproxy_does_not_run_nothing_is_said(self, counters: ServiceCounters) -> None:
        """Zero would be a load that nobody has seen."""
        look(counters, 7, a_row(130, 12), at_s=5.0)
        assert len(counters.take([a_backend()])) == 1
        assert counters.take([a_backend()]) == []

    def test_a_reload_of_ours_loses_nothing(self, counters: ServiceCounters) -> None:
        look(counters, 7, a_row(110, 10), at_s=3.0)
        look(counters, 8, a_row(5, 1), is_announced=True, at_s=5.0)
        look(counters, 7, a_row(112, 10), at_s=5.0)
        (use,) = counters.take([a_backend()])
        assert (use.requests, use.errors, use.connections) == (17, 1, 2)

    def test_a_worker_that_nobody_announced_is_a_gap(self, counters: ServiceCounters) -> None:
        look(counters, 8, a_row(5), at_s=5.0)
        assert counters.take([a_backend()]) == []
        look(counters, 8, a_row(6), at_s=15.0)
        assert [use.requests for use in counters.take([a_backend()])] == [1]

    def test_a_counter_that_went_down_is_left_out_alone(self, counters: ServiceCounters) -> None:
        other = Backend(
            name="shop.db.1",
            service="shop/db",
            port=1,
            is_http=False,
            options=(),
            server_options="",
            servers={},
        )
        look(counters, 7, a_row(3), a_row(9, proxy="shop.db.1"), at_s=10.0)
        assert [use.service for use in counters.take([a_backend(), other])] == ["shop/db"]

    def test_backends_of_one_port_are_one(self, counters: ServiceCounters) -> None:
        look(counters, 7, a_row(101, 10), a_row(4, proxy="shop.web.80.local"), at_s=10.0)
        counters.latency("shop.web.80", 3.0)
        counters.latency("shop.web.80.local", 3.0)
        (use,) = counters.take([a_backend(), a_backend("shop.web.80.local")])
        assert use.requests == 5
        assert sum(use.latency_counts) == 2


class TestMaster:
    def test_tells_its_processes(self) -> None:
        said = (
            "#<PID>          <type>          <reloads>       <uptime>        <version>      \n"
            "26622           master          1 [failed: 0]   0d00h00m53s     2.6.12-1+deb12u4\n"
            "# workers\n27041           worker          0               0d00h00m03s     2.6.12-1+deb12u4\n"
            "# old workers\n26625           worker          1               0d00h00m53s     2.6.12\n# programs\n\n"
        )
        assert parse_processes(said) == Processes(
            master=26622, reloads=1, failed=0, worker=27041, old_workers=(26625,)
        )

    @pytest.mark.parametrize("said", ["", "Unknown command\n", "1 master 0 [failed: 0] 0d 2.6\n# workers\n"])
    def test_an_answer_that_is_none_is_an_error(self, said: str) -> None:
        with pytest.raises(ProxyAnswerError):
            parse_processes(said)

    async def test_that_is_not_there_is_not_running(self, tmp_path: Path) -> None:
        with pytest.raises(NotRunningError, match="does not run"):
            await HaproxySocket(tmp_path / "none").processes()


class TestVariables:
    def test_are_those_of_kubernetes(self) -> None:
        ports = [pb.ServicePort(name="http-web", port=80), pb.ServicePort(name="dns", port=53, udp=True)]
        services = [
            web(name="my-web", ports=ports),
            web(name="headless", vip=""),
            db(namespace="other"),
        ]
        traffic = TrafficTable().fold(pb.Traffic(full=True, services=services))
        assert service_variables(traffic, "shop") == {
            "MY_WEB_SERVICE_HOST": "10.96.0.10",
            "MY_WEB_SERVICE_PORT": "80",
            "MY_WEB_SERVICE_PORT_HTTP_WEB": "80",
            "MY_WEB_SERVICE_PORT_DNS": "53",
            "MY_WEB_PORT": "tcp://10.96.0.10:80",
            "MY_WEB_PORT_80_TCP": "tcp://10.96.0.10:80",
            "MY_WEB_PORT_80_TCP_PROTO": "tcp",
            "MY_WEB_PORT_80_TCP_PORT": "80",
            "MY_WEB_PORT_80_TCP_ADDR": "10.96.0.10",
            "MY_WEB_PORT_53_UDP": "udp://10.96.0.10:53",
            "MY_WEB_PORT_53_UDP_PROTO": "udp",
            "MY_WEB_PORT_53_UDP_PORT": "53",
            "MY_WEB_PORT_53_UDP_ADDR": "10.96.0.10",
        }


class TestTakenPorts:
    @pytest.fixture
    def taker(self) -> Iterator[socket.socket]:
        with socket.socket() as taker:
            taker.bind(("0.0.0.0", 0))
            taker.listen()
            yield taker

    def test_one_that_listens_everywhere_is_named(self, taker: socket.socket) -> None:
        place = "127.3.2.1", taker.getsockname()[1]
        assert taken_ports([place])[place].endswith(f"(pid {os.getpid()})")

    def test_an_address_of_another_host_is_told(self) -> None:
        place = "192.0.2.1", 80
        assert taken_ports([place]) == {place: "192.0.2.1 is no address of this host"}

    def test_a_free_one_is_not_taken_by_asking(self) -> None:
        place = "127.3.2.1", 23456
        assert taken_ports([place, place]) == {}


class TestCommand:
    ARGUMENTS = ("--node=n1", "--managers=m1", "--run-dir")

    def call(self, tmp_path: Path, program: str) -> None:
        path = tmp_path / "haproxy"
        path.write_text(f"#!/bin/sh\n{program}\n")
        path.chmod(0o755)
        environ = dict.fromkeys(("PATH",), os.environ["PATH"])
        run([*self.ARGUMENTS, str(tmp_path)], environ, binary=str(path), file=tmp_path / "none.toml")

    def test_says_what_is_missing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            run([*self.ARGUMENTS, str(tmp_path)], {}, binary="no-such-haproxy", file=tmp_path / "none.toml")
        assert ended.value.code == 2
        assert "HAProxy is not installed" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("version", "words"),
        [("2.4.18", "2.4 is too old"), ("1.8.2", "1.8 is too old"), ("", "does not say a version")],
    )
    def test_refuses_one_that_is_too_old(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], version: str, words: str
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            self.call(tmp_path, f"echo 'HAProxy version {version}'")
        assert ended.value.code == 2
        assert words in capsys.readouterr().err

    def test_becomes_haproxy_once_there_is_a_configuration(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        became: list[list[str]] = []
        configuration = tmp_path / "proxy" / "haproxy.cfg"

        def wait(_seconds: float) -> None:
            configuration.parent.mkdir()
            configuration.write_text("")

        monkeypatch.setattr("agent.traffic.main.time.sleep", wait)
        monkeypatch.setattr("agent.traffic.main._connections", lambda: 0)
        monkeypatch.setattr("agent.traffic.main.os.execv", lambda _path, argv: became.append(argv))
        self.call(tmp_path, "echo 'HAProxy version 2.6.12'")
        assert became == [[str(tmp_path / "haproxy"), *haproxy_arguments(tmp_path / "proxy", connections=0)]]
        assert became[0][1:3] == ["-W", "-S"]

    def test_is_installed_under_its_name(self) -> None:
        text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
        assert 'bayplan-proxy = "agent.traffic.main:main"' in text
        assert sys.modules["agent.traffic.main"].main is not None


@pytest.mark.virtual_time
class TestSimulated:
    async def test_applies_after_its_time_and_tells(self) -> None:
        proxy, told = SimulatedProxy(applies_after_s=0.5), list[int]()
        proxy.on_applied = lambda: told.append(proxy.applied().version)
        running = asyncio.create_task(proxy.run())
        endpoints = pb.EndpointChanges(
            service="shop/web", put=[pb.Endpoint(id="a", ready=True), pb.Endpoint(id="b")]
        )
        traffic = TrafficTable().fold(
            pb.Traffic(full=True, version=3, services=[web()], endpoints=[endpoints])
        )
        proxy.use(NetworkTable(), traffic)
        await asyncio.sleep(0.4)
        assert (told, proxy.endpoints("shop/web")) == ([], set())
        await asyncio.sleep(0.2)
        assert (told, proxy.endpoints("shop/web")) == ([3], {"a"})
        running.cancel()
