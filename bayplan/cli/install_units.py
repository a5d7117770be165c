"""The systemd units that `bay install` lays down, as hardened as each program bears.

What is left out of a unit's hardening bears its reason. Operators change a unit with
`systemctl edit`, whose drop-ins stay when the unit itself is laid down anew.
"""

from __future__ import annotations

from dataclasses import dataclass

STATE = "/var/lib/"

# What none of the three needs (systemd.exec(5)). MemoryDenyWriteExecute bears gRPC, numpy and cffi: none of
# them makes code at run time as they are used here.
_SEALED = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
PrivateTmp=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
"""

# For what runs as a user of its own.
_OF_A_USER = """\
PrivateDevices=yes
ProtectHome=yes
ProtectProc=invisible
RemoveIPC=yes
UMask=0077
"""

_RESTART = """\
Restart=always
RestartSec=1
LimitNOFILE=65536
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """What differs from host to host."""

    program: str  # Absolute.
    data_dir: str  # Absolute.
    user: str


def manager_unit(daemon: Daemon) -> str:
    """Restarts for ever: etcd may come minutes later. What must be mended on this host first (2) does not cure itself."""
    return f"""\
# Laid down by `bay install manager`. Change it with `systemctl edit bayplan-manager`.
[Unit]
Description=Bayplan manager
Wants=network-online.target
After=network-online.target bayplan-etcd.service
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={daemon.program}
User={daemon.user}
Group={daemon.user}
{_state(daemon.data_dir)}
{_RESTART}RestartPreventExitStatus=2
# SIGTERM gives the leadership up; what does not end in time may die, since nothing durable is in memory.
KillMode=mixed
TimeoutStopSec=15

{_SEALED}{_OF_A_USER}RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX

[Install]
WantedBy=multi-user.target
"""


def agent_unit(daemon: Daemon) -> str:
    """Root, since Docker's socket makes whoever has it root anyway; but with nothing else of root's."""
    return f"""\
# Laid down by `bay install agent`. Change it with `systemctl edit bayplan-agent`.
[Unit]
Description=Bayplan agent
Wants=network-online.target docker.service
After=network-online.target docker.service
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={daemon.program}
{_state(daemon.data_dir)}
{_RESTART}RestartPreventExitStatus=2
# Containers are the engine's children, not ours. Only the agent itself is stopped, whatever else is in its group.
KillMode=process
TimeoutStopSec=15

{_SEALED}# The engine's data may lie below /home: how full that disk is must be seen.
ProtectHome=read-only
# Not PrivateDevices, ProtectProc: usage and disks of all containers are read from the kernel's own tables.
UMask=0077
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX

[Install]
WantedBy=multi-user.target
"""


def etcd_unit(daemon: Daemon, *, environment: str) -> str:
    """etcd is told everything by `environment`, a file."""
    return f"""\
# Laid down by `bay install etcd`. Change it with `systemctl edit bayplan-etcd`; settings are in {environment}.
[Unit]
Description=etcd for Bayplan
Wants=network-online.target
After=network-online.target
# The package's own, which would take the same ports.
Conflicts=etcd.service
StartLimitIntervalSec=0

[Service]
# Not notify: the first members of a new cluster say that they are ready only when most of them are there.
Type=exec
ExecStart={daemon.program}
EnvironmentFile={environment}
User={daemon.user}
Group={daemon.user}
{_state(daemon.data_dir)}
{_RESTART}KillMode=mixed
TimeoutStopSec=30
# A leader that cannot write in time loses its leadership.
IOSchedulingClass=best-effort
IOSchedulingPriority=2

{_SEALED}{_OF_A_USER}RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK

[Install]
WantedBy=multi-user.target
"""


def _state(data_dir: str) -> str:
    """The one directory it may write to. systemd makes those below /var/lib, and gives them to the user."""
    if data_dir.startswith(STATE) and len(data_dir) > len(STATE):
        return f"StateDirectory={data_dir.removeprefix(STATE)}\nStateDirectoryMode=0700"
    return f"ReadWritePaths={data_dir}"
