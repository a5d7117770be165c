"""`bay install`: what a manager, an agent or an etcd member needs on its host, as steps.

Pure but for reading what the host has. The program that a unit runs is the one beside this `bay`,
so that an environment is upgraded as a whole. Join tokens lie in files of their own: settings are
looked at and copied more freely than a secret should be.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from bayplan.cli.failures import CommandError
from bayplan.cli.install_steps import ROOT_USER, Directory, Host, Readable, Step, SystemUser, TextFile
from bayplan.cli.install_toml import HEADER, Document, Value, changed_keys, changed_toml, read_toml
from bayplan.cli.install_units import (
    STATE,
    Daemon,
    agent_unit,
    dns_unit,
    etcd_unit,
    manager_unit,
    proxy_unit,
)

ETC = "/etc/bayplan"
ETCD_CERTIFICATES = f"{ETC}/etcd"
ETCD_ENVIRONMENT = f"{ETC}/etcd.env"
UNITS = "/etc/systemd/system"

MANAGER_USER, ETCD_USER = "bayplan", "etcd"
MANAGER_DATA, AGENT_DATA, ETCD_DATA = "/var/lib/bayplan-manager", "/var/lib/bayplan", "/var/lib/bayplan-etcd"

# The units hide these directories from what they run (ProtectHome).
_HOMES = ("/home", "/root", "/run/user")

# Settings that name a file the daemon reads.
_FILES = ("join-token-file", "etcd-ca", "etcd-cert", "etcd-key")

# All of one wheel, from one file of settings.
_NODE_UNITS = {"bayplan-agent": agent_unit, "bayplan-proxy": proxy_unit, "bayplan-dns": dns_unit}

ETCD_CLIENT_PORT, ETCD_PEER_PORT = 2379, 2380


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The Python environment that this `bay` runs in."""

    programs: str  # Directory of bay, bayplan-manager and bayplan-agent.
    python: str  # Directory of the Python that the environment was made from.


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done, and what the operator does after it."""

    unit: str  # Name for systemctl.
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the operator said on the command line. Settings that were not named are not in `settings`."""

    settings: Mapping[str, Value] = field(default_factory=dict)
    token: str = field(default="", repr=False)


def plan_manager(wanted: Wanted, environment: Environment, host: Host) -> Plan:
    """Raises CommandError."""
    _check_files(wanted)
    token_file = f"{ETC}/manager-join-token"
    before, text = _settings(f"{ETC}/manager.toml", "bayplan-manager", host)
    changes = {**_etcd_certificates(before, wanted, host), **wanted.settings}
    if wanted.token or ("join" in changes and "join-token-file" not in before | changes):
        changes["join-token-file"] = token_file
    after = before | changes
    _demand(after, "id", "advertise")
    data_dir = str(after.get("data-dir", MANAGER_DATA))
    program = _program("bayplan-manager", environment, host)
    unit = manager_unit(Daemon(program=program, data_dir=data_dir, user=MANAGER_USER))
    steps: list[Step] = [
        SystemUser(name=MANAGER_USER, home=MANAGER_DATA),
        *_directories(data_dir, owner=MANAGER_USER),
        *_token(token_file, wanted, group=MANAGER_USER),
        *(Readable(path=path, group=MANAGER_USER) for path in _private_files(after, host)),
        _toml(f"{ETC}/manager.toml", text, before, changes, group=MANAGER_USER, mode=0o640),
        TextFile(path=f"{UNITS}/bayplan-manager.service", content=unit, mode=0o644),
    ]
    return Plan(unit="bayplan-manager", steps=tuple(steps), notes=_token_notes(after, steps, host))


def plan_agent(wanted: Wanted, environment: Environment, host: Host) -> Plan:
    """Raises CommandError."""
    _check_files(wanted)
    token_file = f"{ETC}/agent-join-token"
    before, text = _settings(f"{ETC}/agent.toml", "bayplan-agent", host)
    changes = dict(wanted.settings)
    if wanted.token or "join-token-file" not in before | changes:
        changes["join-token-file"] = token_file
    after = before | changes
    _demand(after, "managers")
    data_dir = str(after.get("data-dir", AGENT_DATA))
    units = {
        name: unit(Daemon(program=_program(name, environment, host), data_dir=data_dir, user=ROOT_USER))
        for name, unit in _NODE_UNITS.items()
    }
    steps: list[Step] = [
        *_directories(data_dir, owner=ROOT_USER),
        *_token(token_file, wanted, group=ROOT_USER),
        _toml(f"{ETC}/agent.toml", text, before, changes, group=ROOT_USER, mode=0o600),
        *(TextFile(path=f"{UNITS}/{name}.service", content=text, mode=0o644) for name, text in units.items()),
    ]
    notes = (*_token_notes(after, steps, host), *_haproxy_notes(host))
    return Plan(unit="bayplan-agent", steps=tuple(steps), notes=notes)


def plan_etcd(
    name: str, address: str, members: Sequence[str], *, is_existing: bool, program: str, host: Host
) -> Plan:
    """`members`: NAME=ADDRESS of the others. Raises CommandError."""
    _check_path("program", program)
    if not host.path(program).is_file():
        raise CommandError(f"there is no program {program}", exit_code=2)
    for file in ("ca.pem", "server.pem", "server.key"):
        if not host.path(f"{ETCD_CERTIFICATES}/{file}").exists():
            raise CommandError(
                f"{ETCD_CERTIFICATES}/{file} is missing: make it with "
                f"`bay admin etcd-certs {ETCD_CERTIFICATES} --host {address}`, "
                "or copy what was made on the first host"
            )
    content = _etcd_environment(name, address, members, is_existing=is_existing)
    unit = etcd_unit(
        Daemon(program=program, data_dir=ETCD_DATA, user=ETCD_USER), environment=ETCD_ENVIRONMENT
    )
    steps: tuple[Step, ...] = (
        SystemUser(name=ETCD_USER, home=ETCD_DATA),
        *_directories(ETCD_DATA, owner=ETCD_USER),
        Readable(path=f"{ETCD_CERTIFICATES}/server.key", group=ETCD_USER),
        TextFile(path=ETCD_ENVIRONMENT, content=content, mode=0o644),
        TextFile(path=f"{UNITS}/bayplan-etcd.service", content=unit, mode=0o644),
    )
    notes = []
    if host.path(f"{UNITS}/multi-user.target.wants/etcd.service").exists():
        notes = ["the package's own etcd takes the same ports: systemctl disable --now etcd"]
    return Plan(unit="bayplan-etcd", steps=steps, notes=tuple(notes))


def _settings(path: str, program: str, host: Host) -> tuple[Document, str]:
    text = host.read(path)
    if text is None:
        return {}, HEADER.format(program=program)
    return read_toml(text, path=path), text


def _toml(
    path: str, text: str, before: Document, changes: Mapping[str, Value], *, group: str, mode: int
) -> TextFile:
    notes = changed_keys(before, {**before, **changes})
    return TextFile(
        path=path, content=changed_toml(text, changes), mode=mode, group=group, notes=tuple(notes)
    )


def _demand(settings: Mapping[str, Value], *names: str) -> None:
    missing = [f"--{name}" for name in names if name not in settings]
    if missing:
        raise CommandError(f"missing: {', '.join(missing)}", exit_code=2)


def _program(name: str, environment: Environment, host: Host) -> str:
    """Absolute path of the daemon that belongs to this `bay`."""
    program = PurePosixPath(environment.programs, name)
    if not host.path(str(program)).exists():
        raise CommandError(f"there is no {program}: install the wheel bayplan there, not bayplan-client")
    for place in (program, PurePosixPath(environment.python)):
        if _is_in_a_home(place):
            raise CommandError(
                f"{place} is below a home directory, which services do not see: make an environment "
                "elsewhere, such as /opt/bayplan, with a Python that all can read"
            )
    return str(program)


def _check_files(wanted: Wanted) -> None:
    for name in _FILES:
        if name in wanted.settings:
            _check_path(name, str(wanted.settings[name]))


def _check_path(option: str, path: str) -> None:
    """Raises CommandError for one that a unit cannot use."""
    if not PurePosixPath(path).is_absolute():
        raise CommandError(f"--{option} {path} is not an absolute path", exit_code=2)
    if _is_in_a_home(PurePosixPath(path)):
        raise CommandError(
            f"--{option} {path} is below a home directory, which services do not see: choose a place elsewhere",
            exit_code=2,
        )


def _is_in_a_home(path: PurePosixPath) -> bool:
    return any(path.is_relative_to(home) for home in _HOMES)


def _directories(data_dir: str, *, owner: str) -> list[Step]:
    """systemd makes what is below /var/lib by itself."""
    steps: list[Step] = [Directory(path=ETC, mode=0o755)]
    _check_path("data-dir", data_dir)
    if not data_dir.startswith(STATE):
        steps.append(Directory(path=data_dir, mode=0o700, owner=owner))
    return steps


def _token(path: str, wanted: Wanted, *, group: str) -> list[Step]:
    if not wanted.token:
        return []
    mode = 0o600 if group == ROOT_USER else 0o640
    return [TextFile(path=path, content=f"{wanted.token}\n", mode=mode, group=group, is_secret=True)]


def _token_notes(after: Document, steps: Sequence[Step], host: Host) -> tuple[str, ...]:
    path = str(after.get("join-token-file", ""))
    written = {step.path for step in steps if isinstance(step, TextFile)}
    if not path or path in written or host.path(path).exists():
        return ()
    return (f"unless it has an identity already, it waits for a join token in {path}",)


def _haproxy_notes(host: Host) -> tuple[str, ...]:
    if not host.path(f"{UNITS}/multi-user.target.wants/haproxy.service").exists():
        return ()
    return (
        "the package's own HAProxy is of no use here and may take ports: systemctl disable --now haproxy",
    )


def _etcd_certificates(before: Document, wanted: Wanted, host: Host) -> Document:
    """Those of `bay admin etcd-certs`, where they lie and nobody said another thing."""
    files = {
        "etcd-ca": f"{ETCD_CERTIFICATES}/ca.pem",
        "etcd-cert": f"{ETCD_CERTIFICATES}/client.pem",
        "etcd-key": f"{ETCD_CERTIFICATES}/client.key",
    }
    if files.keys() & (before.keys() | wanted.settings.keys()):
        return {}
    if not all(host.path(path).exists() for path in files.values()):
        return {}
    return {**files}


def _private_files(after: Document, host: Host) -> list[str]:
    """Files that the manager's user must read, and nobody else; those elsewhere are their owner's business."""
    path = str(after.get("etcd-key", ""))
    return [path] if path.startswith(f"{ETC}/") and host.path(path).exists() else []


def _etcd_environment(name: str, address: str, members: Sequence[str], *, is_existing: bool) -> str:
    peers = {name: _url_host(address)}
    for member in members:
        other, equals, at = member.partition("=")
        if not equals or not other:
            raise CommandError(f'--member "{member}" is not NAME=ADDRESS', exit_code=2)
        if other in peers and peers[other] != _url_host(at):
            raise CommandError(f"--member {other} is named twice, with two addresses", exit_code=2)
        peers[other] = _url_host(at)
    own = peers[name]
    cluster = ",".join(f"{peer}=https://{at}:{ETCD_PEER_PORT}" for peer, at in sorted(peers.items()))
    values = {
        "NAME": name,
        "DATA_DIR": f"{ETCD_DATA}/data",
        "LISTEN_CLIENT_URLS": f"https://{own}:{ETCD_CLIENT_PORT},https://127.0.0.1:{ETCD_CLIENT_PORT}",
        "ADVERTISE_CLIENT_URLS": f"https://{own}:{ETCD_CLIENT_PORT}",
        "LISTEN_PEER_URLS": f"https://{own}:{ETCD_PEER_PORT}",
        "INITIAL_ADVERTISE_PEER_URLS": f"https://{own}:{ETCD_PEER_PORT}",
        # Looked at when the data directory is empty, and never again.
        "INITIAL_CLUSTER": cluster,
        "INITIAL_CLUSTER_STATE": "existing" if is_existing else "new",
        "INITIAL_CLUSTER_TOKEN": "bayplan",
        # docs/operate.md says where these numbers come from.
        "SNAPSHOT_COUNT": "10000",
        "QUOTA_BACKEND_BYTES": str(2 << 30),
        "LOGGER": "zap",
        "LOG_LEVEL": "warn",
    }
    for kind in ("", "PEER_"):
        values |= {
            f"{kind}TRUSTED_CA_FILE": f"{ETCD_CERTIFICATES}/ca.pem",
            f"{kind}CERT_FILE": f"{ETCD_CERTIFICATES}/server.pem",
            f"{kind}KEY_FILE": f"{ETCD_CERTIFICATES}/server.key",
            f"{kind}CLIENT_CERT_AUTH": "true",
        }
    lines = "".join(f"ETCD_{key}={value}\n" for key, value in values.items())
    return f"# Laid down by `bay install etcd`, which writes it anew.\n{lines}"


def _url_host(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError as error:
        # etcd listens on addresses, not on names.
        raise CommandError(f'"{address}" is not an IP address', exit_code=2) from error
    return f"[{parsed}]" if parsed.version == 6 else str(parsed)
