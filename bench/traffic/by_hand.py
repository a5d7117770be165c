"""HAProxy with the configuration that an engineer wrote (handwritten.cfg), beside Bayplan's on a node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent.traffic.places import CONFIGURATION, DIRECTORY
from bench.traffic.web import POD_PORT
from deploy.engine import docker
from deploy.local_cluster import NODES, LocalCluster
from deploy.shell import StepError, run
from tests.e2e.cluster import eventually

PORT = 9480
SERVERS = 4  # As many as the file names.
PID_FILE = "/run/handwritten.pid"
FILE = Path(__file__).parent / "handwritten.cfg"
# Below the run directory that node-entrypoint makes.
OUR_FILE = f"/run/bayplan/{DIRECTORY}/{CONFIGURATION}"
START_TIMEOUT_S = 10.0


@contextmanager
def by_hand(local: LocalCluster, node: str, addresses: Sequence[str]) -> Iterator[None]:
    """It runs meanwhile, before the pods at these addresses, with as many threads as Bayplan's there."""
    if len(addresses) != SERVERS:
        raise StepError(f"{len(addresses)} pods run, but {FILE.name} has {SERVERS}")
    container = local.container(NODES[node])
    threads = local.execute(NODES[node], "sed", "-n", "s/^ *nbthread //p", OUR_FILE).strip()
    variables = {"THREADS": threads, "PORT": str(PORT)}
    variables |= {f"POD_{n}": f"{address}:{POD_PORT}" for n, address in enumerate(addresses, start=1)}
    words = [f"--env={name}={value}" for name, value in variables.items()]
    path = f"/run/{FILE.name}"
    run([*docker(), "exec", "--interactive", container, "tee", path], stdin=FILE.read_bytes())
    start = f"haproxy -D -p {PID_FILE} -f {path}"
    run([*docker(), "exec", *words, container, "sh", "-c", start])
    try:
        eventually(lambda: _listens(local, node), within_s=START_TIMEOUT_S)
        yield
    finally:
        local.execute(NODES[node], "sh", "-c", f"kill $(cat {PID_FILE}) && rm {PID_FILE}")


def _listens(local: LocalCluster, node: str) -> bool:
    return bool(local.execute(NODES[node], "ss", "-Hltn", f"sport = :{PORT}").strip())
