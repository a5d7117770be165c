"""The commands about traffic."""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import Process

import pytest

from bayplan.v1 import agent_link_pb2 as agent
from bayplan.v1 import control_pb2 as control
from tests.bayplan.cli.conftest import Bay, text
from tests.bayplan.client.fake_control import pod


async def forwarded_port(process: Process) -> int:
    """The port of this computer that a `port-forward` says it listens on."""
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    assert line.startswith("Forwarding from 127.0.0.1:"), line
    return int(line.removeprefix("Forwarding from 127.0.0.1:").split()[0])


async def spoken_to(port: int, said: bytes) -> bytes:
    """What comes back, up to the end, after `said` and the end of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


class TestPortForward:
    async def test_leads_to_a_pod_until_ctrl_c(self, bay: Bay) -> None:
        bay.control.pods = [pod()]
        process = await bay.start("port-forward", "web-0", ":80")
        port = await forwarded_port(process)

        # Several at once, each a connection of its own.
        answers = await asyncio.gather(spoken_to(port, b"one"), spoken_to(port, b"two"))

        assert list(answers) == [b"ONEgoodbye\n", b"TWOgoodbye\n"]
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130

    async def test_a_service_leads_to_the_port_of_a_ready_pod(self, bay: Bay) -> None:
        bay.control.services = [
            control.ServiceEndpoints(
                namespace="default",
                name="shop",
                ports=[agent.ServicePort(name="quic", port=80, udp=True), agent.ServicePort(port=80)],
                endpoints=[
                    agent.Endpoint(id="a", node="n1", name="shop-0-aaaaa", ports=[53, 8080], ready=False),
                    agent.Endpoint(id="b", node="n1", name="shop-1-bbbbb", ports=[53, 8080], ready=True),
                ],
            )
        ]
        process = await bay.start("port-forward", "svc/shop", ":80")

        await spoken_to(await forwarded_port(process), b"x")

        start = bay.control.requests[-1]
        assert (start.pod, start.port) == ("shop-1-bbbbb", 8080)
        process.kill()
        await process.wait()

    async def test_datagrams_are_not_led_anywhere(self, bay: Bay) -> None:
        ports = [agent.ServicePort(name="dns", port=53, udp=True), agent.ServicePort(name="web", port=80)]
        bay.control.services = [control.ServiceEndpoints(namespace="default", name="names", ports=ports)]

        ended = await bay("port-forward", "svc/names", "5353:53")

        assert ended.err == "error: service/names has no port 53/TCP; it has 53/UDP, 80/TCP\n"

    async def test_what_refuses_is_said_and_the_next_connection_is_tried(self, bay: Bay) -> None:
        bay.control.pods = [pod()]
        process = await bay.start("port-forward", "web-0", ":81")
        port = await forwarded_port(process)

        # Nothing is sent: what nobody reads would turn the end into a reset.
        assert await spoken_to(port, b"") == b""
        assert await spoken_to(port, b"") == b""

        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = (await process.stderr.read()).decode()
        assert said.count("error: port 81 of the pod: Connection refused") == 2
        await process.wait()

    @pytest.mark.parametrize("ports", ["80:", "a:80", "80:70000", "0", "1:2:3"])
    async def test_what_is_no_port_is_refused(self, bay: Bay, ports: str) -> None:
        ended = await bay("port-forward", "web-0", ports)
        assert ended.code == 2
        assert "is no pair of ports" in ended.err

    async def test_nothing_to_lead_to_is_an_error_before_it_listens(self, bay: Bay) -> None:
        ended = await bay("port-forward", "web-9", "80")
        assert (ended.code, ended.err) == (1, 'error: pod "web-9" not found\n')


class TestTopServices:
    async def test_shows_what_went_through(self, bay: Bay) -> None:
        bay.control.service_tops = [
            control.ServiceTop(
                namespace="default", name="web", port=80, requests_per_s=312.4, errors_per_s=0.2,
                p50_ms=1.84, p99_ms=22.5, connections=14, endpoints=3,
            ),
            control.ServiceTop(
                namespace="default", name="db", port=5432, requests_per_s=3.2, p50_ms=-1, p99_ms=-1,
                connections=9, endpoints=1,
            ),
        ]  # fmt: skip
        assert (await bay("top", "services")).out == text("""
            NAME   PORT   REQUESTS/S   ERRORS/S   P50     P99    CONNECTIONS   ENDPOINTS
            web    80     312          0.2        1.8ms   22ms   14            3
            db     5432   3.2          0.0        -       -      9             1
        """)


class TestDoctorNetwork:
    async def test_shows_every_pair(self, bay: Bay) -> None:
        bay.control.network_check = control.CheckNetworkReply(
            paths=[path("n1", "n2", what, ok=True, detail="0.4 ms") for what in ("address", "tcp", "udp")]
        )
        ended = await bay("doctor", "network")
        assert (ended.code, ended.out) == (
            0,
            text("""
                FROM   TO   ADDRESS   NAME   TCP      UDP      MTU
                n1     n2   0.4 ms    -      0.4 ms   0.4 ms   -
            """),
        )

    async def test_ends_with_an_error_where_a_way_does_not_work(self, bay: Bay) -> None:
        bay.control.network_check = control.CheckNetworkReply(
            paths=[path("n1", "n2", "udp", ok=False, detail="no answer within 2 s")], silent=["n3"]
        )
        ended = await bay("doctor", "network")
        assert ended.code == 1
        assert "FAILED: no answer within 2 s" in ended.out
        assert ended.err == "error: not heard from within 10 s: n3\n"

    async def test_counts_what_is_not_listed(self, bay: Bay) -> None:
        """With many nodes nobody reads a line for each pair."""
        bay.control.network_check = control.CheckNetworkReply(healthy=448_500)
        ended = await bay("doctor", "network")
        assert (ended.code, ended.out) == (0, "")
        assert ended.err == "448500 ways were tried and work.\n"

        bay.control.network_check = control.CheckNetworkReply(
            paths=[path("n1", "n2", "udp", ok=False, detail="no answer within 2 s")], healthy=90, failed=9
        )
        ended = await bay("doctor", "network")
        assert ended.code == 1
        assert "error: 10 of 100 ways do not work" in ended.err


def path(source: str, target: str, what: str, *, ok: bool, detail: str) -> agent.NetworkPath:
    found = agent.NetworkPath(to=target, what=what, ok=ok, detail=detail)
    setattr(found, "from", source)  # A keyword of Python's.
    return found
