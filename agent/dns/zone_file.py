"""The file by which the agent tells the name server what to answer.

A line of JSON for the node, then one for each service: so the agent writes anew, and the server reads
anew, only the services that changed. The file is replaced as a whole, so a reader never sees half of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from agent.dns.zone import NamedEndpoint, NamedPort, ServiceNames, Zone

FILE_NAME = "zone.jsonl"
FORMAT = 1


class DamagedZoneError(Exception):
    """The file cannot be used. The text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The first line."""

    gateway: str
    domain: str
    pod_range: str
    service_range: str
    is_known: bool


def head_line(head: Head) -> str:
    """The line that says it."""
    return _compact(
        {
            "format": FORMAT,
            "gateway": head.gateway,
            "domain": head.domain,
            "pod_range": head.pod_range,
            "service_range": head.service_range,
            "is_known": head.is_known,
        }
    )


def service_line(service: ServiceNames) -> str:
    """The line that says it."""
    return _compact(
        {
            "namespace": service.namespace,
            "name": service.name,
            "vip": service.vip,
            "external_name": service.external_name,
            "ports": [[port.name, port.protocol, port.port] for port in service.ports],
            "endpoints": [[each.address, each.hostname, *each.ports] for each in service.endpoints],
        }
    )


def write_zone(path: Path, lines: Iterable[str]) -> None:
    """Replace the file. Raises OSError.

    Everybody may read it: names are no secret to who can ask for them, and the server need not be root.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    temporary.replace(path)


class ZoneFile:
    """Reads it when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._services: dict[str, ServiceNames] = {}  # By line.

    def read(self) -> Zone | None:
        """The zone, if there is a file and it is not the one that was read last.

        Raises DamagedZoneError, once for each such file.
        """
        try:
            facts = self._path.stat()
            seen = (facts.st_mtime_ns, facts.st_ino, facts.st_size)
            if seen == self._seen:
                return None
            text = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DamagedZoneError(f"{self._path}: {error.strerror}") from error
        self._seen = seen
        try:
            return self._zone(text.decode(), serial=int(facts.st_mtime))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DamagedZoneError(f"{self._path} is damaged: {type(error).__name__} {error}") from error

    def _zone(self, text: str, *, serial: int) -> Zone:
        first, _, rest = text.partition("\n")
        head = json.loads(first)
        if head["format"] != FORMAT:
            raise ValueError(f"format {head['format']!r}, not {FORMAT}")
        known = self._services
        services = {line: known.get(line) or _service(json.loads(line)) for line in rest.splitlines()}
        self._services = services
        return Zone(
            gateway=IPv4Address(head["gateway"]),
            domain=str(head["domain"]),
            pod_range=IPv4Network(head["pod_range"]),
            service_range=IPv4Network(head["service_range"]),
            is_known=bool(head["is_known"]),
            services={(service.namespace, service.name): service for service in services.values()},
            # A serial has 32 bits.
            serial=serial & 0xFFFFFFFF,
        )


def _service(facts: dict[str, Any]) -> ServiceNames:
    return ServiceNames(
        namespace=str(facts["namespace"]),
        name=str(facts["name"]),
        vip=_address(facts["vip"]) if facts["vip"] else "",
        external_name=str(facts["external_name"]),
        ports=tuple(
            NamedPort(name=str(name), protocol=str(protocol), port=int(port))
            for name, protocol, port in facts["ports"]
        ),
        endpoints=tuple(
            NamedEndpoint(
                address=_address(address), hostname=str(hostname), ports=tuple(int(each) for each in ports)
            )
            for address, hostname, *ports in facts["endpoints"]
        ),
    )


def _address(text: str) -> str:
    return str(IPv4Address(text))


def _compact(facts: dict[str, Any]) -> str:
    return json.dumps(facts, separators=(",", ":"))
