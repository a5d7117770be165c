"""The cluster of docker-compose.yml from outside: start it, end it, hurt it, look into its nodes.

The demo, the e2e tests and the benchmarks share this. What they assert they read from every
node's own Docker Engine, through a socket that the node shares with the host: never from
Bayplan, and also while the node's network link is cut.
"""

from __future__ import annotations

import http
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from deploy import links
from deploy.engine import docker
from deploy.shell import CACHE, ROOT, StepError, as_root, run, works

MANAGERS = ("manager1", "manager2", "manager3")
NODES = {"n1": "node1", "n2": "node2", "n3": "node3"}  # Bayplan's name → compose's service.

LABEL_POD = "bayplan.io/pod"
UP_TIMEOUT_S = 120
LOGIN_TIMEOUT_S = 40
ENGINE_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalCluster:
    """One cluster on this machine; two of them share nothing if all fields differ."""

    project: str = "bayplan"
    net: str = "172.31.84"  # The first three bytes of its network.
    bridge: str = "bayplan0"  # At most 15 characters.
    ports: tuple[int, int, int] = (
        7400,
        7402,
        7404,
    )  # Of the managers, on 127.0.0.1; the join ports are the next ones up.
    registry_port: int = 7450
    page_port: int = 7480  # Of the demo's page, on 127.0.0.1.
    certificate_life: str = "24h"
    log: str = "info"
    config: Path | None = None  # Where `bay` keeps the context of this cluster; None: the user's own file.

    @property
    def addresses(self) -> str:
        """Its managers, for `bay` on this host."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    @property
    def registry(self) -> str:
        """Where this host pushes images that the cluster finds without a registry in their names."""
        return f"127.0.0.1:{self.registry_port}"

    @property
    def run_dir(self) -> Path:
        """Shared with the nodes: a directory for each, with its engine's socket."""
        return CACHE / "run" / self.project

    @property
    def context(self) -> str:
        """The name of this cluster's context."""
        return self.project

    def address(self, node: str) -> str:
        """Where a node is, as docker-compose.yml gives it: n1 has .21."""
        return f"{self.net}.{20 + int(node.removeprefix('n'))}"

    # Life

    def up(self) -> None:
        """Start it, or what is missing of it; what runs is left alone."""
        for node in NODES:
            (self.run_dir / node).mkdir(parents=True, exist_ok=True)
        (self.run_dir / "join").mkdir(exist_ok=True)
        self.run_dir.chmod(0o700)
        self._remove_stale_bridge()
        self._compose("up", "--detach", timeout_s=UP_TIMEOUT_S)
        deadline = time.monotonic() + LOGIN_TIMEOUT_S
        while not self._log_in():
            if time.monotonic() > deadline and not self._log_in_anew():
                raise StepError(
                    f"cannot log in to {self.project} at {self.addresses}: see the logs of manager1 and init"
                )
            time.sleep(0.2)

    def down(self) -> None:
        """End it and remove all it had: containers, volumes, network. None there is no error."""
        # Killed, not stopped: nothing of it will be needed again, and stopping takes its grace time.
        self._remove_containers()
        if (ROOT / ".venv/bin/bay").exists():
            self.bay("config", "delete-context", self.context)  # None there is no error.
        self._compose("down", "--volumes", "--remove-orphans", timeout_s=UP_TIMEOUT_S)
        self._remove_stale_bridge()
        # The sockets in there belong to the nodes' root.
        if self.run_dir.exists():
            run(as_root(["rm", "-rf", str(self.run_dir)]))

    def exists(self) -> bool:
        """Whether any container of it is there, running or not."""
        return bool(self._containers())

    def _log_in(self) -> bool:
        """With the token that the cluster left for it; whether that worked."""
        token = self.run_dir / "join/login.token"
        if self.bay("whoami").returncode == 0:
            return True
        return works(as_root(["test", "-s", str(token)])) and self._log_in_with(
            run(as_root(["cat", str(token)]))
        )

    def _log_in_anew(self) -> bool:
        """With a token that the first manager makes: the other one serves once."""
        path = self.execute(
            "manager1", "bayplan-manager", "--id", "m1", "--advertise", f"{self.net}.11:7400",
            "--etcd", "etcd:2379", "--etcd-ca", "/certs/ca.pem", "--etcd-cert", "/certs/client.pem",
            "--etcd-key", "/certs/client.key", "--new-admin-token",
        ).split()[-1]  # fmt: skip
        return self._log_in_with(self.execute("manager1", "cat", path))

    def _log_in_with(self, token: str) -> bool:
        login = ["login", self.addresses, "--token-file", "/dev/stdin", "--context", self.context]
        return self.bay(*login, stdin=token.strip()).returncode == 0

    def write_join_token(self, role: str, token: str) -> None:
        """Where a host that waits for one looks."""
        path = self.run_dir / f"join/{role}.token"
        run(as_root(["sh", "-c", f"umask 077; cat > {path}"]), stdin=token.encode())

    def containers(self) -> list[str]:
        """Ids of all of them, running or not."""
        return self._containers()

    # One container of it

    def container(self, service: str) -> str:
        """The id of a service's container, running or not."""
        found = self._containers(f"label=com.docker.compose.service={service}")
        if not found:
            raise StepError(f"{service} of {self.project} has no container: is the cluster up?")
        return found[0]

    def kill(self, service: str) -> None:
        """SIGKILL everything in the container: power off. It stays off until `start`."""
        run([*docker(), "kill", self.container(service)])

    def start(self, service: str) -> None:
        """Start a killed or stopped container: power on, with the disks as they were."""
        run([*docker(), "start", self.container(service)])

    def power_on(self, service: str) -> None:
        """Bring the container back from whatever it is in: frozen, killed or running already."""
        status = run([*docker(), "inspect", "--format", "{{.State.Status}}", self.container(service)]).strip()
        if status == "paused":
            self.unpause(service)
        elif status != "running":
            self.start(service)

    def stop(self, service: str) -> None:
        """SIGTERM, and SIGKILL after the service's grace."""
        run([*docker(), "stop", self.container(service)])

    def pause(self, service: str) -> None:
        """Freeze every process of the container; its peers see an open, silent connection."""
        run([*docker(), "pause", self.container(service)])

    def unpause(self, service: str) -> None:
        run([*docker(), "unpause", self.container(service)])

    def execute(self, service: str, *command: str) -> str:
        """Run a command in the container; its stdout."""
        return run([*docker(), "exec", self.container(service), *command])

    def logs(self, service: str, *, tail: int = 50) -> str:
        done = subprocess.run(
            [*docker(), "logs", "--tail", str(tail), self.container(service)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return done.stdout.decode(errors="replace")

    def is_running(self, service: str) -> bool:
        state = run([*docker(), "inspect", "--format", "{{.State.Running}}", self.container(service)])
        return state.strip() == "true"

    # Links

    def cut_link(self, node: str) -> None:
        """Pull the node's cable: the host's end of it goes down, so that nothing leaves or arrives, no FIN either."""
        links.change("down", self.link(node))

    def heal_link(self, node: str) -> None:
        links.change("up", self.link(node))

    def link(self, node: str) -> str:
        """The name of the host's end of the node's cable."""
        return links.by_index(int(self.execute(NODES[node], "cat", "/sys/class/net/eth0/iflink")))

    # What it says of itself

    def bay(
        self, *arguments: str, timeout_s: float = 60, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run `bay` of the checkout's environment against this cluster."""
        return subprocess.run(
            [ROOT / ".venv/bin/bay", *arguments],
            env=self.bay_environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            cwd=ROOT,
        )

    def bay_environment(self) -> dict[str, str]:
        """With it `bay` speaks to this cluster, and for programs."""
        environment = {**os.environ, "BAYPLAN_CONTEXT": self.context, "NO_COLOR": "1", "COLUMNS": "140"}
        environment.pop("BAYPLAN_MANAGERS", None)
        if self.config is not None:
            environment["BAYPLAN_CONFIG"] = str(self.config)
        return environment

    def leader(self) -> str | None:
        """The compose service that holds leadership, as etcd says; None when nobody does."""
        key = self.execute("etcd", "etcdctl", "get", "--print-value-only", "/bayplan/v1/leader")
        named = re.search(r"\bm([123])\b", key)
        return f"manager{named[1]}" if named else None

    # What its nodes' engines say

    def pods(self, node: str) -> list[dict[str, Any]] | None:
        """Running containers of pods on the node, as its own engine lists them.

        None when the engine hangs, so that nobody knows; with a dead engine nothing runs.
        """
        filters = quote(json.dumps({"label": [LABEL_POD], "status": ["running"]}))
        try:
            found: list[dict[str, Any]] = self.engine(node, f"/containers/json?filters={filters}")
        except TimeoutError:
            return None
        except (OSError, http.client.HTTPException):
            return []
        return found

    def engine(
        self,
        node: str,
        path: str,
        *,
        method: str = "GET",
        body: Any = None,
        timeout_s: float = ENGINE_TIMEOUT_S,
    ) -> Any:
        """Ask the node's Docker Engine: the decoded JSON, None if it has none. Raises OSError, HTTPException."""
        connection = _UnixConnection(self.run_dir / node / "docker.sock", timeout_s=timeout_s)
        headers = {"Host": "docker", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            said = answer.read()
            if answer.status >= http.HTTPStatus.MULTIPLE_CHOICES:
                raise http.client.HTTPException(f"{answer.status} {said.decode(errors='replace')}")
            return json.loads(said) if said else None
        finally:
            connection.close()

    # Compose

    def _compose(self, *arguments: str, timeout_s: float) -> None:
        environment = {
            "BAYPLAN_NET": self.net,
            "BAYPLAN_BRIDGE": self.bridge,
            "BAYPLAN_PORT_1": str(self.ports[0]),
            "BAYPLAN_PORT_2": str(self.ports[1]),
            "BAYPLAN_PORT_3": str(self.ports[2]),
            "BAYPLAN_JOIN_PORT_1": str(self.ports[0] + 1),
            "BAYPLAN_JOIN_PORT_2": str(self.ports[1] + 1),
            "BAYPLAN_JOIN_PORT_3": str(self.ports[2] + 1),
            "BAYPLAN_LOG": self.log,
            "BAYPLAN_CERTIFICATE_LIFE": self.certificate_life,
            "BAYPLAN_REGISTRY_PORT": str(self.registry_port),
            "BAYPLAN_RUN": str(self.run_dir),
        }
        # sudo passes no environment on, so it travels as words.
        words = [f"{name}={value}" for name, value in environment.items()]
        command = [*compose(), "--file", str(ROOT / "docker-compose.yml"), "--project-name", self.project]
        prefix = [] if docker() == ["docker"] else as_root([])
        run([*prefix, "env", *words, *command, *arguments], timeout_s=timeout_s)

    def _containers(self, *filters: str) -> list[str]:
        words = [
            f"--filter={word}" for word in (f"label=com.docker.compose.project={self.project}", *filters)
        ]
        return run([*docker(), "ps", "--all", "--quiet", "--no-trunc", *words]).split()

    def _remove_containers(self) -> None:
        for container in self._containers():
            # A paused container cannot be killed by older engines.
            works([*docker(), "unpause", container])
        if containers := self._containers():
            run([*docker(), "rm", "--force", "--volumes", *containers], timeout_s=UP_TIMEOUT_S)

    def _remove_stale_bridge(self) -> None:
        """A bridge that outlived its engine would take the packets of the one that is made now."""
        if not Path("/sys/class/net", self.bridge).exists():
            return
        if run([*docker(), "network", "ls", "--quiet", f"--filter=name=^{self.project}_cluster$"]).strip():
            return
        links.change("delete-bridge", self.bridge)


DEMO = LocalCluster()
TESTS = LocalCluster(
    project="bayplan-tests",
    net="172.31.85",
    bridge="bayplan1",
    ports=(7410, 7412, 7414),
    registry_port=7460,
    page_port=7481,
    # Short, so that certificates are renewed all the time that the tests run, and run out during the longer faults.
    certificate_life=os.environ.get("BAYPLAN_CERTIFICATE_LIFE", "60s"),
    log="debug",
    config=CACHE / "run/bayplan-tests-bay/config.yaml",
)


def compose() -> list[str]:
    """`docker compose` where the plug-in is there, else docker-compose."""
    if works(["docker", "compose", "version"]):
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise StepError("neither `docker compose` nor docker-compose is installed: run `make setup`")


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        # A socket's path may have 107 characters, a checkout's more: go by way of its directory's descriptor.
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            self.sock.connect(f"/proc/self/fd/{directory}/{self._path.name}")
        finally:
            os.close(directory)
