from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bayplan.model.names import PodId
from bayplan.model.nodes import Amounts, NodeFacts, NodeIntent
from bayplan.model.placements import Cause, Placement, Want
from bayplan.model.states import PodState
from bayplan.v1 import agent_link_pb2 as wire
from manager.changes_to_records import batch_of, fold_in
from manager.cluster_state import ClusterState
from manager.planning.changes import PlacePod, RemovePlacement, RemoveWorkload, SetWant
from manager.store import keys, records
from manager.store.port import DeleteKey, KeyChange, KeyValue, Listing, Put
from manager.store_to_state import apply_watched, load, repair
from manager.views import workload_view
from tests.manager.world import a_deployment

UID = "u1"
WEB = keys.resource("Deployment", "default", "web")


def a_document(uid: str = UID, *, deleting: bool = False, **more: Any) -> bytes:
    return records.encode_document(
        records.StoredDocument(
            uid=uid, generation=1, created_ms=0, deleting=deleting, document=json.loads(a_deployment(**more))
        )
    )


def item(key: str, value: bytes, revision: int) -> KeyValue:
    return KeyValue(key=key, value=value, create_revision=revision, mod_revision=revision)


def a_state(*, nodes: int = 1, document: bytes | None = None) -> ClusterState:
    """A Deployment `web` of uid u1, and nodes n1, n2, … that have reported nothing yet."""
    state = ClusterState()
    capacity = Amounts(cpu_millis=4000, memory_bytes=8 << 30, pods=110)
    items = [
        item(
            keys.node(f"n{number}"),
            records.encode_node(NodeFacts(name=f"n{number}", number=number, joined_ms=0, capacity=capacity)),
            1,
        )
        for number in range(1, nodes + 1)
    ]
    load(state, [*items, item(WEB, document or a_document(), 5)], 10)
    return state


def revision_of(state: ClusterState) -> str:
    view = workload_view(state, UID)
    assert view is not None
    return view.revision


def place(state: ClusterState, *slots: int, node: str = "n1") -> list[PodId]:
    """Commit one pod for each slot."""
    revision = revision_of(state)
    changes = [
        PlacePod(
            workload_uid=UID, slot=slot, revision=revision, node=node, cause=Cause.CREATED, reason="test"
        )
        for slot in slots
    ]
    batch = batch_of(changes, state)
    assert not batch.is_cut
    fold_in(batch, state, state.revision + 1)
    return [placement.pod for placement in batch.put]


def want(state: ClusterState, pod: PodId, wanted: Want) -> None:
    fold_in(batch_of([SetWant(pod=pod, want=wanted, reason="test")], state), state, state.revision + 1)


def status(pod: PodId, state: PodState, *, ready: bool = False) -> wire.PodStatus:
    return wire.PodStatus(uid=str(pod), state=int(state), ready=ready)  # type: ignore[arg-type]  # equal values


def pod_view(state: ClusterState, pod: PodId) -> Any:
    view = workload_view(state, UID)
    assert view is not None
    return next(each for each in view.pods if each.id == pod)


class TestWhatIsKnownOfAPod:
    def test_is_nothing_before_its_node_has_reported(self) -> None:
        state = a_state()
        (pod,) = place(state, 0)

        assert (pod_view(state, pod).state, pod_view(state, pod).ready) == (None, None)

    def test_is_what_its_agent_said(self) -> None:
        state = a_state()
        (pod,) = place(state, 0)
        state.apply_full_report("n1", [status(pod, PodState.RUNNING, ready=True)], 1.0)

        assert (pod_view(state, pod).state, pod_view(state, pod).ready) == (PodState.RUNNING, True)

    def test_never_goes_back(self) -> None:
        state = a_state()
        (pod,) = place(state, 0)
        state.apply_full_report("n1", [status(pod, PodState.FAILED)], 1.0)
        state.apply_statuses("n1", [status(pod, PodState.RUNNING, ready=True)], 2.0)

        assert pod_view(state, pod).state is PodState.FAILED

    def test_is_that_it_is_gone_when_a_full_report_lacks_it_and_it_should_stop(self) -> None:
        state = a_state()
        (pod,) = place(state, 0)
        want(state, pod, Want.STOP)
        state.apply_full_report("n1", [], 1.0)

        assert pod_view(state, pod).is_gone

    def test_is_not_that_it_is_gone_while_it_may_be_on_its_way_to_the_agent(self) -> None:
        """It was sent after the report; its agent has not said anything of it yet."""
        state = a_state()
        state.apply_full_report("n1", [], 1.0)
        (pod,) = place(state, 0)
        state.nodes["n1"].told[str(pod)] = Want.RUN
        want(state, pod, Want.STOP)

        assert not pod_view(state, pod).is_gone

    def test_is_not_that_it_is_gone_while_it_is_wanted(self) -> None:
        state = a_state()
        (pod,) = place(state, 0)
        state.apply_full_report("n1", [], 1.0)

        assert not pod_view(state, pod).is_gone
        assert pod_view(state, pod).state is PodState.ASSIGNED


class TestRoom:
    def test_is_booked_by_a_record_and_free_when_the_pod_has_ended(self) -> None:
        state = a_state()
        first, second = place(state, 0, 1)
        assert state.reserved["n1"].pods == 2
        state.apply_full_report("n1", [status(first, PodState.FAILED)], 1.0)
        assert state.reserved["n1"].pods == 1
        state.drop_placement(first)
        state.drop_placement(second)

        assert state.reserved["n1"] == Amounts()

    def test_stays_booked_when_the_node_is_silent(self) -> None:
        state = a_state()
        (pod,) = place(state, 0)
        want(state, pod, Want.LOST)

        assert state.reserved["n1"].pods == 1

    def test_forgets_ends_of_pods_that_it_does_not_know(self) -> None:
        """Agents may repeat themselves for ever; memory stays bounded."""
        state = a_state()
        for incarnation in range(1000):
            pod = PodId("gone", 0, incarnation)
            state.apply_full_report("n1", [status(pod, PodState.STOPPED)], 1.0)

        assert len(state.nodes["n1"].statuses) == 1
        assert not state.ended_s


class TestUnreadableDocument:
    def test_leaves_what_runs_of_it_alone(self) -> None:
        """A manager that cannot read a document must not take it for deleted."""
        state = a_state()
        (pod,) = place(state, 0)
        chunk = batch_of([SetWant(pod=pod, want=Want.RUN, reason="again")], state).operations[0]
        assert isinstance(chunk, Put)
        items = [
            item(keys.node("n1"), records.encode_node(state.nodes["n1"].facts), 1),
            item(WEB, b"{nonsense", 5),
            item(chunk.key, chunk.value, 6),
        ]
        fresh = ClusterState()
        load(fresh, items, 10)

        assert list(fresh.placements[UID]) == [pod]
        assert workload_view(fresh, UID) is None

    def test_lets_go_of_what_runs_once_it_is_removed(self) -> None:
        state = a_state(document=b"{nonsense")
        gone = KeyChange(key=WEB, value=None, mod_revision=11)

        assert apply_watched(state, [gone], 11) == {"*"}

    def test_keeps_the_last_version_that_could_be_read(self) -> None:
        state = a_state()
        apply_watched(state, [KeyChange(key=WEB, value=b"{nonsense", mod_revision=11)], 11)

        assert workload_view(state, UID) is not None
        assert WEB in state.broken


class TestJunk:
    def test_has_no_effect(self) -> None:
        junk = [
            item(keys.ROOT + suffix, b"junk", 3)
            for suffix in (
                "nodes/../x",
                "nodes/nx",
                "node-intents/n1",
                "node-intents/",
                "resources/Deployment/x",
                "placements/x",
                "revisions/x",
                "decisions/x",
                "elsewhere",
                "resources/",
            )
        ]
        state = ClusterState()
        load(state, junk, 10)

        assert (state.nodes, state.resources, dict(state.placements), state.decisions) == ({}, {}, {}, [])

    def test_in_a_watch_has_no_effect(self) -> None:
        state = a_state()
        state.nodes["n1"].intent = NodeIntent(drain=True)
        apply_watched(state, [KeyChange(key=keys.node_intent("n1"), value=b"junk", mod_revision=11)], 11)

        assert state.nodes["n1"].intent.drain


class TestSweep:
    def test_finds_what_the_watch_has_missed(self) -> None:
        state = a_state()
        listing = Listing(items=(item(WEB, a_document(replicas=7), 12),), revision=12)
        dirty = repair(state, listing)

        assert dirty == {"*"}
        view = workload_view(state, UID)
        assert view is not None
        assert view.replicas == 7

    def test_finds_a_deletion_that_the_watch_has_missed(self) -> None:
        state = a_state()

        assert repair(state, Listing(items=(), revision=12)) == {UID}
        assert not state.resources

    def test_does_not_bring_back_what_was_deleted_since_the_listing(self) -> None:
        state = a_state()
        listing = Listing(items=(item(WEB, a_document(), 5),), revision=10)
        apply_watched(state, [KeyChange(key=WEB, value=None, mod_revision=11)], 11)
        repair(state, listing)

        assert not state.resources

    def test_does_not_bring_back_what_the_leader_removed_since_the_listing(self) -> None:
        state = a_state(document=a_document(deleting=True))
        fold_in(batch_of([RemoveWorkload(workload_uid=UID, reason="empty")], state), state, 11)
        repair(state, Listing(items=(item(WEB, a_document(deleting=True), 5),), revision=10))

        assert not state.resources

    def test_does_not_take_a_newer_document_for_deleted(self) -> None:
        state = a_state()
        other = keys.resource("Deployment", "default", "new")
        apply_watched(state, [KeyChange(key=other, value=a_document("u2", name="new"), mod_revision=11)], 11)
        repair(state, Listing(items=(item(WEB, a_document(), 5),), revision=10))

        assert ("Deployment", "default", "new") in state.resources

    def test_is_not_undone_by_a_watch_that_is_behind(self) -> None:
        state = a_state()
        repair(state, Listing(items=(item(WEB, a_document(replicas=9), 12),), revision=12))
        apply_watched(state, [KeyChange(key=WEB, value=a_document(replicas=3), mod_revision=11)], 11)
        view = workload_view(state, UID)

        assert view is not None
        assert view.replicas == 9


class TestRevisionKnown:
    def test_of_a_commit_does_not_count_as_watched(self) -> None:
        """A client that wrote at 11 must not be answered because the leader has committed at 12."""
        state = a_state()
        place(state, 0)

        assert state.revision > state.watched_revision == 10


class TestTemplates:
    def test_goes_with_the_last_pod_made_by_it(self) -> None:
        state = a_state()
        first, second = place(state, 0, 1)
        old = revision_of(state)
        apply_watched(state, [KeyChange(key=WEB, value=a_document(image="app:2"), mod_revision=20)], 20)
        removed = [RemovePlacement(pod=pod, reason="ended") for pod in (first, second)]
        one = batch_of(removed[:1], state)
        assert not any(isinstance(each, DeleteKey) for each in one.operations)
        fold_in(one, state, 21)
        both = batch_of(removed[1:], state)
        fold_in(both, state, 22)

        assert DeleteKey(key=keys.revision(UID, old)) in both.operations
        assert not state.revisions

    def test_stays_while_the_document_asks_for_it(self) -> None:
        state = a_state()
        (pod,) = place(state, 0)
        fold_in(batch_of([RemovePlacement(pod=pod, reason="ended")], state), state, 21)

        assert list(state.revisions) == [(UID, revision_of(state))]

    def test_is_kept_as_committed_although_the_document_changed_meanwhile(self) -> None:
        state = a_state()
        change = PlacePod(
            workload_uid=UID,
            slot=0,
            revision=revision_of(state),
            node="n1",
            cause=Cause.CREATED,
            reason="test",
        )
        batch = batch_of([change], state)
        apply_watched(state, [KeyChange(key=WEB, value=a_document(image="app:2"), mod_revision=20)], 20)
        fold_in(batch, state, 21)

        assert '"app:1"' in state.template_text(UID, change.revision)


class TestBatch:
    def test_survives_being_read_back(self) -> None:
        state = a_state(nodes=2)
        place(state, 0, 1, 70)
        place(state, 2, node="n2")
        operations = batch_of(
            [SetWant(pod=pod, want=Want.STOP, reason="test") for pod in list(state.placements[UID])], state
        ).operations
        fresh = a_state(nodes=2)
        load(fresh, [item(each.key, each.value, 9) for each in operations if isinstance(each, Put)], 10)

        expected = {
            pod: Placement(
                pod=pod,
                node=placement.node,
                revision=placement.revision,
                want=Want.STOP,
                cause=placement.cause,
            )
            for pod, placement in state.placements[UID].items()
        }
        assert fresh.placements[UID] == expected
        assert fresh.next_incarnation == state.next_incarnation

    def test_never_gives_an_incarnation_twice(self) -> None:
        state = a_state()
        (first,) = place(state, 0)
        fold_in(batch_of([RemovePlacement(pod=first, reason="ended")], state), state, 20)
        (second,) = place(state, 0)

        assert second.incarnation > first.incarnation

    def test_is_cut_and_goes_on_until_a_huge_workload_is_gone(self) -> None:
        """Each key stands in a transaction once, as etcd demands."""
        state = a_state(document=a_document(deleting=True, replicas=20_000))
        for start in range(0, 20_000, 64 * 90):
            place(state, *range(start, min(start + 64 * 90, 20_000)))
        written: set[str] = {keys.placements(*held) for held in state.next_incarnation}
        for turn in range(20):
            changes = [RemovePlacement(pod=pod, reason="ended") for pod in state.placements.get(UID, {})]
            batch = batch_of([*changes, RemoveWorkload(workload_uid=UID, reason="empty")], state)
            touched = [operation.key for operation in batch.operations]
            assert len(touched) == len(set(touched)) <= 97
            written -= {each.key for each in batch.operations if isinstance(each, DeleteKey)}
            fold_in(batch, state, 100 + turn)
            if not batch.is_cut:
                break

        assert not written
        assert not state.resources
        assert not state.next_incarnation
        assert not state.workloads


class TestNodes:
    @pytest.mark.parametrize(
        ("condition", "why"),
        [
            (wire.NodeCondition(engine_ok=True), ""),
            (wire.NodeCondition(engine_ok=False, message="hung"), "hung"),
            (wire.NodeCondition(engine_ok=True, disk_pressure=True), "its agent says so"),
            (wire.NodeCondition(engine_ok=True, network_problem="bay1 is nginx's"), "bay1 is nginx's"),
        ],
    )
    def test_take_no_pods_that_they_cannot_run(self, condition: wire.NodeCondition, why: str) -> None:
        state = a_state()
        state.nodes["n1"].condition = condition

        assert state.nodes["n1"].refuses == why

    def test_that_go_leave_their_subnets(self) -> None:
        state = a_state()
        facts = state.nodes["n1"].facts
        state.put_node(replace(facts, subnet="10.42.0.0/24"))
        state.put_node(replace(facts, subnet="10.42.1.0/24"))
        assert list(state.subnets.values()) == ["n1"]

        state.drop_node("n1")
        assert state.subnets == {}

    def test_of_one_subnet_are_not_both_its_owner(self) -> None:
        """However it came about: who is not gets another when it connects."""
        state = a_state(nodes=2)
        for name in ("n1", "n2"):
            state.put_node(replace(state.nodes[name].facts, subnet="10.42.0.0/24"))
        state.drop_node("n1")

        assert list(state.subnets.values()) == ["n2"]
