"""The demo: a cluster, the example on it, a killed node, a killed leader.

Each step says what it does, shows what `bay` shows, and checks it against the nodes' own Docker
Engines; a step that does not see what it should ends the demo with an error, the cluster left
as it is. It may be run again on its own cluster.

    python3 -m deploy.demo up [--example DIRECTORY] [--cluster demo|tests]
    python3 -m deploy.demo down
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from deploy import engine, images, page_beside
from deploy.local_cluster import DEMO, MANAGERS, NODES, TESTS, LocalCluster
from deploy.shell import ROOT, StepError, ends

EXAMPLE = ROOT / "examples/my-app"
APP = "my-app"
REPLICAS, SERVICE_PORT = 3, 80  # As its manifests say.

READY_TIMEOUT_S = 60
# Far above what is expected, so that a slow machine passes; the seconds are printed.
FAILOVER_TIMEOUT_S = 30
POLL_S = 0.05

T = TypeVar("T")


class Demo:
    """The steps, in order."""

    def __init__(self, cluster: LocalCluster, example: Path) -> None:
        self._cluster = cluster
        self._example = example

    def run(self) -> None:
        """All of it. Raises StepError at the first step that does not see what it should."""
        self._start_cluster()
        self._push_image()
        self._apply()
        self._kill_node()
        self._kill_leader()
        self._say_how_to_go_on()

    def _start_cluster(self) -> None:
        self._step("Start etcd, three managers, three nodes and an image registry (docker-compose.yml)")
        self._cluster.up()
        self._until_whole()
        self._show("managers")
        self._show("nodes")

    def _push_image(self) -> None:
        image = f"{self._cluster.registry}/{APP}:latest"
        self._step(f"Build {APP} and push it to the cluster's registry")
        images.push(self._example, image)
        with urllib.request.urlopen(f"http://{self._cluster.registry}/v2/{APP}/tags/list") as answer:
            tags = json.load(answer)["tags"]
        if "latest" not in tags:
            raise StepError(f"the registry has no {APP}:latest, only {tags}")
        print(f"{APP}:latest is in the registry")

    def _apply(self) -> None:
        self._step(f"Apply the Deployment and the Service of {self._example.name}, and wait until they run")
        # The example's documents say no more than `image: my-app:latest`: the cluster's default registry has it.
        self._bay("apply", "-f", str(self._example), timeout_s=READY_TIMEOUT_S)
        pods = self._until(f"{REPLICAS} pods run on several nodes", self._settled_on_several_nodes)
        self._show("get", "pods", "-o", "wide")
        for container, node in pods.items():
            self._check_answers(node, container)
        self._check_service(NODES)

    def _kill_node(self) -> None:
        before = self._pods()
        victim = max(sorted(NODES), key=lambda node: sum(on == node for on in before.values()))
        lost = sum(on == victim for on in before.values())
        self._step(f"Kill node {victim}, which runs {lost} of the {len(before)} pods")
        started = time.monotonic()
        self._cluster.kill(NODES[victim])
        after = self._until(f"{REPLICAS} pods run on the other nodes", self._settled, FAILOVER_TIMEOUT_S)
        print(
            f"All {REPLICAS} pods run again, on the other nodes, {time.monotonic() - started:.1f} s after the kill"
        )
        if victim in after.values():
            raise StepError(f"{victim} is dead, and still pods are counted there")
        self._show("nodes")
        self._show("get", "pods", "-o", "wide")
        for container, node in after.items():
            self._check_answers(node, container)
        self._check_service([node for node in NODES if node != victim])
        self._step(f"Start {victim} again")
        self._cluster.start(NODES[victim])
        self._until_whole()
        self._until(f"exactly {REPLICAS} pods run", self._settled)
        self._show("nodes")

    def _kill_leader(self) -> None:
        before = self._pods()
        leader = self._until("etcd names a leader", self._cluster.leader)
        self._step(f"Kill the leader, {leader}")
        started = time.monotonic()
        self._cluster.kill(leader)
        more = str(REPLICAS + 1)
        self._until(
            "another manager takes a write",
            lambda: (
                self._cluster.bay("scale", f"deployment/{APP}", "--replicas", more, "--no-wait").returncode
                == 0
            ),
            FAILOVER_TIMEOUT_S,
        )
        print(
            f"Another manager took a write {time.monotonic() - started:.1f} s after the kill: {more} replicas"
        )
        after = self._until(f"{more} pods run", lambda: self._settled(REPLICAS + 1), FAILOVER_TIMEOUT_S)
        if not before.items() <= after.items():
            raise StepError("a container that ran was restarted or moved by the change of leaders")
        print(f"The {len(before)} containers that ran before were not touched; one more runs")
        self._show("managers")
        self._show("get", "pods", "-o", "wide")
        self._step(f"Start {leader} again")
        self._cluster.start(leader)
        self._until_whole()

    def _say_how_to_go_on(self) -> None:
        self._step("The cluster stays up. See it, and use it:")
        print(f"  {page_beside.start(self._cluster)}   live: which pod and node answers, and what fails")
        print("  source .venv/bin/activate")
        print(f"  bay whoami          # the context {self._cluster.context}, which is the current one now")
        print("  bay nodes;  bay ps;  bay events -w;  bay logs -f deployment/my-app;  bay drain n1")
        print("End it, and remove all it had:  make demo-down")

    # Looking

    def _pods(self) -> dict[str, str]:
        """Container id → node of the app's running containers, as the nodes' own engines list them."""
        return {
            container["Id"]: node
            for node in NODES
            for container in self._cluster.pods(node) or []
            if container["Labels"].get("bayplan.io/workload", "").endswith(f"/{APP}")
        }

    def _settled(self, count: int = REPLICAS) -> dict[str, str] | None:
        pods = self._pods()
        return pods if len(pods) == count else None

    def _settled_on_several_nodes(self) -> dict[str, str] | None:
        pods = self._settled()
        return pods if pods and len(set(pods.values())) > 1 else None

    def _check_answers(self, node: str, container: str) -> None:
        """The app itself answers in that container."""
        program = (
            "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080', timeout=5).read().decode())"
        )

        def answer() -> str | None:
            try:
                return self._cluster.execute(
                    NODES[node], "docker", "exec", container, "python", "-c", program
                )
            except StepError:
                return None

        said = self._until(f"{APP} in {container[:12]} on {node} answers", answer)
        print(f"{node}: {said.strip()}")

    def _check_service(self, nodes: Iterable[str]) -> None:
        """The Service, as its YAML stands, answers on each of these nodes, wherever the pods are."""
        for node in nodes:
            url = f"http://{self._cluster.address(node)}:{SERVICE_PORT}/"

            def answer(url: str = url) -> str | None:
                try:
                    with urllib.request.urlopen(url, timeout=2) as said:
                        return str(said.read().decode())
                except OSError:
                    return None

            said = self._until(f"{url} answers", answer)
            print(f"{url} (node {node}): {said.strip()}")

    def _until_whole(self) -> None:
        def ready() -> bool:
            nodes, managers = self._cluster.bay("nodes"), self._cluster.bay("managers")
            rows = [line.split() for line in nodes.stdout.splitlines()]
            return sum(
                row[0] in NODES and "Ready" in row[1].split(",") for row in rows if len(row) > 1
            ) == len(NODES) and sum(line.startswith("m") for line in managers.stdout.splitlines()) == len(
                MANAGERS
            )

        self._until("`bay nodes` shows three nodes Ready, `bay managers` three managers", ready)

    def _until(self, what: str, look: Callable[[], T | None], timeout_s: float = READY_TIMEOUT_S) -> T:
        """Look until there is something to see, and return it. Raises StepError, with `bay ps`, when time is up."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if seen := look():
                return seen
            time.sleep(POLL_S)
        pods = self._cluster.bay("ps")
        raise StepError(
            f"after {timeout_s:.0f} s not seen: {what}.\n`bay ps` says:\n{pods.stdout}{pods.stderr}"
        )

    # Showing

    def _step(self, text: str) -> None:
        print(f"\n=== {text}", flush=True)

    def _show(self, *arguments: str) -> None:
        self._bay(*arguments)

    def _bay(self, *arguments: str, timeout_s: float = 30) -> None:
        """Run `bay`, show the command and what it prints. Raises StepError when it fails."""
        print(f"$ bay {' '.join(arguments)}", flush=True)
        done = self._cluster.bay(*arguments, timeout_s=timeout_s)
        print(done.stdout, end="", flush=True)
        if done.returncode != 0:
            raise StepError(f"`bay {' '.join(arguments)}` ended with {done.returncode}:\n{done.stderr}")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(prog="python3 -m deploy.demo")
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument(
        "--example", type=Path, default=EXAMPLE, help="a directory with a Dockerfile and manifests"
    )
    parser.add_argument("--cluster", choices=["demo", "tests"], default="demo")
    arguments = parser.parse_args()
    cluster = {"demo": DEMO, "tests": TESTS}[arguments.cluster]
    if arguments.action == "up":
        Demo(cluster, arguments.example.resolve()).run()
        return
    page_beside.stop(cluster)
    if engine.answers():
        cluster.down()


if __name__ == "__main__":
    ends(main)
