"""The proxy that drives a real HAProxy: what callers and pods notice."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.traffic.world import DB, WEB, World, a_world, under_load, web


async def _read(reader: asyncio.StreamReader, count: int) -> bytes:
    async with asyncio.timeout(10):
        return await reader.readexactly(count)


class TestServing:
    async def test_a_service_without_pods_says_so_at_once(self) -> None:
        async with a_world() as world:
            assert await world.get() == (503, "No pod of this service can answer.\n")
            reader, writer = await asyncio.open_connection(world.published, 5432)
            async with asyncio.timeout(1):
                assert await reader.read() == b""
            writer.close()

    async def test_endpoints_come_and_go_without_a_reload(self) -> None:
        async with a_world() as world:
            worker = world.proxy._haproxy.processes
            for names in (["a"], ["a", "b"], ["b"], [], ["a", "b"]):
                for name in names:
                    if name not in world.pods:
                        await world.start_pod(name)
                version = world.endpoints(*names)
                took_s = await world.until_applied(version)
                seen = {(await world.get())[1] for _ in range(6)}
                assert seen == (set(names) or {"No pod of this service can answer.\n"})
                assert took_s < 1.0
            assert world.proxy._haproxy.processes == worker

    async def test_the_callers_address_is_told(self) -> None:
        async with a_world() as world:
            await world.start_pod("a")
            await world.until_applied(world.endpoints("a"))
            _, head = await world.get("/head", headers="Host: x\r\n")
            assert "x-forwarded-for: 127.0.0.1" in head

    async def test_a_pod_that_refuses_costs_no_request(self) -> None:
        """It has crashed, and nobody knows yet."""
        async with a_world() as world:
            for name in ("a", "b", "c"):
                await world.start_pod(name)
            await world.until_applied(world.endpoints("a", "b", "c"))
            await world.pods["b"].kill()
            assert {(await world.get())[1] for _ in range(20)} == {"a", "c"}

    async def test_connections_to_pods_are_reused(self) -> None:
        """To a server of the file, and to one that came later."""
        async with a_world() as world:
            for name in ("a", "b"):
                await world.start_pod(name)
            await world.until_applied(world.endpoints("a", "b"))
            reader, writer = await asyncio.open_connection(world.published, 80)
            for _ in range(50):
                writer.write(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(1)
            writer.close()
            for pod in world.pods.values():
                assert pod.requests == 25
                assert pod.connections <= 2

    async def test_one_caller_stays_with_one_pod(self) -> None:
        async with a_world() as world:
            for name in ("a", "b", "c"):
                await world.start_pod(name)
            world.say(services=[web(affinity_s=60)])
            await world.until_applied(world.endpoints("a", "b", "c"))
            first = {(await world.get())[1] for _ in range(10)}
            assert len(first) == 1
            # It is found again among more: the others' coming moves few callers, and its going moves them.
            (stays,) = first
            others = [name for name in world.pods if name != stays]
            await world.until_applied(world.endpoints(*others))
            assert {(await world.get())[1] for _ in range(10)} < set(others)
            await world.until_applied(world.endpoints(*world.pods))
            assert {(await world.get())[1] for _ in range(10)} == {stays}

    async def test_shares_follow_capacity(self) -> None:
        async with a_world() as world:
            for name in ("a", "b"):
                await world.start_pod(name)
            world.say(services=[web(balance=pb.BALANCE_CAPACITY)])
            endpoints = [
                pb.Endpoint(
                    id=pod.id, node="n1", address=pod.address, ports=[8080], ready=True, weight=weight
                )
                for pod, weight in zip(world.pods.values(), (10, 30), strict=True)
            ]
            changes = pb.EndpointChanges(service=WEB, full=True, put=endpoints)
            await world.until_applied(world.say(endpoints=[changes]))
            seen = [(await world.get())[1] for _ in range(40)]
            assert seen.count("a") == 10
            endpoints[0].weight, endpoints[1].weight = 30, 10
            changes = pb.EndpointChanges(service=WEB, full=True, put=endpoints)
            await world.until_applied(world.say(endpoints=[changes]))
            seen = [(await world.get())[1] for _ in range(40)]
            assert seen.count("a") == 30

    async def test_a_pod_takes_no_more_than_its_limit(self) -> None:
        async with a_world() as world:
            await world.start_pod("a")
            world.say(services=[web(max_connections_per_pod=1, queue_timeout_ms=300)])
            await world.until_applied(world.endpoints("a"))
            first = asyncio.create_task(world.get("/slow=1"))
            await world.until(lambda: world.pods["a"].requests == 1)
            # This one waits in the queue for 0.3 s, and no longer.
            assert (await world.get())[0] == 503
            assert (await first)[0] == 200
            assert world.pods["a"].requests == 1

    async def test_only_own_pods_where_the_policy_says_so(self) -> None:
        async with a_world() as world:
            await world.start_pod("far", node="n2")
            await world.start_pod("near")
            world.say(services=[web(external_local=True)])
            await world.until_applied(world.endpoints("far", "near"))
            assert {(await world.get())[1] for _ in range(8)} == {"near"}
            await world.until_applied(world.endpoints("far"))
            assert (await world.get())[0] == 503


class TestWithoutFailures:
    async def test_churn_of_pods_and_services_under_load(self) -> None:
        """Pods come and go, are killed once they are drained, and each new service is a reload."""
        async with a_world() as world:
            names = [f"p{number}" for number in range(6)]
            for name in names:
                await world.start_pod(name)
            await world.until_applied(world.endpoints(*names))
            async with under_load(world, per_s=150) as load:
                for turn in range(8):
                    leaving = names[turn % len(names)]
                    version = world.endpoints(*(name for name in names if name != leaving))
                    if turn % 2:
                        service = web(
                            name=f"more{turn}", vip=f"10.96.1.{turn}", ports=[pb.ServicePort(port=80)]
                        )
                        version = world.say(services=[service])
                    await world.until_applied(version)
                    await world.until(lambda gone=leaving: gone not in world.proxy.applied().draining)  # type: ignore[misc]
                    await world.pods[leaving].kill()
                    await asyncio.sleep(0.1)
                    await world.pods[leaving].start()
                    await world.until_applied(world.endpoints(*names))
            assert load.failed == []
            assert sum(load.answered.values()) > 200

    async def test_streams_outlive_reloads_and_the_leaving_of_their_pod(self) -> None:
        """A TCP stream, an upgraded connection and a slow request, over a drain and two reloads."""
        async with a_world() as world:
            await world.start_pod("a")
            await world.start_pod("b")
            world.endpoints("a", service=DB, target=5432)
            await world.until_applied(world.endpoints("a"))
            tcp, tcp_out = await asyncio.open_connection(world.published, 5432)
            assert await tcp.readline() == b"a\n"
            chat, chat_out = await asyncio.open_connection(world.published, 80)
            chat_out.write(b"GET /chat HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")
            assert b" 101 " in await chat.readuntil(b"\r\n\r\n")
            slow = asyncio.create_task(world.get("/slow=4"))
            await asyncio.sleep(0.3)
            world.endpoints("b", service=DB, target=5432)
            version = world.endpoints("b")
            await world.until_applied(version)
            assert list(world.proxy.applied().draining) == ["a"]
            for turn in range(2):
                service = web(name=f"more{turn}", vip=f"10.96.1.{turn}", ports=[pb.ServicePort(port=80)])
                await world.until_applied(world.say(services=[service]))
                assert list(world.proxy.applied().draining) == ["a"]
                for reader, writer in ((tcp, tcp_out), (chat, chat_out)):
                    writer.write(b"still here")
                    assert await _read(reader, 10) == b"still here"
                assert {(await world.get())[1] for _ in range(4)} == {"b"}
            assert await slow == (200, "a")
            chat_out.close()
            tcp_out.close()
            await world.until(lambda: not world.proxy.applied().draining)

    async def test_a_server_is_deleted_when_nothing_is_left_of_it(self) -> None:
        async with a_world() as world:
            await world.start_pod("a")
            await world.start_pod("b")
            await world.until_applied(world.endpoints("a", "b"))
            slow = [asyncio.create_task(world.get("/slow=1")) for _ in range(4)]
            await asyncio.sleep(0.3)
            await world.until_applied(world.endpoints("b"))
            assert list(world.proxy.applied().draining) == ["a"]
            assert "a" in await _servers(world)
            assert {status for status, _ in await asyncio.gather(*slow)} == {200}
            await world.until(lambda: not world.proxy.applied().draining)
            await asyncio.sleep(1)
            assert await _servers(world) == {"b"}

    async def test_one_that_comes_back_while_it_drains_serves_again(self) -> None:
        async with a_world() as world:
            await world.start_pod("a")
            await world.until_applied(world.endpoints("a"))
            slow = asyncio.create_task(world.get("/slow=1"))
            await asyncio.sleep(0.3)
            await world.until_applied(world.endpoints())
            assert (await world.get())[0] == 503
            await world.until_applied(world.endpoints("a"))
            assert await world.get() == (200, "a")
            assert await slow == (200, "a")
            assert not world.proxy.applied().draining

    async def test_a_caller_that_connected_before_a_reload_and_asks_after_it_counts(self) -> None:
        """Its old worker knows the pods of then, and may choose one that has left since."""
        async with a_world() as world:
            await world.start_pod("a")
            await world.until_applied(world.endpoints("a"))
            reader, writer = await asyncio.open_connection(world.published, 80)
            await asyncio.sleep(0.2)
            service = web(name="more", vip="10.96.1.1", ports=[pb.ServicePort(port=80)])
            await world.until_applied(world.say(services=[service]))
            await world.start_pod("b")
            await world.until_applied(world.endpoints("b"))
            assert await world.get() == (200, "b")
            assert list(world.proxy.applied().draining) == ["a"]
            writer.write(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            assert await _read(reader, 1) == b"a"
            writer.close()
            assert await world.until(lambda: not world.proxy.applied().draining) < 5

    async def test_a_kept_connection_is_answered_after_a_reload(self) -> None:
        """Its next request may be under way just then: it is told with the answer that it was the last."""
        async with a_world() as world:
            await world.start_pod("a")
            await world.until_applied(world.endpoints("a"))
            reader, writer = await asyncio.open_connection(world.published, 80)
            for is_last in (False, True):
                writer.write(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                assert b" 200 " in head
                assert (b"connection: close" in head.lower()) == is_last
                assert await _read(reader, 1) == b"a"
                service = web(name="more", vip="10.96.1.1", ports=[pb.ServicePort(port=80)])
                await world.until_applied(world.say(services=[service]))
            writer.close()


class TestFaults:
    async def test_a_dead_nodes_pods_are_out_within_a_second(self) -> None:
        """Its streams hang, and must end."""
        async with a_world() as world:
            await world.start_pod("far", node="n2")
            await world.start_pod("near")
            world.endpoints("far", service=DB, target=5432)
            await world.until_applied(world.endpoints("far", "near"))
            await asyncio.sleep(0.5)
            reader, writer = await asyncio.open_connection(world.published, 5432)
            await reader.readline()
            world.kill_peer()
            async with asyncio.timeout(1.5):
                assert await reader.read() == b""
            writer.close()
            assert {(await world.get())[1] for _ in range(8)} == {"near"}
            await world.start_peer()
            await world.pods["far"].start()
            await asyncio.sleep(1)
            assert {(await world.get())[1] for _ in range(8)} == {"near", "far"}

    async def test_who_connects_to_a_dead_nodes_pods_is_served_by_others(self) -> None:
        """Also whoever waits for an answer in the moment in which the node is found dead."""
        async with a_world() as world:
            for name in ("far1", "far2", "far3"):
                await world.start_pod(name, node="n2")
            await world.start_pod("near")
            await world.until_applied(world.endpoints(*world.pods))
            await asyncio.sleep(0.5)
            async with under_load(world) as load:
                world.kill_peer()
                await asyncio.sleep(1.5)
            assert load.failed == []
            assert load.slowest_s > 0.5

    async def test_streams_to_a_living_host_outlive_its_proxy(self) -> None:
        """New ones go elsewhere, until the proxy is back."""
        async with a_world() as world:
            await world.start_pod("far", node="n2")
            await world.start_pod("near")
            world.endpoints("far", service=DB, target=5432)
            await world.until_applied(world.endpoints("far", "near"))
            await asyncio.sleep(0.5)
            reader, writer = await asyncio.open_connection(world.published, 5432)
            await reader.readline()
            world.kill_peers_proxy()
            await asyncio.sleep(2)
            assert {(await world.get())[1] for _ in range(8)} == {"near"}
            writer.write(b"still here")
            assert await _read(reader, 10) == b"still here"
            # It was the first sign of the host's own end.
            world.kill_peer()
            assert await reader.read() == b""
            writer.close()

    async def test_streams_of_old_workers_to_a_dead_node_end_too(self) -> None:
        async with a_world() as world:
            await world.start_pod("far", node="n2")
            await world.start_pod("near")
            world.endpoints("far", service=DB, target=5432)
            await world.until_applied(world.endpoints("near"))
            far, far_out = await asyncio.open_connection(world.published, 5432)
            assert await far.readline() == b"far\n"
            await world.until_applied(world.endpoints("near", service=DB, target=5432))
            near, near_out = await asyncio.open_connection(world.published, 5432)
            assert await near.readline() == b"near\n"
            service = web(name="more", vip="10.96.1.1", ports=[pb.ServicePort(port=80)])
            await world.until_applied(world.say(services=[service]))
            world.kill_peer()
            async with asyncio.timeout(2.0):
                assert await far.read() == b""
            near_out.write(b"still here")
            assert await _read(near, 10) == b"still here"
            near_out.close()
            far_out.close()
            await world.start_peer()

    async def test_a_pod_added_on_a_dead_node_gets_nothing(self) -> None:
        async with a_world() as world:
            await world.start_pod("far", node="n2")
            await world.start_pod("near")
            world.kill_peer()
            await asyncio.sleep(1)
            await world.until_applied(world.endpoints("far", "near"))
            assert {(await world.get())[1] for _ in range(8)} == {"near"}
            assert world.pods["far"].connections == 0
            await world.start_peer()

    async def test_a_killed_haproxy_comes_back_to_the_newest_state(self) -> None:
        async with a_world() as world:
            for name in ("a", "b"):
                await world.start_pod(name)
            await world.until_applied(world.endpoints("a", "b"))
            await asyncio.sleep(0.5)
            world.haproxy.kill()
            await world.until(lambda: "does not run" in world.proxy.problem(), timeout_s=1.5)
            # Changes while it is away are in the file.
            version = world.endpoints("b")
            await world.until_applied(version)
            world.haproxy.start()
            await world.until(lambda: not world.proxy.problem())
            assert {(await world.get())[1] for _ in range(4)} == {"b"}

    async def test_one_killed_and_restarted_at_once_is_brought_right(self) -> None:
        async with a_world() as world:
            for name in ("a", "b"):
                await world.start_pod(name)
            await world.until_applied(world.endpoints("a"))
            world.haproxy.kill()
            world.haproxy.start()
            version = world.endpoints("b")
            await world.until_applied(version)
            assert {(await world.get())[1] for _ in range(4)} == {"b"}

    async def test_an_agents_restart_reloads_nothing(self) -> None:
        async with a_world() as world:
            await world.start_pod("a")
            await world.until_applied(world.endpoints("a"))
            worker = world.proxy._haproxy.processes
            async with under_load(world) as load:
                await world.restart_agent()
                await world.until_applied(world.traffic.version)
            assert load.failed == []
            assert world.proxy._haproxy.processes == worker

    async def test_changes_made_by_hand_are_undone(self) -> None:
        """Somebody drains a server, and kills a worker: the next look brings it right."""
        async with a_world() as world:
            await world.start_pod("a")
            await world.until_applied(world.endpoints("a"))
            assert world.proxy._haproxy.processes is not None
            os.kill(world.proxy._haproxy.processes.worker, signal.SIGKILL)
            await world.until(lambda: "does not run" in world.proxy.problem())
            world.haproxy.kill()
            world.haproxy.start()
            await world.until(lambda: not world.proxy.problem())
            assert await world.get() == (200, "a")

    async def test_a_refused_configuration_keeps_the_old_one_serving(self) -> None:
        async with a_world() as world:
            for name in ("a", "b"):
                await world.start_pod(name)
            await world.until_applied(world.endpoints("a"))
            refusing = world.directory / "refusing"
            refusing.write_text("#!/bin/sh\necho '[ALERT] (1) : config : no' >&2\nexit 1\n")
            refusing.chmod(0o755)
            good, world.proxy._files._binary = world.proxy._files._binary, str(refusing)
            service = web(name="more", vip="10.96.1.1", ports=[pb.ServicePort(port=80)])
            version = world.say(services=[service])
            await world.until(
                lambda: "goes on with its old configuration: config : no" in world.proxy.problem()
            )
            # Endpoints change all the same, and the version is not said to be in force.
            world.endpoints("b")
            await world.until(lambda: world.proxy._haproxy._servers["shop.web.80"].keys() >= {"b"})
            assert await world.get() == (200, "b")
            assert world.proxy.applied().version < version
            world.proxy._files._binary = good
            await world.until(lambda: world.proxy.applied().version > version)
            assert world.proxy.problem() == ""

    async def test_a_port_that_is_taken_is_left_out_and_told_until_it_is_free(self) -> None:
        async with a_world() as world:
            await world.start_pod("a")
            with socket.socket() as taker:
                taker.bind((world.published, 8000))
                taker.listen()
                world.endpoints("a")
                port = pb.ServicePort(port=8000, http=True, load_balancer=True)
                version = world.say(services=[web(name="other", vip="10.96.1.1", ports=[port])])
                await world.until_applied(version)
                (problem,) = world.proxy.applied().problems
                assert (problem.service, problem.address, problem.port) == (
                    "shop/other",
                    world.published,
                    8000,
                )
                assert f"(pid {os.getpid()})" in problem.message
                assert await world.get() == (200, "a")
            await world.until(lambda: not world.proxy.applied().problems)
            await world.until_applied(version)
            assert (await world.get(port=8000))[0] == 503


async def _servers(world: World) -> set[str]:
    """Of the web service, as HAProxy itself says."""
    haproxy = world.proxy._haproxy
    assert haproxy.processes is not None
    said = await haproxy._socket.tell(haproxy.processes.worker, ["show servers state shop.web.80"])
    return {line.split()[3] for line in said.splitlines() if " shop.web.80 " in line}
