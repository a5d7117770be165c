"""What users write is nowhere to be read: not on the wire, not in etcd's files, not in any log at debug.

The capture is tcpdump's, of the whole network of the cluster. That it would find what it looks for
is shown by the same capture of a manager without TLS.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.engine import docker
from deploy.images import ETCD, MANAGER, NODE
from deploy.local_cluster import NODES
from deploy.shell import run
from tests.e2e.cluster import Cluster, eventually
from tests.e2e.documents import deployment

MANIFEST_CANARY = "canary-0f4c1d9b-in-a-manifest"
SECRET_CANARY = "canary-77e2a8c3-in-a-secret"
SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "deep"},
    "stringData": {"password": SECRET_CANARY},
}
# As YAML and JSON carry a secret's data.
ENCODED = b"Y2FuYXJ5LTc3ZTJhOGMz"
CANARIES = (MANIFEST_CANARY.encode(), SECRET_CANARY.encode(), ENCODED)


def found_in(content: bytes) -> list[bytes]:
    return [canary for canary in CANARIES if canary in content]


@contextmanager
def captured(path: Path, interface: str, *, network: str) -> Iterator[None]:
    """Every packet on `interface` as the container network `network` sees it, into `path`."""
    name = f"bayplan-capture-{path.stem}"
    command = [
        *docker(), "run", "--rm", "--name", name, "--network", network, "--cap-add", "NET_RAW",
        "--cap-add", "NET_ADMIN", "--entrypoint", "tcpdump", NODE, "-i", interface, "-s", "0", "--immediate-mode", "-U", "-w", "-",
    ]  # fmt: skip
    with path.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)
        try:
            # tcpdump writes the file's header when it listens.
            eventually(lambda: path.stat().st_size, within_s=15)
            yield
            time.sleep(1)  # What is on its way to the file.
        finally:
            run([*docker(), "kill", "--signal", "INT", name])
            process.wait(timeout=10)


def test_no_canary_on_the_wire_in_etcd_or_in_a_log(cluster: Cluster, tmp_path: Path) -> None:
    """During a deployment; BAYPLAN_LOG is debug on every daemon."""
    capture = tmp_path / "cluster.pcap"
    with captured(capture, cluster.local.bridge, network="host"):
        applied = cluster.apply(
            deployment(replicas=3, env=[{"name": "PASSWORD", "value": MANIFEST_CANARY}]), SECRET
        )
        assert applied.returncode == 0, applied.stderr
        assert SECRET_CANARY in _decoded(cluster.ok("get", "secret", "deep", "-o", "json", "--show-secrets"))
    packets = capture.read_bytes()
    assert len(packets) > 50_000  # A deployment is on it.
    assert found_in(packets) == []

    etcd = subprocess.run(
        [*docker(), "cp", f"{cluster.local.container('etcd')}:/var/lib/etcd", "-"],
        capture_output=True,
        check=True,
    )
    assert b"/bayplan/v1/resources" in etcd.stdout
    assert found_in(etcd.stdout) == []

    for container in cluster.local.containers():
        logs = subprocess.run(
            [*docker(), "logs", container], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True
        )
        assert found_in(logs.stdout) == [], container
    for node in NODES:
        labels = [each["Labels"] for each in cluster.local.pods(node) or []]
        assert found_in(json.dumps(labels).encode()) == []
    assert found_in(cluster.ok("events").encode()) == []
    assert found_in(cluster.ok("get", "secret", "deep", "-o", "yaml").encode()) == []
    cluster.ok("delete", "secret/deep")


def test_the_same_capture_without_tls_finds_it(tmp_path: Path) -> None:
    """One manager in the insecure mode, and etcd without TLS, on the loopback of a container."""
    capture = tmp_path / "plain.pcap"
    etcd = run([*docker(), "run", "--detach", "--rm", "--network", "none", ETCD, "etcd"]).strip()
    network = f"container:{etcd}"
    manager = ""
    try:
        manager = run([
            *docker(), "run", "--detach", "--network", network, MANAGER, "bayplan-manager", "--id", "m1",
            "--insecure-loopback", "--listen", "127.0.0.1:7400", "--advertise", "127.0.0.1:7400",
        ]).strip()  # fmt: skip
        with captured(capture, "lo", network=network):
            document = deployment(env=[{"name": "PASSWORD", "value": MANIFEST_CANARY}])

            def applied() -> bool:
                done = subprocess.run(
                    [
                        *docker(), "run", "--rm", "--interactive", "--network", network,
                        "--env", "BAYPLAN_INSECURE_LOOPBACK=1", MANAGER,
                        "bay", "--managers", "127.0.0.1:7400", "apply", "--no-wait", "-f", "-",
                    ],
                    input=json.dumps(document).encode(), capture_output=True, check=False,
                )  # fmt: skip
                return done.returncode == 0

            eventually(applied, within_s=30)
        assert MANIFEST_CANARY.encode() in capture.read_bytes()
    finally:
        run([*docker(), "rm", "--force", *filter(None, [manager]), etcd])


def _decoded(text: str) -> str:
    import base64

    return "".join(base64.b64decode(value).decode() for value in json.loads(text)["data"].values())
