"""What users do all day: apply, scale, delete, and read why something does not run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local_cluster import NODES
from tests.e2e.callers import call
from tests.e2e.cluster import APP_IMAGE, Cluster, eventually
from tests.e2e.documents import deployment, service
from tests.e2e.pods import inside, pods_of
from tests.e2e.watch import ContainerWatch, Seen

WEB = "Deployment/web"


@pytest.fixture
def watch(cluster: Cluster) -> Iterator[ContainerWatch]:
    with cluster.watched() as watch:
        yield watch
        assert not watch.doubled(), watch.timeline()


class TestApply:
    def test_runs_the_replicas_and_says_so(self, cluster: Cluster, watch: ContainerWatch) -> None:
        done = cluster.apply(deployment(replicas=3))

        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == "deployment.apps/web created"
        assert {seen.node for seen in watch.now().of(WEB)} == {"n1", "n2", "n3"}
        assert cluster.apply(deployment(replicas=3)).stdout.splitlines()[0] == "deployment.apps/web unchanged"
        assert watch.counts(WEB)[1] == 3, watch.timeline()

    def test_scales_up_and_down_within_bounds(self, cluster: Cluster, watch: ContainerWatch) -> None:
        cluster.apply(deployment(replicas=2))
        first = {seen.id for seen in watch.now().of(WEB)}

        cluster.ok("scale", "deploy/web", "--replicas=7")
        assert len(watch.now().of(WEB)) == 7
        cluster.ok("scale", "deploy/web", "--replicas=2")

        eventually(lambda: len(watch.now().of(WEB)) == 2, within_s=20, otherwise=cluster.report)
        assert {seen.id for seen in watch.now().of(WEB)} == first, "the first slots were kept"
        assert watch.counts(WEB)[1] == 7, watch.timeline()

    def test_deleted_and_made_again_under_one_name_starts_afresh(
        self, cluster: Cluster, watch: ContainerWatch
    ) -> None:
        cluster.apply(deployment(replicas=3))
        first = {seen.pod for seen in watch.now().of(WEB)}

        assert 'deployment.apps "web" deleted' in cluster.ok("delete", "deploy", "web")
        assert watch.now().of(WEB) == []
        cluster.apply(deployment(replicas=3))

        again = {seen.pod for seen in watch.now().of(WEB)}
        assert len(again) == 3
        assert not first & again
        assert len(cluster.ok("get", "pods", "-o", "name").split()) == 3


class TestReasons:
    """The text of the true reason reaches `bay ps`, `describe` and `why`."""

    def test_an_image_that_does_not_exist(self, cluster: Cluster) -> None:
        cluster.apply(deployment(replicas=1, image="no-such-app:9"), wait=False)

        self._says(cluster, "manifest unknown")

    def test_a_command_that_is_not_there(self, cluster: Cluster) -> None:
        cluster.apply(deployment(replicas=1, command=["gunicorn"]), wait=False)

        self._says(cluster, "gunicorn", "executable file not found")

    def test_a_command_that_fails(self, cluster: Cluster) -> None:
        script = "echo 'cannot open /etc/app.conf' >&2; exit 7"
        cluster.apply(deployment(replicas=1, command=["/bin/sh", "-c", script]), wait=False)

        self._says(cluster, "exit 7", "cannot open /etc/app.conf")

    def test_a_request_that_fits_nowhere(self, cluster: Cluster) -> None:
        cluster.apply(deployment(replicas=1, requests={"cpu": "64"}), wait=False)

        self._says(cluster, "0/3 nodes: 3 lack 64 cpu (most free:")

    def test_apply_waits_and_exits_with_the_truth(self, cluster: Cluster) -> None:
        script = "echo 'cannot open /etc/app.conf' >&2; exit 7"
        done = cluster.apply(deployment(replicas=1, command=["/bin/sh", "-c", script]))

        assert done.returncode == 1
        assert "cannot open /etc/app.conf" in done.stderr

    @staticmethod
    def _says(cluster: Cluster, *texts: str) -> None:
        for command in (["ps"], ["describe", "deploy", "web"], ["why"]):
            words = [*command, _pod(cluster)] if command == ["why"] else command
            eventually(
                lambda words=words: all(text in cluster.bay(*words).stdout for text in texts),  # type: ignore[misc]  # the loop's own value
                within_s=25,
                otherwise=lambda words=words: cluster.bay(*words).stdout + cluster.report(),  # type: ignore[misc]  # the loop's own value
            )


class TestInside:
    def test_logs_exec_and_usage(self, cluster: Cluster) -> None:
        cluster.apply(deployment(replicas=1))
        pod = _pod(cluster)

        eventually(lambda: "serving as" in cluster.ok("logs", pod), within_s=10)
        done = cluster.bay("exec", pod, "--", "sh", "-c", "echo inside; exit 5")
        assert (done.stdout, done.returncode) == ("inside\n", 5)
        assert "session.welcomed" in cluster.ok("logs", "node/n1", "--tail", "2000")
        eventually(lambda: pod in cluster.bay("top", "pods").stdout, within_s=25, otherwise=cluster.report)

    def test_logs_of_the_container_before(self, cluster: Cluster) -> None:
        script = "echo run of $(cat /proc/sys/kernel/random/uuid); exit 1"
        cluster.apply(deployment(replicas=1, command=["/bin/sh", "-c", script]), wait=False)
        pod = _pod(cluster)

        eventually(
            lambda: "run of" in cluster.bay("logs", "-p", pod).stdout, within_s=20, otherwise=cluster.report
        )


class TestSeveralContainers:
    """A pod of an app and a side-car that asks it over localhost, and is ready three seconds after its start."""

    ASKS = (
        "trap 'exit 0' TERM; echo I am the side-car; until wget -q -O- http://127.0.0.1:8080/; do sleep 0.1; done;"
        " sleep 3; touch /tmp/asked; while true; do sleep 1000 & wait $!; done"
    )

    def test_a_killed_side_car_comes_back_and_nobody_else_notices(
        self, cluster: Cluster, watch: ContainerWatch
    ) -> None:
        document = deployment(replicas=1)
        probe = {"exec": {"command": ["test", "-e", "/tmp/asked"]}, "periodSeconds": 1}
        document["spec"]["template"]["spec"]["containers"].append(
            {"name": "side", "image": APP_IMAGE, "command": ["sh", "-c", self.ASKS], "readinessProbe": probe}
        )
        done = cluster.apply(document)
        assert done.returncode == 0, done.stdout + done.stderr
        pod, before = _pod(cluster), self._containers(watch)
        assert set(before) == {"", "app", "side"}, "the sandbox and the two"
        assert self._row(cluster)[1:4] == ["2/2", "Running", "0"]
        assert f"hello from {pod}" in cluster.ok("logs", pod, "-c", "side"), (
            "it had the app's answer over localhost"
        )
        address = self._address(cluster)

        cluster.local.execute(NODES[before["side"].node], "docker", "kill", before["side"].id)
        eventually(lambda: self._row(cluster)[1] == "1/2", within_s=10, otherwise=cluster.report)
        eventually(lambda: self._row(cluster)[1] == "2/2", within_s=20, otherwise=cluster.report)

        after = self._containers(watch)
        assert (after[""].id, after["app"].id) == (before[""].id, before["app"].id)
        assert after["side"].id != before["side"].id
        assert (self._row(cluster)[3], self._address(cluster)) == ("1", address)
        assert "I am the side-car" in cluster.ok("logs", "-p", pod, "-c", "side")
        inside = cluster.bay("exec", pod, "--", "wget", "-q", "-O-", f"http://{address}:8080/")
        assert inside.stdout == f"hello from {pod}\n"
        assert 'Defaulted container "app" out of: app, side' in inside.stderr

    def test_a_killed_sandbox_takes_all_along_and_the_address_stays(
        self, cluster: Cluster, watch: ContainerWatch
    ) -> None:
        document = deployment(replicas=1)
        script = "trap 'exit 0' TERM; while true; do sleep 1000 & wait $!; done"
        document["spec"]["template"]["spec"]["containers"].append(
            {"name": "side", "image": APP_IMAGE, "command": ["sh", "-c", script]}
        )
        assert cluster.apply(document).returncode == 0
        before, address = self._containers(watch), self._address(cluster)

        cluster.local.execute(NODES[before[""].node], "docker", "kill", before[""].id)
        eventually(
            lambda: (
                len({each.id for each in watch.now().of(WEB)} - {each.id for each in before.values()}) == 3
            ),
            within_s=30,
            otherwise=cluster.report,
        )
        eventually(lambda: self._row(cluster)[1] == "2/2", within_s=20, otherwise=cluster.report)

        assert self._address(cluster) == address
        assert not {each.id for each in self._containers(watch).values()} & {
            each.id for each in before.values()
        }

    @staticmethod
    def _containers(watch: ContainerWatch) -> dict[str, Seen]:
        """By name; the sandbox's is empty."""
        return {seen.container: seen for seen in watch.now().of(WEB)}

    @staticmethod
    def _row(cluster: Cluster) -> list[str]:
        """NAME, READY, STATUS, RESTARTS, AGE."""
        return cluster.ok("get", "pods", "--no-headers").split()

    @staticmethod
    def _address(cluster: Cluster) -> str:
        pods = json.loads(cluster.ok("get", "pods", "-o", "json"))
        return str(pods["items"][0]["status"]["podIP"])


class TestBadInput:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("spec: {replicas: 1, replicas: 2}", "is there already"),
            ("a: &a [x, x]\nb: &b [*a, *a]\n", "kind"),
            ("{" * 10_000, ":1:"),
            ("kind: Deployment\napiVersion: apps/v1\nmetadata: {name: ../x}\n", "../x"),
            ("x: !!python/object:os.system {}", "this tag is not allowed"),
        ],
    )
    def test_is_refused_with_its_place(self, cluster: Cluster, tmp_path: Path, text: str, says: str) -> None:
        path = tmp_path / "bad.yaml"
        path.write_text(text)

        done: subprocess.CompletedProcess[str] = cluster.bay("apply", "-f", str(path))

        assert done.returncode != 0
        assert "bad.yaml:" in done.stderr
        assert says in done.stderr
        assert "Traceback" not in done.stderr


def _pod(cluster: Cluster) -> str:
    """The name of the only pod."""
    return eventually(
        lambda: cluster.ok("get", "pods", "-o", "name").strip().removeprefix("pod/"), within_s=10
    )


class TestLiveness:
    NODE_PORT = 30080

    def test_a_pod_that_fails_it_is_restarted_in_place_and_serves_again(self, cluster: Cluster) -> None:
        probe = {
            "exec": {"command": ["test", "!", "-e", "/tmp/dead"]},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 1,
        }
        front = service("web", ports={"http": (80, 8080, "TCP")}, type="NodePort")
        front["spec"]["ports"][0]["nodePort"] = self.NODE_PORT
        done = cluster.apply(front, deployment(replicas=1, livenessProbe=probe))
        assert done.returncode == 0, done.stdout + done.stderr
        (before,) = pods_of(cluster, "web")

        inside(cluster, before, "touch /tmp/dead")

        eventually(
            lambda: [pod.container for pod in pods_of(cluster, "web")] not in ([], [before.container]),
            within_s=30,
            otherwise=cluster.report,
        )
        addresses = [cluster.local.address(node) for node in NODES]
        eventually(
            lambda: all(
                call(address, self.NODE_PORT) == (200, f"hello from {before.name}\n") for address in addresses
            ),
            within_s=30,
            otherwise=cluster.report,
        )
        (after,) = pods_of(cluster, "web")
        assert (after.name, after.address) == (before.name, before.address)
        (row,) = (line.split() for line in cluster.ok("get", "pods", "--no-headers").splitlines())
        assert row[:4] == [before.name, "1/1", "Running", "1"]
