"""Reads a pod template as far as the agent runs it.

The leader has validated the document; this reader is small and trusts nothing all the same,
because what it makes is handed to a container engine as root. It takes the fields it knows
and never passes anything else on, so a field that slipped through grants no privilege.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.probes.model import Hooks, Probes
from agent.probes.reading import read_hooks, read_probes
from agent.template_fields import PodSpecError, flag, mapping, port_number, seconds, sequence, text
from bayplan.resources.quantity import parse_cpu_millis, parse_memory_bytes

RESTART_POLICIES = ("Always", "OnFailure", "Never")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default")
PROTOCOLS = ("TCP", "UDP")
DEFAULT_GRACE_S = 30.0
# kubectl's: whose log and shell are meant where no container is named.
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
UNNAMED = "main"  # As a container without a name is called.

_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPort:
    """A port that a container says it listens on."""

    number: int
    name: str = ""
    is_udp: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerTemplate:
    """One container of a template, with `$(VAR)` already expanded."""

    name: str
    image: str
    pull_policy: str
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str | None = None
    cpu_request_millis: int = 0
    cpu_limit_millis: int = 0
    memory_limit_bytes: int = 0
    ports: tuple[ContainerPort, ...] = ()
    probes: Probes = field(default_factory=Probes)
    hooks: Hooks = field(default_factory=Hooks)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec:
    """What the agent needs of a template."""

    containers: tuple[ContainerTemplate, ...]
    restart_policy: str = "Always"
    grace_s: float = DEFAULT_GRACE_S
    hostname: str = ""  # Empty: the pod's name.
    subdomain: str = ""
    enable_service_links: bool = True
    host_network: bool = False
    dns_policy: str = "ClusterFirst"
    default_container: str = ""  # Whose log and shell are meant where none is named; empty: the first one's.

    @property
    def asks_here(self) -> bool:
        """Whether its containers ask this node's name server, not those of the host."""
        return self.dns_policy == "ClusterFirstWithHostNet" or (
            self.dns_policy == "ClusterFirst" and not self.host_network
        )

    @property
    def has_sandbox(self) -> bool:
        """Whether a container of its own holds the network that the others share."""
        return len(self.containers) > 1 and not self.host_network

    def named(self, name: str) -> ContainerTemplate | None:
        """The container of this name."""
        return next((each for each in self.containers if each.name == name), None)


def parse_pod_spec(template_json: str, variables: Mapping[str, str] | None = None) -> PodSpec:
    """Read `{metadata, spec}`. Raises PodSpecError with the path of the field.

    `variables` are those that the pod gets beside its own, which may refer to them.
    """
    try:
        template = json.loads(template_json)
    except ValueError as error:
        raise PodSpecError(f"the template is not JSON: {error}") from error
    spec = mapping(mapping(template, "template").get("spec"), "spec")
    annotations = mapping(
        mapping(template.get("metadata"), "metadata").get("annotations"), "metadata.annotations"
    )
    restart_policy = spec.get("restartPolicy") or "Always"
    if restart_policy not in RESTART_POLICIES:
        raise PodSpecError(f"spec.restartPolicy: {restart_policy!r} is none of {', '.join(RESTART_POLICIES)}")
    dns_policy = spec.get("dnsPolicy") or "ClusterFirst"
    if dns_policy not in DNS_POLICIES:
        raise PodSpecError(f"spec.dnsPolicy: {dns_policy!r} is none of {', '.join(DNS_POLICIES)}")
    containers = sequence(spec.get("containers"), "spec.containers")
    if not containers:
        raise PodSpecError("spec.containers: is missing")
    if spec.get("initContainers"):
        raise PodSpecError("spec.initContainers: this agent does not run them")
    grace_s = seconds(spec.get("terminationGracePeriodSeconds"), "spec.terminationGracePeriodSeconds")
    templates = tuple(
        _container(mapping(each, path), path, variables or {})
        for each, path in ((each, f"spec.containers[{index}]") for index, each in enumerate(containers))
    )
    if len({each.name for each in templates}) != len(templates):
        raise PodSpecError("spec.containers: two have the same name")
    return PodSpec(
        containers=templates,
        restart_policy=restart_policy,
        grace_s=DEFAULT_GRACE_S if grace_s is None else grace_s,
        hostname=text(spec.get("hostname"), "spec.hostname"),
        subdomain=text(spec.get("subdomain"), "spec.subdomain"),
        enable_service_links=flag(spec.get("enableServiceLinks"), "spec.enableServiceLinks", default=True),
        host_network=flag(spec.get("hostNetwork"), "spec.hostNetwork", default=False),
        dns_policy=dns_policy,
        default_container=text(
            annotations.get(DEFAULT_CONTAINER), f"metadata.annotations.{DEFAULT_CONTAINER}"
        ),
    )


def default_pull_policy(image: str) -> str:
    """Kubernetes' rule: Always for `:latest` or no tag, else IfNotPresent."""
    if "@" in image:
        return "IfNotPresent"
    _, colon, tag = image.rsplit("/", 1)[-1].partition(":")
    return "Always" if not colon or tag == "latest" else "IfNotPresent"


def expand(text: str, values: Mapping[str, str]) -> str:
    """Kubernetes' `$(VAR)`: known names are replaced, unknown ones stay, `$$` is a dollar."""

    def replace(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        return values.get(match.group(1), match.group(0))

    return _REFERENCE.sub(replace, text)


def _container(container: Mapping[str, Any], path: str, variables: Mapping[str, str]) -> ContainerTemplate:
    image = text(container.get("image"), f"{path}.image")
    if not image:
        raise PodSpecError(f"{path}.image: is missing")
    policy = container.get("imagePullPolicy") or default_pull_policy(image)
    if policy not in PULL_POLICIES:
        raise PodSpecError(f"{path}.imagePullPolicy: {policy!r} is none of {', '.join(PULL_POLICIES)}")
    env = _env(container.get("env"), f"{path}.env", variables)
    resources = mapping(container.get("resources"), f"{path}.resources")
    requests = mapping(resources.get("requests"), f"{path}.resources.requests")
    limits = mapping(resources.get("limits"), f"{path}.resources.limits")
    try:
        cpu_limit = parse_cpu_millis(str(limits.get("cpu", "0")))
        # Kubernetes: a limit without a request is the request, too.
        cpu_request = parse_cpu_millis(str(requests.get("cpu", limits.get("cpu", "0"))))
        memory_limit = parse_memory_bytes(str(limits.get("memory", "0")))
    except ValueError as error:
        raise PodSpecError(f"{path}.resources: {error}") from error
    ports = _ports(container.get("ports"), f"{path}.ports")
    named = {port.name: port.number for port in ports if port.name}
    return ContainerTemplate(
        name=text(container.get("name"), f"{path}.name") or UNNAMED,
        image=image,
        pull_policy=policy,
        command=_words(container.get("command"), f"{path}.command", env),
        args=_words(container.get("args"), f"{path}.args", env),
        env=env,
        working_dir=text(container.get("workingDir"), f"{path}.workingDir") or None,
        cpu_request_millis=cpu_request,
        cpu_limit_millis=cpu_limit,
        memory_limit_bytes=memory_limit,
        ports=ports,
        probes=read_probes(container, path, named),
        hooks=read_hooks(container, path, named),
    )


def _ports(value: Any, path: str) -> tuple[ContainerPort, ...]:
    return tuple(
        _port(mapping(each, f"{path}[{index}]"), f"{path}[{index}]")
        for index, each in enumerate(sequence(value, path))
    )


def _port(port: Mapping[str, Any], path: str) -> ContainerPort:
    protocol = text(port.get("protocol"), f"{path}.protocol") or "TCP"
    if protocol not in PROTOCOLS:
        raise PodSpecError(f"{path}.protocol: {protocol!r} is none of {', '.join(PROTOCOLS)}")
    return ContainerPort(
        number=port_number(port.get("containerPort"), f"{path}.containerPort"),
        name=text(port.get("name"), f"{path}.name"),
        is_udp=protocol == "UDP",
    )


def _env(value: Any, path: str, variables: Mapping[str, str]) -> dict[str, str]:
    env = dict(variables)
    for index, entry in enumerate(sequence(value, path)):
        item = mapping(entry, f"{path}[{index}]")
        name = text(item.get("name"), f"{path}[{index}].name")
        if not name or "=" in name or "\0" in name:
            raise PodSpecError(f"{path}[{index}].name: {name!r} is not a variable's name")
        if item.get("valueFrom") is not None:
            raise PodSpecError(f"{path}[{index}].valueFrom: is not supported")
        # A value may refer to the variables above it, and to those of services.
        env[name] = expand(text(item.get("value"), f"{path}[{index}].value"), env)
    return env


def _words(value: Any, path: str, env: Mapping[str, str]) -> tuple[str, ...] | None:
    words = sequence(value, path)
    if not words:
        return None
    return tuple(expand(text(word, f"{path}[{index}]"), env) for index, word in enumerate(words))
