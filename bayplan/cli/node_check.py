"""`bay node check`: what a host lacks to be a node, a line each, with the cure.

Pure: reads `HostFacts`, returns lines. `lacks` is what keeps pods from running; `warn` is what
will hurt later, or what could not be told from here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from bayplan.cli.node_check_facts import Disk, EngineFacts, HostFacts, ManagerFacts

WITNESS_PORT = 7443
ENGINE_MIN = (20, 10)
KERNEL_MIN = (4, 18)  # That of RHEL 8, the oldest on which current engines are kept up.
HAPROXY_MIN = (2, 6)
# What pods and services get their addresses from (bayplan/model/network.py).
POD_NETWORK, SERVICE_NETWORK = "10.42.0.0/15", "10.96.0.0/16"
TUNNEL_PORT = 7472
NAME_PORT = 53
# Of the proxy, at the bridge's address alone (agent/traffic/ports.py).
PROXY_PORTS = (7460, 7461, 7462, 7463)
PORTS = (
    ("udp", TUNNEL_PORT),
    ("udp", NAME_PORT),
    ("tcp", NAME_PORT),
    *(("tcp", port) for port in PROXY_PORTS),
)
# Bridges and tunnels of nodes: bay1, bay1-vx.
_OUR_DEVICE = re.compile(r"bay\d+(-\w+)?")
_OUR_PROGRAMS = {"bayplan-agent", "bayplan-dns", "bayplan-proxy", "haproxy"}

# As agent/housekeeping.py: above the first, unused images go; above the second no new pods come.
DISK_WARN, DISK_FULL = 0.80, 0.90
DATA_FREE_MIN_BYTES = 1 << 30
ENGINE_FREE_WARN_BYTES = 10 << 30
MEMORY_WARN_BYTES = 1 << 30  # Engine, agent and system take about half of it.
CLOCK_DIFFERENCE_MAX_S = 60.0
# Certificates begin this long before they are made (bayplan/identity/certificates.py).
CERTIFICATE_BEGINS_BEFORE_S = 300.0

_GOOD_DRIVERS = {"overlay2", "overlayfs"}  # The second: the same, by containerd.
_SLOW_DRIVERS = {"btrfs", "zfs", "fuse-overlayfs"}


class Verdict(StrEnum):
    """Of one check."""

    OK = "ok"
    WARN = "warn"
    LACKS = "lacks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line."""

    verdict: Verdict
    subject: str
    text: str
    cure: str = ""

    def line(self) -> str:
        """`lacks  engine      …: cure`."""
        return f"{self.verdict:5}  {self.subject:10}  {self.text}{': ' if self.cure else ''}{self.cure}"


def check_node(facts: HostFacts, *, witness_port: int = WITNESS_PORT) -> list[Check]:
    """All of it, what a host needs first first."""
    return [
        *_root(facts),
        _kernel(facts),
        *_modules(facts),
        _cgroups(facts),
        *_engine(facts),
        _memory(facts),
        *(_disk(disk, facts.engine) for disk in facts.disks),
        *_programs(facts),
        _port(facts, witness_port),
        _tunnel(facts),
        *_on_the_bridge(facts),
        _forwarding(facts),
        *_networks(facts),
        _clock(facts),
        *_managers(facts),
    ]


def _ok(subject: str, text: str) -> Check:
    return Check(verdict=Verdict.OK, subject=subject, text=text)


def _warn(subject: str, text: str, cure: str) -> Check:
    return Check(verdict=Verdict.WARN, subject=subject, text=text, cure=cure)


def _lacks(subject: str, text: str, cure: str) -> Check:
    return Check(verdict=Verdict.LACKS, subject=subject, text=text, cure=cure)


def _root(facts: HostFacts) -> Iterator[Check]:
    if not facts.is_root:
        yield _warn("user", "not root: not everything can be seen", "run this with sudo")


def _kernel(facts: HostFacts) -> Check:
    if _numbers(facts.kernel) < KERNEL_MIN:
        return _lacks("kernel", f"Linux {facts.kernel} is older than 4.18", "upgrade the distribution")
    return _ok("kernel", f"Linux {facts.kernel}")


def _modules(facts: HostFacts) -> Iterator[Check]:
    missing = sorted(name for name, has in facts.modules.items() if has is False)
    unknown = sorted(name for name, has in facts.modules.items() if has is None)
    if missing:
        yield _lacks(
            "modules",
            f"the kernel has no {', '.join(missing)}",
            "install the distribution's full kernel (Debian: linux-image-amd64; Ubuntu: linux-modules-extra)",
        )
    if unknown:
        yield _warn(
            "modules",
            f"it cannot be told whether the kernel has {', '.join(unknown)}",
            f"try `modprobe {unknown[0]}` on the machine itself",
        )
    if not missing and not unknown:
        yield _ok("modules", ", ".join(facts.modules))


def _cgroups(facts: HostFacts) -> Check:
    if not facts.cgroup_version:
        return _lacks(
            "cgroups", "none are mounted", "use a distribution with systemd, or mount /sys/fs/cgroup"
        )
    missing = sorted({"cpu", "memory"} - facts.cgroup_controllers)
    if missing:
        return _lacks(
            "cgroups",
            f"version {facts.cgroup_version} has no {' and no '.join(missing)}",
            "boot with cgroup_enable=memory on the kernel's command line"
            if missing == ["memory"]
            else "use a kernel with these controllers",
        )
    return _ok("cgroups", f"version {facts.cgroup_version} with cpu and memory")


def _engine(facts: HostFacts) -> Iterator[Check]:
    engine = facts.engine
    if engine is None:
        if facts.engine_problem == "Permission denied":
            cure = "run this with sudo"
        else:
            cure = "install it (Debian, Ubuntu: apt-get install docker.io) and systemctl enable --now docker"
        yield _lacks("engine", f"no Docker Engine at {facts.engine_socket} ({facts.engine_problem})", cure)
        return
    if _numbers(engine.version) < ENGINE_MIN:
        yield _lacks("engine", f"Docker Engine {engine.version} is older than 20.10", "upgrade it")
    elif engine.is_rootless:
        yield _lacks(
            "engine", "Docker Engine runs rootless, without the host's network", "run the engine as root"
        )
    else:
        yield _ok("engine", f"Docker Engine {engine.version} at {facts.engine_socket}")
    yield _storage(engine)


def _storage(engine: EngineFacts) -> Check:
    if engine.driver in _GOOD_DRIVERS:
        return _ok("storage", f"{engine.driver} in {engine.root_dir}")
    cure = (
        'put the engine\'s data on ext4 or xfs, and "storage-driver": "overlay2" into /etc/docker/daemon.json'
    )
    if engine.driver in _SLOW_DRIVERS:
        return _warn("storage", f"{engine.driver} works, but is not tested", cure)
    return _lacks("storage", f"{engine.driver} copies whole images or is no longer kept up", cure)


def _memory(facts: HostFacts) -> Check:
    amount = _size(facts.memory_bytes)
    if facts.memory_bytes < MEMORY_WARN_BYTES:
        return _warn("memory", f"{amount} leave little for pods", "1 GiB or more")
    return _ok("memory", amount)


def _disk(disk: Disk, engine: EngineFacts | None) -> Check:
    used = 1 - disk.free_bytes / disk.total_bytes if disk.total_bytes else 1.0
    text = f"{disk.path}: {_size(disk.free_bytes)} of {_size(disk.total_bytes)} free"
    if engine is None or disk.path != engine.root_dir:
        if disk.free_bytes < DATA_FREE_MIN_BYTES:
            return _lacks("disk", text, "free at least 1 GiB for the agent's journal and logs")
        return _ok("disk", text)
    if used >= DISK_FULL:
        return _lacks("disk", f"{text} ({used:.0%} full)", "above 90 % a node takes no new pods; free some")
    if used >= DISK_WARN:
        return _warn("disk", f"{text} ({used:.0%} full)", "above 80 % images that nobody uses are removed")
    if disk.free_bytes < ENGINE_FREE_WARN_BYTES:
        return _warn("disk", text, "images and containers soon need 10 GiB and more")
    return _ok("disk", text)


def _port(facts: HostFacts, port: int) -> Check:
    subject = f"port {port}"
    if port not in facts.listening:
        return _ok(subject, "free")
    holder = facts.listening[port]
    if holder == "bayplan-agent":
        return _ok(subject, "used by bayplan-agent, which runs here")
    if not holder and not facts.is_root:
        return _warn(subject, "in use; by whom, only root can see", "run this with sudo")
    return _lacks(
        subject,
        f"used by {holder or 'another program'}",
        "stop that, or give the agent another --witness-port",
    )


def _programs(facts: HostFacts) -> Iterator[Check]:
    for name, package in (("haproxy", "haproxy"), ("nft", "nftables"), ("iptables", "iptables")):
        version = facts.programs.get(name)
        if version is None:
            yield _lacks("programs", f"no {name}", f"install it (Debian, Ubuntu: apt-get install {package})")
        elif name == "haproxy" and version and _numbers(version) < HAPROXY_MIN:
            yield _lacks("programs", f"haproxy {version} is older than 2.6", "upgrade it")
        else:
            yield _ok("programs", f"{name} {version}".rstrip())


def _tunnel(facts: HostFacts) -> Check:
    subject = f"port {TUNNEL_PORT}"
    holders = [holder for holder in facts.holders if holder.port == TUNNEL_PORT]
    if not holders:
        return _ok(subject, "free (udp)")
    # A tunnel's socket is the kernel's.
    if not any(holder.program for holder in holders) and any(map(_is_ours, facts.devices)):
        return _ok(subject, "used by the tunnel of an agent, which runs here (udp)")
    return _lacks(
        subject,
        f"used by {holders[0].program or 'another tunnel or program'} (udp)",
        "stop that, or found the cluster with another --network-port",
    )


def _on_the_bridge(facts: HostFacts) -> Iterator[Check]:
    """Ports that are needed at an address that is not there yet: only who listens everywhere is in the way."""
    in_the_way = {
        (holder.port, holder.program)
        for holder in facts.holders
        if holder.port != TUNNEL_PORT and holder.is_everywhere and holder.program not in _OUR_PROGRAMS
    }
    for port, program in sorted(in_the_way):
        whose = program or "a program"
        cure = (
            "have it listen at the addresses it serves (dnsmasq: bind-interfaces)"
            if port == NAME_PORT
            else "stop that, or give the agent another --proxy-port"
        )
        yield _lacks(f"port {port}", f"{whose} listens at every address, and so at the pods' gateway", cure)
    if not in_the_way:
        yield _ok(
            "port 53", f"nobody is in the way of it or of {PROXY_PORTS[0]}-{PROXY_PORTS[-1]} on the bridge"
        )


def _forwarding(facts: HostFacts) -> Check:
    if facts.is_forwarding:
        return _ok("forwarding", "on")
    if facts.can_forward is False:
        return _lacks(
            "forwarding",
            "net.ipv4.ip_forward is 0 and cannot be written here",
            "set it to 1 on the machine itself",
        )
    return _ok("forwarding", "off; the agent turns it on")


def _is_ours(device: str) -> bool:
    return _OUR_DEVICE.fullmatch(device) is not None


def _networks(facts: HostFacts) -> Iterator[Check]:
    for what, text in (("pods", POD_NETWORK), ("services", SERVICE_NETWORK)):
        wanted = ipaddress.IPv4Network(text)
        clashes = [
            (network, route.device)
            for route in facts.routes
            if not _is_ours(route.device)
            # So that the host itself reaches services.
            and (route.network, route.device) != (SERVICE_NETWORK, "lo")
            and (network := ipaddress.IPv4Network(route.network, strict=False)).overlaps(wanted)
        ]
        if not clashes:
            yield _ok("network", f"{text} for {what} is not in use here")
            continue
        # The most specific one takes the packets.
        network, device = max(clashes, key=lambda clash: clash[0].prefixlen)
        where = f"{network} on {device}" if device else str(network)
        if network.prefixlen >= wanted.prefixlen:
            yield _lacks("network", f"{text} for {what} is in use: {where}", "move that network elsewhere")
        else:
            yield _warn(
                "network",
                f"{text} for {what} is a part of {where}",
                "hosts of that network with such addresses cannot be reached from here",
            )


def _clock(facts: HostFacts) -> Check:
    if facts.is_clock_synchronised is None:
        return _warn(
            "clock", "it cannot be told whether it is synchronised", "run chrony or systemd-timesyncd"
        )
    if not facts.is_clock_synchronised:
        return _warn(
            "clock", "nothing synchronises it, and certificates have times", "run chrony or systemd-timesyncd"
        )
    return _ok("clock", "synchronised")


def _managers(facts: HostFacts) -> Iterator[Check]:
    # One that answers is enough: one to join at, one to run with.
    main = _lacks if all(manager.main_problem for manager in facts.managers) else _warn
    join = _lacks if all(manager.join_problem for manager in facts.managers) else _warn
    for manager in facts.managers:
        host, _, port = manager.address.rpartition(":")
        join_address = f"{host}:{int(port) + 1}" if port.isdigit() else manager.address
        yield _reached(manager.address, manager.main_problem, main)
        yield _reached(join_address, manager.join_problem, join)
        if manager.valid_until_s:
            yield _clock_of(manager, facts.now_s)


def _reached(address: str, problem: str, otherwise: Callable[[str, str, str], Check]) -> Check:
    if problem:
        return otherwise("manager", f"{address}: {problem}", "is it running, does a firewall keep us out?")
    return _ok("manager", f"{address} can be reached")


def _clock_of(manager: ManagerFacts, now_s: float) -> Check:
    # It was made after its beginning by a known time, on that manager's clock.
    behind_s = manager.valid_from_s + CERTIFICATE_BEGINS_BEFORE_S - now_s
    if behind_s > CLOCK_DIFFERENCE_MAX_S:
        return _lacks("clock", f"this clock is at least {behind_s:.0f} s behind {manager.address}", "set it")
    if now_s - manager.valid_until_s > CLOCK_DIFFERENCE_MAX_S:
        late_s = now_s - manager.valid_until_s
        return _lacks("clock", f"this clock is at least {late_s:.0f} s ahead of {manager.address}", "set it")
    return _ok("clock", f"within the certificate of {manager.address}")


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers: 20.10 of "20.10.24+dfsg1"."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _size(amount_bytes: int) -> str:
    return f"{amount_bytes / (1 << 30):.1f} GiB"
