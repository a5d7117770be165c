"""What addresses, host names and paths may look like.

They end up in a proxy's configuration and maps, in a DNS zone, and on the first lines of HTTP requests.
So each is an allow-list that has no character with a meaning there: no space, quote, backslash, '#', '$',
'%' or line end, and nothing beyond ASCII.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, Strict

from bayplan.resources.problems import quote

_HOST_MAX = 253  # RFC 1035, without the dot at the end.
_PATH_MAX = 1024

_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_DIGITS_AND_DOTS = re.compile(r"[0-9.]+")
_ROUTE_PATH = re.compile(r"/[-A-Za-z0-9._~:@+=,/]*")
_REQUEST_PATH = re.compile(r"/[!-~]*")
# RFC 9110, 5.6.2 and 5.5; a value's blanks are inside it, never at its ends.
_HEADER_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]{1,256}")
_HEADER_VALUE = re.compile(r"(?:[!-~](?:[ !-~]{0,4094}[!-~])?)?")


def address_of(value: str) -> str:
    """An IPv4 address of one host, checked. Raises ValueError."""
    try:
        address = ipaddress.IPv4Address(value)
    except ValueError:
        hint = "IPv6 is not supported" if ":" in value else "write it like 10.0.0.5"
        raise ValueError(f"{quote(value)} is not an IPv4 address: {hint}") from None
    if (
        address.is_unspecified
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address == ipaddress.IPv4Address("255.255.255.255")
    ):
        # On each node it would mean something else: the node itself, or its cloud's metadata service.
        raise ValueError(f"{quote(value)} is not the address of one host in the network")
    return str(address)


def _is_host(value: str) -> bool:
    return len(value) <= _HOST_MAX and _HOST.fullmatch(value) is not None


def _host(value: str) -> str:
    name = value.removesuffix(".")
    if _DIGITS_AND_DOTS.fullmatch(name):
        raise ValueError(f"{quote(value)} is not a host's name: an address is none")
    if not _is_host(name):
        raise ValueError(
            f"{quote(value)} is not a host's name: labels of lower case letters, digits and '-', with dots between them"
        )
    return name


def _host_pattern(value: str) -> str:
    if "*" not in value:
        return _host(value)
    if not value.startswith("*.") or "*" in value[1:]:
        raise ValueError(f"{quote(value)} is not a pattern of hosts: a * is the whole of the first label")
    return f"*.{_host(value[2:])}"


def _probed_host(value: str) -> str:
    if not _is_host(value.lower()):
        raise ValueError(f"{quote(value)} is neither a host's name nor an IPv4 address")
    return value


def _route_path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"{quote(value)} must begin with /")
    if len(value) > _PATH_MAX:
        raise ValueError(f"has more than {_PATH_MAX} characters")
    if not _ROUTE_PATH.fullmatch(value):
        raise ValueError(
            f"{quote(value)} is not a plain path: letters, digits and -._~:@+=,/ (regular expressions are not supported)"
        )
    if any(step in {"", ".", ".."} for step in value[1:].removesuffix("/").split("/")) and value != "/":
        raise ValueError(f"{quote(value)} must not have //, /./ or /../ in it")
    return value


def _request_path(value: str) -> str:
    # As Kubernetes does: many manifests leave the slash out.
    path = value if value.startswith("/") else f"/{value}"
    if len(path) > _PATH_MAX:
        raise ValueError(f"has more than {_PATH_MAX} characters")
    if not _REQUEST_PATH.fullmatch(path):
        raise ValueError(
            f"{quote(value)} is not the path of a URL: write spaces and letters beyond ASCII as %20"
        )
    return path


def _header_name(value: str) -> str:
    if not _HEADER_NAME.fullmatch(value):
        raise ValueError(f"{quote(value)} is not the name of a header")
    return value


def _header_value(value: str) -> str:
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError(f"{quote(value)} is not a header's value: printable ASCII, at most 4096 characters")
    return value


Address = Annotated[str, Strict(), AfterValidator(address_of)]
HostName = Annotated[str, Strict(), AfterValidator(_host)]
HostPattern = Annotated[str, Strict(), AfterValidator(_host_pattern)]
ProbedHost = Annotated[str, Strict(), AfterValidator(_probed_host)]
HostPatternOrNone = Annotated[str, Strict(), AfterValidator(lambda host: host and _host_pattern(host))]
RoutePath = Annotated[str, Strict(), AfterValidator(_route_path)]
RequestPath = Annotated[str, Strict(), AfterValidator(_request_path)]
HeaderName = Annotated[str, Strict(), AfterValidator(_header_name)]
HeaderValue = Annotated[str, Strict(), AfterValidator(_header_value)]
