"""What the node's name server answers by itself: services, their endpoints, and two ranges of addresses.

Facts alone; what follows from them for a name is decided in `lookup.py`. Kept apart from the leader's
messages (`tables_to_zone.py`), so that the server does without gRPC's and protobuf's memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedPort:
    """A port with a name: without one there is no SRV record."""

    name: str
    protocol: str  # tcp, udp
    port: int  # At the service's own address.


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedEndpoint:
    """A pod that is named, because it is ready or its service names those that are not."""

    address: str
    hostname: str  # Its own, else its address with dashes.
    ports: tuple[int, ...]  # Of the pod, one for each of `ServiceNames.ports`; 0: it has none so named.


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceNames:
    """A service, as far as names go."""

    namespace: str
    name: str
    vip: str = ""  # Empty: headless, or with an external name.
    external_name: str = ""
    ports: tuple[NamedPort, ...] = ()
    # Of one with an address only those with a hostname of their own: others have no name there.
    endpoints: tuple[NamedEndpoint, ...] = ()


@dataclass(frozen=True, kw_only=True)  # Without slots: it remembers what it has once worked out.
class Zone:
    """Never changed: another one takes its place."""

    gateway: IPv4Address  # Where the server listens.
    domain: str
    pod_range: IPv4Network
    service_range: IPv4Network
    services: Mapping[tuple[str, str], ServiceNames]  # By namespace and name.
    is_known: bool = True  # False: no leader has spoken yet, so what is not there may well exist.
    serial: int = 1

    @cached_property
    def namespaces(self) -> frozenset[str]:
        """Those with a service."""
        return frozenset(namespace for namespace, _ in self.services)

    @cached_property
    def names_of_addresses(self) -> Mapping[str, tuple[str, ...]]:
        """Of VIPs and of endpoints of headless services, below `svc.<domain>`. Worked out when it is first asked for."""
        found: dict[str, list[str]] = defaultdict(list)
        for service in self.services.values():
            own = f"{service.name}.{service.namespace}"
            if service.vip:
                found[service.vip].append(own)
                continue
            for endpoint in service.endpoints:
                found[endpoint.address].append(f"{endpoint.hostname}.{own}")
        return {address: tuple(names) for address, names in found.items()}
