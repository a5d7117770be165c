"""Ingress rules as two maps that HAProxy looks up by host and path. Pure.

A rule's host is asked for by what it says exactly, then by its wildcard, then rules of any host; within
a host an exact path wins, then the longest prefix by path elements: `/foo` is `/foo/…` and never
`/foobar`. So a prefix is kept with a slash at its end, and looked up with one added to the request's
path. HAProxy's `map_beg` finds the longest prefix (it keeps them in a tree).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.traffic.haproxy_words import is_host, is_path, word
from bayplan.v1 import agent_link_pb2 as pb

EXACT_FILE = "ingress-exact.map"
PREFIX_FILE = "ingress-prefix.map"
# No backend is called so: a rule whose service is not there answers 503, and hides no longer rule.
MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressMaps:
    """Keys are host and path in one."""

    exact: Mapping[str, str]
    prefix: Mapping[str, str]


def ingress_maps(ingress: pb.Ingress, backend_of: Callable[[str, int], str]) -> IngressMaps:
    """The maps; `backend_of` gives the backend of a service's port, or nothing."""
    exact: dict[str, str] = {}
    prefix: dict[str, str] = {}
    for rule in ingress.rules:
        host = rule.host.lower()
        if not is_host(host) or not is_path(rule.path or "/"):
            continue
        backend = backend_of(rule.service, rule.port) or MISSING
        if rule.exact:
            exact.setdefault(f"{host}{rule.path}", backend)
        else:
            # Kubernetes takes the slash at a prefix's end for nothing.
            prefix.setdefault(f"{host}{rule.path.rstrip('/')}/", backend)
    return IngressMaps(exact=exact, prefix=prefix)


def map_text(entries: Mapping[str, str]) -> str:
    """A map file."""
    return "".join(f"{key} {word(value)}\n" for key, value in sorted(entries.items()))


def lookup_lines(directory: str) -> list[str]:
    """What finds a request's backend, and answers where there is none. Keeps it in txn.to."""
    lines = [
        "http-request set-var(txn.host) req.hdr(host),field(1,:),lower",
        "http-request set-var(txn.any_label) var(txn.host),regsub(^[^.]*,*)",
        "http-request set-var(txn.path) path",
        "http-request set-var(txn.elements) path,concat(/)",
    ]
    absent = "unless { var(txn.to) -m found }"
    for host in ("var(txn.host)", "var(txn.any_label)", "str()"):
        for path, lookup in (
            ("txn.path", f"map_str({directory}/{EXACT_FILE})"),
            ("txn.elements", f"map_beg({directory}/{PREFIX_FILE})"),
        ):
            lines.append(f"http-request set-var(txn.to) {host},concat(,{path}),{lookup} {absent}")
    lines.append(
        f'http-request return status 404 content-type text/plain string "No rule leads from here.\\n" {absent}'
    )
    lines.append("use_backend %[var(txn.to)]")
    return lines
