"""Rules and certificates of all Ingress documents, made anew when one of them, a service or a secret changes.

They are few and change seldom, so all are looked at together. What cannot be done is told once, as an event
of the document.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from bayplan.resources.secret import Secret
from manager.cluster_state import ClusterState
from manager.events import EventLog
from manager.planning.endpoints import ServiceView
from manager.planning.ingress import CertificateView, IngressPlan, IngressProblem, IngressView, plan_ingress
from manager.store import keys
from manager.tls_secrets import certificate_view
from manager.touched import Place
from manager.traffic_views import ingress_views


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

    def plan(
        self, services: Iterable[ServiceView], *, stuck: Collection[str] = ()
    ) -> tuple[IngressPlan, bool]:
        """As it is now, and whether that is all; new problems become events.

        Args:
            services: all that can be worked out.
            stuck: keys of those that cannot: it is not known which ports they have.
        """
        documents = ingress_views(self._state)
        self._secrets = {f"{each.namespace}/{tls.secret}" for each in documents for tls in each.tls}
        self._certificates = {key: held for key, held in self._certificates.items() if key in self._secrets}
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
            or any(("Secret", *key.split("/", 1)) in unread for key in self._secrets)
            or any(f"{each.namespace}/{path.service}" in stuck for each in documents for path in each.paths)
        )

    def _certificate(self, key: str) -> CertificateView | None:
        """None: there is no such secret."""
        namespace, _, name = key.partition("/")
        entry = self._state.resources.get(("Secret", namespace, name))
        if entry is None:
            return None
        version, view = self._certificates.get(key, (0, CertificateView()))
        if version != entry.version:
            assert isinstance(entry.resource, Secret)
            view = certificate_view(entry.resource)
            self._certificates[key] = entry.version, view
        return view
