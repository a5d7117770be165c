"""Ingresses: which service answers for which host and path, and the certificates for it.

Every node's proxy serves them all, so there are no classes of them. The leader turns each into routes and
finds the services; whether those exist is no matter of the document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bayplan.resources import annotations as ours
from bayplan.resources.addresses import HostPattern, HostPatternOrNone, RoutePath
from bayplan.resources.metadata import Document, Metadata
from bayplan.resources.model import Part
from bayplan.resources.problems import Problem, quote
from bayplan.resources.syntax import Integer, Name, Text

CLASS = "bayplan"
_CLASS_ANNOTATION = "kubernetes.io/ingress.class"  # How it was written before there was a field.
_OLD_FORM = "was so before Kubernetes 1.19: write service: {name: ..., port: {number: ...}}"


class BackendPort(Part):
    """A port of a service, by its number or by its name."""

    number: Annotated[Integer, Field(ge=1, le=65535)] | None = None
    name: Name | None = None

    def problems(self) -> Iterator[Problem]:
        if (self.number is None) == (self.name is None):
            yield Problem((), "needs either a number or a name")


class BackendService(Part):
    """A service of the Ingress' own namespace."""

    name: Name
    port: BackendPort


class Backend(Part):
    """What answers."""

    refused: ClassVar[Mapping[str, str]] = {
        "resource": "not supported: only services can answer",
        "serviceName": _OLD_FORM,
        "servicePort": _OLD_FORM,
    }

    service: BackendService


class HttpPath(Part):
    """A path, or all that begins with it, and what answers there."""

    path: RoutePath | None = None  # None: all of them.
    path_type: Literal["Prefix", "Exact", "ImplementationSpecific"]  # The last is taken for Prefix.
    backend: Backend

    @property
    def is_exact(self) -> bool:
        return self.path_type == "Exact"

    @property
    def matched(self) -> str:
        """Prefixes fit path elements, so that a slash at their end means nothing."""
        if self.is_exact:
            return self.path or "/"
        return (self.path or "/").rstrip("/") or "/"

    def problems(self) -> Iterator[Problem]:
        if self.path is None and self.path_type != "ImplementationSpecific":
            yield Problem(("path",), f"is required where the pathType is {self.path_type}")


class HttpRule(Part):
    """The paths of a host."""

    paths: Annotated[tuple[HttpPath, ...], Field(min_length=1)]


class IngressRule(Part):
    """A host, or every one."""

    host: HostPatternOrNone = ""  # *.example.org: one label more, as in certificates. Empty: any.
    http: HttpRule | None = None  # None: the default backend answers for this host.


class IngressTls(Part):
    """A certificate and the hosts that it is for."""

    hosts: tuple[HostPattern, ...] = ()  # Empty: those that the certificate names.
    secret_name: Name  # Of the type kubernetes.io/tls.


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One line of what an Ingress asks for."""

    host: str  # Empty: any.
    path: str
    is_exact: bool
    service: str
    port: int | str  # Number, or name.


class IngressSpec(Part):
    """What a user wants of an Ingress."""

    ingress_class_name: Text | None = None
    default_backend: Backend | None = None
    tls: tuple[IngressTls, ...] = ()
    rules: tuple[IngressRule, ...] = ()

    @property
    def routes(self) -> tuple[Route, ...]:
        """All rules, in order; the default backend, which is asked when nothing else fits, is the last."""
        return tuple(self._routes())

    def _routes(self) -> Iterator[Route]:
        for rule in self.rules:
            if rule.http is not None:
                for path in rule.http.paths:
                    yield _route(rule.host, path.matched, path.backend, is_exact=path.is_exact)
            elif self.default_backend is not None:
                yield _route(rule.host, "/", self.default_backend)
        if self.default_backend is not None:
            yield _route("", "/", self.default_backend)

    def problems(self) -> Iterator[Problem]:
        if not self.rules and self.default_backend is None:
            yield Problem((), "needs rules or a defaultBackend")
        seen: dict[tuple[str, str, bool], str] = {}
        for index, rule in enumerate(self.rules):
            if rule.http is None:
                if self.default_backend is None:
                    yield Problem(("rules", index, "http"), "is required where there is no defaultBackend")
                continue
            for number, path in enumerate(rule.http.paths):
                place = f"rules[{index}].http.paths[{number}]"
                earlier = seen.setdefault((rule.host, path.matched, path.is_exact), place)
                if earlier != place:
                    yield Problem(("rules", index, "http", "paths", number), f"means the same as {earlier}")


class Ingress(Document):
    """Hosts and paths of HTTP, and the services behind them."""

    api_version: Literal["networking.k8s.io/v1"] = "networking.k8s.io/v1"
    kind: Literal["Ingress"] = "Ingress"
    metadata: Metadata
    spec: IngressSpec

    def warnings(self) -> Iterator[str]:
        yield from ours.foreign(self.metadata.annotations)
        for name in (self.spec.ingress_class_name, self.metadata.annotations.get(_CLASS_ANNOTATION)):
            if name not in {None, CLASS}:
                yield f"the class {quote(name or '')} means nothing: every Ingress is served by the nodes' own proxies"


def _route(host: str, path: str, backend: Backend, *, is_exact: bool = False) -> Route:
    service = backend.service
    port = service.port.number if service.port.number is not None else service.port.name
    assert port is not None
    return Route(host=host, path=path, is_exact=is_exact, service=service.name, port=port)
