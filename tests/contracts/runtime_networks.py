"""What every runtime promises about the network of ours, and the addresses of containers in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.runtime.port import (
    AddressTakenError,
    BridgeNetwork,
    Container,
    ContainerState,
    NetworkTakenError,
    StartError,
)
from tests.contracts.runtime_world import World, spec

NETWORK = BridgeNetwork(
    name="bay-contract",
    bridge="bay-contract",
    subnet="10.213.250.0/24",
    gateway="10.213.250.1",
    mtu=1450,
)
ADDRESS = "10.213.250.77"


async def connected(world: World, name: str = "web", address: str = ADDRESS) -> Container:
    made = await world.runtime.create(replace(spec(world, name), network=NETWORK.name, address=address))
    await world.runtime.start(made.id)
    return await world.runtime.inspect(made.id)


class NetworkContract:
    """Part of `RuntimeContract`."""

    async def test_a_container_is_where_it_was_told_to_be(self, world: World) -> None:
        await world.runtime.ensure_network(NETWORK)

        assert (await connected(world)).address == ADDRESS

    async def test_a_network_that_is_there_is_left_alone(self, world: World) -> None:
        """Containers in it notice nothing."""
        await world.runtime.ensure_network(NETWORK)
        container = await connected(world)

        await world.runtime.ensure_network(NETWORK)

        assert await world.runtime.inspect(container.id) == container

    async def test_an_address_is_free_again_when_its_container_has_ended(self, world: World) -> None:
        """So a restarted pod has the address that it had."""
        await world.runtime.ensure_network(NETWORK)
        first = await connected(world, "first")
        await world.runtime.stop(first.id, grace_s=5)

        assert (await connected(world, "second")).address == ADDRESS

    async def test_no_two_have_one_address(self, world: World) -> None:
        await world.runtime.ensure_network(NETWORK)
        await connected(world, "first")

        with pytest.raises(AddressTakenError, match=r"[Aa]ddress already in use"):
            await connected(world, "second")

    async def test_without_the_network_it_does_not_start(self, world: World) -> None:
        with pytest.raises(StartError, match="not found"):
            await connected(world)

    async def test_an_unused_network_follows_what_is_wanted(self, world: World) -> None:
        """The leader gave this node another subnet."""
        await world.runtime.ensure_network(NETWORK)

        moved = replace(NETWORK, subnet="10.213.251.0/24", gateway="10.213.251.1")
        await world.runtime.ensure_network(moved)

        assert (await connected(world, address="10.213.251.9")).address == "10.213.251.9"

    async def test_a_range_that_another_network_has_is_refused_by_name(self, world: World) -> None:
        await world.add_foreign_network("bay-contract-other", "10.213.250.128/25")

        with pytest.raises(NetworkTakenError, match=r"bay-contract-other has the range 10\.213\.250\.128/25"):
            await world.runtime.ensure_network(NETWORK)

    async def test_a_name_that_another_node_has_is_refused(self, world: World) -> None:
        await world.another_agent(node="n2").ensure_network(NETWORK)

        with pytest.raises(NetworkTakenError, match="bay-contract is there and is not this node's"):
            await world.runtime.ensure_network(NETWORK)

    async def test_a_reconnected_container_runs_on_at_its_address(self, world: World) -> None:
        await world.runtime.ensure_network(NETWORK)
        container = await connected(world)

        await world.runtime.reconnect(container.id, network=NETWORK.name, address=ADDRESS)

        found = await world.runtime.inspect(container.id)
        assert (found.state, found.address, found.pid) == (ContainerState.RUNNING, ADDRESS, container.pid)

    async def test_a_missing_container_needs_no_reconnection(self, world: World) -> None:
        await world.runtime.reconnect("0" * 64, network=NETWORK.name, address=ADDRESS)
