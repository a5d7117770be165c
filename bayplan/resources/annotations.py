"""Annotations of ours: which there are, where they belong, and what they may hold.

Kubernetes takes any annotation. One below bayplan.io/ that nobody knows is a typing error or stands in the
wrong place, and the wish in it would be dropped in silence: it is refused.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from bayplan.resources.problems import Problem, quote
from bayplan.resources.quantity import parse_cpu_millis

PREFIX = "bayplan.io/"

# Of a Service.
BALANCE = "bayplan.io/balance"
PROTOCOL = "bayplan.io/protocol"
PROXY_PROTOCOL = "bayplan.io/proxy-protocol"
MAX_CONNECTIONS = "bayplan.io/max-connections-per-pod"
QUEUE_TIMEOUT = "bayplan.io/queue-timeout"
REQUEST_TIMEOUT = "bayplan.io/request-timeout"
# Of a pod template.
CAPACITY = "bayplan.io/capacity"
DRAIN_SECONDS = "bayplan.io/drain-seconds"

BALANCES = ("least-connections", "round-robin", "capacity")
PROTOCOLS = ("tcp", "http")

_CONNECTIONS_MAX = 1_000_000
_TIMEOUT_MAX_MS = 24 * 3600 * 1000
# A pod's own grace has this limit too.
_DRAIN_MAX_S = 3600
_CAPACITY_MAX_MILLIS = 1000 * 1_000_000

_DURATION = re.compile(
    r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m(?!s))?(?:([0-9]{1,6}(?:\.[0-9]{1,3})?)s)?(?:([0-9]{1,9})ms)?"
)
_COUNT = re.compile(r"0|[1-9][0-9]{0,8}")

# Those of other programs that change how traffic flows where those programs run.
_FOREIGN = re.compile(
    r"(?:[-a-z0-9.]+\.)?(?:ingress\.kubernetes\.io|service\.(?:beta|alpha)\.kubernetes\.io|traefik\.io"
    r"|traefik\.containo\.us|haproxy\.org|haproxy-ingress\.github\.io|konghq\.com|projectcontour\.io"
    r"|metallb\.(?:io|universe\.tf)|cert-manager\.io)/.*"
)


def duration_ms(text: str) -> int:
    """`30s`, `500ms`, `1m30s`, `1h` in milliseconds. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError(f"{quote(text)} is no length of time: write it like 30s, 500ms or 1m30s")
    hours, minutes, seconds, millis = match.groups()
    whole_ms = (int(hours or 0) * 3600 + int(minutes or 0) * 60) * 1000 + int(millis or 0)
    length_ms = whole_ms + round(float(seconds or 0) * 1000)
    if not 1 <= length_ms <= _TIMEOUT_MAX_MS:
        raise ValueError(f"{quote(text)} is not between 1ms and 24h")
    return length_ms


def count(text: str, *, least: int, most: int) -> int:
    """A whole number within limits. Raises ValueError."""
    if not _COUNT.fullmatch(text) or not least <= int(text) <= most:
        raise ValueError(f"{quote(text)} is not a whole number from {least} to {most}")
    return int(text)


def max_connections(text: str) -> int:
    """Raises ValueError."""
    return count(text, least=1, most=_CONNECTIONS_MAX)


def drain_s(text: str) -> int:
    """Raises ValueError."""
    return count(text, least=0, most=_DRAIN_MAX_S)


def capacity_millis(text: str) -> int:
    """`2`, `0.5` or `500m` in thousandths. Raises ValueError."""
    millis = parse_cpu_millis(text)
    if not 1 <= millis <= _CAPACITY_MAX_MILLIS:
        raise ValueError(f"{quote(text)} is not a capacity: more than 0, and at most a million")
    return millis


def _one_of(*words: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be {' or '.join(words)}, not {quote(text)}")
        return text

    return check


@dataclass(frozen=True, slots=True)
class _Known:
    is_of_pods: bool
    check: Callable[[str], object]


_KNOWN: Mapping[str, _Known] = {
    BALANCE: _Known(is_of_pods=False, check=_one_of(*BALANCES)),
    PROTOCOL: _Known(is_of_pods=False, check=_one_of(*PROTOCOLS)),
    # Version 1 is text that programs must be ready for at the same place; one is enough.
    PROXY_PROTOCOL: _Known(is_of_pods=False, check=_one_of("v2")),
    MAX_CONNECTIONS: _Known(is_of_pods=False, check=max_connections),
    QUEUE_TIMEOUT: _Known(is_of_pods=False, check=duration_ms),
    REQUEST_TIMEOUT: _Known(is_of_pods=False, check=duration_ms),
    CAPACITY: _Known(is_of_pods=True, check=capacity_millis),
    DRAIN_SECONDS: _Known(is_of_pods=True, check=drain_s),
}


def wrong_in_document(kind: str, annotations: Mapping[str, str]) -> Iterator[Problem]:
    """What is wrong with our annotations in a document's own metadata; the places are below the annotations."""
    known = {key for key, one in _KNOWN.items() if kind == "Service" and not one.is_of_pods}
    yield from _wrong(annotations, known=known)


def wrong_in_template(annotations: Mapping[str, str]) -> Iterator[Problem]:
    """The same in the metadata of a pod template."""
    known = {key for key, one in _KNOWN.items() if one.is_of_pods}
    yield from _wrong(annotations, known=known)


def foreign(annotations: Mapping[str, str]) -> Iterator[str]:
    """Warnings of annotations that mean something to another program, and nothing here."""
    for key in annotations:
        if _FOREIGN.fullmatch(key):
            yield f"the annotation {key} means nothing here: it is for another program"


def _wrong(annotations: Mapping[str, str], *, known: set[str]) -> Iterator[Problem]:
    for key, value in annotations.items():
        if not key.startswith(PREFIX):
            continue
        if key not in known:
            yield Problem((key,), _unknown(key, known))
            continue
        try:
            _KNOWN[key].check(value)
        except ValueError as error:
            yield Problem((key,), str(error))


def _unknown(key: str, known: set[str]) -> str:
    if key in _KNOWN:
        where = "pods: write it under spec.template.metadata" if _KNOWN[key].is_of_pods else "a Service"
        return f"is an annotation of {where}"
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    hint = f": did you mean {quote(near[0])}?" if near else ""
    return f"is no annotation that Bayplan knows{hint}"
