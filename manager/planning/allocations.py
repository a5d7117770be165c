"""Addresses and published ports of services: who gets which, and keeps it.

Pure, and always of all services together: a clash is seen whole. What a service holds it keeps for its
life, whatever others ask for later, so an edit of one document never takes another's traffic away. Of
new claims on one thing the older document's wins, and the other is told so in words. Ports that nodes
publish are one set, whether as a nodePort, as the port of a LoadBalancer or as an Ingress's 80 and 443:
they are bound at the same addresses.

The search for something free goes on behind what was given last, so that what was given back rests for
as long as the range allows: a client that remembers an old address does not reach another service.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain

from bayplan.model.network import ClusterNetwork
from bayplan.model.services import Allocation, Cursor
from manager.planning.changes import AllocationChange, FreeAllocation, GiveAllocation

# Kubernetes' range.
NODE_PORTS = range(30000, 32768)
# All Ingresses of a cluster share these on every node: the proxy tells them apart by host and path.
INGRESS_PORTS = (80, 443)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortClaim:
    """One port of a service."""

    port: int
    protocol: str = "TCP"
    needs_node_port: bool = False
    node_port: int = 0  # The one that the user wants; 0: any.
    is_published: bool = False  # Under its own number on every node.

    @property
    def key(self) -> str:
        """As in `Allocation.node_ports`."""
        return f"{self.port}/{self.protocol}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one Service or Ingress needs."""

    uid: str
    kind: str
    namespace: str
    name: str
    created_ms: int = 0
    needs_vip: bool = False
    vip: str = ""  # The one that the user wants; empty: any.
    ports: tuple[PortClaim, ...] = ()

    @property
    def words(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


_Port = tuple[int, str]  # A number and a protocol, on every node.


@dataclass(frozen=True, slots=True)
class _Holder:
    """Who holds a port. Equal ones share it."""

    owner: str  # A service's uid; of all Ingresses the same.
    use: str
    words: str = field(compare=False)


@lru_cache(maxsize=1 << 16)  # All services are planned together, and few of them change.
def _number(vip: str) -> int | None:
    try:
        return int(ipaddress.IPv4Address(vip))
    except ValueError:
        return None


@lru_cache(maxsize=1 << 16)
def _text(vip: int) -> str:
    return str(ipaddress.IPv4Address(vip))


class _Ledger:
    """Everything that is given."""

    def __init__(self, network: ClusterNetwork, cursor: Cursor) -> None:
        self.range = ipaddress.IPv4Network(network.service_range)
        # The first names the range, the last is its broadcast address, the second is kept for the cluster's own use.
        self._first, self._last = int(self.range[2]), int(self.range[-2])
        self.vips: dict[int, str] = {}  # Address → words of its service.
        self.ports: dict[_Port, _Holder] = {}
        self.cursor = cursor

    @property
    def size(self) -> int:
        """How many services can have an address."""
        return self._last - self._first + 1

    def number(self, vip: str) -> int | None:
        """An address that can be given, as a number; None for any other."""
        number = _number(vip)
        return number if number is not None and self._first <= number <= self._last else None

    def next_vip(self) -> int | None:
        if len(self.vips) >= self.size:
            return None
        offset = (self.number(self.cursor.vip) or self._first - 1) + 1 - self._first
        while self._first + offset % self.size in self.vips:
            offset += 1
        found = self._first + offset % self.size
        self.cursor = replace(self.cursor, vip=_text(found))
        return found

    def next_node_port(self, protocol: str) -> int | None:
        begin = self.cursor.node_port + 1 if self.cursor.node_port in NODE_PORTS else NODE_PORTS.start
        for port in chain(range(begin, NODE_PORTS.stop), range(NODE_PORTS.start, begin)):
            if (port, protocol) not in self.ports:
                self.cursor = replace(self.cursor, node_port=port)
                return port
        return None

    def take_port(self, port: _Port, holder: _Holder) -> bool:
        """Whether it was free, or is the holder's already."""
        return self.ports.setdefault(port, holder) == holder


class _Draft:
    """What one claim will hold. Steps: `keep`, `take_wanted` until nobody can, `fill`."""

    def __init__(self, claim: Claim, held: Allocation | None, ledger: _Ledger) -> None:
        self._claim = claim
        self._held = held or Allocation()
        self._ledger = ledger
        self._vip: int | None = None
        self._node_ports: dict[str, int] = {}
        self._published: set[str] = set()

    # -- holders -------------------------------------------------------------------------------

    def _node_port_holder(self, port: PortClaim) -> _Holder:
        return _Holder(self._claim.uid, f"nodePort of {port.key}", self._claim.words)

    def _published_holder(self, port: PortClaim) -> _Holder:
        if self._claim.kind == "Ingress":
            return _Holder("Ingress", "", self._claim.words)
        return _Holder(self._claim.uid, f"port {port.key}", self._claim.words)

    # -- steps ---------------------------------------------------------------------------------

    def keep(self) -> None:
        """Hold on to what it has and still needs."""
        claim, held = self._claim, self._held
        if claim.needs_vip and held.vip:
            self._take_vip(held.vip)
        for port in claim.ports:
            number = held.node_ports.get(port.key, 0)
            if port.needs_node_port and number in NODE_PORTS:
                self._take_node_port(port, number)
            if port.is_published and port.key in held.published:
                self._publish(port)

    def take_wanted(self) -> bool:
        """Take what its user asks for by name, in exchange for what it has; whether it got anything."""
        claim = self._claim
        found = bool(claim.needs_vip and claim.vip and self._take_vip(claim.vip))
        for port in claim.ports:
            if port.needs_node_port and port.node_port in NODE_PORTS:
                found = self._take_node_port(port, port.node_port) or found
            if port.is_published and port.key not in self._published:
                found = self._publish(port) or found
        return found

    def fill(self) -> None:
        """Take anything for the rest."""
        claim, ledger = self._claim, self._ledger
        if claim.needs_vip and not claim.vip and self._vip is None:
            self._vip = ledger.next_vip()
            if self._vip is not None:
                ledger.vips[self._vip] = claim.words
        for port in claim.ports:
            if not port.needs_node_port or port.node_port or port.key in self._node_ports:
                continue
            number = ledger.next_node_port(port.protocol)
            if number is not None:
                self._take_node_port(port, number)

    def _take_vip(self, vip: str) -> bool:
        number = self._ledger.number(vip)
        if number is None or number in self._ledger.vips:
            return False
        if self._vip is not None:
            del self._ledger.vips[self._vip]
        self._ledger.vips[number] = self._claim.words
        self._vip = number
        return True

    def _take_node_port(self, port: PortClaim, number: int) -> bool:
        before = self._node_ports.get(port.key, 0)
        if number == before:
            return False
        if not self._ledger.take_port((number, port.protocol), self._node_port_holder(port)):
            return False
        if before:
            del self._ledger.ports[before, port.protocol]
        self._node_ports[port.key] = number
        return True

    def _publish(self, port: PortClaim) -> bool:
        taken = self._ledger.take_port((port.port, port.protocol), self._published_holder(port))
        if taken:
            self._published.add(port.key)
        return taken

    # -- outcome -------------------------------------------------------------------------------

    def allocation(self) -> Allocation:
        return Allocation(
            owner=self._claim.words,
            vip=_text(self._vip) if self._vip is not None else "",
            node_ports=dict(sorted(self._node_ports.items())),
            published=tuple(port.key for port in self._claim.ports if port.key in self._published),
            problem="; ".join(self._problems()),
        )

    def _problems(self) -> Iterator[str]:
        claim, ledger = self._claim, self._ledger
        if claim.needs_vip and (problem := self._vip_problem()):
            keeps = f" (it keeps {_text(self._vip)})" if self._vip is not None else ""
            yield problem + keeps
        for port in claim.ports:
            given = self._node_ports.get(port.key, 0)
            if port.needs_node_port and (not given or given != (port.node_port or given)):
                keeps = f" (it keeps {given})" if given else ""
                yield self._node_port_problem(port) + keeps
            if port.is_published and port.key not in self._published:
                yield f"port {port.key} is published by {ledger.ports[port.port, port.protocol].words} already"

    def _vip_problem(self) -> str:
        claim, ledger = self._claim, self._ledger
        if not claim.vip:
            if self._vip is not None:
                return ""
            return (
                f"the service range {ledger.range} is used up: {ledger.size} services have an address of it."
                " Delete some; a larger --service-range needs a new cluster"
            )
        number = ledger.number(claim.vip)
        if number is None:
            return f"clusterIP {claim.vip} cannot be given: services have {ledger.range[2]} to {ledger.range[-2]}"
        if number == self._vip:
            return ""
        return f"clusterIP {claim.vip} is the address of {ledger.vips[number]} already"

    def _node_port_problem(self, port: PortClaim) -> str:
        numbers = f"{NODE_PORTS.start}-{NODE_PORTS.stop - 1}"
        if not port.node_port:
            return f"no nodePort is free for {port.key}: all of {numbers} are given"
        if port.node_port not in NODE_PORTS:
            return f"nodePort {port.node_port} is none of {numbers}"
        holder = self._ledger.ports[port.node_port, port.protocol]
        return f"nodePort {port.node_port}/{port.protocol} is taken by {holder.words} already"


def plan_allocations(
    network: ClusterNetwork,
    claims: Iterable[Claim],
    held: Mapping[str, Allocation],
    cursor: Cursor,
    *,
    keeps_unknown: bool = False,
) -> list[AllocationChange]:
    """What must change so that every claim has what it can have.

    First come frees, then what gives something back, then the rest: a plan that is cut gives nothing twice.

    Args:
        network: for the range of services.
        claims: of every Service and Ingress.
        held: what is given, by uid.
        cursor: behind which the search begins.
        keeps_unknown: documents cannot be read: nothing is taken from those who are not among the claims.
    """
    in_order = sorted(claims, key=lambda claim: (claim.created_ms, claim.uid))
    ledger = _Ledger(network, cursor)
    known = {claim.uid for claim in in_order}
    gone = {uid: allocation for uid, allocation in held.items() if uid not in known}
    if keeps_unknown:
        for uid, allocation in gone.items():
            _reserve(ledger, uid, allocation)
        gone = {}
    drafts = {claim.uid: _Draft(claim, held.get(claim.uid), ledger) for claim in in_order}
    for draft in drafts.values():
        draft.keep()
    # Whoever exchanges something makes room for another, older or younger.
    while sum(draft.take_wanted() for draft in drafts.values()):
        pass
    for draft in drafts.values():
        draft.fill()
    after = {uid: draft.allocation() for uid, draft in drafts.items()}
    return [*_frees(held, gone, after), *_gives(held, after, ledger.cursor)]


def _is_empty(allocation: Allocation) -> bool:
    return allocation == Allocation(owner=allocation.owner)


def _frees(
    held: Mapping[str, Allocation], gone: Mapping[str, Allocation], after: Mapping[str, Allocation]
) -> Iterator[FreeAllocation]:
    for uid, allocation in gone.items():
        reason = f"it is gone, and gives back {_words(allocation)}"
        yield FreeAllocation(service_uid=uid, allocation=allocation, reason=reason)
    for uid, allocation in after.items():
        if uid in held and _is_empty(allocation):
            reason = f"it needs no address any more, and gives back {_words(held[uid])}"
            yield FreeAllocation(service_uid=uid, allocation=held[uid], reason=reason)


def _gives(
    held: Mapping[str, Allocation], after: Mapping[str, Allocation], cursor: Cursor
) -> list[GiveAllocation]:
    changed = [
        uid for uid, allocation in after.items() if allocation != held.get(uid) and not _is_empty(allocation)
    ]

    def gives_back(uid: str) -> bool:
        return uid in held and not set(_parts(held[uid])) <= set(_parts(after[uid]))

    return [
        GiveAllocation(
            service_uid=uid,
            allocation=after[uid],
            cursor=cursor,
            reason=_reason(held.get(uid, Allocation()), after[uid]),
        )
        for uid in sorted(changed, key=gives_back, reverse=True)
    ]


def _reserve(ledger: _Ledger, uid: str, allocation: Allocation) -> None:
    number = ledger.number(allocation.vip)
    if number is not None:
        ledger.vips[number] = allocation.owner
    is_ingress = allocation.owner.startswith("Ingress ")
    for port in _ports(allocation):
        owner = "Ingress" if is_ingress else uid
        ledger.ports[port] = _Holder(owner, "" if is_ingress else "unreadable", allocation.owner)


def _ports(allocation: Allocation) -> Iterator[_Port]:
    for key, number in allocation.node_ports.items():
        yield number, key.partition("/")[2]
    for key in allocation.published:
        port, _, protocol = key.partition("/")
        yield int(port), protocol


def _parts(allocation: Allocation) -> list[str]:
    """In words, what it is made of."""
    return [
        *([allocation.vip] if allocation.vip else []),
        *(f"nodePort {number} for {key}" for key, number in allocation.node_ports.items()),
        *(f"port {key} of every node" for key in allocation.published),
    ]


def _words(allocation: Allocation) -> str:
    return ", ".join(_parts(allocation)) or "nothing"


def _reason(before: Allocation, after: Allocation) -> str:
    had, has = _parts(before), _parts(after)
    given = ", ".join(part for part in has if part not in had)
    returned = ", ".join(part for part in had if part not in has)
    words = [f"it gets {given}"] if given else []
    words += [f"it gives back {returned}"] if returned else []
    if after.problem != before.problem:
        words.append(after.problem or "nothing is missing any more")
    return "; ".join(words) or "its record was not as a leader writes it"
