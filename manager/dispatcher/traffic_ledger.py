"""What agents are to know of the traffic, and since which version: so each is told what it lacks.

Nothing is kept per agent but the version that it was sent. An agent that is a thousand changes behind is
sent their sum, made when its stream has room for it; agents at the same version are sent the same message.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bayplan.v1 import agent_link_pb2 as wire
from manager.dispatcher.traffic_wire import endpoint_of
from manager.planning.endpoints import Endpoint, EndpointSet

# Some 130 bytes each; a message may be 16 MiB.
ENDPOINTS_PER_MESSAGE = 20_000
# Who is behind more deletions than these is told everything.
GONE_SERVICES_MAX = 1000
# More ids of gone endpoints than living ones, and so many: the whole set is shorter.
GONE_ENDPOINTS_SPARE = 64
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

    def changes(self, key: str, since: int) -> wire.EndpointChanges | None:
        """What somebody lacks who was told everything up to `since`; None: nothing."""
        if self.whole_since > since:
            return wire.EndpointChanges(
                service=key, full=True, put=[each.message for each in self.put.values()]
            )
        put = [each.message for each in self.put.values() if each.version > since]
        gone = [each for each, version in self.gone.items() if version > since]
        return wire.EndpointChanges(service=key, put=put, gone=gone) if put or gone else None


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
        self._ingress = wire.Ingress()
        self._ingress_version = self.version
        self._is_changed = False
        self._made: dict[int, list[wire.ManagerMessage]] = {}

    # -- what is so ----------------------------------------------------------------------------

    def put(self, key: str, spec: wire.Service, found: EndpointSet) -> None:
        """Note a service as it is now."""
        new = self.version + 1
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
        if self.services.pop(key, None) is None:
            return
        self._gone[key] = self.version + 1
        self._is_changed = True
        while len(self._gone) > GONE_SERVICES_MAX:
            oldest = next(iter(self._gone))
            self._gone_before = self._gone.pop(oldest)

    def put_ingress(self, ingress: wire.Ingress) -> None:
        """Note all rules as they are now."""
        if ingress != self._ingress:
            self._ingress, self._ingress_version = ingress, self.version + 1
            self._is_changed = True

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
        traffic = wire.Traffic(full=is_full, version=since)
        parts = [traffic]
        room = ENDPOINTS_PER_MESSAGE
        for key, told in reversed(self.services.items()):
            if told.changed <= since:
                break
            if told.spec_version > since:
                # Every service before any endpoint that does not fit: an agent knows no set without its service.
                parts[0].services.append(told.spec)
            changes = told.changes(key, since)
            if changes is None:
                continue
            room -= len(changes.put) + len(changes.gone)
            if room < 0 and traffic.endpoints:
                traffic = wire.Traffic(version=since)
                parts.append(traffic)
                room = ENDPOINTS_PER_MESSAGE - len(changes.put) - len(changes.gone)
            traffic.endpoints.append(changes)
        if not is_full:
            parts[0].gone.extend(key for key, version in self._gone.items() if version > since)
        if is_full or self._ingress_version > since:
            parts[0].ingress.CopyFrom(self._ingress)
        # Before its last part nobody has applied anything.
        parts[-1].version = self.version
        return [wire.ManagerMessage(epoch=self._epoch, traffic=part) for part in parts]


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
