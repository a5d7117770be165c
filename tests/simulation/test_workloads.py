"""Apply, scale, change, delete: what a user sees of a healthy cluster."""

from __future__ import annotations

import asyncio

import pytest

from agent.runtime.port import LABEL_CONTAINER, SANDBOX, Output
from agent.runtime.simulated_images import Program
from bayplan.client.errors import InvalidDocumentError, NotFoundError
from tests.simulation.cluster import SIDE_CAR, Cluster, deployment

pytestmark = [pytest.mark.virtual_time, pytest.mark.timeout(120)]

# What remains in a store whose workloads are all gone.
LASTING = (
    "meta",
    "leader",
    "commit",
    "managers",
    "nodes",
    "network",
    "node-intents",
    "decisions",
    "takeover",
)


class TestApply:
    async def test_runs_and_spreads_the_replicas(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=10)])

        took_s = await cluster.until_running("web", 10, within_s=5)

        assert cluster.running("web") == dict.fromkeys(cluster.nodes, 2)
        assert took_s < 1

    async def test_is_told_ready_when_it_is(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=3)])

        await cluster.client.wait_ready("Deployment", "web", timeout_s=10)

        assert cluster.running("web").total() == 3
        document = await cluster.client.get("Deployment", "web")
        assert document.status["readyReplicas"] == 3
        assert {pod.status for pod in await cluster.client.pods()} == {"Running"}

    async def test_of_the_same_document_changes_nothing(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=3)])
        await cluster.until_running("web", 3, within_s=5)
        before = cluster.container_ids("web")

        (applied,) = await cluster.client.apply([deployment(replicas=3)])
        await asyncio.sleep(5)

        assert applied.result == "unchanged"
        assert cluster.container_ids("web") == before

    async def test_of_a_bad_document_says_where(self, cluster: Cluster) -> None:
        bad = deployment()
        bad["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"memory": "512mb"}}

        with pytest.raises(InvalidDocumentError) as raised:
            await cluster.client.apply([bad])

        assert "memory" in raised.value.problems[0].path


class TestScale:
    async def test_up_starts_only_what_is_missing(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=4)])
        await cluster.until_running("web", 4, within_s=5)
        before = cluster.container_ids("web")

        async with cluster.watcher.bounds("web", least=4, most=12):
            await cluster.client.scale("Deployment", "web", 12)
            await cluster.until_running("web", 12, within_s=5)

        assert before <= cluster.container_ids("web")
        assert max(cluster.running("web").values()) - min(cluster.running("web").values()) <= 1

    async def test_down_stops_the_highest_slots(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=12)])
        await cluster.until_running("web", 12, within_s=5)
        before = cluster.container_ids("web")

        async with cluster.watcher.bounds("web", least=5, most=12):
            await cluster.client.scale("Deployment", "web", 5)
            await cluster.until_running("web", 5, within_s=15)
            await asyncio.sleep(3)

        assert cluster.container_ids("web") < before
        assert {pod.slot for node in cluster.nodes.values() for pod in node.running()} == set(range(5))

    async def test_to_zero_and_back(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=5)])
        await cluster.until_running("web", 5, within_s=5)

        await cluster.client.scale("Deployment", "web", 0)
        await cluster.until_running("web", 0, within_s=15)
        await cluster.client.scale("Deployment", "web", 5)

        await cluster.until_running("web", 5, within_s=5)


class TestDelete:
    async def test_waits_for_the_pods_and_leaves_nothing(self, cluster: Cluster) -> None:
        cluster.registry.push("docker.io/library/slow:1", Program(stop_s=4.0))
        await cluster.client.apply([deployment(replicas=6, image="slow:1")])
        await cluster.until_running("web", 6, within_s=5)

        await cluster.client.delete("Deployment", "web")
        await asyncio.sleep(2)
        assert (await cluster.client.get("Deployment", "web")).deleting
        assert cluster.running("web").total() == 6
        await cluster.until(lambda: not cluster.desired(), within_s=15, what="no document")

        assert cluster.running("web").total() == 0
        with pytest.raises(NotFoundError):
            await cluster.client.get("Deployment", "web")
        left = {key.split("/")[3] for key in cluster.stored_keys()}
        assert left <= set(LASTING)

    async def test_and_create_again_under_one_name_inherits_nothing(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=3)])
        await cluster.until_running("web", 3, within_s=5)
        (old_uid,) = cluster.desired()
        old = cluster.container_ids("web")

        await cluster.client.delete("Deployment", "web")
        await cluster.until(lambda: not cluster.desired(), within_s=15, what="no document")
        await cluster.client.apply([deployment(replicas=2)])
        await cluster.until_running("web", 2, within_s=5)

        assert not cluster.container_ids("web") & old
        assert old_uid not in cluster.desired()
        assert not [key for key in cluster.stored_keys() if old_uid in key]
        pods = await cluster.client.pods(attempts=True)
        assert len(pods) == 2


class TestNewTemplate:
    async def test_replaces_pods_a_few_at_a_time(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=8, version="1")])
        await cluster.until_running("web", 8, within_s=5)
        (old,) = cluster.revisions("web")

        async with cluster.watcher.bounds("web", least=8, most=10):
            await cluster.client.apply([deployment(replicas=8, version="2")])
            await cluster.until(
                lambda: old not in cluster.revisions("web") and cluster.is_settled(), within_s=60
            )

        assert cluster.revisions("web").total() == 8
        assert len(cluster.revisions("web")) == 1

    async def test_that_is_broken_leaves_the_old_pods_running(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=4)])
        await cluster.until_running("web", 4, within_s=5)
        before = cluster.container_ids("web")

        await cluster.client.apply([deployment(replicas=4, image="absent:1")])
        await asyncio.sleep(120)

        assert cluster.container_ids("web") == before
        waiting = [pod for pod in await cluster.client.pods() if not pod.ready]
        assert len(waiting) == 1
        assert "manifest unknown" in waiting[0].why

    async def test_going_back_heals(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=4)])
        await cluster.until_running("web", 4, within_s=5)
        before = cluster.container_ids("web")
        await cluster.client.apply([deployment(replicas=4, image="absent:1")])
        await asyncio.sleep(10)

        await cluster.client.apply([deployment(replicas=4)])
        await cluster.client.wait_ready("Deployment", "web", timeout_s=30)
        await asyncio.sleep(5)

        assert cluster.container_ids("web") == before
        assert len(await cluster.client.pods()) == 4


class TestWhatCannotRun:
    async def test_image_that_does_not_exist(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=1, image="absent:1")])
        await asyncio.sleep(5)

        (pod,) = await cluster.client.pods()

        assert pod.status in ("ImagePullBackOff", "ErrImagePull")
        assert "docker.io/library/absent:1" in pod.why
        assert "manifest unknown" in pod.why

    async def test_command_that_cannot_be_started(self, cluster: Cluster) -> None:
        cluster.registry.push(
            "docker.io/library/broken:1",
            Program(start_exit_code=127, start_error='exec: "gunicorn": executable file not found in $PATH'),
        )
        await cluster.client.apply([deployment(replicas=1, image="broken:1")])
        await asyncio.sleep(10)

        (pod,) = await cluster.client.pods()

        assert pod.status == "StartError"
        assert "gunicorn" in pod.why
        assert "127" in pod.why

    async def test_program_that_ends_again_and_again(self, cluster: Cluster) -> None:
        """As a shell does that does not find its command."""
        line = b"sh: 1: gunicorn: not found"
        program = Program(runs_s=0.5, exit_code=127, output=(Output(data=line, is_stderr=True),))
        cluster.registry.push("docker.io/library/ends:1", program)
        await cluster.client.apply([deployment(replicas=1, image="ends:1")])
        await asyncio.sleep(20)

        (pod,) = await cluster.client.pods()

        assert pod.status == "CrashLoopBackOff"
        assert pod.restarts >= 3
        assert "127" in pod.why
        assert "gunicorn: not found" in pod.why

    async def test_request_that_fits_nowhere(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=1, cpu="5")])
        await asyncio.sleep(2)

        (pod,) = await cluster.client.pods()

        assert pod.status == "Pending"
        assert pod.why.startswith("0/5 nodes: 5 lack 5 cpu")

    async def test_runs_once_there_is_room(self, cluster: Cluster) -> None:
        """Four pods of 4 cpu and one that waits; deleting the four lets it run."""
        await cluster.client.apply([deployment("big", replicas=5, cpu="4")])
        await cluster.until_running("big", 5, within_s=5)
        await cluster.client.apply([deployment("late", replicas=1, cpu="1")])
        await asyncio.sleep(2)
        assert cluster.running("late").total() == 0

        await cluster.client.scale("Deployment", "big", 4)

        await cluster.until_running("late", 1, within_s=5)

    async def test_node_selector(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=2, nodeSelector={"disk": "ssd"})])
        await asyncio.sleep(2)
        assert cluster.running("web").total() == 0
        pod = (await cluster.client.pods())[0]
        assert "disk=ssd" in pod.why

        await cluster.client.update_node("n3", set_labels={"disk": "ssd"})

        await cluster.until_running("web", 2, within_s=5)
        assert cluster.running("web") == {"n3": 2}


class TestSeveralContainers:
    async def test_run_in_one_sandbox_and_are_served_at_its_address(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=3, has_side_car=True)])
        await cluster.client.wait_ready("Deployment", "web", timeout_s=10)

        assert cluster.is_settled()
        pods = await cluster.client.pods()
        assert {tuple(each.name for each in pod.containers) for pod in pods} == {("app", SIDE_CAR)}
        sandboxes = [each for each in cluster.containers("web") if each.labels[LABEL_CONTAINER] == SANDBOX]
        assert {pod.address for pod in pods} == {each.address for each in sandboxes}

    async def test_a_pod_is_replaced_whole_when_its_node_dies(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=5, has_side_car=True)])
        await cluster.until_running("web", 5, within_s=10)
        await cluster.nodes["n2"].kill()

        await cluster.until_steady(within_s=20)

    async def test_a_changed_template_replaces_pods_whole(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=4, has_side_car=True)])
        await cluster.until_running("web", 4, within_s=10)
        before = cluster.container_ids("web")
        await cluster.client.apply([deployment(replicas=4, has_side_car=True, version="2")])

        await cluster.until(lambda: not before & cluster.container_ids("web"), within_s=120)
        await cluster.until_steady(within_s=20)
