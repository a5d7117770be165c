"""Our containers in Docker's words, and Docker's words about them in ours. Pure.

Kubernetes' meanings are kept: `command` replaces ENTRYPOINT (and then the image's CMD is not used),
`args` replaces CMD, cpu requests are shares and cpu limits quotas, memory limits count swap, there is
no init process. Docker itself restarts nothing: restarts are the agent's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from agent.runtime.port import Container, ContainerSpec, ContainerState

LOG_OPTIONS = {"max-size": "10m", "max-file": "3"}
# The kernel's own smallest weight; Kubernetes gives it to containers without a request as well.
SHARES_MIN = 2
# The kernel's default period. Quotas rather than NanoCpus: Docker refuses NanoCpus above the host's
# processors, and a limit above what a node has is legal in Kubernetes.
CPU_PERIOD_US = 100_000
CPU_QUOTA_MIN_US = 1_000  # The kernel refuses less.
NOBODY = "65534:65534"
SANDBOX_RIGHTS = {
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges"],
    "ReadonlyRootfs": True,
}
HOSTNAME_LENGTH_MAX = 63  # Linux allows 64; names in DNS 63.

_STATES = {
    "created": ContainerState.CREATED,
    "running": ContainerState.RUNNING,
    "restarting": ContainerState.RUNNING,
    "paused": ContainerState.PAUSED,
    "exited": ContainerState.EXITED,
    # Half removed: nothing runs any more.
    "removing": ContainerState.EXITED,
    "dead": ContainerState.EXITED,
}


def to_create_body(spec: ContainerSpec, labels: Mapping[str, str]) -> dict[str, Any]:
    """The body of `POST /containers/create`."""
    body: dict[str, Any] = {
        "Image": spec.image,
        "Labels": dict(labels),
        "Env": [f"{name}={value}" for name, value in spec.env.items()],
        "Hostname": spec.hostname[:HOSTNAME_LENGTH_MAX].rstrip("-."),
        "HostConfig": _host_config(spec),
    }
    if spec.is_sandbox:
        body["User"] = NOBODY
        # Its program (sandbox_program.py) handles no other.
        body["StopSignal"] = "SIGKILL"
    if spec.command:
        body["Entrypoint"] = list(spec.command)
    if spec.args:
        body["Cmd"] = list(spec.args)
    if spec.working_dir:
        body["WorkingDir"] = spec.working_dir
    if spec.network and spec.address:
        addresses = {"IPv4Address": spec.address}
        body["NetworkingConfig"] = {"EndpointsConfig": {spec.network: {"IPAMConfig": addresses}}}
    return body


def _host_config(spec: ContainerSpec) -> dict[str, Any]:
    config: dict[str, Any] = {
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": LOG_OPTIONS},
        "Init": False,
        "PidsLimit": spec.pids_limit,
        "CpuShares": max(SHARES_MIN, spec.cpu_request_millis * 1024 // 1000),
    }
    if spec.joins:
        config["NetworkMode"] = f"container:{spec.joins}"
    elif spec.network:
        config["NetworkMode"] = spec.network
    if spec.is_sandbox:
        config |= SANDBOX_RIGHTS
    if spec.mounts:
        # Not "Binds": those make a directory where the source is missing.
        config["Mounts"] = [
            {"Type": "bind", "Source": mount.source, "Target": mount.target, "ReadOnly": True}
            for mount in spec.mounts
        ]
    if spec.cpu_limit_millis:
        config["CpuPeriod"] = CPU_PERIOD_US
        config["CpuQuota"] = max(CPU_QUOTA_MIN_US, spec.cpu_limit_millis * CPU_PERIOD_US // 1000)
    if spec.memory_limit_bytes:
        config["Memory"] = spec.memory_limit_bytes
        config["MemorySwap"] = spec.memory_limit_bytes
    return config


def from_inspection(found: Mapping[str, Any]) -> Container:
    """From the answer to `GET /containers/<id>/json`."""
    state = found["State"]
    shown_state = _STATES.get(state["Status"], ContainerState.EXITED)
    started_s, finished_s = to_seconds(state["StartedAt"]), to_seconds(state["FinishedAt"])
    if shown_state is ContainerState.EXITED:
        # The engine books a start when it hears of it, and an end by when it was: a process of a few
        # milliseconds would have ended before it started.
        finished_s = max(finished_s, started_s)
    return Container(
        id=found["Id"],
        name=found["Name"].removeprefix("/"),
        labels=found["Config"]["Labels"] or {},
        state=shown_state,
        image=found["Config"]["Image"],
        image_id=found["Image"],
        created_s=to_seconds(found["Created"]),
        started_s=started_s,
        finished_s=finished_s,
        exit_code=state["ExitCode"],
        oom_killed=state["OOMKilled"],
        error=state["Error"],
        address=_address(found["NetworkSettings"]["Networks"]),
        pid=state["Pid"],
    )


def from_listing(row: Mapping[str, Any], last_seen: Container | None) -> Container:
    """From a row of `GET /containers/json`, which knows less: what it lacks is as it was last seen."""
    seen = last_seen or Container(
        id=row["Id"],
        name=row["Names"][0].removeprefix("/"),
        labels=row["Labels"] or {},
        state=ContainerState.CREATED,
        image=row["Image"],
        image_id=row["ImageID"],
        created_s=float(row["Created"]),
        address=_address(row["NetworkSettings"]["Networks"]),
    )
    return replace(seen, state=_STATES.get(row["State"], ContainerState.EXITED))


def to_seconds(timestamp: str) -> float:
    """Seconds since the Unix epoch of Docker's RFC 3339 time; 0.0 for its "never" (the year 1)."""
    if timestamp.startswith("0001-"):
        return 0.0
    # Docker writes nanoseconds; Python reads any number of digits, and drops what is below a microsecond.
    return datetime.fromisoformat(timestamp).timestamp()


def _address(networks: Mapping[str, Any] | None) -> str:
    for network in (networks or {}).values():
        if network["IPAddress"]:
            return str(network["IPAddress"])
    return ""
