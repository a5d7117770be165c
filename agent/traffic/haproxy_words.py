"""What may stand in HAProxy's configuration, its maps and its commands. The border to what users write.

Managers have refused such names long before. Here they are refused once more, because one newline in a
name would be a line of configuration: what is not on the list is left out and said, and `word` asserts
that nothing came past.
"""

from __future__ import annotations

import ipaddress
import re

from bayplan.model.names import is_name
from bayplan.v1 import agent_link_pb2 as pb

PORT_MAX = 65535
WEIGHT_MAX = 256
# Paths on a unix socket end at 108 characters; a name that long is nobody's.
_ENDPOINT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_HOST = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*")
# RFC 3986's characters of a path. None of them ends a key of a map.
_PATH = re.compile(r"/[A-Za-z0-9/._~!$&'()*+,;=:@%-]*")
_WORD = re.compile(r"[A-Za-z0-9._:/-]+")
HOST_CHARACTERS_MAX = 253
PATH_CHARACTERS_MAX = 1024


def word(text: str) -> str:
    """`text` itself, which is one word of plain characters, or there is a bug before this."""
    assert _WORD.fullmatch(text), f"{text!r} may not stand in a configuration"
    return text


def is_address(text: str) -> bool:
    """Of either version, and without a zone."""
    try:
        return "%" not in text and bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def is_port(number: int) -> bool:
    """Of TCP."""
    return 0 < number <= PORT_MAX


def is_endpoint(endpoint: pb.Endpoint) -> bool:
    """Its ports are looked at one by one: an endpoint need not have all of a service's."""
    return _ENDPOINT_ID.fullmatch(endpoint.id) is not None and is_address(endpoint.address)


def is_host(text: str) -> bool:
    """Empty: any."""
    return not text or (len(text) <= HOST_CHARACTERS_MAX and _HOST.fullmatch(text) is not None)


def is_path(text: str) -> bool:
    """Of a request, and without a query."""
    return len(text) <= PATH_CHARACTERS_MAX and _PATH.fullmatch(text) is not None


def fault_of(key: str, service: pb.Service) -> str:
    """Why this service cannot be rendered; empty: it can."""
    if not (is_name(service.namespace) and is_name(service.name)):
        return f"{key!r} is no name of a service"
    if service.vip and not is_address(service.vip):
        return f"{service.vip!r} is no address"
    for port in service.ports:
        if not is_port(port.port) or port.node_port > PORT_MAX:
            return f"{port.port}/{port.node_port} is no port"
    return ""
