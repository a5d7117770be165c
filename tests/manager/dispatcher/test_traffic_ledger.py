from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.traffic.table import TrafficTable
from bayplan.transport.grpc import MESSAGE_MAX_BYTES
from bayplan.v1 import agent_link_pb2 as wire
from manager.dispatcher import traffic_ledger
from manager.dispatcher.traffic_ledger import VERSIONS_PER_TERM, Ledger
from manager.planning.endpoints import Endpoint, EndpointSet

EPOCH = wire.Epoch(store="s", revision=7)
KEYS = ("shop/web", "shop/api")
IDS = ("p1", "p2", "p3")


class Reader:
    """An agent that is told what it lacks, when it has time."""

    def __init__(self, ledger: Ledger, table: TrafficTable | None = None) -> None:
        self.ledger = ledger
        self.table = table or TrafficTable()
        self.version = 0

    def read(self) -> list[wire.Traffic]:
        told = [message.traffic for message in self.ledger.messages(self.version)]
        for message in told:
            # As it comes off the wire.
            self.table = self.table.fold(wire.Traffic.FromString(message.SerializeToString()))
        self.version = self.ledger.version
        assert self.table.version == self.version
        return told

    def endpoints(self, key: str) -> dict[str, str]:
        return {id_: endpoint.address for id_, endpoint in self.table.endpoints.get(key, {}).items()}


def a_service(key: str, uid: str = "u", **more: Any) -> wire.Service:
    namespace, _, name = key.partition("/")
    return wire.Service(namespace=namespace, name=name, uid=uid, vip="10.96.0.9", **more)


def a_set(
    *ids: str, unknown: tuple[str, ...] = (), absent: tuple[str, ...] = (), at: str = "1"
) -> EndpointSet:
    endpoints = tuple(Endpoint(id=each, address=f"10.42.0.{at}") for each in ids)
    return EndpointSet(endpoints=endpoints, unknown=unknown, absent=absent)


def a_ledger(*ids: str) -> Ledger:
    ledger = Ledger(EPOCH)
    ledger.put("shop/web", a_service("shop/web"), a_set(*ids))
    ledger.seal()
    return ledger


class TestVersions:
    def test_of_a_later_leader_are_above_all_of_an_earlier_one(self) -> None:
        """An agent that connects says how far it was with the leader before: that is no answer to this one."""
        earlier, later = a_ledger("p1"), Ledger(wire.Epoch(store="s", revision=EPOCH.revision + 1))
        for number in range(1000):
            earlier.put("shop/web", a_service("shop/web"), a_set("p1", at=str(number % 250)))
            earlier.seal()

        assert later.version > earlier.version

    def test_fit_the_wire_after_years(self) -> None:
        """A thousand commits a second, for ten years."""
        ledger = Ledger(wire.Epoch(store="s", revision=1000 * 3600 * 24 * 3650))

        assert wire.Traffic(version=ledger.version).version == ledger.version


class TestFull:
    def test_tells_a_new_agent_everything_even_if_there_is_nothing(self) -> None:
        agent = Reader(Ledger(EPOCH), TrafficTable(services={"old/one": wire.Service()}))
        (told,) = agent.read()

        assert told.full
        assert agent.table.services == {}
        assert agent.table.version == EPOCH.revision * VERSIONS_PER_TERM + 1

    def test_leaves_to_an_agent_what_is_not_known_and_takes_what_must_not_be(self) -> None:
        """A new leader has heard of p2 and p3, and not of p1 yet: p2 is ready, p3 is to stop."""
        ledger = Ledger(EPOCH)
        ledger.put("shop/web", a_service("shop/web"), a_set("p2", unknown=("p1",), absent=("p3",)))
        ledger.seal()
        before = {each: wire.Endpoint(id=each, address="10.42.0.1") for each in ("p1", "p3", "p9")}
        agent = Reader(
            ledger, TrafficTable(endpoints={"shop/web": before}, services={"shop/web": wire.Service()})
        )
        agent.read()
        assert set(agent.endpoints("shop/web")) == {"p1", "p2", "p9"}
        ledger.put("shop/web", a_service("shop/web"), a_set("p1", "p2"))
        ledger.seal()
        agent.read()

        assert set(agent.endpoints("shop/web")) == {"p1", "p2"}

    def test_is_cut_into_messages_none_of_which_counts_before_the_last(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody serves half of it: neither what is new nor what was there before."""
        monkeypatch.setattr(traffic_ledger, "PART_BYTES", 100)
        monkeypatch.setattr(traffic_ledger, "ENDPOINTS_AT_A_STRETCH", 2)
        ledger = Ledger(EPOCH)
        for number in range(5):
            ledger.put(f"shop/s{number}", a_service(f"shop/s{number}"), a_set("p1", "p2", "p3"))
        ledger.seal()
        table = before = TrafficTable(services={"old/one": wire.Service()})
        *parts, last = [message.traffic for message in ledger.messages(0)]
        for part in parts:
            assert part.more
            table = table.fold(part)
            assert (table.services, table.endpoints) == (before.services, before.endpoints)
        table = table.fold(last)

        assert len(parts) > 5
        assert set(table.services) == {f"shop/s{number}" for number in range(5)}
        assert all(len(table.endpoints[f"shop/s{number}"]) == 3 for number in range(5))
        assert table.version == ledger.version

    def test_fits_the_wire_however_large_services_are(self) -> None:
        """Services with all the ports that they may have, and one with more addresses than a document holds."""
        ports = [wire.ServicePort(name=f"{number:03}" + "p" * 60, port=65535) for number in range(250)]
        ledger = Ledger(EPOCH)
        for number in range(1000):
            key = f"shop/s{number}"
            ledger.put(key, a_service(key, ports=ports), a_set())
        large = [
            Endpoint(id=f"10.0.{number // 250}.{number % 250}", address="10.0.0.1", ports=(65535,) * 250)
            for number in range(22_000)
        ]
        ledger.put("shop/large", a_service("shop/large", ports=ports), EndpointSet(endpoints=tuple(large)))
        ledger.seal()
        told = ledger.messages(0)

        assert sum(message.ByteSize() for message in told) > 2 * MESSAGE_MAX_BYTES
        assert max(message.ByteSize() for message in told) < MESSAGE_MAX_BYTES / 2
        table = TrafficTable()
        for message in told:
            table = table.fold(message.traffic)
        assert len(table.services) == 1001
        assert len(table.endpoints["shop/large"]) == 22_000


class TestWhatNobodyHereCanRead:
    def known(self) -> TrafficTable:
        """Of an agent that was told of it by an earlier leader."""
        endpoints = {each: wire.Endpoint(id=each) for each in ("p1", "p2")}
        return TrafficTable(
            services={"shop/web": a_service("shop/web"), "old/one": wire.Service()},
            endpoints={"shop/web": endpoints},
            ingress=wire.Ingress(ports=[80], rules=[wire.IngressRule(path="/mine")]),
        )

    def test_stays_with_those_who_have_it(self) -> None:
        ledger = Ledger(EPOCH)
        ledger.keep("shop/web")
        ledger.seal()
        agent, new = Reader(ledger, self.known()), Reader(ledger)
        agent.read()
        new.read()

        assert set(agent.table.services) == {"shop/web"}
        assert set(agent.endpoints("shop/web")) == {"p1", "p2"}
        assert not new.table.services

    def test_loses_pods_that_stop(self) -> None:
        """Their addresses will be others'."""
        ledger = Ledger(EPOCH)
        ledger.keep("shop/web")
        ledger.seal()
        connected, away = Reader(ledger, self.known()), Reader(ledger, self.known())
        connected.read()
        ledger.leave("shop/web", "p1")
        assert ledger.seal()
        connected.read()
        away.read()

        assert set(connected.endpoints("shop/web")) == set(away.endpoints("shop/web")) == {"p2"}

    def test_is_told_anew_once_it_can_be_read_and_goes_when_it_is_deleted(self) -> None:
        ledger = Ledger(EPOCH)
        for key in ("shop/web", "old/one"):
            ledger.keep(key)
        ledger.seal()
        agent = Reader(ledger, self.known())
        agent.read()
        ledger.put("shop/web", a_service("shop/web", uid="u2"), a_set("p3"))
        ledger.drop("old/one")
        ledger.seal()
        agent.read()

        assert {key: each.uid for key, each in agent.table.services.items()} == {"shop/web": "u2"}
        assert set(agent.endpoints("shop/web")) == {"p3"}

    def test_rules_stay_until_all_are_known_and_others_take_what_is(self) -> None:
        ledger = Ledger(EPOCH)
        some = wire.Ingress(ports=[80], rules=[wire.IngressRule(path="/other")])
        ledger.put_ingress(some, is_whole=False)
        ledger.seal()
        agent, new = Reader(ledger, self.known()), Reader(ledger)
        agent.read()
        new.read()
        assert [rule.path for rule in agent.table.ingress.rules] == ["/mine"]
        assert [rule.path for rule in new.table.ingress.rules] == ["/other"]
        ledger.put_ingress(some)
        ledger.seal()
        agent.read()

        assert [rule.path for rule in agent.table.ingress.rules] == ["/other"]

    def test_what_was_told_in_this_term_stays_told_without_pods_that_stop(self) -> None:
        ledger = a_ledger("p1", "p2")
        ledger.keep("shop/web")
        ledger.leave("shop/web", "p1")
        ledger.seal()
        agent = Reader(ledger)
        agent.read()

        assert set(agent.endpoints("shop/web")) == {"p2"}


class TestChanges:
    def test_tells_what_changed_and_nothing_else(self) -> None:
        ledger = a_ledger("p1", "p2")
        ledger.put("shop/api", a_service("shop/api"), a_set("q1"))
        ledger.seal()
        agent = Reader(ledger)
        agent.read()
        ledger.put("shop/web", a_service("shop/web"), a_set("p1", "p3"))
        assert ledger.seal()
        (told,) = agent.read()

        assert not told.full
        assert not told.services
        (changes,) = told.endpoints
        assert (changes.service, changes.full) == ("shop/web", False)
        assert [each.id for each in changes.put] == ["p3"]
        assert changes.gone == ["p2"]
        assert not told.HasField("ingress")

    def test_is_silent_while_nothing_changes(self) -> None:
        ledger = a_ledger("p1")
        version = ledger.version
        ledger.put("shop/web", a_service("shop/web"), a_set("p1"))

        assert not ledger.seal()
        assert ledger.version == version
        agent = Reader(ledger)
        agent.read()
        assert agent.read() == []

    def test_tells_a_slow_agent_the_sum_and_not_each(self) -> None:
        ledger = a_ledger("p1")
        agent = Reader(ledger)
        agent.read()
        for turn in range(500):
            ledger.put("shop/web", a_service("shop/web"), a_set("p1", at=str(turn % 250)))
            ledger.seal()
        (told,) = agent.read()

        assert len(told.endpoints) == 1
        assert len(told.endpoints[0].put) == 1

    def test_tells_the_same_message_to_all_who_lack_the_same(self) -> None:
        ledger = a_ledger("p1")

        assert ledger.messages(0)[0] is ledger.messages(0)[0]

    def test_tells_all_rules_when_one_changes(self) -> None:
        ledger = a_ledger("p1")
        agent = Reader(ledger)
        agent.read()
        ledger.put_ingress(wire.Ingress(rules=[wire.IngressRule(path="/")]))
        ledger.seal()
        (told,) = agent.read()

        assert [rule.path for rule in told.ingress.rules] == ["/"]
        assert not told.endpoints

    def test_does_not_grow_with_pods_that_come_and_go(self) -> None:
        ledger = a_ledger("p1")
        for turn in range(2000):
            ledger.put("shop/web", a_service("shop/web"), a_set(f"p{turn}"))
            ledger.put(f"shop/s{turn}", a_service(f"shop/s{turn}"), a_set())
            ledger.seal()
            ledger.drop(f"shop/s{turn}")

        assert len(ledger.services["shop/web"].gone) < 100
        assert len(ledger._gone) <= traffic_ledger.GONE_SERVICES_MAX


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"),
            st.sampled_from(KEYS),
            st.tuples(
                st.sampled_from(["u1", "u2"]),
                st.sets(st.sampled_from(IDS)),
                st.sampled_from(["1", "2"]),
                st.integers(0, 2),
            ),
        ),
        st.tuples(st.just("drop"), st.sampled_from(KEYS), st.none()),
        st.tuples(st.just("seal"), st.none(), st.none()),
        st.tuples(st.just("read"), st.integers(0, 1), st.none()),
        st.tuples(st.just("ingress"), st.sampled_from(["/", "/a"]), st.none()),
    ),
    max_size=50,
)


class TestWhateverHappens:
    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(STEPS, st.booleans())
    def test_agents_end_up_with_what_is_so_however_seldom_they_read(
        self, steps: list[tuple[str, Any, Any]], has_little_memory: Any
    ) -> None:
        with pytest.MonkeyPatch.context() as patch:
            if has_little_memory:
                patch.setattr(traffic_ledger, "GONE_SERVICES_MAX", 1)
                patch.setattr(traffic_ledger, "GONE_ENDPOINTS_SPARE", 0)
                patch.setattr(traffic_ledger, "PART_BYTES", 60)
                patch.setattr(traffic_ledger, "ENDPOINTS_AT_A_STRETCH", 2)
            self._run(steps)

    @staticmethod
    def _run(steps: list[tuple[str, Any, Any]]) -> None:
        ledger = Ledger(EPOCH)
        agents = [Reader(ledger), Reader(ledger)]
        wanted: dict[str, tuple[str, dict[str, str]]] = {}
        rules: list[str] = []
        for what, which, how in steps:
            match what:
                case "put":
                    uid, ids, at, vip = how
                    ledger.put(which, a_service(which, uid, affinity_s=vip), a_set(*sorted(ids), at=at))
                    wanted[which] = (uid, dict.fromkeys(ids, f"10.42.0.{at}"))
                case "drop":
                    ledger.drop(which)
                    wanted.pop(which, None)
                case "ingress":
                    ledger.put_ingress(wire.Ingress(rules=[wire.IngressRule(path=which)]))
                    rules = [which]
                case "seal":
                    ledger.seal()
                case "read":
                    ledger.seal()
                    agents[which].read()
        ledger.seal()
        for agent in [*agents, Reader(ledger)]:
            agent.read()
            assert {key: service.uid for key, service in agent.table.services.items()} == {
                key: uid for key, (uid, _) in wanted.items()
            }
            assert {key: agent.endpoints(key) for key in wanted} == {
                key: endpoints for key, (_, endpoints) in wanted.items()
            }
            assert [rule.path for rule in agent.table.ingress.rules] == rules
