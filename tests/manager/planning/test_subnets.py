from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayplan.model.network import ClusterNetwork
from manager.planning.subnets import first_address, is_part, next_part, part_with, parts, pods_per_part

NETWORK = ClusterNetwork()
# Four nodes of five pods.
SMALL = ClusterNetwork(pod_range="10.42.0.0/27", node_prefix=29)


def taken(*subnets: str) -> set[int]:
    return {int(ipaddress.IPv4Network(subnet).network_address) for subnet in subnets}


class TestParts:
    def test_of_a_new_cluster_are_for_512_nodes_of_253_pods(self) -> None:
        assert (parts(NETWORK), pods_per_part(NETWORK)) == (512, 253)

    def test_begin_with_the_first(self) -> None:
        assert next_part(NETWORK, ()) == "10.42.0.0/24"

    def test_are_the_next_behind_the_highest_in_use(self) -> None:
        """The part of a node that was removed rests until the others are given."""
        assert next_part(NETWORK, taken("10.42.0.0/24", "10.42.2.0/24")) == "10.42.3.0/24"

    def test_begin_again_behind_the_last(self) -> None:
        assert next_part(SMALL, taken("10.42.0.0/29", "10.42.0.24/29")) == "10.42.0.8/29"

    def test_are_all_given_at_last(self) -> None:
        every = taken("10.42.0.0/29", "10.42.0.8/29", "10.42.0.16/29", "10.42.0.24/29")

        assert next_part(SMALL, every) is None

    def test_of_another_range_take_nothing_from_this_one(self) -> None:
        assert next_part(SMALL, taken("10.43.0.0/24", "10.0.0.0/24")) == "10.42.0.0/29"

    @given(used=st.sets(st.integers(0, 63)))
    def test_given_are_free_and_of_the_range(self, used: set[int]) -> None:
        network = ClusterNetwork(pod_range="10.42.64.0/18", node_prefix=24)
        first = int(ipaddress.IPv4Address("10.42.64.0"))
        in_use = {first + 256 * index for index in used}
        found = next_part(network, in_use)

        if found is None:
            assert len(used) == 64
        else:
            assert is_part(network, found)
            assert first_address(found) not in in_use


class TestPart:
    @pytest.mark.parametrize("subnet", ["", "x", "10.42.0.0/25", "10.42.0.1/24", "10.44.0.0/24", "fd00::/64"])
    def test_of_another_range_or_size_is_none(self, subnet: str) -> None:
        assert not is_part(NETWORK, subnet)

    def test_is_found_by_an_address_of_it(self) -> None:
        assert part_with(NETWORK, "10.43.7.9") == "10.43.7.0/24"

    @pytest.mark.parametrize("address", ["", "x", "10.0.0.1", "fd00::1"])
    def test_of_a_foreign_address_is_none(self, address: str) -> None:
        assert part_with(NETWORK, address) == ""

    @pytest.mark.parametrize("subnet", ["", "x", "10.42.0.1/24"])
    def test_that_is_junk_has_no_first_address(self, subnet: str) -> None:
        assert first_address(subnet) is None
