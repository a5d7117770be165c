from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bayplan.model.network import ClusterNetwork
from bayplan.model.services import Allocation, Cursor
from manager.planning.allocations import INGRESS_PORTS, NODE_PORTS, Claim, PortClaim, plan_allocations
from manager.planning.changes import AllocationChange, FreeAllocation, GiveAllocation

# Five services have room in it.
SMALL = ClusterNetwork(service_range="10.96.0.0/29")
NETWORK = ClusterNetwork()


def a_claim(name: str = "web", *ports: PortClaim, uid: str = "", **more: Any) -> Claim:
    """A ClusterIP service, made in the order of their names."""
    values: dict[str, Any] = {"created_ms": ord(name[0]), "needs_vip": True, **more}
    return Claim(uid=uid or f"u-{name}", kind="Service", namespace="shop", name=name, ports=ports, **values)


def node_port(port: int = 80, wanted: int = 0, protocol: str = "TCP") -> PortClaim:
    return PortClaim(port=port, protocol=protocol, needs_node_port=True, node_port=wanted)


def published(port: int = 80, protocol: str = "TCP") -> PortClaim:
    return PortClaim(port=port, protocol=protocol, is_published=True)


def an_ingress(name: str = "front", **more: Any) -> Claim:
    ports = tuple(published(port) for port in INGRESS_PORTS)
    return replace(a_claim(name, *ports, needs_vip=False, **more), kind="Ingress")


class Given:
    """What services hold, followed as the leader's memory follows its commits."""

    def __init__(self, network: ClusterNetwork = NETWORK) -> None:
        self.network = network
        self.held: dict[str, Allocation] = {}
        self.cursor = Cursor()

    def plan(self, claims: Iterable[Claim], *, keeps_unknown: bool = False) -> list[AllocationChange]:
        return plan_allocations(self.network, claims, self.held, self.cursor, keeps_unknown=keeps_unknown)

    def after(self, *claims: Claim) -> Given:
        for change in self.plan(claims):
            self.fold(change)
        return self

    def fold(self, change: AllocationChange) -> None:
        assert change.reason
        if isinstance(change, FreeAllocation):
            assert self.held.pop(change.service_uid) == change.allocation
        else:
            self.held[change.service_uid] = change.allocation
            self.cursor = change.cursor

    def vip(self, name: str = "web") -> str:
        return self.held[f"u-{name}"].vip

    def node_ports(self, name: str = "web") -> dict[str, int]:
        return self.held[f"u-{name}"].node_ports

    def published(self, name: str = "web") -> tuple[str, ...]:
        return self.held[f"u-{name}"].published

    def problem(self, name: str = "web") -> str:
        return self.held[f"u-{name}"].problem


class TestAddresses:
    def test_begin_behind_those_that_are_nobodys(self) -> None:
        """The first names the range, and .1 is the cluster's."""
        given = Given().after(a_claim("a"), a_claim("b"))

        assert (given.vip("a"), given.vip("b")) == ("10.96.0.2", "10.96.0.3")

    def test_are_as_many_as_the_range_has_but_for_three(self) -> None:
        given = Given(SMALL).after(*(a_claim(name) for name in "abcdef"))

        assert [given.vip(name) for name in "abcdef"] == [f"10.96.0.{n}" for n in range(2, 7)] + [""]
        assert "10.96.0.0/29 is used up: 5 services have an address" in given.problem("f")

    def test_of_a_service_that_is_gone_are_given_to_one_that_waits(self) -> None:
        given = Given(SMALL).after(*(a_claim(name) for name in "abcdef"))
        freed = given.vip("c")
        given.after(*(a_claim(name) for name in "abdef"))

        assert (given.vip("f"), given.problem("f")) == (freed, "")

    def test_rest_when_they_were_given_back(self) -> None:
        given = Given(SMALL).after(a_claim("a")).after(a_claim("b")).after().after(a_claim("c"))

        assert given.vip("c") == "10.96.0.4"

    def test_go_round(self) -> None:
        given = Given(SMALL)
        seen = []
        for _ in range(6):
            seen.append(given.after(a_claim("a")).vip("a"))
            given.after()

        assert seen == ["10.96.0.2", "10.96.0.3", "10.96.0.4", "10.96.0.5", "10.96.0.6", "10.96.0.2"]

    def test_are_those_that_the_user_names(self) -> None:
        """Also when an older service would have been given it."""
        given = Given().after(a_claim("a"), a_claim("b", vip="10.96.0.2"))

        assert (given.vip("a"), given.vip("b")) == ("10.96.0.3", "10.96.0.2")

    def test_that_another_holds_are_the_younger_ones_problem(self) -> None:
        given = Given().after(a_claim("b", vip="10.96.0.10"), a_claim("a", vip="10.96.0.10"))

        assert (given.vip("a"), given.vip("b")) == ("10.96.0.10", "")
        assert given.problem("b") == "clusterIP 10.96.0.10 is the address of Service shop/a already"

    def test_are_not_taken_from_a_younger_service_that_has_them(self) -> None:
        given = Given().after(a_claim("b", vip="10.96.0.10"))
        given.after(a_claim("a", vip="10.96.0.10"), a_claim("b", vip="10.96.0.10"))

        assert (given.vip("a"), given.vip("b")) == ("", "10.96.0.10")

    def test_outside_the_range_or_nobodys_cannot_be_given(self) -> None:
        for vip in ("10.96.0.0", "10.96.0.1", "10.96.0.7", "10.97.0.5", "fe80::1", "x"):
            given = Given(SMALL).after(a_claim(vip=vip))

            assert given.vip() == ""
            assert given.problem() == f"clusterIP {vip} cannot be given: services have 10.96.0.2 to 10.96.0.6"

    def test_stay_when_the_document_names_none_any_more(self) -> None:
        given = Given().after(a_claim(vip="10.96.0.10")).after(a_claim())

        assert given.vip() == "10.96.0.10"

    def test_are_exchanged_when_the_document_names_another(self) -> None:
        given = Given().after(a_claim()).after(a_claim(vip="10.96.0.10"))

        assert given.vip() == "10.96.0.10"
        (change,) = given.plan([a_claim(vip="10.96.0.11")])
        assert change.reason == "it gets 10.96.0.11; it gives back 10.96.0.10"

    def test_are_kept_while_the_one_that_is_named_cannot_be_had(self) -> None:
        given = Given().after(a_claim("a"), a_claim("b")).after(a_claim("a"), a_claim("b", vip="10.96.0.2"))

        assert given.vip("b") == "10.96.0.3"
        assert given.problem("b").endswith("is the address of Service shop/a already (it keeps 10.96.0.3)")

    def test_move_on_in_one_plan_whoever_is_older(self) -> None:
        given = Given().after(a_claim("a"), a_claim("b"), a_claim("c"))
        claims = [a_claim("a", vip="10.96.0.3"), a_claim("b", vip="10.96.0.4"), a_claim("c", vip="10.96.0.9")]
        changes = given.plan(claims)
        for change in changes:
            given.fold(change)
            vips = [each.vip for each in given.held.values()]

        assert [given.vip(name) for name in "abc"] == ["10.96.0.3", "10.96.0.4", "10.96.0.9"]
        assert not any("already" in change.reason for change in changes)
        assert len(set(vips)) == 3

    def test_are_given_back_by_a_service_that_became_headless(self) -> None:
        given = Given().after(a_claim())
        (change,) = given.plan([a_claim(needs_vip=False)])

        assert isinstance(change, FreeAllocation)
        assert change.reason == "it needs no address any more, and gives back 10.96.0.2"

    def test_are_not_asked_for_by_headless_services(self) -> None:
        assert Given().plan([a_claim(needs_vip=False)]) == []

    def test_of_documents_that_cannot_be_read_stay_theirs(self) -> None:
        given = Given(SMALL).after(*(a_claim(name) for name in "abcde"))

        assert given.plan([a_claim(name) for name in "abcd"], keeps_unknown=True) == []
        (change,) = given.plan([a_claim("f"), *(a_claim(name) for name in "abcd")], keeps_unknown=True)
        assert isinstance(change, GiveAllocation)
        assert "used up" in change.allocation.problem


class TestNodePorts:
    def test_are_given_from_their_range(self) -> None:
        given = Given().after(a_claim("a", node_port(80), node_port(443), node_port(53, protocol="UDP")))

        assert given.node_ports("a") == {"443/TCP": 30001, "53/UDP": 30002, "80/TCP": 30000}

    def test_are_those_that_the_user_names(self) -> None:
        given = Given().after(a_claim("a", node_port()), a_claim("b", node_port(wanted=30000)))

        assert (given.node_ports("a"), given.node_ports("b")) == ({"80/TCP": 30001}, {"80/TCP": 30000})

    def test_are_another_ones_with_another_protocol(self) -> None:
        ports = node_port(53, 30053), node_port(53, 30053, "UDP")
        given = Given().after(a_claim("a", *ports))

        assert given.node_ports("a") == {"53/TCP": 30053, "53/UDP": 30053}
        assert given.problem("a") == ""

    def test_that_another_holds_are_the_younger_ones_problem(self) -> None:
        given = Given().after(a_claim("a", node_port(wanted=30080)), a_claim("b", node_port(wanted=30080)))

        assert given.node_ports("b") == {}
        assert given.vip("b") == "10.96.0.3"
        assert given.problem("b") == "nodePort 30080/TCP is taken by Service shop/a already"

    def test_outside_their_range_cannot_be_given(self) -> None:
        given = Given().after(a_claim("a", node_port(wanted=8080)))

        assert given.problem("a") == "nodePort 8080 is none of 30000-32767"

    def test_are_used_up_for_those_who_come_then_and_nobody_else(self) -> None:
        many = a_claim("a", *(node_port(port) for port in range(1, len(NODE_PORTS) + 1)))
        given = Given().after(many, a_claim("b", node_port()), a_claim("c"))

        assert len(given.node_ports("a")) == len(NODE_PORTS)
        assert given.problem("b") == "no nodePort is free for 80/TCP: all of 30000-32767 are given"
        assert (given.vip("c"), given.problem("c")) == ("10.96.0.4", "")

    def test_are_given_back_by_a_service_that_became_a_cluster_ip(self) -> None:
        given = Given().after(a_claim("a", node_port())).after(a_claim("a", PortClaim(port=80)))

        assert given.node_ports("a") == {}
        assert given.vip("a") == "10.96.0.2"

    def test_rest_when_they_were_given_back(self) -> None:
        given = Given().after(a_claim("a", node_port())).after().after(a_claim("b", node_port()))

        assert given.node_ports("b") == {"80/TCP": 30001}


class TestPublishedPorts:
    def test_are_the_older_ones_of_two_load_balancers(self) -> None:
        given = Given().after(a_claim("b", published()), a_claim("a", published()))

        assert (given.published("a"), given.published("b")) == (("80/TCP",), ())
        assert given.problem("b") == "port 80/TCP is published by Service shop/a already"

    def test_stay_with_who_has_them(self) -> None:
        """However old the service is that becomes a load balancer later."""
        given = Given().after(a_claim("a"), a_claim("b", published()))
        given.after(a_claim("a", published()), a_claim("b", published()))

        assert (given.published("a"), given.published("b")) == ((), ("80/TCP",))

    def test_may_be_one_number_with_two_protocols(self) -> None:
        given = Given().after(a_claim("a", published(53)), a_claim("b", published(53, "UDP")))

        assert (given.problem("a"), given.problem("b")) == ("", "")

    def test_go_to_who_waits_when_they_are_given_back(self) -> None:
        given = Given().after(a_claim("a", published()), a_claim("b", published()))
        given.after(a_claim("b", published()))

        assert (given.published("b"), given.problem("b")) == (("80/TCP",), "")

    def test_are_no_node_port_of_another(self) -> None:
        given = Given().after(a_claim("a", node_port(wanted=30080)), a_claim("b", published(30080)))

        assert given.problem("b") == "port 30080/TCP is published by Service shop/a already"

    def test_are_no_node_port_of_the_same_service(self) -> None:
        port = PortClaim(port=30000, needs_node_port=True, is_published=True)
        given = Given().after(a_claim("a", port))

        assert (given.published("a"), given.node_ports("a")) == (("30000/TCP",), {"30000/TCP": 30001})

    def test_of_ingresses_are_shared_by_them(self) -> None:
        given = Given().after(an_ingress("a"), an_ingress("b"))

        assert given.published("a") == given.published("b") == ("80/TCP", "443/TCP")
        assert given.vip("a") == ""

    def test_of_an_ingress_are_no_younger_services(self) -> None:
        given = Given().after(an_ingress("a"), a_claim("b", published(80), published(8080)))

        assert given.published("b") == ("8080/TCP",)
        assert given.problem("b") == "port 80/TCP is published by Ingress shop/a already"

    def test_of_an_older_service_are_no_ingresss(self) -> None:
        given = Given().after(a_claim("a", published(80)), an_ingress("b"))

        assert given.published("b") == ("443/TCP",)
        assert given.problem("b") == "port 80/TCP is published by Service shop/a already"

    def test_of_the_last_ingress_are_free_when_it_goes(self) -> None:
        given = Given().after(an_ingress("a"), an_ingress("b"), a_claim("c", published()))
        given.after(an_ingress("b"), a_claim("c", published()))
        assert given.published("c") == ()

        given.after(a_claim("c", published()))
        assert given.published("c") == ("80/TCP",)


class TestAnyHistory:
    """Whatever is applied, changed and deleted in whatever order."""

    vips = st.sampled_from(["", "", "", *(f"10.96.0.{n}" for n in range(8)), "10.9.9.9"])
    ports = st.builds(
        PortClaim,
        port=st.integers(30000, 30003),
        protocol=st.sampled_from(["TCP", "UDP"]),
        needs_node_port=st.booleans(),
        node_port=st.sampled_from([0, 0, *range(29999, 30004)]),
        is_published=st.booleans(),
    )
    claims = st.builds(
        lambda number, ports, is_ingress, **more: (
            an_ingress(uid=f"u{number}") if is_ingress else a_claim("s", *ports, uid=f"u{number}", **more)
        ),
        number=st.integers(0, 9),
        ports=st.lists(ports, max_size=3, unique_by=lambda port: port.key),
        is_ingress=st.sampled_from([False, False, False, True]),
        needs_vip=st.booleans(),
        vip=vips,
        created_ms=st.integers(0, 3),
    )
    documents = st.lists(claims, max_size=8, unique_by=lambda claim: claim.uid)

    @given(history=st.lists(documents, min_size=1, max_size=6))
    def test_gives_nothing_twice_and_all_that_can_be_given(self, history: list[list[Claim]]) -> None:
        given = Given(SMALL)
        for claims in history:
            before = dict(given.held)
            given.after(*claims)
            check_unique(given, claims)
            check_complete(given, claims)
            check_stable(given, claims, before)
            assert given.plan(claims) == []

    @given(history=st.lists(documents, min_size=1, max_size=4))
    def test_says_so_where_something_is_missing_and_nowhere_else(self, history: list[list[Claim]]) -> None:
        given = Given(SMALL)
        for claims in history:
            given.after(*claims)
            for claim in claims:
                allocation = given.held.get(claim.uid, Allocation())
                assert bool(allocation.problem) == is_something_missing(claim, allocation)


def check_unique(given: Given, claims: list[Claim]) -> None:
    vips = [each.vip for each in given.held.values() if each.vip]
    usable = ipaddress.ip_network(given.network.service_range)
    assert len(set(vips)) == len(vips)
    assert all(ipaddress.ip_address(vip) in list(usable)[2:-1] for vip in vips)
    kinds = {claim.uid: claim.kind for claim in claims}
    bound = [
        (int(port), protocol, "Ingress" if kinds[uid] == "Ingress" else f"{uid} {port}")
        for uid, each in given.held.items()
        for port, protocol in (key.split("/") for key in each.published)
    ]
    bound += [
        (number, key.split("/")[1], f"{uid} {key}")
        for uid, each in given.held.items()
        for key, number in each.node_ports.items()
    ]
    holders: dict[tuple[int, str], set[str]] = {}
    for number, protocol, holder in bound:
        holders.setdefault((number, protocol), set()).add(holder)
    services = [entry for entry in bound if entry[2] != "Ingress"]
    assert all(len(each) == 1 for each in holders.values())
    assert len({entry[:2] for entry in services}) == len(services)
    assert all(number in NODE_PORTS for each in given.held.values() for number in each.node_ports.values())


def check_complete(given: Given, claims: list[Claim]) -> None:
    """Nobody lacks what is free."""
    vips = {each.vip for each in given.held.values()}
    free = {str(each) for each in list(ipaddress.ip_network(given.network.service_range))[2:-1]} - vips
    for claim in claims:
        allocation = given.held.get(claim.uid, Allocation())
        if claim.needs_vip and not allocation.vip:
            assert claim.vip not in free if claim.vip else not free
        for port in claim.ports:
            if port.needs_node_port and not port.node_port:
                assert port.key in allocation.node_ports
    assert given.held.keys() <= {claim.uid for claim in claims}


def check_stable(given: Given, claims: list[Claim], before: dict[str, Allocation]) -> None:
    """Who had something and asks for nothing else still has it."""
    for claim in claims:
        had, has = before.get(claim.uid), given.held.get(claim.uid)
        if had is None or had.owner != claim.words:
            continue  # A uid never changes its kind.
        if claim.needs_vip and had.vip and claim.vip in ("", had.vip):
            assert has is not None
            assert has.vip == had.vip
        for port in claim.ports:
            number = had.node_ports.get(port.key)
            if port.needs_node_port and number and port.node_port in (0, number):
                assert has is not None
                assert has.node_ports[port.key] == number
            if port.is_published and port.key in had.published:
                assert has is not None
                assert port.key in has.published


def is_something_missing(claim: Claim, has: Allocation) -> bool:
    if claim.needs_vip and (not has.vip or has.vip != (claim.vip or has.vip)):
        return True
    return any(
        (port.is_published and port.key not in has.published)
        or (port.needs_node_port and has.node_ports.get(port.key, 0) not in NODE_PORTS)
        or (port.needs_node_port and port.node_port not in (0, has.node_ports[port.key]))
        for port in claim.ports
    )
