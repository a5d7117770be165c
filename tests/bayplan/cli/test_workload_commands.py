"""The commands about workloads and their pods, as users run them."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import termios
from pathlib import Path

import yaml

from bayplan.cli.text import now_ms
from bayplan.transport.errors import Problem
from bayplan.v1 import agent_link_pb2 as agent
from bayplan.v1 import control_pb2 as control
from tests.bayplan.cli.conftest import DAY_MS, MANIFEST, Bay, text
from tests.bayplan.client.fake_control import deployment, document, node, pod

SEVERAL = json.dumps(
    {
        "metadata": {"annotations": {"kubectl.kubernetes.io/default-container": "side"}},
        "spec": {"containers": [{"name": "web", "image": "app:1"}, {"name": "side", "image": "side:1"}]},
    }
)


class TestGet:
    async def test_pods_in_kubectls_columns(self, bay: Bay) -> None:
        old = now_ms() - 5 * DAY_MS - 3 * 3_600_000 - 60_000
        box = agent.ContainerStatus(name="main", restarts=3)
        bay.control.pods = [
            pod(created_ms=old),
            pod(
                slot=1,
                created_ms=old,
                status="CrashLoop",
                ready=False,
                detail=agent.PodStatus(reason="CrashLoopBackOff", containers=[box]),
            ),
        ]
        ended = await bay("get", "pods")

        assert ended.out == text("""
            NAME          READY   STATUS             RESTARTS   AGE
            web-0-x7k4q   1/1     Running            0          5d3h
            web-1-x7k4q   0/1     CrashLoopBackOff   3          5d3h
        """)
        assert (ended.code, ended.err) == (0, "")

    async def test_ready_counts_the_ready_containers_and_restarts_are_summed(self, bay: Bay) -> None:
        boxes = [
            agent.ContainerStatus(name="web", running=True, ready=True, restarts=1),
            agent.ContainerStatus(name="side", running=True, restarts=2, reason="Unready", message="no"),
        ]
        bay.control.pods = [
            pod(ready=False, detail=agent.PodStatus(containers=boxes), template_json=SEVERAL),
            pod(slot=1, template_json=SEVERAL),
        ]
        rows = [line.split() for line in (await bay("get", "pods", "--no-headers")).out.splitlines()]

        assert [(row[1], row[3]) for row in rows] == [("1/2", "3"), ("2/2", "0")]
        described = (await bay("describe", "pod", "web-0")).out
        assert "    Why:           Unready: no\n" in described
        status = json.loads((await bay("get", "pod", "web-0", "-o", "json")).out)["status"]
        assert [each["ready"] for each in status["containerStatuses"]] == [True, False]

    async def test_wide_shows_where_and_why(self, bay: Bay) -> None:
        bay.control.pods = [pod(node="", status="Pending", ready=False, why="0/1 nodes: 1 lacks 4 cpu")]
        ended = await bay("get", "po", "-o", "wide", "--no-headers")

        assert ended.out.endswith("<none>   <none>   0/1 nodes: 1 lacks 4 cpu\n")

    async def test_a_deployment_whose_status_is_not_known_claims_nothing(self, bay: Bay) -> None:
        bay.control.documents = [document(deployment(), created_ms=now_ms() - 3 * DAY_MS)]
        ended = await bay("get", "deploy")

        assert ended.out == text("""
            NAME   READY   UP-TO-DATE   AVAILABLE   AGE
            web    ?/2     ?            ?           3d
        """)

    async def test_nodes(self, bay: Bay) -> None:
        joined = now_ms() - 3 * DAY_MS
        bay.control.nodes = [
            node(joined_ms=joined),
            node("n2", joined_ms=joined, unschedulable=True),
            node("n3", joined_ms=joined, status="Down"),
        ]
        ended = await bay("nodes")

        assert ended.out == text("""
            NAME   STATUS                     ROLES    AGE   VERSION
            n1     Ready                      <none>   3d    0.1.0
            n2     Ready,SchedulingDisabled   <none>   3d    0.1.0
            n3     Down                       <none>   3d    0.1.0
        """)

    async def test_all_names_each_kind(self, bay: Bay) -> None:
        bay.control.pods = [pod()]
        bay.control.documents = [document(deployment())]
        ended = await bay("get", "all", "-o", "name")

        assert ended.out == "pod/web-0-x7k4q\ndeployment.apps/web\n"

    async def test_nothing_is_said_on_stderr_and_is_no_error(self, bay: Bay) -> None:
        ended = await bay("get", "pods")

        assert (ended.code, ended.out, ended.err) == (0, "", "No resources found in default namespace.\n")

    async def test_a_unique_prefix_is_a_name(self, bay: Bay) -> None:
        bay.control.pods = [pod(), pod("api")]
        ended = await bay("get", "pod/web", "-q")

        assert ended.out == "web-0-x7k4q\n"

    async def test_an_ambiguous_prefix_names_what_fits(self, bay: Bay) -> None:
        bay.control.pods = [pod(), pod(slot=1)]
        ended = await bay("get", "pods", "web")

        assert (ended.code, ended.err) == (1, 'error: "web" fits 2 pods: web-0-x7k4q, web-1-x7k4q\n')

    async def test_json_of_a_pod_is_kubernetes_own(self, bay: Bay) -> None:
        bay.control.pods = [pod(detail=agent.PodStatus(address="10.42.1.5"))]
        ended = await bay("get", "pod", "web-0-x7k4q", "-o", "json")
        value = json.loads(ended.out)

        assert (value["apiVersion"], value["kind"]) == ("v1", "Pod")
        assert value["metadata"]["name"] == "web-0-x7k4q"
        assert value["metadata"]["ownerReferences"][0]["name"] == "web"
        assert value["spec"]["nodeName"] == "n1"
        assert value["spec"]["containers"][0]["image"] == "app:1"
        assert (value["status"]["phase"], value["status"]["podIP"]) == ("Running", "10.42.1.5")

    async def test_yaml_of_several_is_a_list(self, bay: Bay) -> None:
        bay.control.documents = [document(deployment("a")), document(deployment("b"))]
        ended = await bay("get", "deploy", "-o", "yaml")
        value = yaml.safe_load(ended.out)

        assert value["kind"] == "List"
        assert [item["metadata"]["name"] for item in value["items"]] == ["a", "b"]

    async def test_control_characters_are_shown_not_obeyed(self, bay: Bay) -> None:
        bay.control.pods = [pod(status="Failed", ready=False, why="\x1b[2Jgone\r\nNAME \u202e")]
        ended = await bay("get", "pods", "-o", "wide")

        assert "\x1b" not in ended.out
        assert r"\x1b[2Jgone\r\nNAME \u202e" in ended.out
        assert ended.out.count("\n") == 2

    async def test_watch_prints_on_until_interrupted(self, bay: Bay) -> None:
        bay.control.pods = [pod()]
        process = await bay.start("get", "pods", "-w")
        assert process.stdout is not None
        assert (await process.stdout.readline()).startswith(b"NAME")
        assert (await process.stdout.readline()).startswith(b"web-0-x7k4q")
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()

        assert process.returncode == 130
        assert b"Traceback" not in err

    async def test_an_incomplete_answer_is_marked_as_such(self, bay: Bay) -> None:
        bay.control.pods = [pod()]
        bay.control.mark = control.Mark(store="s1", complete=False, notice="2 of 3 nodes have reported")
        ended = await bay("get", "pods")

        assert ended.code == 0
        assert ended.err == "note: status may be incomplete: 2 of 3 nodes have reported\n"


class TestPs:
    async def test_shows_a_slots_attempts(self, bay: Bay) -> None:
        bay.control.pods = [
            pod(
                slot=2,
                name="web-2-p9d2m",
                status="Failed",
                ready=False,
                current=False,
                why='exit 127: "gunicorn: not found"',
            ),
            pod(
                slot=2,
                incarnation=2,
                node="",
                status="Pending",
                ready=False,
                why="0/3 nodes: 3 lack 4 cpu (most free: n2, 1.6)",
            ),
        ]
        ended = await bay("ps")

        assert ended.out == text(r"""
            NAME           STATUS   NODE  WHY
            web-2-x7k4q    Pending  -     0/3 nodes: 3 lack 4 cpu (most free: n2, 1.6)
             \_ web-2-p9d2m Failed  n1    exit 127: "gunicorn: not found"
        """)


class TestApply:
    async def test_says_what_became_of_each_document_and_waits(self, bay: Bay, manifest: str) -> None:
        ended = await bay("apply", "-f", manifest)

        assert ended.out == "deployment.apps/web created\nservice/web created\n"
        assert ended.err == (
            "warning: service/web: something harmless\ndeployment.apps/web: 2/2 pods ready\n"
        )
        assert ended.code == 0

    async def test_reads_standard_input(self, bay: Bay) -> None:
        ended = await bay("apply", "-f", "-", "--no-wait", "-n", "shop", stdin=MANIFEST)

        assert ended.code == 0
        assert {one.namespace for one in bay.control.documents} == {"shop"}

    async def test_no_wait_returns_at_once(self, bay: Bay, manifest: str) -> None:
        bay.control.settles = False
        ended = await bay("apply", "-f", manifest, "--no-wait")

        assert (ended.code, ended.out) == (0, "deployment.apps/web created\nservice/web created\n")

    async def test_tells_the_reason_and_the_last_lines_of_what_failed(self, bay: Bay, manifest: str) -> None:
        bay.control.settles = False
        end = agent.Exit(code=127, reason="Error", last_log_lines="starting\ngunicorn: not found\n")
        box = agent.ContainerStatus(name="main", restarts=4, last_exit=end)
        bay.control.pods = [
            pod(
                status="CrashLoop",
                ready=False,
                why='exit 127: "gunicorn: not found"',
                detail=agent.PodStatus(containers=[box]),
            )
        ]
        ended = await bay("apply", "-f", manifest, "--timeout", "1s")

        assert ended.code == 1
        assert "error: deployment.apps/web is not ready after 1 s: 0 of 2 pods are\n" in ended.err
        assert '  web-0-x7k4q on n1: CrashLoop: exit 127: "gunicorn: not found"\n' in ended.err
        assert "    | gunicorn: not found\n" in ended.err
        assert "bay ps deployment.apps/web" in ended.err

    async def test_shows_problems_at_their_lines_before_anything_is_sent(
        self, bay: Bay, tmp_path: Path
    ) -> None:
        path = tmp_path / "shop.yaml"
        path.write_text(MANIFEST.replace("replicas: 2", "replicas: -1"))
        ended = await bay("apply", "-f", str(path))

        assert ended.code == 1
        assert f"{path}:6:3  Deployment/web spec.replicas\n" in ended.err
        assert not bay.control.requests

    async def test_shows_what_only_the_manager_knows_at_its_line_too(self, bay: Bay, manifest: str) -> None:
        bay.control.problems = (Problem(document=1, path="spec.ports[0].port", message="80 is taken"),)
        ended = await bay("apply", "-f", manifest)

        assert ended.code == 1
        assert f"{manifest}:27:7  Service/web spec.ports[0].port\n    80 is taken\n" in ended.err

    async def test_a_namespace_that_contradicts_the_file_is_refused(self, bay: Bay, tmp_path: Path) -> None:
        path = tmp_path / "a.yaml"
        path.write_text(
            MANIFEST.replace(
                "  name: web\nspec:\n  replicas", "  name: web\n  namespace: b\nspec:\n  replicas"
            )
        )
        ended = await bay("apply", "-f", str(path), "-n", "a")

        assert (ended.code, ended.out) == (1, "")
        assert "is not a, which -n asks for" in ended.err


class TestScaleAndDelete:
    async def test_scale_waits_for_the_new_pods(self, bay: Bay, manifest: str) -> None:
        await bay("apply", "-f", manifest, "--no-wait")
        ended = await bay("scale", "deploy/web", "--replicas=3")

        assert (ended.code, ended.out) == (0, "deployment.apps/web scaled\n")
        assert ended.err == "deployment.apps/web: 3/3 pods ready\n"

    async def test_delete_says_gone_when_it_is(self, bay: Bay, manifest: str) -> None:
        await bay("apply", "-f", manifest, "--no-wait")
        ended = await bay("delete", "-f", manifest)

        assert ended.code == 0
        assert sorted(ended.out.splitlines()) == ['deployment.apps "web" deleted', 'service "web" deleted']
        assert not bay.control.documents

    async def test_delete_of_what_is_not_there_fails_unless_told_otherwise(self, bay: Bay) -> None:
        ended = await bay("delete", "deploy", "web")
        assert (ended.code, ended.err) == (1, 'error: deployment.apps "web" not found\n')
        ended = await bay("delete", "deploy", "web", "--ignore-not-found")
        assert (ended.code, ended.err) == (0, "")

    async def test_delete_takes_no_prefix(self, bay: Bay) -> None:
        bay.control.documents = [document(deployment("website"))]
        ended = await bay("delete", "deploy/web")

        assert ended.code == 1
        assert bay.control.documents

    async def test_nodes_and_pods_are_not_deleted(self, bay: Bay) -> None:
        assert "bay node remove n1" in (await bay("delete", "node/n1")).err
        assert "scale or delete its workload" in (await bay("delete", "pod/x")).err


class TestLogs:
    async def test_of_a_pod_are_passed_through(self, bay: Bay) -> None:
        bay.control.chunks = {
            "web-0": [control.LogChunk(stdout=b"a\x1b[1mb"), control.LogChunk(stderr=b"err\n")]
        }
        ended = await bay("logs", "web-0", "--tail", "5", "--since", "1m")

        assert (ended.code, ended.out, ended.err) == (0, "a\x1b[1mb", "err\n")
        options = bay.control.requests[-1].options
        assert options.tail == 5
        assert 0 <= now_ms() - 60_000 - options.since_ms < 20_000

    async def test_of_several_containers_say_whose_they_are(self, bay: Bay) -> None:
        """On stderr, as kubectl: the agent chooses by the same rule."""
        bay.control.pods = [pod(template_json=SEVERAL)]
        bay.control.chunks = {"web-0-x7k4q": [control.LogChunk(stdout=b"one\n")]}
        ended = await bay("logs", "web-0-x7k4q")

        assert (ended.out, ended.err) == ("one\n", 'Defaulted container "side" out of: side, web\n')
        assert (await bay("logs", "web-0-x7k4q", "-c", "web")).err == ""
        assert bay.control.requests[-1].options.container == "web"

    async def test_of_a_workload_bear_their_pods_names(self, bay: Bay) -> None:
        bay.control.documents = [document(deployment())]
        bay.control.pods = [pod(), pod(slot=1, node="n2")]
        chunks = [control.LogChunk(stdout=b"one\ntw"), control.LogChunk(stdout=b"o\nthree")]
        bay.control.chunks = {"web-0-x7k4q": chunks, "web-1-x7k4q": chunks[:1]}
        ended = await bay("logs", "deploy/web")

        assert ended.out == text("""
            web-0-x7k4q@n1 | one
            web-0-x7k4q@n1 | two
            web-0-x7k4q@n1 | three
            web-1-x7k4q@n2 | one
            web-1-x7k4q@n2 | tw
        """)

    async def test_of_a_node_are_its_agents(self, bay: Bay) -> None:
        bay.control.nodes = [node()]
        bay.control.chunks = {"node/n1": [control.LogChunk(stdout=b"pod.started\n")]}

        assert (await bay("logs", "node/n1")).out == "pod.started\n"

    async def test_followed_logs_go_on_after_the_leader_changed(self, bay: Bay) -> None:
        bay.control.chunks = {"web-0": [control.LogChunk(stdout=b"one\n")]}
        bay.control.break_streams = 1
        ended = await bay("logs", "-f", "web-0")

        assert ended.code == 0
        assert "the leader changed; following again, some lines may be missing" in ended.err
        assert bay.control.requests[-1].options.tail == 0

    async def test_of_nobody_are_an_error(self, bay: Bay) -> None:
        ended = await bay("logs", "web-9")
        assert (ended.code, ended.err) == (1, 'error: pod "web-9" not found\n')


class TestExec:
    async def test_ends_as_the_command_ends(self, bay: Bay) -> None:
        bay.control.pods = [pod()]
        bay.control.exit_code = 7
        ended = await bay("exec", "-i", "web-0", "--", "cat", "-n", "--managers", stdin="hello\n")

        assert (ended.code, ended.out, ended.err) == (7, "HELLO\n", "started\n")
        assert list(bay.control.requests[-1].options.command) == ["cat", "-n", "--managers"]

    async def test_a_terminal_needs_one(self, bay: Bay) -> None:
        bay.control.pods = [pod()]
        ended = await bay("exec", "-it", "web-0", "--", "sh")
        assert (ended.code, ended.out) == (2, "")


class TestTerminal:
    async def test_exec_gives_the_command_the_terminal_and_gives_it_back(self, bay: Bay) -> None:
        bay.control.pods = [pod()]
        bay.control.exit_code = 7
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (40, 100))
        before = termios.tcgetattr(theirs)
        process = await bay.start("exec", "-it", "web-0", "--", "sh", terminal=theirs)
        try:
            await said(ours, b"started")
            os.write(ours, b"\x03hi")  # Ctrl-C is the command's, not ours.
            await said(ours, b"HI")
            termios.tcsetwinsize(theirs, (50, 100))
            process.send_signal(signal.SIGWINCH)
            await said(ours, b"50")
            os.write(ours, b"\x04")

            assert await process.wait() == 7
            assert termios.tcgetattr(theirs) == before
        finally:
            os.close(ours)
            os.close(theirs)
        options = bay.control.requests[-1].options
        assert (options.tty, options.rows, options.columns) == (True, 40, 100)

    async def test_progress_is_live_on_a_terminal_only(self, bay: Bay, manifest: str) -> None:
        ours, theirs = pty.openpty()
        process = await bay.start("apply", "-f", manifest, terminal=theirs)
        try:
            shown = await said(ours, b"2/2 pods ready")
            assert await process.wait() == 0
            assert b"\x1b[" in shown
            process = await bay.start("apply", "-f", manifest, terminal=theirs, env={"NO_COLOR": "1"})
            shown = await said(ours, b"2/2 pods ready")
            assert await process.wait() == 0
        finally:
            os.close(ours)
            os.close(theirs)


async def said(terminal: int, words: bytes) -> bytes:
    """Everything that the terminal shows up to `words`."""
    shown = b""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(20):
        while words not in shown:
            shown += await loop.run_in_executor(None, os.read, terminal, 4096)
    return shown
