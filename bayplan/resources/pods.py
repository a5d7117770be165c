"""The pod template: what runs, with what, and where it may run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from bayplan.model.nodes import Amounts
from bayplan.resources.expansion import ExpansionError, expand_environment, expand_words
from bayplan.resources.messages import describe
from bayplan.resources.metadata import TemplateMetadata
from bayplan.resources.model import Part
from bayplan.resources.probes import Lifecycle, LifecycleHandler, ReadinessProbe, RestartingProbe
from bayplan.resources.problems import Loc, Problem, quote
from bayplan.resources.quantity import (
    QuantityError,
    format_cpu,
    format_memory,
    parse_cpu_millis,
    parse_memory_bytes,
)
from bayplan.resources.syntax import (
    Boolean,
    EnvName,
    Image,
    Integer,
    LabelKeyOrNone,
    Labels,
    LabelValue,
    Name,
    PortName,
    Text,
    WorkingDir,
)

# Docker refuses a memory limit below this ("Minimum memory limit allowed is 6MB").
_MEMORY_LIMIT_MIN_BYTES = 6 * 2**20


def _cpu(value: object) -> object:
    if not isinstance(value, str | int | float):
        raise QuantityError(f"must be a quantity, not {describe(value)}")
    return format_cpu(parse_cpu_millis(value))


def _memory(value: object) -> object:
    if not isinstance(value, str | int | float):
        raise QuantityError(f"must be a quantity, not {describe(value)}")
    return format_memory(parse_memory_bytes(value))


class ResourceAmounts(Part):
    """Processor and memory as canonical quantities, e.g. `500m` and `128Mi`; None: not said."""

    not_yet: ClassVar[frozenset[str]] = frozenset(
        {"ephemeral-storage", "nvidia.com/gpu", "amd.com/gpu", "hugepages-2Mi"}
    )

    cpu: Annotated[str, BeforeValidator(_cpu)] | None = None
    memory: Annotated[str, BeforeValidator(_memory)] | None = None

    @property
    def cpu_millis(self) -> int:
        """0 if not said."""
        return 0 if self.cpu is None else parse_cpu_millis(self.cpu)

    @property
    def memory_bytes(self) -> int:
        """0 if not said."""
        return 0 if self.memory is None else parse_memory_bytes(self.memory)


class Resources(Part):
    """What a container is promised (requests) and may use at most (limits)."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"claims"})

    requests: ResourceAmounts = ResourceAmounts()
    limits: ResourceAmounts = ResourceAmounts()

    @property
    def requested(self) -> Amounts:
        """What is booked on a node. As in Kubernetes, a limit alone is a request too."""
        requests, limits = self.requests, self.limits
        return Amounts(
            cpu_millis=limits.cpu_millis if requests.cpu is None else requests.cpu_millis,
            memory_bytes=limits.memory_bytes if requests.memory is None else requests.memory_bytes,
        )

    def problems(self) -> Iterator[Problem]:
        requests, limits = self.requests, self.limits
        if limits.cpu is not None and requests.cpu_millis > limits.cpu_millis:
            yield Problem(("requests", "cpu"), f"{requests.cpu} is more than the limit of {limits.cpu}")
        if limits.memory is None:
            return
        if requests.memory_bytes > limits.memory_bytes:
            yield Problem(
                ("requests", "memory"), f"{requests.memory} is more than the limit of {limits.memory}"
            )
        if 0 < limits.memory_bytes < _MEMORY_LIMIT_MIN_BYTES:
            yield Problem(
                ("limits", "memory"), f"{limits.memory} is too little to run anything: at least 6Mi"
            )


class EnvVar(Part):
    """A variable of a container's environment."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"valueFrom"})

    name: EnvName
    value: Text = ""


class ContainerPort(Part):
    """A port that a container listens on."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"hostPort", "hostIP"})

    container_port: Annotated[Integer, Field(ge=1, le=65535)]
    name: PortName | None = None
    protocol: Literal["TCP", "UDP"] = "TCP"


class Container(Part):
    """A program to run."""

    not_yet: ClassVar[frozenset[str]] = frozenset(
        {
            "envFrom",
            "resizePolicy",
            "restartPolicy",
            "securityContext",
            "stdin",
            "stdinOnce",
            "terminationMessagePath",
            "terminationMessagePolicy",
            "tty",
            "volumeDevices",
            "volumeMounts",
        }
    )

    name: Name
    image: Image
    command: tuple[Text, ...] = ()  # Replaces the image's ENTRYPOINT; empty: the image's own.
    args: tuple[Text, ...] = ()  # Replaces the image's CMD.
    env: tuple[EnvVar, ...] = ()  # Of two with one name the last holds.
    ports: tuple[ContainerPort, ...] = ()
    resources: Resources = Resources()
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = (
        None  # None: as the image's tag suggests.
    )
    working_dir: WorkingDir | None = None  # None: the image's own.
    startup_probe: RestartingProbe | None = None
    readiness_probe: ReadinessProbe | None = None
    liveness_probe: RestartingProbe | None = None
    lifecycle: Lifecycle = Lifecycle()

    @property
    def environment(self) -> dict[str, str]:
        """Its variables, `$(NAME)` filled in."""
        return expand_environment((variable.name, variable.value) for variable in self.env)

    @property
    def expanded_command(self) -> tuple[str, ...]:
        """`command` with `$(NAME)` filled in."""
        return expand_words(self.command, self.environment)

    @property
    def expanded_args(self) -> tuple[str, ...]:
        """`args` with `$(NAME)` filled in."""
        return expand_words(self.args, self.environment)

    def problems(self) -> Iterator[Problem]:
        try:
            expand_words((*self.command, *self.args), self.environment)
        except ExpansionError as error:
            yield Problem((), str(error))
        names: dict[str, int] = {}
        numbers: dict[tuple[int, str], int] = {}
        for index, port in enumerate(self.ports):
            if port.name is not None and names.setdefault(port.name, index) != index:
                yield Problem(("ports", index, "name"), f"is the name of ports[{names[port.name]}] too")
            number = (port.container_port, port.protocol)
            if numbers.setdefault(number, index) != index:
                yield Problem(("ports", index, "containerPort"), f"is in ports[{numbers[number]}] already")
        for loc, asked in self._asked_ports():
            if isinstance(asked, str) and asked not in names:
                # It would fail for ever, and the pod never be ready.
                yield Problem(loc, f"no port of this container is named {quote(asked)}")

    @property
    def hooks(self) -> Iterator[tuple[str, LifecycleHandler]]:
        """Its lifecycle hooks by their fields."""
        for name, hook in (("postStart", self.lifecycle.post_start), ("preStop", self.lifecycle.pre_stop)):
            if hook is not None:
                yield name, hook

    def _asked_ports(self) -> Iterator[tuple[Loc, int | str | None]]:
        """Where probes and hooks ask."""
        for name, probe in (
            ("startupProbe", self.startup_probe),
            ("readinessProbe", self.readiness_probe),
            ("livenessProbe", self.liveness_probe),
        ):
            if probe is not None:
                yield (name, probe.action, "port"), probe.port
        for name, hook in self.hooks:
            yield ("lifecycle", name, "httpGet", "port"), hook.port


class Toleration(Part):
    """Lets pods onto nodes with matching taints."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"tolerationSeconds"})

    key: LabelKeyOrNone = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: LabelValue = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""

    def problems(self) -> Iterator[Problem]:
        if not self.key and self.operator != "Exists":
            yield Problem(("operator",), "must be Exists where no key is given")
        if self.value and self.operator == "Exists":
            yield Problem(("value",), "must be left out where the operator is Exists")


class PodSpec(Part):
    """What one pod is."""

    not_yet: ClassVar[frozenset[str]] = frozenset(
        {
            "activeDeadlineSeconds",
            "affinity",
            "automountServiceAccountToken",
            "dnsConfig",
            "ephemeralContainers",
            "hostAliases",
            "hostIPC",
            "hostPID",
            "hostUsers",
            "imagePullSecrets",
            "initContainers",
            "nodeName",
            "os",
            "overhead",
            "preemptionPolicy",
            "priority",
            "priorityClassName",
            "readinessGates",
            "runtimeClassName",
            "schedulerName",
            "schedulingGates",
            "securityContext",
            "serviceAccount",
            "serviceAccountName",
            "setHostnameAsFQDN",
            "shareProcessNamespace",
            "topologySpreadConstraints",
            "volumes",
        }
    )

    containers: Annotated[tuple[Container, ...], Field(min_length=1)]
    host_network: Boolean = False  # Its containers are on the host's own network.
    node_selector: Labels = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Always"
    termination_grace_period_seconds: Annotated[Integer, Field(ge=0, le=3600)] = 30
    hostname: Name | None = None  # None: the pod's name.
    subdomain: Name | None = None  # With a headless service of this name: <hostname>.<subdomain>... in DNS.
    # Whom its containers ask for names; on the host's network ClusterFirst is Default, as in Kubernetes.
    dns_policy: Literal["ClusterFirst", "ClusterFirstWithHostNet", "Default"] = "ClusterFirst"
    enable_service_links: Boolean = True  # Variables of the services that are there when it starts.

    @property
    def requested(self) -> Amounts:
        """What one pod books on its node."""
        total = Amounts(pods=1)
        for container in self.containers:
            total += container.resources.requested
        return total

    def problems(self) -> Iterator[Problem]:
        names: dict[str, int] = {}
        for index, container in enumerate(self.containers):
            if names.setdefault(container.name, index) != index:
                message = f"is the name of containers[{names[container.name]}] too"
                yield Problem(("containers", index, "name"), message)
            for name, hook in container.hooks:
                if hook.sleep is not None and hook.sleep.seconds > self.termination_grace_period_seconds:
                    loc = ("containers", index, "lifecycle", name, "sleep", "seconds")
                    words = (
                        f"is more than terminationGracePeriodSeconds, {self.termination_grace_period_seconds}"
                    )
                    yield Problem(loc, words)
        yield from self._ports_taken()

    def _ports_taken(self) -> Iterator[Problem]:
        """Containers of a pod share one address: two cannot listen on one port of it."""
        taken: dict[tuple[int, str], int] = {}
        for index, container in enumerate(self.containers):
            for number, port in enumerate(container.ports):
                first = taken.setdefault((port.container_port, port.protocol), index)
                if first != index:
                    loc = ("containers", index, "ports", number, "containerPort")
                    yield Problem(
                        loc, f"is a port of containers[{first}] already; they share the pod's address"
                    )


class PodTemplate(Part):
    """What the pods of a workload are made from. A revision is named by its hash."""

    metadata: TemplateMetadata = TemplateMetadata()
    spec: PodSpec


def template_json(template: PodTemplate) -> dict[str, Any]:
    """The template as canonical JSON data, as agents get it and revisions keep it."""
    return template.to_json_dict()


def template_from_json(data: dict[str, Any]) -> PodTemplate:
    """The inverse of `template_json`. Raises pydantic's ValidationError, which only a bug or a foreign writer causes."""
    return PodTemplate.model_validate(data)


def template_hash(template: PodTemplate) -> str:
    """The revision's name: 8 hexadecimal digits, the same for templates that mean the same."""
    text = json.dumps(template_json(template), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]
