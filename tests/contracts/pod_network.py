"""What every pods' network promises the agent: one suite for the simulated one and for the kernel's.

A test module subclasses `PodNetworkContract` and gives the fixture `world`.
"""

from __future__ import annotations

from typing import Protocol

from agent.network.addresses import REST_S
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.network.words import told

# Pods' addresses in it: .2 to .6.
SMALL = "10.42.1.0/29"


class World(Protocol):
    """A host with an agent's network."""

    async def use(self, network: pb.Network) -> None: ...

    async def problem(self) -> str: ...

    async def becomes_ready(self) -> None:
        """Wait until there is no problem any more."""
        ...

    async def attach(self, pod_uid: str) -> tuple[str, str]:
        """The engine's name of the network and the address; "" and why there is none."""
        ...

    async def release(self, pod_uid: str) -> None: ...

    async def retain(self, pod_uids: list[str]) -> None: ...

    async def restart(self) -> None:
        """Another agent on the same host, which was told nothing yet."""
        ...


def small() -> pb.Network:
    network = told(1, 2)
    network.subnet = SMALL
    return network


class PodNetworkContract:
    """Subclass it and give `world`."""

    async def test_before_a_leader_has_spoken_no_pod_is_connected(self, world: World) -> None:
        words = "no manager has told this node its network yet"

        assert await world.problem() == words
        assert await world.attach("a") == ("", words)

    async def test_a_network_that_is_being_made_takes_no_pods(self, world: World) -> None:
        """And then it does."""
        await world.use(told(1, 2))
        await world.becomes_ready()

        assert await world.attach("a") == ("bay1", "10.42.1.2")

    async def test_a_pod_keeps_its_address_over_an_agents_restart(self, world: World) -> None:
        await world.use(told(1, 2))
        kept = await world.attach("a")
        await world.restart()
        await world.use(told(1, 2))

        assert await world.attach("b") not in {kept, ("", "")}
        assert await world.attach("a") == kept

    async def test_a_released_address_rests(self, world: World) -> None:
        await world.use(small())
        for name in "abcde":
            await world.attach(name)
        await world.release("c")

        network, words = await world.attach("f")

        assert not network
        assert words.startswith(f"the subnet {SMALL} is full: 4 of its 5 addresses belong to pods, 1 rest")
        assert REST_S == 60

    async def test_pods_that_the_agent_does_not_know_have_no_address(self, world: World) -> None:
        await world.use(small())
        for name in "abcde":
            await world.attach(name)

        await world.retain(["a"])

        _, words = await world.attach("f")
        assert "1 of its 5 addresses belong to pods, 4 rest" in words

    async def test_another_subnet_gives_other_addresses(self, world: World) -> None:
        """The leader did not know this node any more, and gave it another part of the range."""
        await world.use(told(1, 2))
        await world.attach("a")

        await world.use(told(5, 2))

        assert await world.attach("a") == ("bay1", "10.42.5.2")
