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

from bayplan.resources.quantity import parse_cpu_millis, parse_memory_bytes

RESTART_POLICIES = ("Always", "OnFailure", "Never")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
DEFAULT_GRACE_S = 30.0

_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")


class PodSpecError(ValueError):
    """The template cannot be run here, whatever the engine says. The message names the field."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec:
    """What the agent needs of a template."""

    containers: tuple[ContainerTemplate, ...]
    restart_policy: str = "Always"
    grace_s: float = DEFAULT_GRACE_S


def parse_pod_spec(template_json: str) -> PodSpec:
    """Read `{metadata, spec}`. Raises PodSpecError with the path of the field."""
    try:
        template = json.loads(template_json)
    except ValueError as error:
        raise PodSpecError(f"the template is not JSON: {error}") from error
    spec = _mapping(_mapping(template, "template").get("spec"), "spec")
    restart_policy = spec.get("restartPolicy") or "Always"
    if restart_policy not in RESTART_POLICIES:
        raise PodSpecError(f"spec.restartPolicy: {restart_policy!r} is none of {', '.join(RESTART_POLICIES)}")
    containers = _sequence(spec.get("containers"), "spec.containers")
    if len(containers) != 1 or spec.get("initContainers"):
        raise PodSpecError("spec.containers: this agent runs pods of exactly one container")
    return PodSpec(
        containers=tuple(
            _container(_mapping(each, path), path)
            for each, path in ((each, f"spec.containers[{index}]") for index, each in enumerate(containers))
        ),
        restart_policy=restart_policy,
        grace_s=_grace_s(spec.get("terminationGracePeriodSeconds")),
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


def _container(container: Mapping[str, Any], path: str) -> ContainerTemplate:
    image = _text(container.get("image"), f"{path}.image")
    if not image:
        raise PodSpecError(f"{path}.image: is missing")
    policy = container.get("imagePullPolicy") or default_pull_policy(image)
    if policy not in PULL_POLICIES:
        raise PodSpecError(f"{path}.imagePullPolicy: {policy!r} is none of {', '.join(PULL_POLICIES)}")
    env = _env(container.get("env"), f"{path}.env")
    resources = _mapping(container.get("resources"), f"{path}.resources")
    requests = _mapping(resources.get("requests"), f"{path}.resources.requests")
    limits = _mapping(resources.get("limits"), f"{path}.resources.limits")
    try:
        cpu_limit = parse_cpu_millis(str(limits.get("cpu", "0")))
        # Kubernetes: a limit without a request is the request, too.
        cpu_request = parse_cpu_millis(str(requests.get("cpu", limits.get("cpu", "0"))))
        memory_limit = parse_memory_bytes(str(limits.get("memory", "0")))
    except ValueError as error:
        raise PodSpecError(f"{path}.resources: {error}") from error
    return ContainerTemplate(
        name=_text(container.get("name"), f"{path}.name") or "main",
        image=image,
        pull_policy=policy,
        command=_words(container.get("command"), f"{path}.command", env),
        args=_words(container.get("args"), f"{path}.args", env),
        env=env,
        working_dir=_text(container.get("workingDir"), f"{path}.workingDir") or None,
        cpu_request_millis=cpu_request,
        cpu_limit_millis=cpu_limit,
        memory_limit_bytes=memory_limit,
    )


def _env(value: Any, path: str) -> dict[str, str]:
    env: dict[str, str] = {}
    for index, entry in enumerate(_sequence(value, path)):
        item = _mapping(entry, f"{path}[{index}]")
        name = _text(item.get("name"), f"{path}[{index}].name")
        if not name or "=" in name or "\0" in name:
            raise PodSpecError(f"{path}[{index}].name: {name!r} is not a variable's name")
        if item.get("valueFrom") is not None:
            raise PodSpecError(f"{path}[{index}].valueFrom: is not supported")
        # A value may refer to the variables above it.
        env[name] = expand(_text(item.get("value"), f"{path}[{index}].value"), env)
    return env


def _words(value: Any, path: str, env: Mapping[str, str]) -> tuple[str, ...] | None:
    words = _sequence(value, path)
    if not words:
        return None
    return tuple(expand(_text(word, f"{path}[{index}]"), env) for index, word in enumerate(words))


def _grace_s(value: Any) -> float:
    if value is None:
        return DEFAULT_GRACE_S
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 86_400 * 7:
        raise PodSpecError(f"spec.terminationGracePeriodSeconds: {value!r} is not a number of seconds")
    return float(value)


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise PodSpecError(f"{path}: is not a mapping")
    return value


def _sequence(value: Any, path: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise PodSpecError(f"{path}: is not a list")
    return value


def _text(value: Any, path: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise PodSpecError(f"{path}: is not a text")
    if "\0" in value:
        raise PodSpecError(f"{path}: has a NUL in it")
    return value
