"""Services from the document to the record, the events and the status."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bayplan.model.services import Allocation
from bayplan.v1 import control_pb2 as api
from manager import control_loop
from manager.founding import NetworkChoice
from manager.planning.allocations import plan_allocations
from manager.store import keys, records
from tests.manager.world import ScriptedAgent, World, a_deployment, a_world

pytestmark = pytest.mark.virtual_time

# Five services have room in it.
SMALL = NetworkChoice(service_range="10.96.0.0/29")


def a_service(name: str = "web", kind: str = "ClusterIP", port: int = 80, **spec: Any) -> str:
    ports = [{"port": port}]
    content = {"type": kind, "selector": {"app": name}, "ports": ports, **spec}
    return json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": content})


def allocations(world: World) -> dict[str, Allocation]:
    """By owner, as they stand in the store."""
    found = [records.decode_allocation(item.value) for item in world.etcd.items(keys.SERVICES)]
    return {each.owner: each for each in found}


async def given(world: World, name: str = "web") -> Allocation:
    owner = f"Service default/{name}"
    await world.until(lambda: owner in allocations(world), within_s=70)
    return allocations(world)[owner]


async def status(world: World, name: str = "web") -> dict[str, Any]:
    reply = await world.control().Get(api.GetRequest(kind="Service", name=name))
    return json.loads(reply.document.status_json or "{}")  # type: ignore[no-any-return]  # an object


async def delete(world: World, name: str = "web") -> None:
    await world.control().Delete(api.DeleteRequest(kind="Service", name=name))


def events(world: World, reason: str) -> list[str]:
    return [
        f"{event.object}: {event.message}"
        for event in world.leadership.events.select()
        if event.reason == reason
    ]


class TestGiving:
    async def test_is_written_told_and_explained(self) -> None:
        async with a_world() as world:
            await world.apply(a_service(kind="NodePort"))

            assert await given(world) == Allocation(
                owner="Service default/web", vip="10.96.0.2", node_ports={"80/TCP": 30000}
            )
            assert list(world.leadership.state.allocations.values()) == [await given(world)]
            assert await status(world) == {"clusterIP": "10.96.0.2", "nodePorts": {"80/TCP": 30000}}
            assert events(world, "AddressGiven") == [
                "Service/web: it gets 10.96.0.2, nodePort 30000 for 80/TCP"
            ]

    async def test_survives_the_leader(self) -> None:
        async with a_world(2) as world:
            await world.apply(a_service("a"), a_service("b", "NodePort"))
            before = await given(world, "a"), await given(world, "b")
            await world.kill(world.leader)
            await world.until(lambda: any(m.leadership is not None for m in world.managers.values()))
            await world.apply(a_service("c", "NodePort"))

            assert (await given(world, "c")).vip == "10.96.0.4"
            assert (await given(world, "c")).node_ports == {"80/TCP": 30001}
            assert (await given(world, "a"), await given(world, "b")) == before

    async def test_that_is_impossible_says_why_and_harms_nobody(self) -> None:
        async with a_world(network=SMALL) as world:
            await world.apply(*(a_service(name) for name in "abcde"))
            await given(world, "e")
            await world.apply(a_service("late", "NodePort"))
            late = await given(world, "late")

            assert (late.vip, late.node_ports) == ("", {"80/TCP": 30000})
            assert "10.96.0.0/29 is used up" in (await status(world, "late"))["problem"]
            (event,) = events(world, "ServiceProblem")
            assert event.startswith("Service/late: ")
            assert "is used up: 5 services have an address of it" in event

            await delete(world, "c")
            await world.until(lambda: allocations(world)["Service default/late"].vip != "")
            assert "problem" not in await status(world, "late")

    async def test_that_fails_leaves_workloads_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*_: object, **__: object) -> None:
            raise ZeroDivisionError("poison")

        async with a_world() as world:
            node = await world.agent("n1")
            monkeypatch.setattr(control_loop, "plan_allocations", fails)
            await world.apply(a_service(), a_deployment())
            await world.until(lambda: len(node.assignments) == 2)
            assert "planning services failed: ZeroDivisionError: poison" in events(world, "Quarantined")[0]
            monkeypatch.undo()

            assert (await given(world)).vip == "10.96.0.2"

    async def test_is_not_planned_again_while_services_stay_as_they_are(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each report of a node is a reason to plan workloads: all services would cost more than all of those."""
        planned: list[object] = []

        def counted(*args: Any, **more: Any) -> list[Any]:
            planned.append(args)
            return plan_allocations(*args, **more)

        async with a_world() as world:
            await world.apply(a_service())
            await given(world)
            node = await world.agent("n1")
            monkeypatch.setattr(control_loop, "plan_allocations", counted)
            await world.apply(a_deployment())
            await world.until(lambda: len(node.assignments) == 2)
            node.report(full=True)
            await asyncio.sleep(100)
            assert not planned
            await delete(world)
            await world.until(lambda: not allocations(world))

    async def test_of_very_many_takes_as_many_commits_as_it_needs(self) -> None:
        async with a_world() as world:
            await world.apply(*(a_service(f"s{number}", "NodePort") for number in range(400)))
            await world.until(lambda: len(allocations(world)) == 400)

            assert len({each.vip for each in allocations(world).values()}) == 400
            assert len({each.node_ports["80/TCP"] for each in allocations(world).values()}) == 400


class TestFreeing:
    async def test_follows_the_document(self) -> None:
        async with a_world() as world:
            await world.apply(a_service())
            await given(world)
            await delete(world)
            await world.until(lambda: not allocations(world))

            assert world.leadership.state.allocations == {}
            assert events(world, "AddressFreed") == ["Service/web: it is gone, and gives back 10.96.0.2"]

    async def test_gives_a_new_service_of_the_name_another_address(self) -> None:
        async with a_world() as world:
            await world.apply(a_service())
            await given(world)
            await delete(world)
            await world.apply(a_service())
            await world.until(lambda: [each.vip for each in allocations(world).values()] == ["10.96.0.3"])

    async def test_is_done_when_the_watch_lost_the_deletion(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with a_world() as world:
            await world.apply(a_service())
            await given(world)
            monkeypatch.setattr(control_loop, "apply_watched", lambda *_: set())
            await delete(world)
            await asyncio.sleep(10)
            assert allocations(world)
            monkeypatch.undo()

            await world.until(lambda: not allocations(world), within_s=70)

    async def test_is_done_by_the_next_leader(self) -> None:
        async with a_world(2) as world:
            await world.apply(a_service("a"), a_service("b"))
            await given(world, "b")
            leader = world.leader
            await world.kill(leader)
            world.etcd.delete(keys.resource("Service", "default", "a"))
            await world.until(lambda: list(allocations(world)) == ["Service default/b"])

    async def test_is_not_done_while_a_document_cannot_be_read(self) -> None:
        async with a_world(2) as world:
            await world.apply(a_service("a"), a_service("b"))
            before = await given(world, "a")
            await given(world, "b")
            await world.kill(world.leader)
            world.etcd.put(keys.resource("Service", "default", "a"), b"{ broken")
            await world.until(lambda: any(m.leadership is not None for m in world.managers.values()))
            await world.apply(a_service("c"))
            await given(world, "c")
            await delete(world, "b")
            await asyncio.sleep(70)

            assert allocations(world)["Service default/a"] == before


class TestStatus:
    async def test_of_a_load_balancer_names_the_addresses_of_nodes_that_are_ready(self) -> None:
        async with a_world() as world:
            await world.apply(a_service(kind="LoadBalancer"))
            first = await world.agent("n1")
            second = ScriptedAgent(world, "n2", world.leader)
            second.hello.publish_addresses.extend(["192.0.2.1", "192.0.2.2"])
            world.agents.append(second)
            second.start()
            await given(world)
            await world.until(lambda: "assignments" in second.kinds())
            shown = (await status(world))["loadBalancer"]["ingress"]
            assert shown == [{"hostname": "n1"}, {"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}]

            await first.stop()
            await asyncio.sleep(10)
            shown = (await status(world))["loadBalancer"]["ingress"]
            assert shown == [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}]

    async def test_of_two_load_balancers_of_one_port_says_whose_it_is(self) -> None:
        async with a_world() as world:
            await world.apply(a_service("a", "LoadBalancer"))
            await given(world, "a")
            await world.apply(a_service("b", "LoadBalancer"))
            await given(world, "b")

            assert "loadBalancer" in await status(world, "a")
            shown = await status(world, "b")
            assert "loadBalancer" not in shown
            assert shown["problem"] == "port 80/TCP is published by Service default/a already"


class TestJunk:
    async def test_in_records_is_passed_over(self) -> None:
        async with a_world(2) as world:
            await world.apply(a_service("a"))
            await given(world, "a")
            await world.kill(world.leader)
            for key, value in (
                (keys.SERVICES + "x/y", b"{}"),
                (keys.SERVICES + "u9", b"\xff"),
                (keys.ALLOCATION_CURSOR, b"\xff"),
                (keys.ALLOCATION_CURSOR + "s", b"{}"),
                (keys.NETWORK + "s", b"{}"),
            ):
                world.etcd.put(key, value)
            await world.until(lambda: any(m.leadership is not None for m in world.managers.values()))
            await world.apply(a_service("b"))
            await world.until(lambda: len(world.leadership.state.allocations) == 2)

            vips = sorted(each.vip for each in world.leadership.state.allocations.values())
            assert vips == ["10.96.0.2", "10.96.0.3"]


def an_ingress(name: str = "front") -> str:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    rule = {"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    content = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name}}
    return json.dumps({**content, "spec": {"rules": [rule]}})


class TestDocuments:
    async def test_get_the_address_that_they_name(self) -> None:
        async with a_world() as world:
            await world.apply(a_service(clusterIP="10.96.7.7"))
            assert (await given(world)).vip == "10.96.7.7"

            await world.apply(a_service("other", clusterIP="10.96.7.7"))
            await given(world, "other")
            shown = await status(world, "other")
            assert shown == {"problem": "clusterIP 10.96.7.7 is the address of Service default/web already"}

    async def test_without_an_address_get_none(self) -> None:
        async with a_world() as world:
            headless = a_service("headless", clusterIP="None")
            outside = a_service("outside", "ExternalName", externalName="db.example", ports=[])
            await world.apply(headless, outside, a_service("web"))
            await given(world)

            assert list(allocations(world)) == ["Service default/web"]
            assert await status(world, "headless") == {"clusterIP": "None"}
            assert await status(world, "outside") == {}

    async def test_that_become_headless_give_their_address_back(self) -> None:
        async with a_world() as world:
            await world.apply(a_service())
            await given(world)
            await world.apply(a_service(clusterIP="None"))
            await world.until(lambda: not allocations(world))

            assert await status(world) == {"clusterIP": "None"}

    async def test_may_do_without_node_ports(self) -> None:
        async with a_world() as world:
            await world.apply(a_service("a", "LoadBalancer", allocateLoadBalancerNodePorts=False))
            await world.apply(a_service("b", "LoadBalancer", port=81))

            assert (await given(world, "a")).node_ports == {}
            assert (await given(world, "b")).node_ports == {"81/TCP": 30000}

    async def test_of_ingresses_get_80_and_443_of_every_node(self) -> None:
        async with a_world() as world:
            await world.agent("n1")
            await world.apply(an_ingress())
            await world.until(lambda: bool(allocations(world)))
            await world.apply(a_service(kind="LoadBalancer"))
            await given(world)
            reply = await world.control().Get(api.GetRequest(kind="Ingress", name="front"))

            assert json.loads(reply.document.status_json) == {
                "loadBalancer": {"ingress": [{"hostname": "n1"}]}
            }
            problem = (await status(world))["problem"]
            assert problem == "port 80/TCP is published by Ingress default/front already"
