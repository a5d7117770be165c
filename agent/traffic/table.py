"""What the leader says of services and their endpoints, folded together. Pure but for `load` and `save`.

The proxy, the name server, the firewall and pods' environments are made from this one table. Kept on
disk, certificates' keys apart, so that a host that reboots with no manager in reach serves all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bayplan.identity.credentials import write_private
from bayplan.model.services import INGRESS
from bayplan.v1 import agent_link_pb2 as pb

FILE_NAME = "traffic.pb"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficTable:
    """By "namespace/name". Mappings are replaced, never changed: an unchanged one is the same object."""

    version: int = 0  # The leader's; 0: of no leader that is connected.
    services: Mapping[str, pb.Service] = field(default_factory=dict)
    endpoints: Mapping[str, Mapping[str, pb.Endpoint]] = field(default_factory=dict)  # By id within.
    ingress: pb.Ingress = field(default_factory=pb.Ingress)
    begun: tuple[pb.Traffic, ...] = ()  # Parts of a message whose last part is not there yet.

    def fold(self, message: pb.Traffic) -> TrafficTable:
        """The table after `message`; the same as before while more of it follows."""
        if message.more:
            return replace(self, begun=(*self.begun, message))
        message = joined(*self.begun, message)
        services, kept = dict(self.services), frozenset(message.keep)
        if message.full:
            services = {key: known for key, known in services.items() if key in kept}
        for key in message.gone:
            services.pop(key, None)
        for service in message.services:
            services[key_of(service)] = service
        endpoints = {key: known for key, known in self.endpoints.items() if key in services}
        for changes in message.endpoints:
            if changes.service not in services:
                continue
            known = {} if changes.full else dict(endpoints.get(changes.service, {}))
            for gone in changes.gone:
                known.pop(gone, None)
            known.update((endpoint.id, endpoint) for endpoint in changes.put)
            endpoints[changes.service] = known
        is_kept = INGRESS in kept and bool(self.ingress.ports)
        is_new = (message.full or message.HasField("ingress")) and not is_kept
        return TrafficTable(
            version=message.version,
            services=services,
            endpoints=endpoints,
            ingress=message.ingress if is_new else self.ingress,
        )

    def to_message(self) -> pb.Traffic:
        """The whole as one message, without keys."""
        ingress = pb.Ingress()
        ingress.CopyFrom(self.ingress)
        del ingress.certificates[:]
        return pb.Traffic(
            full=True,
            services=self.services.values(),
            endpoints=[
                pb.EndpointChanges(service=key, full=True, put=known.values())
                for key, known in self.endpoints.items()
            ],
            ingress=ingress,
        )


def joined(*parts: pb.Traffic) -> pb.Traffic:
    """The message that was sent in these parts."""
    if len(parts) == 1:
        return parts[0]
    whole = pb.Traffic()
    for part in parts:
        whole.MergeFrom(part)
    whole.more = False
    return whole


def key_of(service: pb.Service) -> str:
    """How a service is called here: `namespace/name`."""
    return f"{service.namespace}/{service.name}"


def load(directory: Path) -> TrafficTable:
    """As it was saved; an empty one where nothing was, or nothing readable."""
    try:
        return TrafficTable().fold(pb.Traffic.FromString((directory / FILE_NAME).read_bytes()))
    except (OSError, ValueError):  # DecodeError is a ValueError.
        return TrafficTable()


def save(table: TrafficTable, directory: Path) -> None:
    """Raises OSError."""
    write_private(directory / FILE_NAME, table.to_message().SerializeToString())
