"""The agent's settings as an operator gives them: flags, variables, a file.

Every command of a node takes the same ones (`bayplan-agent`, and the small processes beside it that
go on without it), so that one file says all. Nothing heavy is imported here: they stay small.
"""

from __future__ import annotations

import platform
import socket
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from agent.settings import DOCKER_SOCKET, METRICS, PROXY_PORT, RUN_DIR, WITNESS_PORT, AgentSettings
from agent.traffic import ports
from bayplan.model.names import is_name
from bayplan.resources.quantity import QuantityError, parse_cpu_millis, parse_memory_bytes
from bayplan.settings import Setting, Settings, is_loopback, metrics_address, read_settings

MANAGER_PORT = 7400
PORT_MAX = 65535
SETTINGS_FILE = Path("/etc/bayplan/agent.toml")

SETTINGS = (
    Setting(name="node", help="this node's name", default=platform.node().partition(".")[0].lower()),
    Setting(name="managers", help="addresses of managers, host:port, separated by commas"),
    Setting(name="advertise", help="address at which other hosts reach this one"),
    Setting(name="data-dir", help="where journal and identity are kept", default="/var/lib/bayplan"),
    Setting(
        name="witness-port",
        help="answers other nodes' signs-of-life checks",
        default=WITNESS_PORT,
        is_number=True,
    ),
    Setting(
        name="publish-address",
        help="published ports of services are bound here; at `advertise` if not given",
        form="ADDRESS",
        is_repeated=True,
    ),
    Setting(
        name="proxy-port",
        help="first of four ports of the proxy, on the pods' bridge alone",
        default=PROXY_PORT,
        is_number=True,
    ),
    Setting(
        name="run-dir",
        help="sockets, and what is made anew after a boot: a tmpfs; its processes meet there",
        default=str(RUN_DIR),
    ),
    Setting(name="metrics", help="address of /metrics, host:port; empty: none", default=METRICS),
    Setting(name="docker-host", help="the engine's unix socket", default=f"unix://{DOCKER_SOCKET}"),
    Setting(name="cpu", help="processors to offer, e.g. 4 or 3500m; all if not given"),
    Setting(name="memory", help="memory to offer, e.g. 8Gi; all if not given"),
    Setting(name="reserved-cpu", help="kept back from pods", default="0"),
    Setting(name="reserved-memory", help="kept back from pods", default="0"),
    Setting(name="boot-id", help="instead of the kernel's, for a node that is a container itself"),
    Setting(name="label", help="label of this node", form="KEY=VALUE", is_repeated=True),
    Setting(
        name="join-token",
        help="what lets a new node join; others on this host can see it in a flag, not in a file",
        is_secret=True,
    ),
    Setting(name="join-token-file", help="file that holds the join token, or will", form="FILE"),
    Setting(
        name="insecure-loopback",
        help="no encryption, no authentication; managers at loopback addresses only",
        is_flag=True,
    ),
)


def read_options(
    program: str,
    description: str,
    *,
    argv: Sequence[str],
    environ: Mapping[str, str],
    file: Path = SETTINGS_FILE,
) -> Settings:
    """Ends the program with words and exit code 2 where something is wrong."""
    return read_settings(program, description, SETTINGS, argv=argv, environ=environ, default_file=file)


def agent_settings(given: Settings) -> AgentSettings:
    """Raises ValueError in words."""
    node = given.text("node")
    if not is_name(node):
        raise ValueError(
            f"--node {node!r} is no node name: lower case letters, digits and '-', at most 63{given.whence('node')}"
        )
    if not given.text("data-dir"):
        raise ValueError(f"--data-dir is empty{given.whence('data-dir')}")
    if given.number("witness-port") > PORT_MAX:
        raise ValueError(f"--witness-port is larger than {PORT_MAX}{given.whence('witness-port')}")
    if not 0 < given.number("proxy-port") <= PORT_MAX - ports.COUNT:
        raise ValueError(f"--proxy-port is not 1 to {PORT_MAX - ports.COUNT}{given.whence('proxy-port')}")
    if not given.text("run-dir"):
        raise ValueError(f"--run-dir is empty{given.whence('run-dir')}")
    managers = _managers(given)
    token_file = given.text("join-token-file")
    return AgentSettings(
        node=node,
        data_dir=Path(given.text("data-dir")),
        managers=managers,
        address=given.text("advertise") or _own_address(managers[0]),
        witness_port=given.number("witness-port"),
        proxy_port=given.number("proxy-port"),
        publish_addresses=tuple(_publish_address(text, given) for text in given.all("publish-address")),
        run_dir=Path(given.text("run-dir")),
        metrics=metrics_address(given),
        labels=dict(_label(text, given) for text in given.all("label")),
        cpu_millis=_quantity(given, "cpu", parse_cpu_millis),
        memory_bytes=_quantity(given, "memory", parse_memory_bytes),
        reserved_cpu_millis=_quantity(given, "reserved-cpu", parse_cpu_millis),
        reserved_memory_bytes=_quantity(given, "reserved-memory", parse_memory_bytes),
        join_token=given.text("join-token"),
        join_token_file=Path(token_file) if token_file else None,
        insecure_loopback=given.flag("insecure-loopback"),
    )


def _managers(given: Settings) -> tuple[str, ...]:
    managers = tuple(_with_port(each.strip()) for each in given.text("managers").split(",") if each.strip())
    if not managers:
        raise ValueError("--managers is missing: give at least one host:port")
    if given.flag("insecure-loopback"):
        for address in managers:
            if not is_loopback(address.rpartition(":")[0]):
                raise ValueError(
                    f"--insecure-loopback does not go with --managers {address}{given.whence('managers')}: "
                    "without encryption only loopback addresses are allowed, such as 127.0.0.1"
                )
    return managers


def _quantity(given: Settings, name: str, parse: Callable[[str], int]) -> int:
    """0 where nothing is said."""
    text = given.text(name)
    try:
        return parse(text) if text else 0
    except QuantityError as error:
        raise ValueError(f"--{name} {error}{given.whence(name)}") from error


def _with_port(address: str) -> str:
    return address if ":" in address else f"{address}:{MANAGER_PORT}"


def _label(text: str, given: Settings) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError(f"--label {text!r} is not KEY=VALUE{given.whence('label')}")
    return key, value


def _publish_address(text: str, given: Settings) -> str:
    try:
        address = IPv4Address(text)
    except ValueError:
        address = IPv4Address(0)
    if address.is_unspecified:
        # A connection is known by the address that it came to.
        raise ValueError(
            f"--publish-address {text!r} is not the address of one interface{given.whence('publish-address')}"
        )
    return str(address)


def _own_address(manager: str) -> str:
    """The address from which this host would speak to a manager; its name where that cannot be told."""
    host, _, port = manager.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket sends nothing; it only picks the route.
            probe.connect((host, int(port)))
            return str(probe.getsockname()[0])
        except OSError:
            return platform.node()
