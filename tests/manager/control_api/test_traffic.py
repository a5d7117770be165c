from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from bayplan.model.latency import COUNTS, count_into
from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import agent_link_pb2_grpc
from bayplan.v1 import control_pb2 as api
from tests.fakes.network import FakeTransport
from tests.manager.world import PORT, ScriptedAgent, World, a_deployment, a_service, a_world

pytestmark = pytest.mark.virtual_time


def counts_of(*latencies_ms: float) -> list[int]:
    counts = [0] * COUNTS
    for latency_ms in latencies_ms:
        count_into(counts, latency_ms)
    return counts


def a_use(service: str = "default/web", **more: int | list[int]) -> wire.ServiceUse:
    return wire.ServiceUse(service=service, port=80, window_ms=10_000, **more)  # type: ignore[arg-type]  # its own fields


def beat(agent: ScriptedAgent, *uses: wire.ServiceUse) -> None:
    agent.say(heartbeat=wire.Heartbeat(sequence=99, services=uses, node_used=wire.Amounts(cpu_millis=1)))


class TestEndpoints:
    async def test_are_answered_by_any_manager_with_what_proxies_were_told(self) -> None:
        async with a_world(2) as world:
            agent = await world.agent("n1")
            await world.apply(a_service(), a_deployment())
            await world.until(lambda: len(agent.endpoints()) == 2)
            for manager in ("m1", "m2"):
                reply = await world.control(manager).ListEndpoints(api.ListEndpointsRequest())
                (service,) = reply.services

                assert (service.namespace, service.name, service.why) == ("default", "web", "")
                assert {each.id for each in service.endpoints} == agent.endpoints()
                assert [port.port for port in service.ports] == [80]
                assert service.created_ms > 0

    @pytest.mark.parametrize(
        ("document", "why"),
        [
            (a_service(selector={"app": "x"}), "no pod in default has the labels app=x"),
            (
                a_service(selector={}),
                "it has no selector, and there are no Endpoints of its name with an address that is ready and is no service's",
            ),
            (
                a_service(selector={}, type="ExternalName", externalName="db.example.org", ports=[]),
                "it is a name for db.example.org",
            ),
            (a_service(), "none of 2 pods is ready"),
        ],
    )
    async def test_say_why_there_are_none(self, document: str, why: str) -> None:
        async with a_world() as world:
            agent = await world.agent("n1")
            agent.ready = False
            await world.apply(document, a_deployment())
            await world.until(lambda: len(agent.statuses) == 2)
            await asyncio.sleep(0.2)
            reply = await world.control().ListEndpoints(api.ListEndpointsRequest(service="web"))

            assert [(each.why, list(each.endpoints)) for each in reply.services] == [(why, [])]

    async def test_say_why_a_ready_pod_is_none(self) -> None:
        async with a_world() as world:
            agent = await world.agent("n1")
            agent.subnet = "172.17.0.0/24"
            await world.apply(a_service(), a_deployment(replicas=1))
            await world.until(lambda: len(agent.statuses) == 1)
            await asyncio.sleep(0.2)
            (service,) = (await world.control().ListEndpoints(api.ListEndpointsRequest())).services

            assert agent.endpoints() == set()
            assert "is ready, but not at an address of the pods' network" in service.why

    async def test_of_a_service_that_does_not_exist_are_not_found(self) -> None:
        async with a_world() as world:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await world.control().ListEndpoints(api.ListEndpointsRequest(service="nope"))

            assert error.value.code() is grpc.StatusCode.NOT_FOUND
            assert error.value.details() == "Service default/nope does not exist"


class TestTop:
    async def test_adds_up_what_nodes_counted_and_leaves_out_who_did_not(self) -> None:
        async with a_world() as world:
            agents = [await world.agent(name) for name in ("n1", "n2", "n3")]
            await world.apply(a_service(), a_deployment())
            await world.until(lambda: len(agents[0].endpoints()) == 2)
            slow, fast = counts_of(*[100.0] * 50), counts_of(*[1.0] * 50)
            beat(agents[0], a_use(requests=1000, errors=10, connections=3, latency_counts=slow))
            beat(agents[1], a_use(requests=500, connections=4, latency_counts=fast), a_use("gone/gone"))
            await asyncio.sleep(0.1)
            (top,) = (await world.control().TopServices(api.TopServicesRequest())).services

            assert (top.namespace, top.name, top.port) == ("default", "web", 80)
            assert (top.requests_per_s, top.errors_per_s) == (150, 1)
            assert (top.connections, top.endpoints) == (7, 2)
            assert 0.5 < top.p50_ms < 2
            assert 50 < top.p99_ms < 200

    async def test_does_not_know_a_latency_of_which_there_is_no_sample(self) -> None:
        async with a_world() as world:
            agent = await world.agent("n1")
            await world.apply(a_service())
            await world.until(lambda: bool(agent.traffic.services))
            beat(agent, a_use(requests=5))
            await asyncio.sleep(0.1)
            (top,) = (await world.control().TopServices(api.TopServicesRequest())).services

            assert (top.p50_ms, top.p99_ms) == (-1, -1)

    async def test_forgets_what_was_not_counted_again(self) -> None:
        async with a_world() as world:
            agent = await world.agent("n1")
            await world.apply(a_service())
            await world.until(lambda: bool(agent.traffic.services))
            beat(agent, a_use(requests=5))
            await asyncio.sleep(24)
            assert len((await world.control().TopServices(api.TopServicesRequest())).services) == 1
            await asyncio.sleep(2)

            assert not (await world.control().TopServices(api.TopServicesRequest())).services

    async def test_takes_a_service_that_a_node_leaves_out_for_missing(self) -> None:
        """Its counters restarted: what it counted before is of another window."""
        async with a_world() as world:
            agent = await world.agent("n1")
            await world.apply(a_service())
            await world.until(lambda: bool(agent.traffic.services))
            beat(agent, a_use(requests=5))
            beat(agent)
            await asyncio.sleep(0.1)

            assert not (await world.control().TopServices(api.TopServicesRequest())).services

    async def test_a_mean_of_minutes_is_not_what_goes_through_now(self) -> None:
        """An agent that had no manager for so long."""
        async with a_world() as world:
            agent = await world.agent("n1")
            await world.apply(a_service())
            await world.until(lambda: bool(agent.traffic.services))
            use = a_use(requests=5)
            use.window_ms = 300_000
            beat(agent, use)
            await asyncio.sleep(0.1)

            assert not (await world.control().TopServices(api.TopServicesRequest())).services


class TestCheckNetwork:
    async def test_gathers_what_every_node_found_and_names_who_is_silent(self) -> None:
        async with a_world(2) as world:
            agents = [await world.agent(name) for name in ("n1", "n2", "n3")]
            call = world.control(world.follower).CheckNetwork(api.CheckNetworkRequest())
            await world.until(lambda: all("network_check" in agent.kinds() for agent in agents))
            for agent in agents[:2]:
                (request,) = [m.network_check.request for m in agent.heard if m.HasField("network_check")]
                paths = [
                    wire.NetworkPath(
                        **{"from": "n1"}, to="n3", what="tcp", ok=agent.name == "n1", detail="0.4 ms"
                    ),
                    wire.NetworkPath(**{"from": "n2"}, to="n1", what="tcp", ok=agent.name == "n2"),
                ]
                agent.say(network_check=wire.NetworkCheckResult(request=request, paths=paths))
            started_s = asyncio.get_running_loop().time()
            reply = await call

            # Each speaks for itself alone.
            assert [(getattr(path, "from"), path.to, path.ok) for path in reply.paths] == [
                ("n1", "n3", True),
                ("n2", "n1", True),
            ]
            assert reply.silent == ["n3"]
            assert asyncio.get_running_loop().time() - started_s < 11

    async def test_does_not_wait_when_all_have_answered_or_are_gone(self) -> None:
        async with a_world() as world:
            agent, other = [await world.agent(name) for name in ("n1", "n2")]
            await other.stop()
            await asyncio.sleep(0.1)
            call = world.control().CheckNetwork(api.CheckNetworkRequest())
            await world.until(lambda: "network_check" in agent.kinds())
            agent.say(network_check=wire.NetworkCheckResult(request=1))
            started_s = asyncio.get_running_loop().time()
            reply = await call

            assert reply.silent == ["n2"]
            assert asyncio.get_running_loop().time() - started_s < 1

    async def test_fits_the_wire_however_many_nodes_there_are(self) -> None:
        """The answer of a node that lists more than it should, in words without end, is cut."""
        async with a_world() as world:
            agent = await world.agent("n1")
            call = world.control().CheckNetwork(api.CheckNetworkRequest())
            await world.until(lambda: "network_check" in agent.kinds())
            detail = "no answer\x1b[2J" + "!" * 1000
            paths = [
                wire.NetworkPath(**{"from": "n1"}, to=f"n{number}", what="tcp", ok=False, detail=detail)
                for number in range(2, 5000)
            ]
            result = wire.NetworkCheckResult(request=1, paths=paths, healthy=7, failed=1 << 62)
            agent.say(network_check=result)
            reply = await call

            assert reply.ByteSize() < 1 << 20
            assert reply.paths[0].detail.startswith("no answer\\x1b[2J!")
            assert reply.healthy == 7
            assert reply.failed < 1 << 32

    async def test_needs_somebody_to_ask(self) -> None:
        async with a_world() as world:
            with pytest.raises(grpc.aio.AioRpcError, match="no node has joined the cluster"):
                await world.control().CheckNetwork(api.CheckNetworkRequest())


async def serve_echo(world: World, agent: ScriptedAgent) -> wire.OpenStream:
    """What an agent does that is asked to open a stream: here it gives back what it gets, in capitals."""
    await world.until(lambda: "open_stream" in agent.kinds())
    (asked,) = [message.open_stream for message in agent.heard if message.HasField("open_stream")]
    channel = FakeTransport(world.network, agent.name).channel(f"{world.leader}:{PORT}")
    inbox: asyncio.Queue[wire.StreamFrame | None] = asyncio.Queue()
    inbox.put_nowait(wire.StreamFrame(stream_id=asked.stream_id))

    async def output() -> AsyncIterator[wire.StreamFrame]:
        while (frame := await inbox.get()) is not None:
            yield frame

    async for frame in agent_link_pb2_grpc.AgentLinkStub(channel).Attach(output()):
        if frame.HasField("stdin"):
            inbox.put_nowait(wire.StreamFrame(stdout=frame.stdin.upper()))
        elif frame.end:
            inbox.put_nowait(wire.StreamFrame(end=True))
    inbox.put_nowait(None)
    await channel.close()
    return asked


class TestPortForward:
    async def test_carries_both_directions_through_any_manager(self) -> None:
        async with a_world(2) as world:
            agent = await world.agent("n1")
            await world.apply(a_deployment(replicas=1))
            await world.until(lambda: len(agent.statuses) == 1)
            serving = asyncio.create_task(serve_echo(world, agent))

            async def said() -> AsyncIterator[api.PortForwardInput]:
                yield api.PortForwardInput(start=api.PortForwardStart(pod="web-0", port=8080))
                yield api.PortForwardInput(data=b"hello ")
                yield api.PortForwardInput(data=b"world")
                yield api.PortForwardInput(end=True)

            heard = [message.data async for message in world.control(world.follower).PortForward(said())]
            asked = await serving

            assert b"".join(heard) == b"HELLO WORLD"
            assert (asked.forward_port, asked.pod_uid) == (8080, next(iter(agent.statuses)))

    @pytest.mark.parametrize(
        ("start", "code", "words"),
        [
            (api.PortForwardStart(pod="web-0", port=0), grpc.StatusCode.FAILED_PRECONDITION, "0 is no port"),
            (api.PortForwardStart(pod="nope", port=80), grpc.StatusCode.NOT_FOUND, "does not exist"),
            (api.PortForwardStart(pod="web-0", port=80), grpc.StatusCode.FAILED_PRECONDITION, "is pending"),
        ],
    )
    async def test_refuses_in_words(
        self, start: api.PortForwardStart, code: grpc.StatusCode, words: str
    ) -> None:
        async def said() -> AsyncIterator[api.PortForwardInput]:
            yield api.PortForwardInput(start=start)

        async with a_world() as world:
            await world.apply(a_deployment(replicas=1))
            await asyncio.sleep(0.2)
            with pytest.raises(grpc.aio.AioRpcError, match=words) as error:
                [message async for message in world.control().PortForward(said())]

            assert error.value.code() is code

    async def test_first_wants_to_hear_where_to(self) -> None:
        async def said() -> AsyncIterator[api.PortForwardInput]:
            yield api.PortForwardInput(data=b"x")

        async with a_world() as world:
            with pytest.raises(grpc.aio.AioRpcError, match="must be `start`"):
                [message async for message in world.control().PortForward(said())]
