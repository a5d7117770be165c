"""A laboratory for what only a kernel can show: one container that holds nodes and pods as network namespaces.

Namespaces n1, n2 … are nodes on one segment, 192.0.2.0/24, with a host `out` that is none; pods are namespaces with
a cable to their node's bridge. Nothing of it touches the host's own network, and the user who runs the
tests needs nothing but an engine.
"""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import pyroute2
import pytest

from bayplan.v1 import agent_link_pb2 as pb
from tests.docker_engine import DockerEngine

IMAGE = "bayplan-node:dev"
ROOT = Path(__file__).parents[3]
PYTHON = "/opt/bayplan/venv/bin/python"
TOOL = "/src/tests/agent/network/lab_tool.py"
WITHIN_S = 20.0
OUTSIDER = "192.0.2.99"


class Lab:
    """Give it to `with`."""

    def __init__(self, engine: DockerEngine) -> None:
        self._docker = ["docker", "--host", f"unix://{engine.socket}"]
        self._name = f"bayplan-lab-{uuid4().hex[:8]}"
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        packages = Path(pyroute2.__file__).parent
        self._call(
            *("run", "--detach", "--rm", "--init", "--name", self._name, "--network", "none"),
            # As the local cluster's nodes: see docker-compose.yml.
            *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE"),
            *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
            *("--volume", f"{ROOT}:/src:ro", "--volume", f"{packages}:/packages/pyroute2:ro"),
            *("--env", "PYTHONPATH=/src:/packages", "--env", "PYTHONDONTWRITEBYTECODE=1"),
            *("--entrypoint", "sleep", IMAGE, "infinity"),
        )
        self.shell(
            "mount -o remount,rw /proc/sys; ip link set lo up; ip link add under type bridge; ip link set under up"
        )
        self.host("out", OUTSIDER)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        self._call("rm", "--force", self._name)

    def shell(self, script: str, *, at: str = "") -> str:
        """Run it, in the namespace `at`; fails with what it said."""
        inside = ["ip", "netns", "exec", at] if at else []
        return self._call("exec", self._name, *inside, "bash", "-ec", script)

    def host(self, name: str, address: str, *, mtu: int = 1500) -> None:
        """A namespace on the segment."""
        self.shell(
            f"ip netns add {name}; ip link add u-{name} master under type veth peer name eth0 netns {name};"
            f"ip link set u-{name} mtu {mtu} up;"
            f"ip -n {name} link set lo up; ip -n {name} link set eth0 mtu {mtu} up;"
            f"ip -n {name} address add {address}/24 dev eth0"
        )

    def pod(self, name: str, address: str, *, node: str, bridge: str = "bay1") -> int:
        """A namespace behind a node's bridge, as the engine would make it; returns the id of its process."""
        gateway = address.rsplit(".", 1)[0] + ".1"
        self.shell(
            f"ip netns add {name}; ip -n {node} link add veth-{name} type veth peer name eth0 netns {name};"
            f"mtu=$(ip netns exec {node} cat /sys/class/net/{bridge}/mtu);"
            f"ip -n {node} link set veth-{name} mtu $mtu master {bridge} up;"
            f"ip -n {name} link set lo up; ip -n {name} link set eth0 mtu $mtu up;"
            f"ip -n {name} address add {address}/24 dev eth0; ip -n {name} route add default via {gateway}"
        )
        self._start("sleep", "infinity", at=name)
        found = self._until(lambda: self.shell(f"ip netns pids {name}").split(), bool, f"a process in {name}")
        return int(found[0])

    def serve(self, name: str, kind: str, address: str, port: int, *, at: str) -> None:
        """Answers who asked, from then on."""
        process = self._start(PYTHON, TOOL, "serve", name, kind, address, str(port), at=at)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "serving"

    def ask(
        self, kind: str, address: str, port: int, *, at: str, source: str = "0.0.0.0", size: int = 29
    ) -> str:
        """The answer, or the name of the error. `size` is of the IP packet of a question over UDP."""
        return self.shell(f"{PYTHON} {TOOL} ask {kind} {address} {port} {source} {size}", at=at).strip()

    def flow(self, address: str, port: int, *, at: str) -> Callable[[], str]:
        """Asks over UDP, each time from the same socket."""
        process = self._start(PYTHON, TOOL, "flow", address, str(port), at=at)

        def once() -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        return once

    def node(self, name: str, address: str) -> Node:
        """An agent's network in the namespace of that name."""
        data_dir = f"/var/lib/{name}"
        self.shell(f"mkdir -p {data_dir}")
        process = self._start(PYTHON, "-m", "tests.agent.network.lab_node", name, address, data_dir, at=name)
        return Node(self, process, name)

    def eventually(self, ask: Callable[[], str], answer: str) -> None:
        """Within some seconds it is so."""
        self._until(ask, lambda found: found == answer, answer)

    def _until(self, look: Callable[[], Any], is_right: Callable[[Any], bool], wanted: str) -> Any:
        until = time.monotonic() + WITHIN_S
        while not is_right(found := look()):
            if time.monotonic() > until:
                pytest.fail(f"it is {found!r} and never became {wanted!r}")
            time.sleep(0.1)
        return found

    def _start(self, *command: str, at: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*self._docker, "exec", "--interactive", self._name, "ip", "netns", "exec", at, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None,  # pytest shows it where a test fails.
            text=True,
        )
        self._processes.append(process)
        return process

    def _call(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._docker, *arguments], check=False, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done.stdout


class Node:
    """The pods' network of one node, in its own process."""

    def __init__(self, lab: Lab, process: subprocess.Popen[str], name: str) -> None:
        self._lab = lab
        self._process = process
        self.name = name

    def use(self, network: pb.Network, traffic: pb.Traffic | None = None) -> None:
        """From now on it is to be so."""
        told = [
            base64.b64encode(message.SerializeToString()).decode()
            for message in (network, traffic or pb.Traffic(full=True))
        ]
        self._ask({"use": told})

    def problem(self) -> str:
        return str(self._ask({"problem": None}))

    def attach(self, pod_uid: str) -> str:
        """The address, or why there is none."""
        _, address = self.attachment(pod_uid)
        return address

    def attachment(self, pod_uid: str) -> tuple[str, str]:
        """The engine's network and the address; or nothing, and why."""
        network, address = self._ask({"attach": pod_uid})
        return str(network), str(address)

    def release(self, pod_uid: str) -> None:
        self._ask({"release": pod_uid})

    def retain(self, pod_uids: list[str]) -> None:
        self._ask({"retain": pod_uids})

    def pods(self, *pods: tuple[str, int, str]) -> None:
        """The engine's containers from now on: uid, pid, address."""
        self._ask({"pods": pods})

    def reconnected(self) -> list[str]:
        found: list[str] = self._ask({"reconnected": None})
        return found

    def stop(self) -> None:
        """The agent dies."""
        self._process.kill()
        self._process.wait()

    def shell(self, script: str) -> str:
        return self._lab.shell(script, at=self.name)

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the process of {self.name} has ended"
        return json.loads(answer)


@contextlib.contextmanager
def laboratory(engine: DockerEngine) -> Iterator[Lab]:
    """Skips where the image was not built."""
    try:
        engine.call("GET", f"images/{IMAGE}/json")
    except RuntimeError:
        pytest.skip(f"there is no image {IMAGE}: make images")
    with Lab(engine) as lab:
        yield lab
