"""The commands about nodes, managers and the cluster, and what any command says when it fails."""

from __future__ import annotations

import asyncio

import grpc

from bayplan.cli.run import INSECURE_WARNING
from bayplan.cli.text import now_ms
from bayplan.v1 import agent_link_pb2 as agent
from bayplan.v1 import control_pb2 as control
from tests.bayplan.cli.conftest import DAY_MS, Bay, text
from tests.bayplan.client.fake_control import deployment, document, node, pod


class TestNodes:
    async def test_cordon_and_uncordon(self, bay: Bay) -> None:
        bay.control.nodes = [node()]
        assert (await bay("cordon", "n1")).out == "node/n1 cordoned\n"
        assert (await bay("cordon", "node/n1")).out == "node/n1 already cordoned\n"
        assert (await bay("uncordon", "n1")).out == "node/n1 uncordoned\n"

    async def test_drain_waits_until_the_node_is_empty(self, bay: Bay) -> None:
        bay.control.nodes = [node()]
        bay.control.pods = [pod()]
        ended = await bay("drain", "n1")
        assert (ended.code, ended.out) == (0, "node/n1 cordoned\nnode/n1 drained\n")

    async def test_labels_and_taints(self, bay: Bay) -> None:
        bay.control.nodes = [node()]
        assert (await bay("label", "nodes", "n1", "disk=ssd", "old-")).out == "node/n1 labeled\n"
        await bay("taint", "node/n1", "gpu=yes:NoSchedule", "x:NoExecute-")
        request = bay.control.requests[-1]

        assert [(one.key, one.value, one.effect) for one in request.set_taints] == [
            ("gpu", "yes", "NoSchedule")
        ]
        assert [(one.key, one.effect) for one in request.remove_taints] == [("x", "NoExecute")]

    async def test_an_unknown_node_is_an_error(self, bay: Bay) -> None:
        ended = await bay("cordon", "n9")
        assert (ended.code, ended.err) == (1, 'error: node "n9" not found\n')

    async def test_top(self, bay: Bay) -> None:
        used = agent.Amounts(cpu_millis=1000, memory_bytes=2 << 30)
        bay.control.nodes = [node(used=used), node("n2")]
        assert (await bay("top", "nodes")).out == text("""
            NAME   CPU(cores)   CPU(%)      MEMORY(bytes)   MEMORY(%)
            n1     1000m        25%         2048Mi          25%
            n2     <unknown>    <unknown>   <unknown>       <unknown>
        """)


class TestCluster:
    async def test_why_gives_a_sentence_and_the_decisions(self, bay: Bay) -> None:
        bay.control.pods = [pod()]
        event = control.Event(
            at_ms=now_ms() - 3 * DAY_MS, type="Normal", reason="PodPlaced", message="least loaded"
        )
        bay.control.events = [event]
        ended = await bay("why", "web-0")

        assert ended.out.startswith("web-0 runs on n1.\n\nAGE")
        assert "PodPlaced" in ended.out

    async def test_version_and_managers(self, bay: Bay) -> None:
        assert "etcd:    3.4.23" in (await bay("version")).out
        assert (await bay("managers", "-q")).out == "m1\n"

    async def test_adopt_says_what_it_takes_over_and_whom_it_waits_for(self, bay: Bay) -> None:
        dry = await bay("adopt", "--dry-run")
        assert dry.out == "deployment.apps/default/web would be adopted\n2 pods would be adopted\n"
        assert dry.err == "Nodes not heard of yet: n4. `bay adopt` waits for them.\n"
        assert not (await bay("adopt", "--dry-run", "--without", "n4")).err
        assert (await bay("adopt")).out == "deployment.apps/default/web adopted\n2 pods adopted\n"

    async def test_accept_restore_asks_first(self, bay: Bay) -> None:
        assert (await bay("admin", "accept-restore")).code == 2
        assert not bay.control.requests
        assert (await bay("admin", "accept-restore", "--yes")).out == "restore accepted\n"

    async def test_describe_ends_with_the_events(self, bay: Bay) -> None:
        bay.control.documents = [document(deployment())]
        bay.control.pods = [pod(status="Failed", ready=False, why="exit 1")]
        bay.control.nodes = [node()]
        event = control.Event(
            object="Pod/web-0-x7k4q", at_ms=now_ms(), type="Warning", reason="PodFailed", message="exit 1"
        )
        bay.control.events = [event]
        for thing in ("deploy/web", "pod/web-0", "node/n1"):
            ended = await bay("describe", thing)
            assert ended.code == 0
            assert ended.out.splitlines()[-1].strip().startswith("Warning   PodFailed")

    async def test_a_prefix_means_the_present_pod(self, bay: Bay) -> None:
        bay.control.pods = [pod(name="web-0-aaaaa", current=False), pod(name="web-0-bbbbb", incarnation=2)]
        assert "web-0-bbbbb" in (await bay("describe", "pod", "web-0")).out
        assert "web-0-aaaaa" in (await bay("describe", "pod", "web-0-a")).out

    async def test_a_workloads_events_are_those_of_its_pods_too(self, bay: Bay) -> None:
        bay.control.documents = [document(deployment())]
        bay.control.pods = [pod()]
        bay.control.events = [
            control.Event(object=about, at_ms=now_ms(), reason=reason)
            for about, reason in (("Pod/web-0-x7k4q", "Ours"), ("Pod/api-0-aaaaa", "Theirs"))
        ]
        out = (await bay("describe", "deploy/web")).out
        assert "Ours" in out
        assert "Theirs" not in out

    async def test_events(self, bay: Bay) -> None:
        at = now_ms() - 3 * DAY_MS
        bay.control.events = [
            control.Event(
                at_ms=at,
                type="Normal",
                reason="PodPlaced",
                object="pod/web-0-x7k4q",
                message="on n1",
                count=1,
            )
        ]
        assert (await bay("events")).out == text("""
            LAST SEEN   TYPE     REASON      OBJECT            MESSAGE
            3d          Normal   PodPlaced   pod/web-0-x7k4q   on n1
        """)


class TestErrors:
    async def test_no_manager_is_said_in_words(self, bay: Bay) -> None:
        ended = await bay("get", "pods", "--managers", "127.0.0.1:1")

        assert (ended.code, ended.out) == (1, "")
        assert ended.err == text("""
            error: no manager can answer right now:
              127.0.0.1:1: connection refused: no manager listens there
            Check that the managers and etcd run, and that --managers or BAYPLAN_MANAGERS names them.
        """)

    async def test_a_second_manager_answers_for_a_dead_one(self, bay: Bay) -> None:
        bay.control.nodes = [node()]
        ended = await bay("nodes", "-q", env={"BAYPLAN_MANAGERS": f"127.0.0.1:1,{bay.address}"})
        assert (ended.code, ended.out) == (0, "n1\n")

    async def test_the_clusters_refusal_is_passed_on(self, bay: Bay) -> None:
        words = "n1 still has 3 pods: drain it first, or declare it lost: bay node lost n1"
        bay.control.failures = [(grpc.StatusCode.FAILED_PRECONDITION, words)]
        ended = await bay("node", "remove", "n1")
        assert (ended.code, ended.err) == (1, f"error: {words}\n")

    async def test_an_unknown_command_or_kind_brings_a_suggestion(self, bay: Bay) -> None:
        ended = await bay("gte", "pods")
        assert ended.code == 2
        assert "Did you mean 'get'?" in ended.err
        ended = await bay("get", "deplyo")
        assert (ended.code, ended.err) == (1, 'error: there is no kind "deplyo". Did you mean deploy?\n')

    async def test_a_reader_that_goes_away_is_no_drama(self, bay: Bay) -> None:
        bay.control.pods = [pod(slot=slot) for slot in range(5000)]
        process = await bay.start("get", "pods")
        assert process.stdout is not None
        await process.stdout.readline()
        process.stdout._transport.close()  # type: ignore[attr-defined]  # there is no other way
        assert process.stderr is not None
        err = await process.stderr.read()
        await asyncio.wait_for(process.wait(), 10)

        assert (process.returncode, err.decode()) == (141, f"{INSECURE_WARNING}\n")
