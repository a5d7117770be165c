"""What services cost the leader: 2,000 of them with 10 endpoints each, on 300 nodes, in memory.

    python -m bench.endpoints

Prints how much processor time the first look at everything takes, one pod's change until it is on 300 streams, and the whole
for 300 agents that connect at once.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

from bayplan.model.names import PodId
from bayplan.model.nodes import Amounts, NodeFacts, NodeState
from bayplan.model.placements import Cause, Placement, Want
from bayplan.model.services import Allocation
from bayplan.v1 import agent_link_pb2 as wire
from manager.cluster_state import ClusterState
from manager.dispatcher.release import ProxyView
from manager.dispatcher.session import NodeSession
from manager.dispatcher.traffic import Traffic
from manager.events import EventLog
from manager.store import keys, records
from manager.store.port import KeyChange
from manager.store_to_state import apply_watched

SERVICES = 2000
REPLICAS = 10
NODES = 300
EPOCH = wire.Epoch(store="bench", revision=1)


def a_state() -> ClusterState:
    """Every pod runs and is ready."""
    state = ClusterState()
    for number in range(NODES):
        facts = NodeFacts(name=f"n{number}", number=number, joined_ms=0, capacity=Amounts())
        state.put_node(facts)
    changes = []
    for number in range(SERVICES):
        name = f"service-{number}"
        labels = {"app": name, "tier": "web"}
        metadata = {"name": name, "namespace": "default"}
        template = {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "app", "image": "app:1"}]},
        }
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {"replicas": REPLICAS, "selector": {"matchLabels": labels}, "template": template},
        }
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"port": 80}]},
        }
        for document, uid in ((deployment, f"d{number:015}"), (service, f"s{number:015}")):
            stored = records.StoredDocument(
                uid=uid, generation=1, created_ms=number, deleting=False, document=document
            )
            key = keys.resource(str(document["kind"]), "default", name)
            changes.append(KeyChange(key=key, value=records.encode_document(stored), mod_revision=1))
        state.allocations[f"s{number:015}"] = Allocation(vip=f"10.96.{number // 250}.{2 + number % 250}")
        state.revisions[f"d{number:015}", "r1"] = template
    apply_watched(state, changes, 1)
    _run_pods(state)
    return state


def _run_pods(state: ClusterState) -> None:
    statuses: dict[str, list[wire.PodStatus]] = {name: [] for name in state.nodes}
    for index in range(SERVICES * REPLICAS):
        pod = PodId(f"d{index // REPLICAS:015}", index % REPLICAS, 1)
        node = f"n{index % NODES}"
        state.put_placement(Placement(pod=pod, node=node, revision="r1", want=Want.RUN, cause=Cause.CREATED))
        address = f"10.42.{index % NODES}.{2 + index // NODES}"
        status = wire.PodStatus(uid=str(pod), state=wire.POD_STATE_RUNNING, ready=True, address=address)
        statuses[node].append(status)
    for node, reported in statuses.items():
        state.apply_full_report(node, reported, 0.0)


def timed(what: str, act: Callable[[], object], times: int = 1) -> None:
    """Print how long one of `times` takes."""
    started_s = time.process_time()
    for _ in range(times):
        act()
    print(f"{what:50} {(time.process_time() - started_s) / times * 1000:10.3f} ms")


async def _at_once() -> None:
    """A leader that is never suspended."""


async def main() -> None:
    """Measure."""
    state = a_state()
    sessions = {name: NodeSession(name, wire.Hello(node=name), EPOCH) for name in state.nodes}
    traffic = Traffic(
        state,
        epoch=EPOCH,
        sessions=sessions,
        node_state=lambda _name: (NodeState.READY, "", ""),
        events=EventLog(lambda: 0.0),
        may_command=_at_once,
        sync=lambda _names: None,
    )
    timed("first look at 2,000 services, 20,000 endpoints", traffic.flush)
    streams = [session.outgoing() for session in sessions.values()]
    whole = [await anext(stream) for stream in streams]
    print(f"{'the whole is':50} {whole[0].ByteSize() / 1e6:10.1f} MB")
    timed("the whole, made", lambda: traffic.ledger._make(0))
    timed("the whole, onto one stream", whole[0].SerializeToString, 10)

    is_ready = True
    serialized = 0

    def change() -> None:
        nonlocal is_ready
        is_ready = not is_ready
        uid = "d000000000000007.0.1"
        placement = state.placements["d000000000000007"][PodId.parse(uid)]
        status = wire.PodStatus(uid=uid, state=wire.POD_STATE_RUNNING, ready=is_ready, address="10.42.0.2")
        state.apply_statuses(placement.node, [status], 0.0)
        traffic.flush()

    async def spread() -> None:
        nonlocal serialized
        for stream in streams:
            serialized += len((await anext(stream)).SerializeToString())

    started_s = time.process_time()
    times = 100
    for _ in range(times):
        change()
        await spread()
    each_ms = (time.process_time() - started_s) / times * 1000
    print(f"{'one change, derived and onto 300 streams':50} {each_ms:10.3f} ms")
    print(f"{'… of which each is':50} {serialized / times / NODES:10.0f} bytes")
    for name in state.nodes:
        state.apply_full_report(name, list(state.nodes[name].statuses.values()), 0.0)
    timed("every node reports in full at once", traffic.flush)
    for session in sessions.values():
        session.proxy = ProxyView(applied=traffic.ledger.version)
    traffic._departures.leave("x.0.1", node="n1", version=1 << 40, drain_s=30, now_s=0.0)  # noqa: SLF001
    timed("one look at all proxies", lambda: traffic._departures.judge(traffic._proxies(), 1.0), 20)  # noqa: SLF001


if __name__ == "__main__":
    print(json.dumps({"services": SERVICES, "endpoints": SERVICES * REPLICAS, "nodes": NODES}))
    asyncio.run(main())
