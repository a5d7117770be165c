"""A container's probes and hooks, read from its part of the template. Pure.

Kubernetes' fields and defaults. What would only be noticed at the first probe there, such as the name of
a port that the container does not have, is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agent.probes.model import Check, Exec, GrpcCheck, Hook, Hooks, HttpGet, Probe, Probes, Sleep, TcpConnect
from agent.template_fields import PodSpecError, count, mapping, port_number, seconds, sequence, text

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# A host is a name or an address, not a way to say more than a host.
_HOST = re.compile(r"[0-9A-Za-z._:-]{1,253}|")
# What ends a line, or the request's first part, must not come from a field.
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")

Ports = Mapping[str, int]


def read_probes(container: Mapping[str, Any], path: str, ports: Ports) -> Probes:
    """`ports`: the container's named ones. Raises PodSpecError."""
    startup = _probe(container.get("startupProbe"), f"{path}.startupProbe", ports)
    readiness = _probe(container.get("readinessProbe"), f"{path}.readinessProbe", ports)
    liveness = _probe(container.get("livenessProbe"), f"{path}.livenessProbe", ports)
    for name, probe in (("startupProbe", startup), ("livenessProbe", liveness)):
        if probe is not None and probe.success_threshold != 1:
            raise PodSpecError(f"{path}.{name}.successThreshold: must be 1 for this probe")
    if readiness is not None and readiness.grace_s is not None:
        raise PodSpecError(
            f"{path}.readinessProbe.terminationGracePeriodSeconds: a container is not stopped for it"
        )
    return Probes(startup=startup, readiness=readiness, liveness=liveness)


def read_hooks(container: Mapping[str, Any], path: str, ports: Ports) -> Hooks:
    """`ports`: the container's named ones. Raises PodSpecError."""
    lifecycle = mapping(container.get("lifecycle"), f"{path}.lifecycle")
    return Hooks(
        post_start=_hook(lifecycle.get("postStart"), f"{path}.lifecycle.postStart", ports),
        pre_stop=_hook(lifecycle.get("preStop"), f"{path}.lifecycle.preStop", ports),
    )


def _probe(value: Any, path: str, ports: Ports) -> Probe | None:
    probe = mapping(value, path)
    if not probe:
        return None
    grace_s = seconds(probe.get("terminationGracePeriodSeconds"), f"{path}.terminationGracePeriodSeconds")
    return Probe(
        check=_check(probe, path, ports),
        initial_delay_s=seconds(probe.get("initialDelaySeconds"), f"{path}.initialDelaySeconds") or 0.0,
        # 0 is "not said", as in Kubernetes.
        period_s=seconds(probe.get("periodSeconds"), f"{path}.periodSeconds") or 10.0,
        timeout_s=seconds(probe.get("timeoutSeconds"), f"{path}.timeoutSeconds") or 1.0,
        success_threshold=count(probe.get("successThreshold"), f"{path}.successThreshold", default=1),
        failure_threshold=count(probe.get("failureThreshold"), f"{path}.failureThreshold", default=3),
        grace_s=grace_s,
    )


def _check(probe: Mapping[str, Any], path: str, ports: Ports) -> Check:
    kind = _only(probe, path, ("exec", "httpGet", "tcpSocket", "grpc"))
    body, where = mapping(probe[kind], f"{path}.{kind}"), f"{path}.{kind}"
    match kind:
        case "exec":
            return _exec(body, where)
        case "httpGet":
            return _http_get(body, where, ports)
        case "tcpSocket":
            return TcpConnect(
                port=_port(body.get("port"), f"{where}.port", ports),
                host=_host(body.get("host"), f"{where}.host"),
            )
        case _:
            return GrpcCheck(
                port=port_number(body.get("port"), f"{where}.port"),
                service=text(body.get("service"), f"{where}.service"),
            )


def _hook(value: Any, path: str, ports: Ports) -> Hook | None:
    hook = mapping(value, path)
    if not hook:
        return None
    kind = _only(hook, path, ("exec", "httpGet", "sleep"))
    body, where = mapping(hook[kind], f"{path}.{kind}"), f"{path}.{kind}"
    match kind:
        case "exec":
            return _exec(body, where)
        case "httpGet":
            return _http_get(body, where, ports)
        case _:
            return Sleep(duration_s=seconds(body.get("seconds"), f"{where}.seconds") or 0.0)


def _only(value: Mapping[str, Any], path: str, kinds: tuple[str, ...]) -> str:
    """Which one of `kinds` it says."""
    said = [kind for kind in kinds if value.get(kind) is not None]
    if len(said) != 1:
        raise PodSpecError(f"{path}: says {' and '.join(said) or 'none'} of {', '.join(kinds)}: must be one")
    return said[0]


def _exec(body: Mapping[str, Any], path: str) -> Exec:
    words = sequence(body.get("command"), f"{path}.command")
    if not words:
        raise PodSpecError(f"{path}.command: is missing")
    return Exec(command=tuple(text(word, f"{path}.command[{index}]") for index, word in enumerate(words)))


def _http_get(body: Mapping[str, Any], path: str, ports: Ports) -> HttpGet:
    scheme = text(body.get("scheme"), f"{path}.scheme") or "HTTP"
    if scheme.upper() not in ("HTTP", "HTTPS"):
        raise PodSpecError(f"{path}.scheme: {scheme!r} is neither HTTP nor HTTPS")
    target = text(body.get("path"), f"{path}.path")
    if _UNPRINTABLE.search(target):
        raise PodSpecError(f"{path}.path: {target!r} has blanks or control characters in it")
    return HttpGet(
        port=_port(body.get("port"), f"{path}.port", ports),
        path=target if target.startswith("/") else f"/{target}",
        host=_host(body.get("host"), f"{path}.host"),
        is_tls=scheme.upper() == "HTTPS",
        headers=tuple(
            _header(mapping(header, f"{path}.httpHeaders[{index}]"), f"{path}.httpHeaders[{index}]")
            for index, header in enumerate(sequence(body.get("httpHeaders"), f"{path}.httpHeaders"))
        ),
    )


def _header(header: Mapping[str, Any], path: str) -> tuple[str, str]:
    name, value = text(header.get("name"), f"{path}.name"), text(header.get("value"), f"{path}.value")
    if not _HEADER_NAME.fullmatch(name):
        raise PodSpecError(f"{path}.name: {name!r} is not a header's name")
    if "\r" in value or "\n" in value:
        raise PodSpecError(f"{path}.value: has a line break in it")
    return name, value


def _host(value: Any, path: str) -> str:
    host = text(value, path)
    if not _HOST.fullmatch(host):
        raise PodSpecError(f"{path}: {host!r} is neither a name nor an address")
    return host


def _port(value: Any, path: str, ports: Ports) -> int:
    """A number, a number as text, or the name of one of the container's ports."""
    if not isinstance(value, str):
        return port_number(value, path)
    if value.isdecimal():
        return port_number(int(value), path)
    if value not in ports:
        raise PodSpecError(f"{path}: the container has no port named {value!r}")
    return ports[value]
