"""Which pods each service finds, as they were last reported: followed pod by pod.

A pod is found by the labels of its revision. Of one whose revision or workload cannot be read nobody can
tell which services it is of: while it runs on, no set is known whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bayplan.model.names import PodId
from bayplan.model.nodes import NodeState
from bayplan.model.placements import Want
from bayplan.model.states import PodState
from manager.cluster_state import ClusterState
from manager.dispatcher.traffic_index import TrafficIndex
from manager.planning.endpoints import BackendView, EndpointSet, ServiceView, TemplateView, endpoints_of
from manager.traffic_views import backend_view, template_view


class ServicePods:
    """Lives for one term.

    Args:
        node_state: (state, why, held) of a node.
    """

    def __init__(self, state: ClusterState, node_state: Callable[[str], tuple[NodeState, str, str]]) -> None:
        self._state = state
        self._node_state = node_state
        self._index = TrafficIndex()
        # Namespaces with services: pods elsewhere cost next to nothing.
        self._namespaces: set[str] = set()
        self._templates: dict[tuple[str, str], TemplateView] = {}
        self._backends: dict[PodId, BackendView] = {}  # As they were when they changed last.
        self._homeless: set[PodId] = set()  # Nobody can tell which services they are of.
        self._down: dict[str, bool] = {}

    # -- nodes ---------------------------------------------------------------------------------

    def look_at_nodes(self) -> None:
        """Nodes may have become another than they were: their pods serve, or do not any more."""
        for name in self._state.nodes:
            self.look_at_node(name)

    def look_at_node(self, name: str) -> None:
        """One that came back serves again once it has told what it still has: it may have been switched off."""
        was_down = self._down.get(name, False)
        is_down = self._is_judged_down(name) or (was_down and not self._state.nodes[name].has_reported)
        self._down[name] = is_down
        if is_down != was_down:
            for pod in self._state.by_node[name]:
                self._state.touched.pod(pod)

    def forget_node(self, name: str) -> None:
        """It is no node any more."""
        self._down.pop(name, None)

    def _is_judged_down(self, name: str) -> bool:
        """Nothing holds it back: with the brake on, proxies' own checks decide."""
        node_state, _, held = self._node_state(name)
        return node_state is NodeState.DOWN and not held

    # -- following what changed ----------------------------------------------------------------

    def put_service(self, view: ServiceView) -> None:
        """One that is new, or another than it was."""
        self._index.put_service(view.key, view.namespace, view.selector)

    def drop_service(self, key: str) -> None:
        """There is none any more."""
        self._index.drop_service(key)

    def follow(self, pod: PodId) -> frozenset[str]:
        """A pod is new, or another than it was; returns the services that it concerns."""
        before = self._index.services_of(pod)
        self._homeless.discard(pod)
        self._backends.pop(pod, None)
        placement = self._state.placements.get(pod.workload_uid, {}).get(pod)
        if placement is None:
            group = self._index.drop_pod(pod)
            if group is not None:
                self._templates.pop(group[1:], None)
            return before
        place = self._state.workloads.get(pod.workload_uid) or self._state.unreadable.get(pod.workload_uid)
        template = self._readable(pod.workload_uid, placement.revision)
        if place is not None and template is not None:
            if place[1] in self._namespaces:
                self._index.put_pod(pod, place[1], placement.revision, template.labels)
        elif not self._index.knows(pod) and placement.want in (Want.RUN, Want.HANDOVER):
            self._homeless.add(pod)
        return before | self._index.services_of(pod)

    def begin(self, namespace: str) -> Iterator[PodId]:
        """It has a service: its pods are to be followed from here on. Gives them, the first time."""
        if namespace in self._namespaces:
            return
        self._namespaces.add(namespace)
        for uid, place in [*self._state.workloads.items(), *self._state.unreadable.items()]:
            if place[1] == namespace:
                yield from list(self._state.placements.get(uid, {}))

    def homeless_of(self, workload_uid: str) -> list[PodId]:
        """Pods of a workload that wait for it to be readable."""
        return [pod for pod in self._homeless if pod.workload_uid == workload_uid]

    def is_homeless(self, pod: PodId) -> bool:
        """Whether it may be of any service."""
        return pod in self._homeless

    def is_over(self, pod: PodId) -> bool:
        """Whether it will serve nobody again, whatever services there are."""
        placement = self._state.placements.get(pod.workload_uid, {}).get(pod)
        if placement is None or placement.want in (Want.STOP, Want.LOST):
            return True
        status = self._state.status(placement)
        return status is not None and PodState(status.state).is_terminal

    # -- what is so ----------------------------------------------------------------------------

    def services_of(self, pod: PodId) -> frozenset[str]:
        """Keys of the services that find it."""
        return self._index.services_of(pod)

    def endpoints(self, view: ServiceView) -> EndpointSet:
        """The endpoints of a service, as far as they are known."""
        found = endpoints_of(view, self.of(view))
        if not view.selector and self._state.is_unreadable(("Endpoints", view.namespace, view.name)):
            return EndpointSet(unknown=(view.key,))
        if not view.selector or not self._homeless:
            return found
        homeless = tuple(sorted(str(pod) for pod in self._homeless))
        return EndpointSet(
            endpoints=found.endpoints, absent=found.absent, unknown=(*found.unknown, *homeless)
        )

    def of(self, view: ServiceView) -> Iterator[BackendView]:
        """The pods that a service's selector finds, in no order."""
        for pod in self._index.pods_of(view.key):
            backend = self._backend(pod)
            if backend is not None:
                yield backend

    def _backend(self, pod: PodId) -> BackendView | None:
        """None: it is gone, and that is yet to be followed."""
        found = self._backends.get(pod)
        if found is None:
            placement = self._state.placements.get(pod.workload_uid, {}).get(pod)
            if placement is None:
                return None
            found = self._backends[pod] = backend_view(
                self._state,
                placement,
                self.template(pod.workload_uid, placement.revision),
                is_node_down=placement.node not in self._state.nodes or self._down.get(placement.node, False),
            )
        return found

    def template(self, uid: str, revision: str) -> TemplateView:
        """What a revision says of its pods; nothing, where it is not known."""
        return self._readable(uid, revision) or TemplateView()

    def _readable(self, uid: str, revision: str) -> TemplateView | None:
        found = self._templates.get((uid, revision))
        if found is None:
            template = self._state.template(uid, revision)
            if template is None:
                return None
            found = self._templates[uid, revision] = template_view(template)
        return found
