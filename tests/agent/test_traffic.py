"""The whole agent and the leader's word of network and services, on a simulated engine and virtual time."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from agent.told_log import ADDED_MAX_BYTES
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.scripted_manager import NETWORK, World, a_pod, a_world, until

pytestmark = pytest.mark.virtual_time

WEB = pb.Service(
    namespace="default", name="web", vip="10.96.0.7", ports=[pb.ServicePort(name="http", port=80)]
)


def traffic(version: int, *endpoints: str) -> pb.Traffic:
    """All there is: one service, and who answers for it."""
    put = [pb.Endpoint(id=each, address="10.42.1.2", ports=[8080], ready=True) for each in endpoints]
    changes = pb.EndpointChanges(service="default/web", full=True, put=put)
    return pb.Traffic(version=version, full=True, services=[WEB], endpoints=[changes])


def applied(world: World) -> list[int]:
    return [each.version for each in world.manager.of_kind("traffic_applied")]


class TestTraffic:
    async def test_the_proxy_gets_it_and_the_leader_hears_what_is_done(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.say(traffic=traffic(7, "a", "b"))
            await until(lambda: 7 in applied(world))

            assert world.proxy.endpoints("default/web") == {"a", "b"}

    async def test_another_leader_is_told_of_its_own_numbers_alone(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.say(traffic=traffic(7, "a"))
            await until(lambda: 7 in applied(world))
            world.manager.heard.clear()
            world.manager.epoch += 1
            world.manager.hang_up()
            await until(lambda: world.manager.connections == 2)
            await asyncio.sleep(5)

            assert applied(world)[-1] == 0
            assert world.proxy.endpoints("default/web") == {"a"}, "what served before serves"

    async def test_a_leader_that_was_replaced_changes_nothing(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(full=True)
            world.manager.say(traffic=traffic(7, "a"))
            await until(lambda: 7 in applied(world))
            world.manager.epoch -= 1
            world.manager.say(traffic=traffic(8, "b"))
            await asyncio.sleep(5)

            assert world.proxy.endpoints("default/web") == {"a"}

    async def test_after_a_reboot_without_managers_all_is_as_it_was_told_last(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.say(traffic=traffic(7, "a"))
            await until(lambda: 7 in applied(world))
            await asyncio.sleep(3)
            await world.kill_agent()
            shutil.rmtree(world.run_dir)
            world.proxy.use(world.proxy.network, type(world.proxy.traffic)())
            for transport in world.manager_transports:
                transport.kill()

            world.start_agent()

            await until(lambda: world.proxy.endpoints("default/web") == {"a"})

    async def test_an_agent_that_was_killed_leaves_the_proxy_as_it_was(self, tmp_path: Path) -> None:
        """It had no time to write to the disk what it was told last, and its successor meets no manager."""
        certificate = pb.IngressCertificate(name="default/tls", chain_pem=b"chain", key_pem=b"the key")
        async with a_world(tmp_path) as world:
            first = traffic(7, "a")
            first.ingress.certificates.append(certificate)
            world.manager.say(traffic=first)
            await asyncio.sleep(3)
            leaves = pb.EndpointChanges(service="default/web", gone=["a"])
            leaves.put.add(id="b", address="10.42.1.3", ports=[8080], ready=True)
            world.manager.say(traffic=pb.Traffic(version=8, endpoints=[leaves]))
            await until(lambda: 8 in applied(world))
            await world.kill_agent()
            for transport in world.manager_transports:
                transport.kill()

            world.start_agent()
            for _ in range(50):
                await asyncio.sleep(0.1)
                assert world.proxy.endpoints("default/web") == {"b"}
                assert list(world.proxy.traffic.ingress.certificates) == [certificate]

            assert b"the key" not in (tmp_path / "traffic.pb").read_bytes()

    async def test_a_log_cut_short_by_the_kill_is_read_up_to_there(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.say(traffic=traffic(7, "a"))
            await asyncio.sleep(3)
            world.manager.say(traffic=traffic(8, "b"))
            await until(lambda: 8 in applied(world))
            await world.kill_agent()
            with (world.run_dir / "told.log").open("ab") as log:
                log.write(b"\0\0\1\0half of")
            for transport in world.manager_transports:
                transport.kill()

            world.start_agent()
            await asyncio.sleep(5)

            assert world.proxy.endpoints("default/web") == {"b"}

    async def test_the_log_stays_small(self, tmp_path: Path) -> None:
        """And what is not in it any more is not lost."""
        async with a_world(tmp_path) as world:
            world.manager.say(traffic=traffic(1, "first"))
            for version in range(2, 2000):
                change = pb.EndpointChanges(service="default/web")
                change.put.add(id="last", hostname="h" * 2000, weight=version)
                world.manager.say(traffic=pb.Traffic(version=version, endpoints=[change]))
                if version % 100 == 0:
                    await asyncio.sleep(0.1)
            await until(lambda: 1999 in applied(world))

            assert (world.run_dir / "told.log").stat().st_size < 2 * ADDED_MAX_BYTES
            await world.kill_agent()
            world.start_agent()
            await until(lambda: world.proxy.endpoints("default/web") == {"first"})

    async def test_nonsense_ends_the_stream_and_nothing_else(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            nonsense = pb.Network()
            nonsense.CopyFrom(NETWORK)
            nonsense.subnet = "10.42.0.1/24; drop"
            world.manager.say(network=nonsense)

            await until(lambda: world.manager.connections == 2)
            world.manager.assign(a_pod(), full=True)
            await until(lambda: world.manager.statuses.get("u1.0.1", pb.PodStatus()).ready)


class TestPods:
    async def test_a_pod_waits_for_the_network_and_says_so(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.tells_network = False
            world.manager.hang_up()
            await until(lambda: world.manager.connections == 2)
            await world.kill_agent()
            (tmp_path / "network.pb").unlink()
            world.start_agent()
            await until(lambda: world.manager.connections == 3)
            world.manager.assign(a_pod(), full=True)
            await until(
                lambda: world.manager.statuses.get("u1.0.1", pb.PodStatus()).reason == "NetworkNotReady"
            )
            assert "no manager has told this node its network" in world.manager.statuses["u1.0.1"].message

            world.manager.say(network=NETWORK)

            await until(lambda: world.manager.statuses["u1.0.1"].ready)

    async def test_an_address_that_somebody_took_by_hand_is_not_insisted_on(self, tmp_path: Path) -> None:
        """A container of the user's, connected to our network, has what would be the pod's."""
        async with a_world(tmp_path) as world:
            await until(lambda: "bay1" in world.engine.networks)
            world.engine.add_foreign("debug", network="bay1", address="10.42.0.2")
            world.manager.assign(a_pod(), full=True)

            await until(lambda: world.manager.statuses.get("u1.0.1", pb.PodStatus()).ready)

            assert world.manager.statuses["u1.0.1"].address == "10.42.0.3"

    async def test_the_hosts_network_needs_the_namespaces_policy(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            refused, allowed = a_pod(0, hostNetwork=True), a_pod(1, hostNetwork=True)
            allowed.privileged = True
            world.manager.assign(refused, allowed, full=True)

            await until(lambda: world.manager.statuses.get("u1.1.1", pb.PodStatus()).ready)

            status = world.manager.statuses["u1.0.1"]
            assert (status.state, status.reason) == (pb.POD_STATE_FAILED, "Refused")
            assert "spec.hostNetwork: namespace default has the policy baseline" in status.message

    async def test_a_policy_taken_back_stops_no_pod_that_runs(self, tmp_path: Path) -> None:
        """All assignments are sent again with each leader: another leader must not end what runs."""
        async with a_world(tmp_path) as world:
            pod = a_pod(hostNetwork=True)
            pod.privileged = True
            world.manager.assign(pod, full=True)
            await until(lambda: world.manager.statuses.get("u1.0.1", pb.PodStatus()).ready)
            before = world.containers()
            pod.privileged = False
            world.manager.assign(pod, full=True)
            await asyncio.sleep(20)

            assert world.manager.statuses["u1.0.1"].ready
            assert world.containers() == before

    async def test_a_pod_has_the_variables_of_services_under_its_own(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.say(traffic=traffic(7))
            await until(lambda: 7 in applied(world))
            own = {
                "env": [
                    {"name": "WEB_SERVICE_PORT", "value": "mine"},
                    {"name": "URL", "value": "http://$(WEB_SERVICE_HOST)/"},
                ]
            }
            world.manager.assign(a_pod(container=own), full=True)
            await until(lambda: world.manager.statuses.get("u1.0.1", pb.PodStatus()).ready)

            (spec,) = [each.spec for each in world.engine.containers.values()]
            assert spec.env["WEB_SERVICE_HOST"] == "10.96.0.7"
            assert spec.env["WEB_SERVICE_PORT"] == "mine"
            assert spec.env["URL"] == "http://10.96.0.7/"
