"""The systemd units that `bay install` lays down, as hardened as each program bears.

What is left out of a unit's hardening bears its reason. Operators change a unit with
`systemctl edit`, whose drop-ins stay when the unit itself is laid down anew.
"""

from __future__ import annotations

from dataclasses import dataclass

STATE = "/var/lib/"

# What none of them needs (systemd.exec(5)).
_SEALED = """\
NoNewPrivileges=yes
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
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
"""

# gRPC, numpy and cffi bear the second: none of them makes code at run time as they are used here.
_WITHOUT_CAPABILITIES = "CapabilityBoundingSet=\n"
_WITHOUT_NEW_CODE = "MemoryDenyWriteExecute=yes\n"

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

# Without these nobody is served: at once, and last of all when memory runs out.
_RESTART_AT_ONCE = """\
Restart=always
RestartSec=200ms
RestartPreventExitStatus=2
OOMScoreAdjust=-500
"""

# Where agent, proxy and name server meet. Workers of the proxy, which are another user's, pass through it, and
# what each leaves there is the others' to read: it stays when one of them ends.
_MEETING_PLACE = """\
RuntimeDirectory=bayplan
RuntimeDirectoryMode=0711
RuntimeDirectoryPreserve=yes
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

{_SEALED}{_WITHOUT_CAPABILITIES}{_WITHOUT_NEW_CODE}{_OF_A_USER}RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX

[Install]
WantedBy=multi-user.target
"""


def agent_unit(daemon: Daemon) -> str:
    """Root, since Docker's socket makes whoever has it root anyway; but with no more of root's than networks need.

    It wants the two that serve without it, and is neither before nor after them: its restart is not theirs.
    """
    return f"""\
# Laid down by `bay install agent`. Change it with `systemctl edit bayplan-agent`.
[Unit]
Description=Bayplan agent
Wants=network-online.target docker.service bayplan-proxy.service bayplan-dns.service
After=network-online.target docker.service
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={daemon.program}
{_state(daemon.data_dir)}
{_MEETING_PLACE}{_RESTART}RestartPreventExitStatus=2
# Containers are the engine's children, not ours. Only the agent itself is stopped, whatever else is in its group.
KillMode=process
TimeoutStopSec=15

{_SEALED}# Bridge, tunnel, routes, nftables and iptables; trying whether a published port is free; seeing who has it;
# ending a probe's command that hangs, whichever user runs it; a socket that the proxy's user may write to.
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE CAP_SYS_PTRACE CAP_KILL CAP_CHOWN
SystemCallFilter=@chown
# Not MemoryDenyWriteExecute: it has HAProxy check each configuration, and HAProxy compiles regular expressions.
# The switches of the network alone, and the lock that Docker's older iptables shares.
ReadWritePaths=/proc/sys/net -/run/xtables.lock
# The engine's data may lie below /home: how full that disk is must be seen.
ProtectHome=read-only
# Not PrivateDevices, ProtectProc: usage and disks of all containers are read from the kernel's own tables.
UMask=0077
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK

[Install]
WantedBy=multi-user.target
"""


def proxy_unit(daemon: Daemon) -> str:
    """HAProxy, which goes on whatever becomes of the agent. It waits for the first configuration."""
    return f"""\
# Laid down by `bay install agent`. Change it with `systemctl edit bayplan-proxy`.
[Unit]
Description=Bayplan proxy (HAProxy)
# Not PartOf or After the agent: neither its restart nor its upgrade touches a connection.
After=network.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={daemon.program}
ExecReload=/bin/kill -USR2 $MAINPID
{_MEETING_PLACE}{_RESTART_AT_ONCE}# A connection is two of them, and old workers live until their last connection ends.
LimitNOFILE=1048576
# SIGTERM to the master alone: it ends its workers.
KillMode=mixed
TimeoutStopSec=10

{_SEALED}# Ports below 1024, addresses that come later (transparent), and workers that become another user.
CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_NET_ADMIN CAP_SETUID CAP_SETGID CAP_KILL
SystemCallFilter=@setuid
# Not MemoryDenyWriteExecute: it compiles regular expressions.
PrivateDevices=yes
ProtectHome=yes
ProtectProc=invisible
UMask=0077
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX

[Install]
WantedBy=multi-user.target
"""


def dns_unit(daemon: Daemon) -> str:
    """Names for pods, from the file that the agent wrote last."""
    return f"""\
# Laid down by `bay install agent`. Change it with `systemctl edit bayplan-dns`.
[Unit]
Description=Bayplan name server
# As the proxy's: its life is not the agent's.
After=network.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={daemon.program}
{_MEETING_PLACE}{_RESTART_AT_ONCE}LimitNOFILE=65536
KillMode=mixed
TimeoutStopSec=5

{_SEALED}# Port 53.
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
{_WITHOUT_NEW_CODE}PrivateDevices=yes
ProtectHome=yes
ProtectProc=invisible
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

{_SEALED}{_WITHOUT_CAPABILITIES}{_WITHOUT_NEW_CODE}{_OF_A_USER}RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK

[Install]
WantedBy=multi-user.target
"""


def _state(data_dir: str) -> str:
    """The one directory it may write to. systemd makes those below /var/lib, and gives them to the user."""
    if data_dir.startswith(STATE) and len(data_dir) > len(STATE):
        return f"StateDirectory={data_dir.removeprefix(STATE)}\nStateDirectoryMode=0700"
    return f"ReadWritePaths={data_dir}"
