"""What agents are to know of the traffic, and since which version: so each is told what it lacks.

Nothing is kept per agent but the version that it was sent. An agent that is a thousand changes behind is
sent their sum, made when its stream has room for it; agents at the same version are sent the same message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bayplan.model.services import INGRESS
from bayplan.v1 import agent_link_pb2 as wire
from manager.dispatcher.traffic_wire import endpoint_of
from manager.planning.endpoints import Endpoint, EndpointSet

# A message may be 16 MiB; the largest thing that goes into one whole is all Ingresses', of some 8 MiB.
PART_BYTES = 4 << 20
# Of one service at a stretch: 130 bytes each, with 250 ports of names as long as can be a little over 1 KiB.
ENDPOINTS_AT_A_STRETCH = 1000
# Who is behind more deletions than these is told everything.
GONE_SERVICES_MAX = 1000
# More ids of gone endpoints than living ones, and so many: the whole set is shorter.
GONE_ENDPOINTS_SPARE = 64
# Of a service that cannot be read: pods beyond these left it so long ago that every agent has heard of it.
KEPT_GONE_MAX = 10_000
# Messages of the present version that are kept for the next agent: most are at the same one before.
_MADE_MAX = 8
# A term has so many versions, and all of them are above those of the terms before: what an agent says of
# an earlier leader's words, while ours are on their way to it, is never taken for an answer to ours.
VERSIONS_PER_TERM = 1 << 24


@dataclass(slots=True)
class _Put:
    endpoint: Endpoint
    message: wire.Endpoint
    version: int


@dataclass(slots=True)
class ToldService:
    """One service as agents are told of it."""

    spec: wire.Service
    spec_version: int
    changed: int = 0
    # Since when the whole set is known, in one piece: who is from before gets it whole. 0: it is not known.
    whole_since: int = 0
    put: dict[str, _Put] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)  # Ids that agents may still have, and must not.

    @property
    def endpoints(self) -> list[Endpoint]:
        """By id."""
        return [self.put[each].endpoint for each in sorted(self.put)]

    def changes(self, key: str, since: int) -> Iterator[wire.EndpointChanges]:
        """What somebody lacks who was told everything up to `since`, in this order."""
        is_full = self.whole_since > since
        put = [each.message for each in self.put.values() if is_full or each.version > since]
        gone = [] if is_full else _after(self.gone, since)
        if is_full or gone:
            head, put = put[:ENDPOINTS_AT_A_STRETCH], put[ENDPOINTS_AT_A_STRETCH:]
            yield wire.EndpointChanges(service=key, full=is_full, put=head, gone=gone)
        for start in range(0, len(put), ENDPOINTS_AT_A_STRETCH):
            yield wire.EndpointChanges(service=key, put=put[start : start + ENDPOINTS_AT_A_STRETCH])


class Ledger:
    """Lives for one term. Changes count once they are sealed."""

    def __init__(self, epoch: wire.Epoch) -> None:
        self._epoch = epoch
        # 0 is of somebody who was told nothing.
        self.version = epoch.revision * VERSIONS_PER_TERM + 1
        # The least recently changed first.
        self.services: dict[str, ToldService] = {}
        self._gone: dict[str, int] = {}
        self._gone_before = 0  # Deletions up to this version are not known any more.
        # Services that nobody here can read, and ids that those who have them must not have any more.
        self._kept: dict[str, dict[str, int]] = {}
        self._ingress = wire.Ingress()
        self._ingress_version = self.version
        self._is_ingress_whole, self._is_ingress_told = True, False
        self._is_changed = False
        self._made: dict[int, list[wire.ManagerMessage]] = {}

    # -- what is so ----------------------------------------------------------------------------

    def put(self, key: str, spec: wire.Service, found: EndpointSet) -> None:
        """Note a service as it is now."""
        new = self.version + 1
        self._kept.pop(key, None)
        told = self.services.get(key)
        if told is None or told.spec.uid != spec.uid:
            told = ToldService(spec, new)
            self._gone.pop(key, None)
            is_changed = True
        else:
            is_changed = told.spec != spec
            if is_changed:
                told.spec, told.spec_version = spec, new
        if _note_endpoints(told, found, new) or is_changed:
            told.changed = new
            # Last of all.
            self.services.pop(key, None)
            self.services[key] = told
            self._is_changed = True

    def drop(self, key: str) -> None:
        """A service is gone."""
        if self.services.pop(key, None) is None and self._kept.pop(key, None) is None:
            return
        self._gone[key] = self.version + 1
        self._is_changed = True
        while len(self._gone) > GONE_SERVICES_MAX:
            oldest = next(iter(self._gone))
            self._gone_before = self._gone.pop(oldest)

    def keep(self, key: str) -> None:
        """Nothing can be said of a service: who has it keeps it. One that was told in this term stays so anyway."""
        if key not in self.services and key not in self._kept:
            self._kept[key] = {}
            self._is_changed = True

    def leave(self, key: str, endpoint: str) -> None:
        """One endpoint less, whatever else a service has: that cannot be worked out now."""
        new = self.version + 1
        told, kept = self.services.get(key), self._kept.get(key)
        if told is not None and told.put.pop(endpoint, None) is not None:
            told.gone[endpoint] = told.changed = new
            self.services[key] = self.services.pop(key)
            self._is_changed = True
        elif kept is not None and endpoint not in kept:
            kept[endpoint] = new
            self._is_changed = True
            if len(kept) > KEPT_GONE_MAX:
                del kept[next(iter(kept))]

    def put_ingress(self, ingress: wire.Ingress, *, is_whole: bool = True) -> None:
        """Note all rules as they are now; if these are not all, who has rules keeps those that it has."""
        self._is_ingress_told = True
        if ingress != self._ingress or is_whole != self._is_ingress_whole:
            self._ingress, self._ingress_version = ingress, self.version + 1
            self._is_ingress_whole = is_whole
            self._is_changed = True

    def keep_ingress(self) -> None:
        """Nothing can be said of the rules: those of this term stay, else those that agents have."""
        if not self._is_ingress_told:
            self.put_ingress(self._ingress, is_whole=False)

    def seal(self) -> bool:
        """Make what was noted one version; whether there was anything."""
        if not self._is_changed:
            return False
        self._is_changed = False
        self.version += 1
        self._made.clear()
        return True

    def unknown(self) -> list[str]:
        """Services whose set is not known yet."""
        return [key for key, told in self.services.items() if not told.whole_since]

    def messages(self, since: int) -> list[wire.ManagerMessage]:
        """All that an agent lacks which was sent everything up to `since`; 0: it was sent nothing.

        The last one bears the present version. They are shared: whoever sends them changes nothing.
        """
        if since == self.version:
            return []
        made = self._made.get(since)
        if made is None:
            while len(self._made) >= _MADE_MAX:
                del self._made[next(iter(self._made))]
            made = self._made[since] = self._make(since)
        return made

    def _make(self, since: int) -> list[wire.ManagerMessage]:
        if since < self._gone_before:
            since = 0
        is_full = since == 0
        parts = _Parts(wire.Traffic(full=is_full, version=since))
        for key, told in reversed(self.services.items()):
            if told.changed <= since:
                break
            if told.spec_version > since:
                parts.with_room(told.spec.ByteSize()).services.append(told.spec)
            for changes in told.changes(key, since):
                parts.with_room(changes.ByteSize()).endpoints.append(changes)
        for changes in self._changes_of_kept(since):
            parts.with_room(changes.ByteSize()).endpoints.append(changes)
        first = parts.all[0]
        if is_full:
            first.keep.extend(self._kept)
        else:
            first.gone.extend(_after(self._gone, since))
        if is_full or self._ingress_version > since:
            parts.with_room(self._ingress.ByteSize()).ingress.CopyFrom(self._ingress)
            first.keep.extend([] if self._is_ingress_whole else [INGRESS])
        # None of it counts before its last part.
        parts.all[-1].version = self.version
        return [wire.ManagerMessage(epoch=self._epoch, traffic=part) for part in parts.all]

    def _changes_of_kept(self, since: int) -> Iterator[wire.EndpointChanges]:
        for key, left in self._kept.items():
            if gone := _after(left, since):
                yield wire.EndpointChanges(service=key, gone=gone)


class _Parts:
    """One message, cut where it would be too large for the wire."""

    def __init__(self, first: wire.Traffic) -> None:
        self.all = [first]
        self._bytes = 0

    def with_room(self, size_bytes: int) -> wire.Traffic:
        """The part to put so much into."""
        if self._bytes and self._bytes + size_bytes > PART_BYTES:
            self.all[-1].more = True
            self.all.append(wire.Traffic(version=self.all[0].version))
            self._bytes = 0
        self._bytes += size_bytes
        return self.all[-1]


def _after(versions: Mapping[str, int], since: int) -> list[str]:
    return [each for each, version in versions.items() if version > since]


def _note_endpoints(told: ToldService, found: EndpointSet, new: int) -> bool:
    """Fold in what is known of a set; whether anything is new."""
    is_changed = False
    for endpoint in found.endpoints:
        known = told.put.get(endpoint.id)
        if known is None or known.endpoint != endpoint:
            told.put[endpoint.id] = _Put(endpoint, endpoint_of(endpoint), new)
            told.gone.pop(endpoint.id, None)
            is_changed = True
    kept = {endpoint.id for endpoint in found.endpoints}.union(found.unknown)
    # Of a set that is not known yet agents may have from the last leader what is none any more.
    unheard = () if told.whole_since else [each for each in found.absent if each not in told.gone]
    for gone in [*(each for each in told.put if each not in kept), *unheard]:
        told.put.pop(gone, None)
        told.gone[gone] = new
        is_changed = True
    is_long = len(told.gone) > len(told.put) + GONE_ENDPOINTS_SPARE
    if (found.is_whole and not told.whole_since) or (told.whole_since and is_long):
        told.whole_since = new
        told.gone.clear()
        is_changed = True
    return is_changed
