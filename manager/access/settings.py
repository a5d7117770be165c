"""What a manager is told about its own identity: where it is kept, and how it gets the first one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from bayplan.settings import Setting, Settings, is_loopback

# Renewal begins at half of a life: of less than a minute, too little would be left to wait out an
# election or the restart of a manager.
CERTIFICATE_LIFE_S_MIN = 60.0
# Whoever copied a key that nobody misses, so that nobody revokes it, has the use of it for so long.
CERTIFICATE_LIFE_S_MAX = 30 * 24 * 3600.0

ACCESS_SETTINGS = (
    Setting(
        name="data-dir",
        help="where identity, cluster key and audit log are kept",
        default="/var/lib/bayplan-manager",
    ),
    Setting(name="join", help="a manager of the cluster that this one is to join", form="HOST:PORT"),
    Setting(
        name="join-token",
        help="what lets it join; others on this host can see it in a flag, not in a file",
        is_secret=True,
    ),
    Setting(name="join-token-file", help="file that holds the join token, or will", form="FILE"),
    Setting(
        name="cluster-key-command",
        help="command that prints the cluster key, instead of the file cluster.key in --data-dir",
        form="COMMAND",
    ),
    Setting(
        name="certificate-life", help="how long certificates are good: 60s to 30d", default="24h", form="TIME"
    ),
    Setting(
        name="insecure-loopback",
        help="no encryption, no authentication: everybody on this host may do everything; loopback addresses only",
        is_flag=True,
    ),
)

_LIFE = re.compile(r"([0-9]{1,9})([smhd])")
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 24 * 3600.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings:
    """Written by the operator (flags, environment, file), never by the system."""

    data_dir: Path
    join: str  # "host:port" of a manager that is in the cluster already; empty: this one founds it.
    join_token: str = field(repr=False)  # Empty: none, or in the file.
    join_token_file: Path | None
    cluster_key_command: str  # Empty: the key is in a file of data_dir.
    certificate_life_s: float
    insecure_loopback: bool


def read_access_settings(given: Settings) -> AccessSettings:
    """Raises ValueError in words. `given` also has `listen` and `advertise`, both host:port."""
    if not given.text("data-dir"):
        raise ValueError(f"--data-dir is empty{given.whence('data-dir')}")
    join = given.text("join")
    if join:
        host_port(given, "join")
    if given.flag("insecure-loopback"):
        for name in ("listen", "advertise", *(["join"] if join else [])):
            _demand_loopback(given, name)
    token_file = given.text("join-token-file")
    return AccessSettings(
        data_dir=Path(given.text("data-dir")),
        join=join,
        join_token=given.text("join-token"),
        join_token_file=Path(token_file) if token_file else None,
        cluster_key_command=given.text("cluster-key-command"),
        certificate_life_s=_certificate_life_s(given),
        insecure_loopback=given.flag("insecure-loopback"),
    )


def host_port(given: Settings, name: str) -> tuple[str, int]:
    """The two parts of an address. Raises ValueError in words."""
    text = given.text(name)
    host, _, port = text.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"--{name} {text!r} is not host:port{given.whence(name)}")
    return host, int(port)


def _demand_loopback(given: Settings, name: str) -> None:
    host, _ = host_port(given, name)
    if not is_loopback(host):
        raise ValueError(
            f"--insecure-loopback does not go with --{name} {given.text(name)}{given.whence(name)}: "
            "without encryption only loopback addresses are allowed, such as 127.0.0.1"
        )


def _certificate_life_s(given: Settings) -> float:
    text = given.text("certificate-life")
    match = _LIFE.fullmatch(text)
    if match is None:
        problem = "is no length of time; write 90s, 5m, 24h or 7d"
    else:
        life_s = float(match[1]) * _UNIT_S[match[2]]
        if CERTIFICATE_LIFE_S_MIN <= life_s <= CERTIFICATE_LIFE_S_MAX:
            return life_s
        problem = (
            "is too short: at least 60s" if life_s < CERTIFICATE_LIFE_S_MIN else "is too long: at most 30d"
        )
    raise ValueError(f"--certificate-life {text!r} {problem}{given.whence('certificate-life')}")
