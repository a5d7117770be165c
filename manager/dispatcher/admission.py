"""Who may come in, what is written down of them, and which part of the pod range they get.

An agent is refused in words when its name, version, cluster or addresses do not fit, when another agent
of its name is connected, or when no part is left. One that remembers more than the store does is let in: it
proves that the store is from the past.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence

import bayplan
from bayplan.model.names import is_name
from bayplan.model.nodes import PODS_PER_NODE, Amounts, NodeFacts
from bayplan.v1 import agent_link_pb2 as wire
from manager.cluster_state import ClusterState
from manager.dispatcher.session import NodeSession
from manager.events import EventLog
from manager.history import History
from manager.planning.subnets import first_address, is_part, next_part, part_with, parts, pods_per_part
from manager.store import keys, records
from manager.store.port import Operation, Put

# Of one host; each published port is bound at each of them.
PUBLISH_ADDRESSES_MAX = 8
# 32 bytes as base64.
_WIREGUARD_KEY = re.compile(r"[A-Za-z0-9+/]{43}=")

# As resolvers take them; underscores are no host's by the book, but are found.
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_DIGITS_AND_DOTS = re.compile(r"[0-9.]+")
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


class NoSubnetError(LookupError):
    """Every part of the pod range is some node's."""


class Admission:
    """Judges each Hello against the cluster state and the leader's history; registers nodes.

    Args:
        write: commits operations as the leader; returns the store's revision.
        mark: marks workloads dirty by uid, "*" for all.
        history: what was committed, up to now.
    """

    def __init__(
        self,
        state: ClusterState,
        *,
        epoch: wire.Epoch,
        events: EventLog,
        heartbeat_s: float,
        write: Callable[[Sequence[Operation]], Awaitable[int]],
        mark: Callable[[Iterable[str]], None],
        history: Callable[[], History],
        wall_s: Callable[[], float],
    ) -> None:
        self._state = state
        self._epoch = epoch
        self._events = events
        self._heartbeat_s = heartbeat_s
        self._write = write
        self._mark = mark
        self._history = history
        self._wall_s = wall_s

    def refusal(self, hello: wire.Hello, *, is_held: bool) -> wire.Refusal | None:
        """Why this agent cannot belong here; None if it can. `is_held`: the store is from the past."""
        if not is_name(hello.node):
            return wire.Refusal(
                reason=f"{hello.node[:80]!r} is no node name: lower case letters, digits and '-', at most 63",
                final=True,
            )
        skew = version_skew(hello.version, bayplan.__version__)
        if skew:
            return wire.Refusal(reason=skew, final=True)
        is_foreign = hello.cluster not in ("", self._state.meta.cluster_id)
        # An empty store that an agent of another cluster finds may be a wiped one: `past_reason`
        # tells. With nodes of its own it is simply another cluster.
        if is_foreign and self._state.nodes and not is_held:
            return wire.Refusal(
                reason=f"node {hello.node} belongs to cluster {hello.cluster}, this is"
                f" {self._state.meta.cluster_id}; empty its data directory to let it join here",
                final=True,
            )
        wrong = _wrong_with_network(hello)
        return wire.Refusal(reason=f"node {hello.node} {wrong}", final=True) if wrong else None

    def duplicate(self, hello: wire.Hello, before: NodeSession | None) -> wire.Refusal | None:
        """Why it may not take the place of the session of its name, if another agent holds that."""
        if before is None or before.hello.session == hello.session or before.is_closed:
            return None
        silence_s = asyncio.get_running_loop().time() - before.last_heard_s
        if silence_s > 2 * self._heartbeat_s:
            return None
        return wire.Refusal(
            reason=f"another agent is connected as node {hello.node} (from {before.hello.address});"
            " give each host its own --node name",
            final=False,
        )

    def past_reason(self, hello: wire.Hello) -> str:
        """Why the store must be older than what this agent remembers; empty if it need not be."""
        known = hello.highest_epoch
        if not known.store or known.store in self._state.meta.accepted:
            return ""
        if known.store != self._epoch.store:
            return f"node {hello.node} obeyed store {known.store}, this is store {self._epoch.store}"
        lacking = self._history().lacks(known.revision, hello.commit_sequence)
        if lacking:
            return f"node {hello.node} was told of {lacking}"
        return ""

    async def register(self, hello: wire.Hello, pods: Iterable[wire.PodStatus] = ()) -> None:
        """Write down what a node is, if that is news. Raises NoSubnetError.

        `pods` run on it already, although the store may know nothing of them: they keep their addresses.
        """
        entry = self._state.nodes.get(hello.node)
        subnet = self._subnet(hello.node, pods)
        facts = NodeFacts(
            name=hello.node,
            number=entry.facts.number if entry else self._free_number(),
            joined_ms=entry.facts.joined_ms if entry else int(self._wall_s() * 1000),
            capacity=Amounts(
                cpu_millis=hello.capacity.cpu_millis,
                memory_bytes=hello.capacity.memory_bytes,
                pods=min(hello.capacity.pods or PODS_PER_NODE, pods_per_part(self._state.network)),
            ),
            labels={
                **hello.labels,
                "kubernetes.io/os": hello.os or "linux",
                "kubernetes.io/arch": hello.arch,
                "kubernetes.io/hostname": hello.node,
            },
            address=hello.address,
            witness_port=hello.witness_port,
            boot_id=hello.boot_id,
            version=hello.version,
            engine=hello.engine,
            subnet=subnet,
            publish_addresses=tuple(dict.fromkeys(hello.publish_addresses)),
            wireguard_key=hello.wireguard_key,
        )
        if entry is not None and entry.facts == facts:
            return
        key, value = keys.node(facts.name), records.encode_node(facts)
        revision = await self._write([Put(key=key, value=value)])
        self._state.put_node(facts)
        self._state.key_revisions[key] = revision
        self._mark(["*"])
        if entry is None:
            self._events.add("NodeJoined", f"{hello.engine}, {hello.address}", obj=f"Node/{facts.name}")

    def _subnet(self, node: str, pods: Iterable[wire.PodStatus]) -> str:
        """The part that its pods' addresses are of, else the one it has, else a free one."""
        network, taken = self._state.network, self._state.subnets
        entry = self._state.nodes.get(node)
        known = [part_with(network, pod.address) for pod in pods if pod.address]
        if entry is not None and is_part(network, entry.facts.subnet):
            known.append(entry.facts.subnet)
        for subnet in known:
            first = first_address(subnet)
            if first is not None and taken.get(first, node) == node:
                return subnet
        found = next_part(network, taken)
        if found is None:
            raise NoSubnetError(
                f"node {node} gets no addresses for pods: {network.pod_range} is for {parts(network)} nodes,"
                " and all of it is given. Remove nodes that are gone: bay node remove NODE;"
                " a larger --pod-range needs a new cluster"
            )
        return found

    def _free_number(self) -> int:
        # Never one that a placement may still name: a node is removed after its placements.
        return 1 + max((entry.facts.number for entry in self._state.nodes.values()), default=0)


def _wrong_with_network(hello: wire.Hello) -> str:
    """Why its addresses or its key cannot be right; empty if they can. Every other node is told of them."""
    if not _leads_to_a_host(hello.address):
        return f"advertises {hello.address[:80]!r}, which is neither an IPv4 address nor the name of a host"
    if len(hello.publish_addresses) > PUBLISH_ADDRESSES_MAX:
        return f"publishes at {len(hello.publish_addresses)} addresses: at most {PUBLISH_ADDRESSES_MAX}"
    for address in hello.publish_addresses:
        if not _is_of_a_host(address):
            return f"publishes at {address[:80]!r}, which is no IPv4 address of a host"
    if hello.wireguard_key and not _WIREGUARD_KEY.fullmatch(hello.wireguard_key):
        return "has a WireGuard key that is none"
    return ""


def _leads_to_a_host(address: str) -> bool:
    # Loopback too: a cluster may be one host.
    if _is_of_a_host(address):
        return True
    return _HOST_NAME.fullmatch(address) is not None and not _DIGITS_AND_DOTS.fullmatch(address)


def _is_of_a_host(address: str) -> bool:
    try:
        found = ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return not (found.is_unspecified or found.is_multicast or found == _BROADCAST)


def version_skew(agent: str, manager: str) -> str:
    """Why these versions may not work together; empty if they may: at most one minor version apart."""
    try:
        agent_major, agent_minor = (int(part) for part in agent.split(".")[:2])
    except ValueError:
        return f"{agent[:40]!r} is no version of an agent"
    manager_major, manager_minor = (int(part) for part in manager.split(".")[:2])
    if agent_major == manager_major and abs(agent_minor - manager_minor) <= 1:
        return ""
    return f"agent {agent} and manager {manager} are more than one minor version apart; upgrade the older one"
