"""Which services find which pods, kept so that a change costs what it touches.

Pods of one revision have the same labels, so they are matched once, as a group. Services and groups are
found by single labels first: thousands of services in one namespace are not tried one by one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bayplan.model.names import PodId

Selector = tuple[tuple[str, str], ...]
# (namespace, workload uid, revision)
Group = tuple[str, str, str]
# (namespace, key of a label, its value)
_Label = tuple[str, str, str]


@dataclass(slots=True)
class _Pods:
    labels: Mapping[str, str]
    pods: set[PodId] = field(default_factory=set)
    services: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Service:
    namespace: str
    selector: Selector
    found_by: _Label  # One label of its selector.
    groups: set[Group] = field(default_factory=set)


class TrafficIndex:
    """Services by "namespace/name", pods by id."""

    def __init__(self) -> None:
        self._groups: dict[Group, _Pods] = {}
        self._group_of: dict[PodId, Group] = {}
        self._services: dict[str, _Service] = {}
        self._groups_with: dict[_Label, set[Group]] = defaultdict(set)
        self._services_by: dict[_Label, set[str]] = defaultdict(set)

    def put_service(self, key: str, namespace: str, selector: Selector) -> None:
        """Add or change one; without a selector it finds nothing."""
        known = self._services.get(key)
        if known is not None and known.selector == selector:
            return
        self.drop_service(key)
        if not selector:
            return
        labels = [(namespace, name, value) for name, value in selector]
        # The label that the fewest others are found by: it tells the most.
        found_by = min(labels, key=lambda label: len(self._services_by.get(label, ())))
        service = self._services[key] = _Service(namespace, selector, found_by)
        self._services_by[found_by].add(key)
        candidates = min((self._groups_with.get(label, set()) for label in labels), key=len)
        for group in candidates:
            if _fits(selector, self._groups[group].labels):
                service.groups.add(group)
                self._groups[group].services.add(key)

    def drop_service(self, key: str) -> None:
        """Forget one."""
        service = self._services.pop(key, None)
        if service is None:
            return
        _discard(self._services_by, service.found_by, key)
        for group in service.groups:
            self._groups[group].services.discard(key)

    def put_pod(self, pod: PodId, namespace: str, revision: str, labels: Mapping[str, str]) -> None:
        """Add one; or move it, when its workload's namespace has become known."""
        group = (namespace, pod.workload_uid, revision)
        if self._group_of.get(pod) == group:
            return
        self.drop_pod(pod)
        self._group_of[pod] = group
        if group not in self._groups:
            self._add_group(group, labels)
        self._groups[group].pods.add(pod)

    def knows(self, pod: PodId) -> bool:
        """Whether it was put, and not dropped since."""
        return pod in self._group_of

    def drop_pod(self, pod: PodId) -> Group | None:
        """Forget one; returns its group if it was the last of it."""
        group = self._group_of.pop(pod, None)
        if group is None:
            return None
        held = self._groups[group]
        held.pods.discard(pod)
        if held.pods:
            return None
        del self._groups[group]
        for name, value in held.labels.items():
            _discard(self._groups_with, (group[0], name, value), group)
        for key in held.services:
            self._services[key].groups.discard(group)
        return group

    def services_of(self, pod: PodId) -> frozenset[str]:
        """Keys of the services that find it."""
        group = self._group_of.get(pod)
        return frozenset() if group is None else frozenset(self._groups[group].services)

    def pods_of(self, key: str) -> Iterator[PodId]:
        """Those that a service finds, in no order."""
        service = self._services.get(key)
        for group in service.groups if service is not None else ():
            yield from self._groups[group].pods

    def _add_group(self, group: Group, labels: Mapping[str, str]) -> None:
        held = self._groups[group] = _Pods(labels)
        for name, value in labels.items():
            label = (group[0], name, value)
            self._groups_with[label].add(group)
            for key in self._services_by.get(label, ()):
                service = self._services[key]
                if _fits(service.selector, labels):
                    service.groups.add(group)
                    held.services.add(key)


def _fits(selector: Selector, labels: Mapping[str, str]) -> bool:
    return all(labels.get(name) == value for name, value in selector)


def _discard(index: dict[_Label, set[str]] | dict[_Label, set[Group]], label: _Label, item: object) -> None:
    """Leave no empty set behind: labels come and go for years."""
    held = index.get(label)
    if held is None:
        return
    held.discard(item)
    if not held:
        del index[label]
