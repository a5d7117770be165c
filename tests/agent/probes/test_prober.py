"""The real prober against programs on sockets, and the ways in which they can be bad."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from agent.probes import deadline
from agent.probes.model import GrpcCheck, HttpGet, Sleep, TcpConnect
from agent.probes.port import SUCCESS, Outcome, Result
from agent.probes.prober import HostProber
from agent.runtime.simulated import SimulatedRuntime
from agent.runtime.simulated_engine import SimulatedEngine
from tests.agent.probes import servers
from tests.agent.probes.servers import LOOPBACK, Server, Talk, a_container, answering, serving

SHORT_S = 0.3
# Far more than any of them needs, on a machine that has other things to do.
LONG_S = 20.0


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """These are real seconds: a machine that is busy elsewhere must not be taken for an agent that was held up."""
    monkeypatch.setattr(deadline, "HELD_UP_S", 3600.0)


@pytest.fixture
async def prober() -> AsyncIterator[HostProber]:
    prober = HostProber(SimulatedRuntime(SimulatedEngine(), cluster="c", node="n"))
    yield prober
    await prober.aclose()


def a_free_port() -> int:
    """Nobody listens there."""
    with socket.socket() as found:
        found.bind((LOOPBACK, 0))
        return int(found.getsockname()[1])


async def get(prober: HostProber, port: int, timeout_s: float = LONG_S, **request: Any) -> Outcome:
    return await prober.probe(a_container(), HttpGet(port=port, **request), timeout_s=timeout_s)


class TestHttp:
    @pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified", "399 Whatever"])
    async def test_200_to_399_is_success(self, prober: HostProber, status: str) -> None:
        async with serving(answering(status)) as server:
            assert await get(prober, server.port) == SUCCESS

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            ("404 Not Found", "HTTP 404 Not Found"),
            ("500 Whatever It Says", "HTTP 500 Internal Server Error"),
            ("799 Unheard", "HTTP 799"),
        ],
    )
    async def test_anything_else_fails_and_says_what(
        self, prober: HostProber, status: str, words: str
    ) -> None:
        """The reason phrase is the standard's: an answer's own could say anything."""
        async with serving(answering(status)) as server:
            outcome = await get(prober, server.port, path="/healthz")
            assert outcome == Outcome.failure(f"{words} at :{server.port}/healthz")

    async def test_asks_as_it_was_told_to(self, prober: HostProber) -> None:
        async with serving(answering("200 OK")) as server:
            await get(
                prober, server.port, path="/a%2Fb?q=1", headers=(("Host", "shop.example"), ("X-Key", "a b"))
            )
            lines = server.requests[0].splitlines()
            assert lines[0] == "GET /a%2Fb?q=1 HTTP/1.1"
            assert "Host: shop.example" in lines
            assert "X-Key: a b" in lines
            assert "Accept: */*" in lines
            assert any(line.startswith("User-Agent: bayplan-probe/") for line in lines)
            assert not any(line.startswith(("Accept-Encoding", "Cookie")) for line in lines)

    async def test_the_user_agent_can_be_another_or_none(self, prober: HostProber) -> None:
        async with serving(answering("200 OK")) as server:
            await get(prober, server.port, headers=(("user-agent", "mine"),))
            await get(prober, server.port, headers=(("User-Agent", ""), ("Accept", "")))
            assert "user-agent: mine" in server.requests[0]
            assert "bayplan-probe" not in server.requests[0]
            assert "agent" not in server.requests[1].lower()
            assert "accept" not in server.requests[1].lower()

    async def test_each_check_is_a_new_connection(self, prober: HostProber) -> None:
        """A server that has no room for new clients is found out."""
        connections = 0

        async def talk(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await answering("200 OK")(server, reader, writer)
            await answering("200 OK")(server, reader, writer)

        async with serving(talk) as server:
            await get(prober, server.port)
            await get(prober, server.port)
            assert connections == 2

    async def test_cookies_of_one_answer_are_not_shown_to_another(self, prober: HostProber) -> None:
        async with serving(answering("200 OK", "Set-Cookie: session=secret")) as server:
            await get(prober, server.port)
            await get(prober, server.port)
            assert "secret" not in server.requests[1]

    async def test_certificates_are_not_verified(self, prober: HostProber, tmp_path: Path) -> None:
        async with serving(answering("200 OK"), tls=servers.self_signed(tmp_path)) as server:
            assert await get(prober, server.port, is_tls=True) == SUCCESS

    async def test_plain_http_where_tls_is_expected(self, prober: HostProber) -> None:
        async with serving(servers.babble) as server:
            outcome = await get(prober, server.port, is_tls=True)
            assert outcome == Outcome.failure(f"the TLS handshake failed at :{server.port}/")

    async def test_refused(self, prober: HostProber) -> None:
        port = a_free_port()
        assert await get(prober, port) == Outcome.failure(f"connection refused at :{port}/")

    async def test_a_host_that_has_no_address(self, prober: HostProber) -> None:
        outcome = await get(prober, 80, host="no-such-host.invalid")
        assert outcome == Outcome.failure("unknown host at no-such-host.invalid:80/")

    async def test_a_container_without_an_address_was_not_asked(self, prober: HostProber) -> None:
        outcome = await prober.probe(a_container(""), HttpGet(port=80), timeout_s=1)
        assert outcome.result is Result.UNKNOWN


class TestRedirects:
    async def test_are_followed_within_the_host(self, prober: HostProber) -> None:
        async def talk(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if "GET /login" in await server.heard(reader):
                writer.write(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 301 Moved\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()

        async with serving(talk) as server:
            outcome = await get(prober, server.port, headers=(("Host", "shop.example"),))
            assert outcome.words == f"HTTP 503 Service Unavailable at :{server.port}/"
            assert "Host: shop.example" in server.requests[1]

    async def test_elsewhere_are_a_success_and_not_followed(self, prober: HostProber) -> None:
        """Who can make a program redirect must not make every node ask a third party."""
        async with serving(answering("500 No")) as other:
            location = f"Location: http://localhost:{other.port}/"
            async with serving(answering("302 Found", location)) as server:
                assert await get(prober, server.port) == SUCCESS
            assert not other.requests

    async def test_without_end_fail_after_ten(self, prober: HostProber) -> None:
        async with serving(servers.redirect_for_ever) as server:
            outcome = await get(prober, server.port)
            assert outcome == Outcome.failure(f"redirected 10 times at :{server.port}/")
            assert len(server.requests) == 10

    @pytest.mark.parametrize("location", ["http://[", "ftp://127.0.0.1/", "http://127.0.0.1:99999/"])
    async def test_to_what_is_no_url_fail(self, prober: HostProber, location: str) -> None:
        async with serving(answering("302 Found", f"Location: {location}")) as server:
            outcome = await get(prober, server.port)
            assert outcome.result is Result.FAILURE
            assert "no URL" in outcome.words

    async def test_without_a_target_are_answers(self, prober: HostProber) -> None:
        async with serving(answering("302 Found")) as server:
            assert await get(prober, server.port) == SUCCESS


class TestBadServers:
    """Whatever is done to a probe, it costs a bounded time and a bounded memory."""

    @pytest.mark.parametrize("talk", [servers.hang, servers.hang_in_body, servers.drip])
    async def test_one_that_does_not_end_is_left_at_the_deadline(
        self, prober: HostProber, talk: Talk
    ) -> None:
        async with serving(talk) as server:
            outcome = await get(prober, server.port, SHORT_S)
            assert outcome == Outcome.failure(f"no answer within 0.3 s at :{server.port}/")

    async def test_of_a_100_mb_answer_little_is_read(self, prober: HostProber) -> None:
        async with serving(servers.flood_body) as server:
            tracemalloc.start()
            try:
                outcome = await get(prober, server.port)
                _, peak_bytes = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert outcome == SUCCESS
            assert peak_bytes < 5_000_000
            assert server.sent_bytes < 50_000_000

    @pytest.mark.parametrize("talk", [servers.flood_headers, servers.flood_one_header])
    async def test_endless_headers_are_refused_before_the_deadline(
        self, prober: HostProber, talk: Talk
    ) -> None:
        async with serving(talk) as server:
            outcome = await get(prober, server.port)
            assert outcome == Outcome.failure(f"what answered speaks no HTTP at :{server.port}/")
            assert server.sent_bytes < 20_000_000

    async def test_what_is_packed_is_not_unpacked(self, prober: HostProber) -> None:
        """Ten kilobytes of it would be ten megabytes."""
        bomb = gzip.compress(b"\0" * 10_000_000)
        async with serving(answering("200 OK", "Content-Encoding: gzip", body=bomb)) as server:
            tracemalloc.start()
            try:
                outcome = await get(prober, server.port)
                _, peak_bytes = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert outcome == SUCCESS
            assert peak_bytes < 2_000_000

    async def test_one_that_hangs_up(self, prober: HostProber) -> None:
        async with serving(servers.hang_up) as server:
            outcome = await get(prober, server.port)
            assert outcome == Outcome.failure(
                f"the connection was closed without an answer at :{server.port}/"
            )

    async def test_one_that_speaks_something_else(self, prober: HostProber) -> None:
        async with serving(servers.babble) as server:
            outcome = await get(prober, server.port)
            assert outcome == Outcome.failure(f"what answered speaks no HTTP at :{server.port}/")

    async def test_hundreds_that_hang_do_not_delay_another(self, prober: HostProber) -> None:
        async with serving(servers.hang) as bad, serving(answering("200 OK")) as good:
            hanging = [asyncio.create_task(get(prober, bad.port)) for _ in range(300)]
            while len(bad.requests) < 300:  # noqa: ASYNC110 - the requests are on their way through the kernel
                await asyncio.sleep(0.01)
            assert await get(prober, good.port, 5.0) == SUCCESS
            assert not any(task.done() for task in hanging)
            for task in hanging:
                task.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)


class TestNames:
    @pytest.mark.parametrize("kind", [HttpGet, TcpConnect])
    async def test_that_nobody_answers_hold_up_nothing_else(
        self, prober: HostProber, monkeypatch: pytest.MonkeyPatch, kind: type[HttpGet | TcpConnect]
    ) -> None:
        """The journal is written in the loop's own threads: a pod's probe must not take them all."""
        answered, asked = threading.Event(), socket.getaddrinfo

        def slow(host: Any, *args: Any, **options: Any) -> Any:
            if host != LOOPBACK:
                answered.wait(LONG_S)
            return asked(LOOPBACK, *args[:1], **options)

        monkeypatch.setattr(socket, "getaddrinfo", slow)
        checks = [kind(port=80, host=f"n{number}.example.org") for number in range(64)]
        probing = [
            asyncio.create_task(prober.probe(a_container(), check, timeout_s=LONG_S)) for check in checks
        ]
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(5.0), serving(servers.hang) as server:
                await asyncio.sleep(0.1)
                await asyncio.to_thread(int)
                check = TcpConnect(port=server.port, host=LOOPBACK)
                assert await prober.probe(a_container(), check, timeout_s=LONG_S) == SUCCESS
        finally:
            answered.set()
            for task in probing:
                task.cancel()
            await asyncio.gather(*probing, return_exceptions=True)

    async def test_of_two_addresses_one_that_answers_will_do(self, prober: HostProber) -> None:
        """Where localhost is ::1 before it is 127.0.0.1."""
        async with serving(servers.hang) as server:
            check = TcpConnect(port=server.port, host="localhost")
            assert await prober.probe(a_container(), check, timeout_s=LONG_S) == SUCCESS


class TestTcp:
    async def test_a_listener_is_enough(self, prober: HostProber) -> None:
        async with serving(servers.hang) as server:
            check = TcpConnect(port=server.port)
            assert await prober.probe(a_container(), check, timeout_s=LONG_S) == SUCCESS

    async def test_refused(self, prober: HostProber) -> None:
        port = a_free_port()
        outcome = await prober.probe(a_container(), TcpConnect(port=port), timeout_s=LONG_S)
        assert outcome == Outcome.failure(f"connection refused at :{port}")

    async def test_a_listener_that_accepts_nobody(self, prober: HostProber) -> None:
        with socket.socket() as listener:
            listener.bind((LOOPBACK, 0))
            listener.listen(0)
            port = listener.getsockname()[1]
            # The kernel takes one or two into its queue, and leaves the others waiting.
            waiting = [socket.socket() for _ in range(4)]
            for each in waiting:
                each.setblocking(False)
                each.connect_ex((LOOPBACK, port))
            outcome = await prober.probe(a_container(), TcpConnect(port=port), timeout_s=SHORT_S)
            for each in waiting:
                each.close()
            assert outcome == Outcome.failure(f"no answer within 0.3 s at :{port}")


class TestGrpc:
    @pytest.fixture
    async def server(self) -> AsyncIterator[tuple[HealthServicer, int]]:
        servicer = HealthServicer()
        server = grpc.aio.server()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        port = server.add_insecure_port(f"{LOOPBACK}:0")
        await server.start()
        yield servicer, port
        await server.stop(0)

    async def ask(
        self, prober: HostProber, port: int, service: str = "", timeout_s: float = LONG_S
    ) -> Outcome:
        return await prober.probe(a_container(), GrpcCheck(port=port, service=service), timeout_s=timeout_s)

    async def test_serving_is_success(self, prober: HostProber, server: tuple[HealthServicer, int]) -> None:
        servicer, port = server
        await servicer.set("shop.Cart", health_pb2.HealthCheckResponse.SERVING)
        assert await self.ask(prober, port) == SUCCESS
        assert await self.ask(prober, port, "shop.Cart") == SUCCESS

    async def test_anything_else_fails_and_says_what(
        self, prober: HostProber, server: tuple[HealthServicer, int]
    ) -> None:
        servicer, port = server
        await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert await self.ask(prober, port) == Outcome.failure(f"it says NOT_SERVING at :{port}")
        assert await self.ask(prober, port, "no.Such") == Outcome.failure(
            f"the server knows no such service at :{port} (service no.Such)"
        )

    async def test_recovery_is_seen_at_once(self, prober: HostProber) -> None:
        """A failed connection leaves no pause behind that the next check would have to wait for."""
        port = a_free_port()
        assert (await self.ask(prober, port)).words == f"connection refused at :{port}"
        servicer = HealthServicer()
        late = grpc.aio.server()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, late)
        late.add_insecure_port(f"{LOOPBACK}:{port}")
        await late.start()
        try:
            assert await self.ask(prober, port) == SUCCESS
        finally:
            await late.stop(0)

    async def test_a_server_without_the_protocol(self, prober: HostProber) -> None:
        server = grpc.aio.server()
        port = server.add_insecure_port(f"{LOOPBACK}:0")
        await server.start()
        try:
            assert await self.ask(prober, port) == Outcome.failure(
                f"the server does not know gRPC's health protocol at :{port}"
            )
        finally:
            await server.stop(0)

    @pytest.mark.parametrize("talk", [servers.hang, servers.babble])
    async def test_what_speaks_no_grpc(self, prober: HostProber, talk: Talk) -> None:
        async with serving(talk) as server:
            outcome = await self.ask(prober, server.port, timeout_s=SHORT_S)
            assert outcome.result is Result.FAILURE


class TestHooks:
    async def test_any_answer_to_a_request_will_do(self, prober: HostProber) -> None:
        async with serving(answering("500 No")) as server:
            hook = HttpGet(port=server.port)
            assert await prober.run_hook(a_container(), hook, timeout_s=LONG_S) == SUCCESS

    async def test_none_will_not(self, prober: HostProber) -> None:
        async with serving(servers.hang) as server:
            outcome = await prober.run_hook(a_container(), HttpGet(port=server.port), timeout_s=SHORT_S)
            assert outcome.result is Result.FAILURE

    async def test_sleeps_no_longer_than_it_may(self, prober: HostProber) -> None:
        outcome = await prober.run_hook(a_container(), Sleep(duration_s=600), timeout_s=0.01)
        assert outcome == SUCCESS
