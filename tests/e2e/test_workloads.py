"""What users do all day: apply, scale, delete, and read why something does not run."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, eventually
from tests.e2e.documents import deployment
from tests.e2e.watch import ContainerWatch

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
