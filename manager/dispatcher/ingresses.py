"""Rules and certificates of all Ingress documents, made anew when one of them, a service or a secret changes.

They are few and change seldom, so all are looked at together. What cannot be done is told once, as an event
of the document.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import structlog

from bayplan.resources.secret import Secret
from manager.cluster_state import ClusterState
from manager.events import EventLog
from manager.planning.endpoints import ServiceView
from manager.planning.ingress import CertificateView, IngressPlan, IngressProblem, IngressView, plan_ingress
from manager.store import keys
from manager.tls_secrets import certificate_view
from manager.touched import Place
from manager.traffic_views import ingress_views

log = structlog.get_logger(__name__)


class Ingresses:
    """Lives for one term."""

    def __init__(self, state: ClusterState, events: EventLog) -> None:
        self._state = state
        self._events = events
        self._certificates: dict[str, tuple[int, CertificateView]] = {}  # With the secret's version.
        self._secrets: set[str] = set()  # That documents name.
        self._problems: frozenset[IngressProblem] = frozenset()

    def is_concerned(self, place: Place) -> bool:
        """Whether a change of this document may change a rule."""
        kind, namespace, name = place
        if kind == "Secret":
            return f"{namespace}/{name}" in self._secrets
        return kind in ("Ingress", "Service")

    def unread(self) -> list[str]:
        """Secrets that `plan` would have to read: checking a key takes long, so `read` each on its own before."""
        self._note_secrets(ingress_views(self._state))
        return [key for key in sorted(self._secrets) if self._is_news(key)]

    def read(self, key: str) -> None:
        """Read one secret."""
        self._certificate(key)

    def _note_secrets(self, documents: Iterable[IngressView]) -> None:
        self._secrets = {f"{each.namespace}/{tls.secret}" for each in documents for tls in each.tls}
        self._certificates = {key: held for key, held in self._certificates.items() if key in self._secrets}

    def plan(
        self, services: Iterable[ServiceView], *, stuck: Collection[str] = ()
    ) -> tuple[IngressPlan, bool]:
        """As it is now, and whether that is all; new problems become events.

        Args:
            services: all that can be worked out.
            stuck: keys of those that cannot: it is not known which ports they have.
        """
        documents = ingress_views(self._state)
        self._note_secrets(documents)
        made = plan_ingress(
            documents,
            ports={
                service.key: {
                    port.name or str(port.port): port.port for port in service.ports if not port.udp
                }
                for service in (services if documents else ())
            },
            certificates={
                key: view for key in sorted(self._secrets) if (view := self._certificate(key)) is not None
            },
        )
        problems = frozenset(made.problems)
        for problem in sorted(problems - self._problems):
            obj = f"Ingress/{problem.name}"
            self._events.add("IngressProblem", problem.message, obj=obj, namespace=problem.namespace)
        self._problems = problems
        return made, not self._lacks_something(documents, stuck)

    def _lacks_something(self, documents: Iterable[IngressView], stuck: Collection[str]) -> bool:
        """Whether a document that rules depend on cannot be read: some of them would be missing, or lead nowhere."""
        state = self._state
        unread = {place for place in map(keys.parse_resource, state.broken) if place not in state.resources}
        return (
            any(place[0] == "Ingress" for place in unread if place is not None)
            or any(("Secret", *_namespace_and_name(key)) in unread for key in self._secrets)
            or any(f"{each.namespace}/{path.service}" in stuck for each in documents for path in each.paths)
        )

    def _is_news(self, key: str) -> bool:
        """Whether there is a secret, and not as it was read."""
        entry = self._state.resources.get(("Secret", *_namespace_and_name(key)))
        return entry is not None and self._certificates.get(key, (0,))[0] != entry.version

    def _certificate(self, key: str) -> CertificateView | None:
        """None: there is no such secret."""
        entry = self._state.resources.get(("Secret", *_namespace_and_name(key)))
        if entry is None:
            return None
        if self._is_news(key):
            assert isinstance(entry.resource, Secret)
            try:
                view = certificate_view(entry.resource)
            except Exception as error:
                # One secret must not keep everybody's rules from being made.
                log.exception("tls_secret.unreadable", secret=key)
                view = CertificateView(problem=f"cannot be read ({type(error).__name__})")
            self._certificates[key] = entry.version, view
        return self._certificates[key][1]


def _namespace_and_name(key: str) -> tuple[str, str]:
    namespace, _, name = key.partition("/")
    return namespace, name
