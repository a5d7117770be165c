"""What an agent is told when it starts. Everything else it learns from its managers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

DOCKER_SOCKET = "/var/run/docker.sock"
RUN_DIR = Path("/run/bayplan")
METRICS = "127.0.0.1:7491"
WITNESS_PORT = 7443
PROXY_PORT = 7460
# A bridge network of a /24 has 253 addresses; the node's own gateway takes one.
PODS_MAX = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Written by the operator (flags, environment, file), never by the system."""

    node: str
    data_dir: Path
    managers: tuple[str, ...]  # "host:port", tried in turn.
    address: str  # Advertised: where other hosts reach this one.
    witness_port: int = WITNESS_PORT
    # Of the node's proxy, on the bridge alone: this one and the next three (agent/traffic/ports.py).
    proxy_port: int = PROXY_PORT
    # Published ports are bound here; empty: at `address`.
    publish_addresses: tuple[str, ...] = ()
    # Sockets, and keys that must not stay on a disk: a tmpfs.
    run_dir: Path = RUN_DIR
    metrics: str = METRICS  # Where /metrics is served; empty: nowhere.
    labels: Mapping[str, str] = field(default_factory=dict)
    # 0: as the engine says.
    cpu_millis: int = 0
    memory_bytes: int = 0
    # Kept back from pods, for the host's own processes.
    reserved_cpu_millis: int = 0
    reserved_memory_bytes: int = 0
    pods: int = PODS_MAX
    # What lets a node join that has no identity yet.
    join_token: str = field(default="", repr=False)
    join_token_file: Path | None = None
    insecure_loopback: bool = False  # Plain text, to managers at loopback addresses only.
