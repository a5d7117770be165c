"""`bayplan-agent` as a process of its own, on a real Docker Engine and real gRPC."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from bayplan.transport.grpc import GrpcTransport
from bayplan.v1 import agent_link_pb2 as pb
from bayplan.v1.agent_link_pb2_grpc import add_AgentLinkServicer_to_server
from tests.agent.scripted_manager import ScriptedManager, a_pod
from tests.docker_engine import DockerEngine
from tests.free_ports import free_port

pytestmark = pytest.mark.docker


class Process:
    """The agent's process, and the engine as anybody sees it."""

    def __init__(self, engine: DockerEngine, directory: Path) -> None:
        self.engine = engine
        self.directory = directory
        self.node = f"n-{uuid.uuid4().hex[:8]}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, manager_port: int) -> None:
        flags = [
            f"--node={self.node}",
            f"--managers=127.0.0.1:{manager_port}",
            f"--data-dir={self.directory}",
            f"--run-dir={self.directory}",
            "--metrics=",
            f"--witness-port={free_port()}",
            f"--docker-host=unix://{self.engine.socket}",
            "--label=disk=ssd",
            "--insecure-loopback",
        ]
        log = (self.directory / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agent.main", *flags], stdout=log, stderr=log, env=os.environ.copy()
            )

    def end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(timeout=10)
        self._process = None
        return code

    def containers(self) -> dict[str, str]:
        """Ids of ours by name, running or not."""
        filters = json.dumps({"label": [f"bayplan.io/node={self.node}"]})
        rows = json.loads(self.engine.call("GET", "containers/json", all="1", filters=filters))
        return {row["Names"][0].lstrip("/"): row["Id"] for row in rows}

    def clean_up(self) -> None:
        if self._process is not None:
            self.end(signal.SIGKILL)
        for container_id in self.containers().values():
            self.engine.call("DELETE", f"containers/{container_id}", force="1")


@pytest.fixture
def process(docker_engine: DockerEngine, tmp_path: Path) -> Iterator[Process]:
    process = Process(docker_engine, tmp_path)
    yield process
    process.clean_up()


async def until(condition: Callable[[], object], process: Process) -> None:
    for _ in range(400):
        if condition():
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"not so within 20 s:\n{(process.directory / 'log').read_text()[-4000:]}")


def a_manager() -> ScriptedManager:
    """One that tells of no network: its agent is on a host that is not for it to change."""
    manager = ScriptedManager("m1")
    manager.tells_network = False
    return manager


def on_the_hosts_network(pod: pb.Assignment) -> pb.Assignment:
    template = json.loads(pod.template_json)
    template["spec"]["hostNetwork"] = True
    pod.template_json, pod.privileged = json.dumps(template), True
    return pod


class TestProcess:
    async def test_runs_a_pod_outlives_sigkill_and_says_goodbye(self, process: Process) -> None:
        manager = a_manager()
        register = partial(add_AgentLinkServicer_to_server, manager)
        listener = await GrpcTransport().serve("127.0.0.1", 0, [register], [])
        suffix = process.node
        good = a_pod(
            image=process.engine.image,
            container={"command": ["sleep", "1000"]},
            terminationGracePeriodSeconds=1,
        )
        bad = a_pod(1, image=process.engine.image, container={"command": ["gunicorn"]})
        talking = a_pod(
            2, image=process.engine.image, container={"command": ["sh", "-c", "echo no database; exit 3"]}
        )
        for number, pod in enumerate(map(on_the_hosts_network, (good, bad, talking))):
            pod.name = f"{pod.name}-{suffix}"
            pod.revision = f"0000000{number}"
        try:
            process.start(listener.port)
            await until(lambda: manager.is_connected, process)
            assert manager.hellos[0].labels["disk"] == "ssd"
            manager.assign(good, bad, talking, full=True)
            await until(lambda: manager.statuses.get(good.uid, pb.PodStatus()).ready, process)
            await until(lambda: manager.statuses[bad.uid].reason == "StartError", process)
            assert "exit 127" in manager.statuses[bad.uid].message
            assert "gunicorn" in manager.statuses[bad.uid].message
            await until(lambda: manager.statuses[talking.uid].reason == "CrashLoopBackOff", process)
            assert manager.statuses[talking.uid].message == 'exit 3: "no database"'
            name = f"bay-{good.name}-web-0"
            before = process.containers()[name]

            second = [sys.executable, "-m", "agent.main", "--managers=127.0.0.1:1", "--node=n2"]
            ended = await asyncio.to_thread(
                subprocess.run, [*second, f"--data-dir={process.directory}"], capture_output=True, check=False
            )
            assert ended.returncode == 1
            assert b"another agent already runs" in ended.stderr

            process.end(signal.SIGKILL)
            await until(lambda: not manager.is_connected, process)
            manager.statuses.clear()
            process.start(listener.port)
            await until(lambda: manager.statuses.get(good.uid, pb.PodStatus()).ready, process)
            assert process.containers()[name] == before

            process.engine.call("POST", f"containers/{before}/kill")
            await until(lambda: f"bay-{good.name}-web-1" in process.containers(), process)
            await until(lambda: manager.statuses[good.uid].containers[0].restarts == 1, process)

            manager.say(open_stream=pb.OpenStream(stream_id="own", logs=pb.LogOptions(tail=-1)))
            await until(lambda: manager.frames.get("own") and manager.frames["own"][-1].end, process)
            own_log = b"".join(frame.stdout for frame in manager.frames["own"])
            assert b"session.welcomed" in own_log

            manager.assign(full=True)
            await until(lambda: not manager.statuses, process)
            assert not any(process.engine.is_running(each) for each in process.containers().values())
            assert await asyncio.to_thread(process.end, signal.SIGTERM) == 0
            assert manager.of_kind("goodbye")[0].restarting
        finally:
            await listener.stop(0.0)

    async def test_commands_decide_whether_a_pod_is_ready_and_lives_and_how_it_ends(
        self, process: Process
    ) -> None:
        """Signals make it ready, and break it; its hook speaks before it ends."""
        manager = a_manager()
        register = partial(add_AgentLinkServicer_to_server, manager)
        listener = await GrpcTransport().serve("127.0.0.1", 0, [register], [])
        life = "trap 'exit 0' TERM; trap 'touch /ready' USR1; trap 'touch /broken' USR2; while :; do sleep 0.1; done"
        pod = a_pod(
            image=process.engine.image,
            container={
                "command": ["sh", "-c", life],
                "readinessProbe": {
                    "exec": {"command": ["sh", "-c", "test -e /ready"]},
                    "periodSeconds": 1,
                    "timeoutSeconds": 10,
                },
                "livenessProbe": {
                    "exec": {"command": ["sh", "-c", "! test -e /broken || { echo it broke; exit 4; }"]},
                    "periodSeconds": 1,
                    "timeoutSeconds": 10,
                    "failureThreshold": 1,
                },
                "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo goodbye >/proc/1/fd/1"]}}},
            },
            terminationGracePeriodSeconds=10,
        )
        on_the_hosts_network(pod).name = f"{pod.name}-{process.node}"

        def status() -> pb.PodStatus:
            return manager.statuses.get(pod.uid, pb.PodStatus())

        def send(signal_name: str) -> None:
            container_id = status().containers[0].container_id
            process.engine.call("POST", f"containers/{container_id}/kill", signal=signal_name)

        try:
            process.start(listener.port)
            await until(lambda: manager.is_connected, process)
            manager.assign(pod, full=True)
            await until(lambda: status().message == "readiness probe failed: exit 1", process)
            send("USR1")
            await until(lambda: status().ready, process)
            send("USR2")
            await until(lambda: status().reason == "CrashLoopBackOff", process)
            assert status().message == 'liveness probe failed: exit 4: "it broke"'
            ended = status().containers[0].last_exit
            assert ended.reason == "Unhealthy"
            assert "goodbye" in ended.last_log_lines
            await until(lambda: status().message == "readiness probe failed: exit 1", process)
            assert status().containers[0].restarts == 1
            send("USR1")
            await until(lambda: status().ready, process)
            manager.assign(full=True)
            await until(lambda: not manager.statuses, process)
        finally:
            await listener.stop(0.0)
