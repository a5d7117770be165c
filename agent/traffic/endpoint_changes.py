"""From the servers that HAProxy has to those that it should have, without a reload. Pure.

An endpoint that leaves is drained. Once nothing is left of it, it is put in maintenance and deleted. One
that comes back meanwhile is made ready again. What the runtime socket cannot do is left to a reload, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from agent.traffic.haproxy_backends import Backend, Server

_MAINTENANCE = 0x01 | 0x02 | 0x04 | 0x20  # Bits of srv_admin_state: forced, inherited, configured, resolved.
_DRAIN = 0x08
_STATE_FIELDS = 19  # Of a line, up to the server's port.


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """As HAProxy says it is."""

    id: int
    address: str
    port: int
    weight: int
    is_ready: bool  # Neither drained nor in maintenance, whatever its node's check says.


Running = Mapping[str, Mapping[str, RunningServer]]  # By backend and server.


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPlan:
    """What to say to HAProxy, and what it has afterwards."""

    commands: tuple[str, ...] = ()
    after: Mapping[str, Mapping[str, RunningServer]]  # Of the backends that change.
    reload_reason: str = ""  # What cannot be had in this way; empty: nothing.


def parse_servers(text: str) -> dict[str, dict[str, RunningServer]]:
    """From `show servers state`. A backend without servers is not in it."""
    running: dict[str, dict[str, RunningServer]] = {}
    for line in text.splitlines():
        fields = line.split(" ")
        if line.startswith("#") or len(fields) < _STATE_FIELDS:
            continue
        _, backend, number, name, address, _, admin, weight = fields[:8]
        state = int(admin)
        running.setdefault(backend, {})[name] = RunningServer(
            id=int(number),
            address=address,
            port=int(fields[18]),
            weight=int(weight),
            is_ready=not state & (_MAINTENANCE | _DRAIN),
        )
    return running


def plan_changes(running: Running, wanted: Iterable[Backend]) -> EndpointPlan:
    """For backends whose frame is what HAProxy was loaded with."""
    commands: list[str] = []
    after: dict[str, dict[str, RunningServer]] = {}
    reasons: list[str] = []
    for backend in wanted:
        known = running.get(backend.name, {})
        servers = dict(known)
        for server in backend.servers.values():
            said, reason = _bring(backend, server, known.get(server.name))
            commands += said
            if reason:
                reasons.append(reason)
            else:
                servers[server.name] = _as_running(server)
        for name, one in known.items():
            if name not in backend.servers and one.is_ready:
                commands.append(f"set server {backend.name}/{name} state drain")
                servers[name] = replace(one, is_ready=False)
        if servers != known:
            after[backend.name] = servers
    return EndpointPlan(commands=tuple(commands), after=after, reload_reason=reasons[0] if reasons else "")


def leaving(running: Running, wanted: Mapping[str, Backend]) -> dict[str, set[str]]:
    """Servers that HAProxy has and should not, by backend; of backends that are wanted."""
    found = {}
    for name, backend in wanted.items():
        gone = running.get(name, {}).keys() - backend.servers.keys()
        if gone:
            found[name] = set(gone)
    return found


def deletion(backend: str, server: str) -> tuple[str, str]:
    """For a server that nothing is left of: HAProxy deletes only what is in maintenance."""
    return f"set server {backend}/{server} state maint", f"del server {backend}/{server}"


def _bring(backend: Backend, server: Server, known: RunningServer | None) -> tuple[list[str], str]:
    """Commands, or why a reload is needed."""
    target = f"{backend.name}/{server.name}"
    if known is None:
        return [f"add server {backend.name}/{backend.server_text(server)}", f"enable server {target}"], ""
    if (known.id, known.address, known.port) != (server.id, server.address, server.port):
        return [], f"{target} has another address or id"
    commands = []
    if known.weight != server.weight:
        commands.append(f"set server {target} weight {server.weight}")
    if not known.is_ready:
        commands.append(f"set server {target} state ready")
    return commands, ""


def _as_running(server: Server) -> RunningServer:
    return RunningServer(
        id=server.id, address=server.address, port=server.port, weight=server.weight, is_ready=True
    )
