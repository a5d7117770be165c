"""The compose cluster as the e2e tests use it: `bay`, faults, and what heals them again."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from deploy import images
from deploy.engine import docker
from deploy.local_cluster import MANAGERS, NODES, LocalCluster
from deploy.shell import CACHE, run
from tests.e2e.watch import ContainerWatch

APP_IMAGE = "e2e-app:1"
WHOLE_TIMEOUT_S = 60
POLL_S = 0.1

T = TypeVar("T")


def eventually(
    look: Callable[[], T | None],
    *,
    within_s: float,
    otherwise: Callable[[], str] = lambda: "",
    poll_s: float = POLL_S,
) -> T:
    """The first true answer of `look`. An AssertionError with what `otherwise` says when none comes in time."""
    deadline = time.monotonic() + within_s
    while True:
        if seen := look():
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s (last: {seen!r})\n{otherwise()}")
        time.sleep(poll_s)


class Cluster:
    """One for the whole session; `heal` after each test."""

    def __init__(self, local: LocalCluster, directory: Path) -> None:
        self.local = local
        self._directory = directory
        self._manifests = 0

    # Life

    def up(self) -> None:
        """From nothing, whatever an earlier run left."""
        images.build_all()
        self.local.down()
        self.local.up()
        self.push_image(Path(__file__).parent / "app", APP_IMAGE)
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        eventually(self._is_whole, within_s=WHOLE_TIMEOUT_S, otherwise=self.report)

    def heal(self) -> None:
        """Undo every fault and delete every workload, so that the next test finds a whole, empty cluster."""
        self.mend()
        self.delete_everything()

    def mend(self) -> None:
        """Undo every fault; what runs goes on. For tests that share what they have applied."""
        self.local.power_on("etcd")
        # Side by side: each is a docker command or two, and this is done after every test.
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.local.power_on, ("registry", *MANAGERS, *NODES.values())))
            list(pool.map(self.local.heal_link, NODES))
            list(pool.map(self.release_agent, NODES))
        self.wait_until_whole()
        for node, row in self.node_rows().items():
            if row[1] != "Ready":  # But something beside it: cordoned.
                self.ok("uncordon", node)

    def delete_everything(self) -> None:
        if found := self.ok("get", "deployments,services,ingresses", "-o", "name").split():
            self.ok("delete", *found)
        eventually(self._is_empty, within_s=WHOLE_TIMEOUT_S, otherwise=self.report)

    def report(self) -> str:
        """What a developer wants to see after a failure."""
        parts = [
            f"--- bay {words}\n{self._said(*words.split())}"
            for words in ("nodes", "managers", "ps", "events")
        ]
        parts += [f"--- {name}\n{self.local.logs(name, tail=30)}" for name in (*MANAGERS, *NODES.values())]
        return "\n".join(parts)

    # What a user does

    def bay(self, *arguments: str, timeout_s: float = 90) -> subprocess.CompletedProcess[str]:
        return self.local.bay(*arguments, timeout_s=timeout_s)

    def ok(self, *arguments: str, timeout_s: float = 90) -> str:
        """`bay` that must succeed; its stdout."""
        done = self.bay(*arguments, timeout_s=timeout_s)
        assert done.returncode == 0, (
            f"bay {' '.join(arguments)} → {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout

    def apply(self, *documents: dict[str, Any], wait: bool = True) -> subprocess.CompletedProcess[str]:
        """Apply documents, JSON being YAML."""
        return self.bay("apply", "-f", self._manifest(documents), *([] if wait else ["--no-wait"]))

    def delete(self, *documents: dict[str, Any]) -> None:
        """Delete what documents describe, as far as it is there."""
        self.ok("delete", "--ignore-not-found", "-f", self._manifest(documents))

    def _manifest(self, documents: Sequence[dict[str, Any]]) -> str:
        self._manifests += 1
        path = self._directory / f"manifest-{self._manifests}.yaml"
        path.write_text("\n---\n".join(json.dumps(document, indent=2) for document in documents))
        return str(path)

    def vip(self, service: str) -> str:
        """The address of a service."""
        return str(json.loads(self.ok("get", "svc", service, "-o", "json"))["status"]["clusterIP"])

    # Faults

    def kill_node(self, node: str) -> None:
        """Power off."""
        self.local.kill(NODES[node])

    def start_node(self, node: str) -> None:
        self.local.power_on(NODES[node])

    def cut_link(self, node: str) -> None:
        """From now on nothing leaves the node and nothing reaches it; its engine can still be watched."""
        self.local.cut_link(node)

    def heal_link(self, node: str) -> None:
        self.local.heal_link(node)

    def kill_leader(self) -> str:
        """Returns the compose service that led."""
        leader = self.leader()
        self.local.kill(leader)
        return leader

    def leader(self) -> str:
        return eventually(self.local.leader, within_s=WHOLE_TIMEOUT_S, otherwise=self.report)

    def start_manager(self, service: str) -> None:
        self.local.power_on(service)

    @contextmanager
    def paused(self, service: str) -> Iterator[None]:
        """Every process of the service is frozen meanwhile, its connections stay open."""
        self.local.pause(service)
        try:
            yield
        finally:
            self.local.unpause(service)

    def kill_all_managers(self) -> None:
        for service in MANAGERS:
            self.local.kill(service)

    def start_all_managers(self) -> None:
        for service in MANAGERS:
            self.local.power_on(service)

    def kill_agent(self, node: str) -> None:
        """SIGKILL the agent, and keep it down until `release_agent`."""
        self.local.execute(
            NODES[node], "sh", "-c", "touch /run/hold-agent; kill -9 $(cat /run/agent.pid); sleep 0.1"
        )

    def release_agent(self, node: str) -> None:
        self.local.execute(NODES[node], "rm", "-f", "/run/hold-agent")

    def snapshot_etcd(self) -> None:
        """Keep etcd's present state for `restore_etcd`."""
        self.local.execute("etcd", "etcdctl", "snapshot", "save", "/var/lib/etcd/snapshot.db")

    def restore_etcd(self) -> None:
        """Stop etcd, put the snapshot in the place of its data, start it."""
        restore = (
            "rm -rf member restored && etcdctl snapshot restore snapshot.db --data-dir restored --name etcd"
            " --initial-cluster etcd=http://localhost:2380 --initial-advertise-peer-urls http://localhost:2380"
            " && mv restored/member ."
        )
        self._change_etcd(restore)

    def wipe_etcd(self) -> None:
        """Stop etcd, delete its data, start it."""
        self._change_etcd("rm -rf member")

    def _change_etcd(self, script: str) -> None:
        container = self.local.container("etcd")
        self.local.kill("etcd")
        etcdctl = f"{CACHE / 'bin/etcdctl'}:/usr/local/bin/etcdctl:ro"
        run(
            [*docker(), "run", "--rm", "--volumes-from", container, "--volume", etcdctl, "--env", "ETCDCTL_API=3",
             "--workdir", "/var/lib/etcd", images.PYTHON, "sh", "-c", script]
        )  # fmt: skip
        self.local.start("etcd")

    # Looking

    @contextmanager
    def watched(self) -> Iterator[ContainerWatch]:
        watch = ContainerWatch(self.local)
        watch.start()
        try:
            yield watch
        finally:
            watch.stop()

    def node_rows(self) -> dict[str, list[str]]:
        """`bay nodes`: node → its row's words."""
        rows = [line.split() for line in self.bay("nodes").stdout.splitlines()]
        return {row[0]: row for row in rows if row and row[0] in NODES}

    def _is_whole(self) -> bool:
        rows = self.node_rows()
        managers = self.bay("managers").stdout.splitlines()
        ready = [node for node, row in rows.items() if len(row) > 1 and row[1].split(",")[0] == "Ready"]
        return len(ready) == len(NODES) and sum(line.startswith("m") for line in managers) == len(MANAGERS)

    def _is_empty(self) -> bool:
        return all(self.local.pods(node) == [] for node in NODES)

    def _said(self, *arguments: str) -> str:
        done = self.bay(*arguments)
        return done.stdout + done.stderr

    def push_image(self, directory: Path, image: str) -> None:
        """Build `directory`, with busybox beside its files, and push it to the cluster's registry."""
        context = CACHE / f"e2e-{directory.name}"
        shutil.rmtree(context, ignore_errors=True)
        shutil.copytree(directory, context)
        shutil.copy(CACHE / "bin/busybox", context)
        images.push(context, f"{self.local.registry}/{image}")
