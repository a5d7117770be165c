"""Rules of all Ingress documents together, in the order in which proxies try them.

The first rule that fits a request takes it: an exact host before a wildcard before any, a longer path
before a shorter one, an exact path before a prefix. Of two documents that claim one host and path the
older one has it. What cannot be done is said, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

# All proxies are told all of it, in one message of at most 16 MiB: nobody's documents may fill that alone.
RULES_MAX_BYTES = 4 << 20
CERTIFICATES_MAX_BYTES = 4 << 20
_RULE_BYTES = 32  # Beside its texts.
_HOST_BYTES = 4  # Beside its text.
# Told of one document; the rest is a number: others' events must stay in the log.
PROBLEMS_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PathView:
    """One path of a document, or its default backend (no host, path `/`)."""

    host: str = ""  # Empty: any.
    path: str = "/"
    exact: bool = False  # Otherwise a prefix, by path elements.
    service: str  # Name, in the namespace of the document.
    port: int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsView:
    """Hosts that are served with one certificate."""

    secret: str
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressView:
    """One document."""

    namespace: str
    name: str
    created_ms: int = 0
    paths: tuple[PathView, ...] = ()
    tls: tuple[TlsView, ...] = ()
    ports: tuple[int, ...] = ()  # Of every node that it was given.


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CertificateView:
    """The contents of a secret of type kubernetes.io/tls."""

    chain_pem: bytes = b""
    key_pem: bytes = b""
    problem: str = ""  # Why it cannot be used, as the rest of a sentence that begins with it.


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. A port of 0 leads nowhere: such requests are answered 503, and by no other rule."""

    host: str
    path: str
    exact: bool
    service: str  # namespace/name
    port: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Certificate:
    """A certificate, and the hosts that it is for; without hosts for whatever it names itself."""

    name: str  # namespace/secret
    hosts: tuple[str, ...]
    chain_pem: bytes
    key_pem: bytes


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class IngressProblem:
    """What of a document cannot be done."""

    namespace: str
    name: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressPlan:
    """What proxies are told of all documents."""

    ports: tuple[int, ...] = ()  # That all documents share; without one no rule is asked for anything.
    rules: tuple[Rule, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    problems: tuple[IngressProblem, ...] = ()


def plan_ingress(
    documents: Iterable[IngressView],
    *,
    ports: Mapping[str, Mapping[str, int]],
    certificates: Mapping[str, CertificateView],
) -> IngressPlan:
    """All documents together.

    Args:
        documents: in any order.
        ports: of every service that there is, by "namespace/name": numbers by the ports' names.
        certificates: of every secret that there is and that they name, by "namespace/name".
    """
    by_age = sorted(documents, key=lambda each: (each.created_ms, each.namespace, each.name))
    problems: list[IngressProblem] = []
    rules = _rules(by_age, ports, problems)
    return IngressPlan(
        ports=tuple(sorted({port for document in by_age for port in document.ports})),
        # Stable: of equal ones the older document's stays first.
        rules=tuple(sorted(rules, key=_precedence)),
        certificates=tuple(_certificates(by_age, certificates, problems)),
        problems=tuple(_told(problems)),
    )


def _told(problems: Iterable[IngressProblem]) -> Iterator[IngressProblem]:
    for (namespace, name), group in groupby(
        sorted(set(problems)), key=lambda each: (each.namespace, each.name)
    ):
        first = list(group)
        yield from first[:PROBLEMS_MAX]
        more = len(first) - PROBLEMS_MAX
        if more > 0:
            yield IngressProblem(
                namespace=namespace, name=name, message=f"{more} more of its rules do not work"
            )


def _precedence(rule: Rule) -> tuple[int, str, int, bool, str]:
    is_wild = rule.host.startswith("*.")
    rank = 2 if not rule.host else int(is_wild)
    return (rank, rule.host, -len(rule.path), not rule.exact, rule.path)


def _rules(
    by_age: Iterable[IngressView], ports: Mapping[str, Mapping[str, int]], problems: list[IngressProblem]
) -> list[Rule]:
    taken: dict[tuple[str, str, bool], IngressView] = {}
    rules: list[Rule] = []
    room = RULES_MAX_BYTES
    for document in by_age:
        for view in document.paths:
            # As prefixes /shop/ and /shop mean the same.
            path = view.path if view.exact else view.path.rstrip("/") or "/"
            owner = taken.get((view.host, path, view.exact))
            if owner is not None:
                if owner is not document:  # Its own first word counts, too.
                    words = f"{view.host or 'any host'}{path} belongs to {owner.namespace}/{owner.name}, which is older"
                    problems.append(_problem(document, words))
                continue
            service = f"{document.namespace}/{view.service}"
            room -= _RULE_BYTES + len(view.host) + len(path) + len(service)
            if room < 0:
                problems.append(_problem(document, _too_much("the rules", RULES_MAX_BYTES, "rules")))
                break
            taken[view.host, path, view.exact] = document
            port = _port(document, view, ports.get(service), problems)
            rules.append(Rule(host=view.host, path=path, exact=view.exact, service=service, port=port))
    return rules


def _port(
    document: IngressView, view: PathView, names: Mapping[str, int] | None, problems: list[IngressProblem]
) -> int:
    where = f"{view.host or 'any host'}{view.path}"
    if names is None:
        problems.append(_problem(document, f"{where}: there is no service {view.service}"))
        return 0
    if isinstance(view.port, int):
        if view.port not in names.values():
            problems.append(
                _problem(document, f"{where}: the service {view.service} has no port {view.port}")
            )
            return 0
        return view.port
    if view.port not in names:
        problems.append(_problem(document, f'{where}: the service {view.service} has no port "{view.port}"'))
        return 0
    return names[view.port]


def _certificates(
    by_age: Iterable[IngressView],
    certificates: Mapping[str, CertificateView],
    problems: list[IngressProblem],
) -> list[Certificate]:
    hosts: dict[str, dict[str, None]] = {}  # By secret; ordered.
    room = CERTIFICATES_MAX_BYTES
    for document in by_age:
        for tls in document.tls:
            name = f"{document.namespace}/{tls.secret}"
            found = certificates.get(name, CertificateView(problem="does not exist"))
            if found.problem:
                problems.append(
                    _problem(document, f"the secret {tls.secret} {found.problem}: no TLS with it")
                )
                continue
            size = 0 if name in hosts else len(found.chain_pem) + len(found.key_pem)
            size += sum(_HOST_BYTES + len(host) for host in tls.hosts)
            if size > room:
                words = _too_much(f"the secret {tls.secret}", CERTIFICATES_MAX_BYTES, "certificates")
                problems.append(_problem(document, words))
                continue
            room -= size
            hosts.setdefault(name, {}).update(dict.fromkeys(tls.hosts))
    return [
        Certificate(
            name=name,
            hosts=tuple(named),
            chain_pem=certificates[name].chain_pem,
            key_pem=certificates[name].key_pem,
        )
        for name, named in hosts.items()
    ]


def _too_much(what: str, limit: int, kind: str) -> str:
    return f"{what} cannot be told to the proxies: with older Ingresses' these are more than {limit >> 20} MiB of {kind}"


def _problem(document: IngressView, message: str) -> IngressProblem:
    return IngressProblem(namespace=document.namespace, name=document.name, message=message)
