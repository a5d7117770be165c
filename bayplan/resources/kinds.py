"""The kinds of things that users name: their plurals, short names and API versions.

`bay get deploy`, `bay get deployments.apps` and `kind: Deployment` all mean one entry here. Apart
from the models, because importing pydantic takes longer than a TAB may.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind."""

    name: str  # As in documents: Deployment.
    plural: str  # Lower case: deployments.
    short_names: tuple[str, ...]
    api_version: str
    is_namespaced: bool = True
    is_applied: bool = True  # Whether users may write it in a manifest.

    @property
    def group(self) -> str:
        """`apps` of `apps/v1`; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def full_name(self) -> str:
        """As kubectl prints it: `deployment.apps`, `service`."""
        name = self.name.lower()
        return f"{name}.{self.group}" if self.group else name

    @property
    def words(self) -> tuple[str, ...]:
        """All that means this kind, in lower case; the plural first: `deployments`, `deploy.apps`."""
        words = (self.plural, self.name.lower(), *self.short_names)
        return words + tuple(f"{word}.{self.group}" for word in words if self.group)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="Deployment",
            plural="deployments",
            short_names=("deploy",),
            api_version="apps/v1",
        ),
        Kind(name="Service", plural="services", short_names=("svc",), api_version="v1"),
        Kind(name="Endpoints", plural="endpoints", short_names=("ep",), api_version="v1"),
        Kind(
            name="Ingress",
            plural="ingresses",
            short_names=("ing",),
            api_version="networking.k8s.io/v1",
        ),
        Kind(name="Secret", plural="secrets", short_names=(), api_version="v1"),
        Kind(
            name="Node",
            plural="nodes",
            short_names=("no",),
            api_version="v1",
            is_namespaced=False,
            is_applied=False,
        ),
        Kind(name="Pod", plural="pods", short_names=("po",), api_version="v1", is_applied=False),
    )
}

# Kubernetes' kinds that people have in their files. A list, so that a kind that does not exist
# is told apart from one that Bayplan lacks.
KINDS_NOT_YET = frozenset(
    {
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "CronJob",
        "CustomResourceDefinition",
        "DaemonSet",
        "HorizontalPodAutoscaler",
        "Job",
        "LimitRange",
        "Namespace",
        "NetworkPolicy",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "PriorityClass",
        "ReplicaSet",
        "ReplicationController",
        "ResourceQuota",
        "Role",
        "RoleBinding",
        "ServiceAccount",
        "StatefulSet",
        "StorageClass",
    }
)

# Those that Bayplan will not have, with what to do instead.
KINDS_REFUSED: dict[str, str] = {
    "EndpointSlice": "EndpointSlices are not applied: write Endpoints (v1), which say the same of a service without selector",
    "IngressClass": "IngressClasses are not applied: leave them out, every Ingress is served by the nodes' own proxies",
}


def find_kind(word: str) -> Kind | None:
    """The kind that `word` means: its name, plural or short name in any case, with or without its group."""
    word = word.lower()
    return next((kind for kind in KINDS.values() if word in kind.words), None)
