"""Endpoints: addresses of a service without selector, written by hand.

For what runs outside of the cluster: a database on a host of its own gets a name and an address as any service
has. Where a service has a selector, its pods are the endpoints, and such a document means nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bayplan.resources.addresses import Address
from bayplan.resources.metadata import Document, Metadata
from bayplan.resources.model import Part
from bayplan.resources.problems import Problem
from bayplan.resources.service import PORTS_MAX, PortNumber, ServicePort
from bayplan.resources.syntax import LabelKey, Name

IGNORED = "means nothing: the service has a selector, so its pods are its endpoints"
"""The warning about Endpoints of a service with a selector, whichever of the two comes later."""


class EndpointAddress(Part):
    """Where one endpoint is."""

    harmless: ClassVar[Mapping[str, str]] = {
        "nodeName": "what is written by hand is taken to be outside of the cluster",
        "targetRef": "it is for those who read, and says nothing to the cluster",
    }

    ip: Address
    hostname: Name | None = None  # <hostname>.<service>... in DNS.


class EndpointPort(Part):
    """A port at all of the addresses."""

    port: PortNumber
    protocol: Literal["TCP", "UDP"] = "TCP"
    name: Name | None = None  # As the service's port is named.
    app_protocol: LabelKey | None = None  # The service's own counts.


class EndpointSubset(Part):
    """Addresses that have the same ports."""

    addresses: tuple[EndpointAddress, ...] = ()
    not_ready_addresses: tuple[EndpointAddress, ...] = ()
    ports: Annotated[tuple[EndpointPort, ...], Field(min_length=1, max_length=PORTS_MAX)]

    def problems(self) -> Iterator[Problem]:
        if not self.addresses and not self.not_ready_addresses:
            yield Problem((), "needs addresses or notReadyAddresses")
        names: dict[str | None, int] = {}
        for index, port in enumerate(self.ports):
            if port.name is None and len(self.ports) > 1:
                yield Problem(("ports", index), "needs a name where there are several ports")
            elif names.setdefault(port.name, index) != index:
                yield Problem(("ports", index, "name"), f"is the name of ports[{names[port.name]}] too")


@dataclass(frozen=True, slots=True, kw_only=True)
class HandWritten:
    """One address with what it offers of a service's ports."""

    address: str
    hostname: str  # Empty: none.
    is_ready: bool
    ports: tuple[int, ...]  # One for each of the service's ports; 0: it has none so named.


class Endpoints(Document):
    """The addresses of the service of the same name."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["Endpoints"] = "Endpoints"
    metadata: Metadata
    subsets: tuple[EndpointSubset, ...] = ()

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        first: dict[tuple[str, str | None, str], str] = {}
        ready: dict[str, bool] = {}
        for loc, address, is_ready, subset in self._addresses():
            place = f"{loc[0]}[{loc[1]}].{loc[2]}[{loc[3]}]"
            if ready.setdefault(address.ip, is_ready) != is_ready:
                # Of one address a proxy keeps one state.
                yield Problem((*loc, "ip"), "is both ready and not ready")
            for port in subset.ports:
                earlier = first.setdefault((address.ip, port.name, port.protocol), place)
                if earlier != place:
                    yield Problem((*loc, "ip"), f"is in {earlier} already, with a port of the same name")

    def at(self, ports: Sequence[ServicePort]) -> tuple[HandWritten, ...]:
        """Each address once, with its ports in the order of the service's `ports`, which they fit by name."""
        found: dict[str, HandWritten] = {}
        for _, address, is_ready, subset in self._addresses():
            earlier = found.get(address.ip)
            own = tuple(_fitting(port, subset.ports) for port in ports)
            if earlier is not None:
                own = tuple(old or new for old, new in zip(earlier.ports, own, strict=True))
            hostname = address.hostname or (earlier.hostname if earlier is not None else "")
            found[address.ip] = HandWritten(
                address=address.ip, hostname=hostname, is_ready=is_ready, ports=own
            )
        return tuple(found.values())

    def _addresses(self) -> Iterator[tuple[tuple[str, int, str, int], EndpointAddress, bool, EndpointSubset]]:
        for number, subset in enumerate(self.subsets):
            for index, address in enumerate(subset.addresses):
                yield ("subsets", number, "addresses", index), address, True, subset
            for index, address in enumerate(subset.not_ready_addresses):
                yield ("subsets", number, "notReadyAddresses", index), address, False, subset


def _fitting(wanted: ServicePort, ports: Iterable[EndpointPort]) -> int:
    return next(
        (port.port for port in ports if (port.name, port.protocol) == (wanted.name, wanted.protocol)), 0
    )
