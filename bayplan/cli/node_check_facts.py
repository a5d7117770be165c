"""What `bay node check` reads of this host. It looks only: nothing is created, loaded or changed.

`None` says that it could not be told, which is another thing than no. Standard library alone,
since the check must run before anything else does.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import platform
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TIMEOUT_S = 5.0
JOIN_PORT_AFTER_MAIN = 1  # docs/operate.md, "Ports".

# A function of each module that stands in the kernel's list of symbols once the module is there.
_SYMBOLS = {
    "bridge": "br_handle_frame",
    "veth": "veth_newlink",
    "vxlan": "vxlan_newlink",
    "nf_tables": "nf_tables_newtable",
    "nf_conntrack": "nf_conntrack_in",
}
MODULES = ("overlay", "bridge", "br_netfilter", "veth", "vxlan", "nf_tables", "nf_conntrack")
PROGRAMS = ("haproxy", "nft", "iptables")
_VERSION = re.compile(r"\bv(?:ersion )?(\d+(?:\.\d+)+)")
# Units and hand-made installations have these in their PATH, shells of users do not.
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
# In /proc/net/udp, of a socket that receives from anybody.
_UDP_OPEN = "07"
_ADJTIMEX_BYTES = 256  # struct timex has 208 on 64-bit machines.
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised.
_LISTEN = "0A"  # Of the column `st` in /proc/net/tcp.


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What the container engine says of itself."""

    version: str
    driver: str  # Of storage.
    root_dir: str
    is_rootless: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The file system that holds `path`."""

    path: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who has a port. The kernel's own sockets, such as a tunnel's, have no program."""

    port: int
    protocol: str  # "udp" or "tcp".
    is_everywhere: bool  # At every address of the host, so that nobody else can have it at one.
    program: str = ""  # Empty: not known.


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Of any routing table; an interface's own network is one too."""

    network: str  # "10.0.0.0/8"
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerFacts:
    """One manager as seen from here. A port that answers has an empty problem."""

    address: str  # Of the main port, host:port.
    main_problem: str = ""
    join_problem: str = ""
    # Of the certificate that the join port shows; 0: none was seen.
    valid_from_s: float = 0.0
    valid_until_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """All of it, at one moment."""

    is_root: bool
    kernel: str  # "6.1.0-18-amd64"
    engine: EngineFacts | None
    engine_socket: str
    engine_problem: str  # Why `engine` is None.
    listening: Mapping[int, str] = field(default_factory=dict)  # TCP port → program; empty: not known which.
    holders: Sequence[Holder] = ()  # Of the other ports that a node needs.
    devices: frozenset[str] = frozenset()  # Names of the network's.
    programs: Mapping[str, str | None] = field(
        default_factory=dict
    )  # Name → version, if it says one; None: missing.
    is_forwarding: bool = False
    can_forward: bool | None = None  # Whether forwarding could be turned on.
    routes: Sequence[Route] = ()
    is_clock_synchronised: bool | None = None
    now_s: float = 0.0
    disks: Sequence[Disk] = ()
    modules: Mapping[str, bool | None] = field(default_factory=dict)
    cgroup_version: int = 0  # 0: not mounted.
    cgroup_controllers: frozenset[str] = frozenset()
    memory_bytes: int = 0
    managers: Sequence[ManagerFacts] = ()


def gather(
    *,
    engine_socket: str,
    data_dir: str,
    witness_port: int,
    managers: Sequence[str],
    ports: Collection[tuple[str, int]] = (),
) -> HostFacts:
    """Read them all; takes at most some seconds for each manager that does not answer. Ports are such as ("udp", 53)."""
    engine, problem = _engine(engine_socket)
    disks = [_disk(path) for path in ([engine.root_dir] if engine else []) + [data_dir]]
    version, controllers = _cgroups()
    return HostFacts(
        is_root=os.geteuid() == 0,
        kernel=platform.release(),
        engine=engine,
        engine_socket=engine_socket,
        engine_problem=problem,
        listening=_listening(witness_port),
        holders=_holders(ports),
        devices=frozenset(path.name for path in Path("/sys/class/net").iterdir()),
        programs={name: _program_version(name) for name in PROGRAMS},
        is_forwarding=_lines(_FORWARDING) == ["1"],
        can_forward=os.access(_FORWARDING, os.W_OK) if os.geteuid() == 0 else None,
        routes=_routes(),
        is_clock_synchronised=_is_clock_synchronised(),
        now_s=time.time(),
        disks=[disk for disk in disks if disk is not None],
        modules={name: _has_module(name) for name in MODULES},
        cgroup_version=version,
        cgroup_controllers=controllers,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        managers=[_manager(address) for address in managers],
    )


class _EngineConnection(http.client.HTTPConnection):
    """HTTP over the engine's unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


def _engine(path: str) -> tuple[EngineFacts | None, str]:
    try:
        version = str(_asked(path, "/version")["Version"])
        info = _asked(path, "/info")
        return EngineFacts(
            version=version,
            driver=str(info["Driver"]),
            root_dir=str(info["DockerRootDir"]),
            is_rootless=any("rootless" in str(each) for each in info.get("SecurityOptions") or ()),
        ), ""
    except OSError as error:
        return None, error.strerror or str(error)
    except (http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        return None, f"something else than an engine answers ({type(error).__name__})"


def _asked(path: str, what: str) -> Any:
    connection = _EngineConnection(path)
    try:
        connection.request("GET", what)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def _listening(of_interest: int) -> dict[int, str]:
    """Who listens is found for one port alone: it means looking into every process."""
    inodes: dict[str, int] = {}
    for table in ("tcp", "tcp6"):
        for line in _lines(Path("/proc/net", table))[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == _LISTEN:
                inodes[fields[9]] = int(fields[1].rpartition(":")[2], 16)
    return {port: _holder(inode) if port == of_interest else "" for inode, port in inodes.items()}


def _holders(ports: Collection[tuple[str, int]]) -> list[Holder]:
    found = []
    for protocol, state in (("udp", _UDP_OPEN), ("tcp", _LISTEN)):
        for table in (protocol, f"{protocol}6"):
            for line in _lines(Path("/proc/net", table))[1:]:
                fields = line.split()
                if len(fields) <= 9 or fields[3] != state:
                    continue
                address, _, port = fields[1].rpartition(":")
                if (protocol, int(port, 16)) in ports:
                    found.append(
                        Holder(
                            port=int(port, 16),
                            protocol=protocol,
                            is_everywhere=not address.strip("0"),
                            program=_holder(fields[9]) if fields[9] != "0" else "",
                        )
                    )
    return found


def _program_version(name: str) -> str | None:
    """Empty where it says none; None if there is no such program."""
    path = shutil.which(name) or shutil.which(name, path=_SBIN)
    if path is None:
        return None
    flag = "-v" if name == "haproxy" else "--version"
    try:
        done = subprocess.run([path, flag], capture_output=True, check=False, timeout=TIMEOUT_S)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    said = _VERSION.search(done.stdout.decode(errors="replace"))
    return said[1] if said else ""


def _holder(inode: str) -> str:
    """The program whose socket this is: only root can look into others' processes."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()) == f"socket:[{inode}]":
                words = (link.parent.parent / "cmdline").read_bytes().decode(errors="replace").split("\0")
                return _program(words)
        except OSError:
            continue  # It ended, or is none of ours.
    return ""


def _program(words: Sequence[str]) -> str:
    """`python /opt/bayplan/bin/bayplan-agent` is bayplan-agent."""
    names = [Path(word).name for word in words[:2]]
    return names[-1] if names[0].startswith("python") and names[-1] else names[0]


def _routes() -> list[Route]:
    command = shutil.which("ip")
    if command is not None:
        words = [command, "-j", "-4", "route", "show", "table", "all"]
        done = subprocess.run(words, capture_output=True, check=False, timeout=TIMEOUT_S)  # noqa: S603
        if done.returncode == 0:
            return read_ip_routes(done.stdout.decode() or "[]")
    return read_proc_routes(_lines(Path("/proc/net/route")))


def read_ip_routes(text: str) -> list[Route]:
    """Of `ip -j -4 route show table all`."""
    return [
        Route(network=_with_length(str(each["dst"])), device=str(each.get("dev", "")))
        for each in json.loads(text)
        if each.get("dst") != "default" and each.get("type", "unicast") in ("unicast", "local")
    ]


def read_proc_routes(lines: Sequence[str]) -> list[Route]:
    """Of /proc/net/route: addresses are hexadecimal, in the machine's order of bytes."""
    routes = []
    for line in lines[1:]:
        device, destination, *_, mask = line.split()[:8]
        address = socket.inet_ntoa(int(destination, 16).to_bytes(4, "little"))
        length = int(mask, 16).bit_count()
        if length:
            routes.append(Route(network=f"{address}/{length}", device=device))
    return routes


def _with_length(destination: str) -> str:
    return destination if "/" in destination else f"{destination}/32"


def _is_clock_synchronised() -> bool | None:
    """As the kernel was told by whatever keeps the time (chrony, timesyncd, ntpd)."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_ADJTIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def _disk(path: str) -> Disk | None:
    """Of a directory that may be missing yet, what will hold it."""
    nearest = next(each for each in (Path(path), *Path(path).parents) if each.exists())
    try:
        use = shutil.disk_usage(nearest)
    except OSError:
        return None
    return Disk(path=path, total_bytes=use.total, free_bytes=use.free)


def _has_module(name: str) -> bool | None:
    """Loaded, built in, or there to be loaded."""
    if name == "overlay" and any(line.split()[-1:] == [name] for line in _lines(Path("/proc/filesystems"))):
        return True
    if Path("/sys/module", name).exists() or (
        name == "br_netfilter" and Path("/proc/sys/net/bridge").exists()
    ):
        return True
    symbol = _SYMBOLS.get(name)
    if symbol and any(line.split()[2:3] == [symbol] for line in _lines(Path("/proc/kallsyms"))):
        return True
    directory = Path("/lib/modules", platform.release())
    lists = [_lines(directory / file) for file in ("modules.builtin", "modules.dep")]
    if not any(lists):
        return None
    return any(_module_of(line) == name for lines in lists for line in lines)


def _module_of(line: str) -> str:
    """`kernel/drivers/net/vxlan/vxlan.ko.xz: …` is vxlan; a module is written with - or _ alike."""
    return Path(line.partition(":")[0]).name.partition(".ko")[0].replace("-", "_")


def _cgroups() -> tuple[int, frozenset[str]]:
    unified = Path("/sys/fs/cgroup/cgroup.controllers")
    if unified.exists():
        return 2, frozenset(unified.read_text().split())
    # name, hierarchy, number of groups, enabled
    enabled = [line.split() for line in _lines(Path("/proc/cgroups")) if not line.startswith("#")]
    mounted = {
        option
        for line in _lines(Path("/proc/mounts"))
        if line.split()[2:3] == ["cgroup"]
        for option in line.split()[3].split(",")
    }
    found = frozenset(row[0] for row in enabled if row[3] == "1" and row[0] in mounted)
    return (1, found) if found else (0, frozenset())


def _manager(address: str) -> ManagerFacts:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        main, join = int(port), int(port) + JOIN_PORT_AFTER_MAIN
    except ValueError:
        return ManagerFacts(address=address, main_problem="it is not host:port", join_problem="-")
    main_problem = ""
    try:
        socket.create_connection((host, main), timeout=TIMEOUT_S).close()
    except OSError as error:
        main_problem = _words(error)
    try:
        begin_s, end_s = _validity(host, join)
    except OSError as error:
        return ManagerFacts(address=address, main_problem=main_problem, join_problem=_words(error))
    return ManagerFacts(address=address, main_problem=main_problem, valid_from_s=begin_s, valid_until_s=end_s)


def _validity(host: str, port: int) -> tuple[float, float]:
    """From when until when the certificate is good that is shown there. Raises OSError."""
    from cryptography import x509

    # Nothing is sent, and who answers is not yet to be trusted: joining compares it with the token.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, port), timeout=TIMEOUT_S) as plain,
        context.wrap_socket(plain) as connection,
    ):
        shown = connection.getpeercert(binary_form=True)
    if shown is None:
        raise ssl.SSLError("no certificate was shown")
    leaf = x509.load_der_x509_certificate(shown)
    return leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()


def _words(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, ssl.SSLError):
        return "what answers there speaks no TLS"
    return error.strerror or str(error)


def _lines(path: Path) -> list[str]:
    """Empty where there is no such file: other kernels have other tables."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
