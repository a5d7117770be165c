from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing

import grpc
import pytest

from bayplan.client import (
    BayplanError,
    Client,
    ConflictError,
    Endpoint,
    ForbiddenStateError,
    InvalidDocumentError,
    ManagerFailedError,
    NotFoundError,
    NotReadyError,
    Problem,
    ServiceEndpoints,
    ServicePort,
    Taint,
    UnavailableError,
    UnknownOutcomeError,
)
from bayplan.v1 import agent_link_pb2 as agent
from bayplan.v1 import control_pb2 as control
from tests.bayplan.client.fake_control import FakeControl, deployment, document, node, pod, served
from tests.fakes.network import FakeNetwork, FakeTransport

pytestmark = pytest.mark.virtual_time


class Cluster:
    """Three managers on three hosts, and a client on a fourth."""

    def __init__(self) -> None:
        self.network = FakeNetwork()
        self.controls = [FakeControl() for _ in range(3)]
        self.addresses: list[str] = []
        self.client: Client

    def asked(self) -> list[int]:
        return [len(one.requests) for one in self.controls]


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    async with AsyncExitStack() as stack:
        for number, one in enumerate(cluster.controls):
            transport = FakeTransport(cluster.network, f"m{number}")
            cluster.addresses.append(
                await stack.enter_async_context(served(one, transport, f"m{number}", 7400))
            )
        transport = FakeTransport(cluster.network, "user")
        cluster.client = await stack.enter_async_context(Client(cluster.addresses, transport=transport))
        yield cluster


class TestFailover:
    async def test_asks_the_next_manager_when_one_is_dead(self, cluster: Cluster) -> None:
        cluster.network.kill("m0")
        cluster.controls[1].nodes = [node()]

        assert [one.name for one in await cluster.client.nodes()] == ["n1"]

    async def test_stays_with_the_manager_that_answered(self, cluster: Cluster) -> None:
        cluster.network.kill("m0")
        await cluster.client.nodes()
        before = asyncio.get_running_loop().time()
        await cluster.client.nodes()

        assert cluster.asked() == [0, 2, 0]
        assert asyncio.get_running_loop().time() - before < 0.1

    async def test_a_frozen_manager_costs_seconds_not_the_call(self, cluster: Cluster) -> None:
        await cluster.client.nodes()
        cluster.network.freeze("m0")
        before = asyncio.get_running_loop().time()
        await cluster.client.nodes()

        assert asyncio.get_running_loop().time() - before < 5.5

    async def test_a_manager_that_never_answers_is_left_after_a_while(self, cluster: Cluster) -> None:
        """Its connection lives, its event loop is stuck."""
        cluster.controls[0].hangs = True

        await cluster.client.nodes()
        assert cluster.asked()[1] == 1

    async def test_waits_while_there_is_no_leader(self, cluster: Cluster) -> None:
        for one in cluster.controls:
            one.failures = [(grpc.StatusCode.UNAVAILABLE, "no leader right now")] * 2

        assert await cluster.client.apply([deployment()])

    async def test_says_which_managers_were_tried_and_what_to_check(self, cluster: Cluster) -> None:
        cluster.network.kill("m0")
        cluster.network.kill("m1")
        cluster.controls[2].failures = [(grpc.StatusCode.UNAVAILABLE, "etcd has no quorum")] * 1000

        with pytest.raises(UnavailableError) as raised:
            await cluster.client.nodes()
        text = str(raised.value)
        assert "m0:7400: " in text
        assert "m2:7400: etcd has no quorum" in text
        assert "BAYPLAN_MANAGERS" in text

    async def test_gives_up_within_the_time(self, cluster: Cluster) -> None:
        for one in cluster.controls:
            one.failures = [(grpc.StatusCode.UNAVAILABLE, "no leader right now")] * 1000
        before = asyncio.get_running_loop().time()
        with pytest.raises(UnavailableError):
            await cluster.client.nodes()

        assert 8 < asyncio.get_running_loop().time() - before <= 10.1
        assert max(cluster.asked()) < 30

    async def test_a_conditional_write_is_not_repeated_after_a_lost_answer(self, cluster: Cluster) -> None:
        cluster.controls[0].hangs = True
        applying = asyncio.create_task(cluster.client.apply([deployment()], expected_version=-1))
        await asyncio.sleep(0.5)
        cluster.network.kill("m0")

        with pytest.raises(UnknownOutcomeError, match="Look before you repeat"):
            await applying
        assert cluster.asked() == [1, 0, 0]

    async def test_a_delete_whose_answer_was_lost_is_done(self, cluster: Cluster) -> None:
        """The second manager does not find what the first has deleted."""
        cluster.controls[0].hangs = True
        deleting = asyncio.create_task(cluster.client.delete("Deployment", "web"))
        await asyncio.sleep(0.5)
        cluster.network.kill("m0")

        assert not await deleting


class TestMarks:
    async def test_sends_back_the_highest_it_has_seen(self, cluster: Cluster) -> None:
        cluster.controls[0].mark = control.Mark(store="s1", revision=40, epoch=9, complete=True)
        await cluster.client.nodes()
        cluster.controls[0].mark = control.Mark(store="s1", revision=30, epoch=9, complete=True)
        await cluster.client.nodes()
        await cluster.client.nodes()

        seen = cluster.controls[0].requests[-1].seen
        assert (seen.store, seen.revision, seen.epoch) == ("s1", 40, 9)

    async def test_another_store_begins_a_new_history(self, cluster: Cluster) -> None:
        cluster.controls[0].mark = control.Mark(store="s1", revision=40, epoch=9, complete=True)
        await cluster.client.nodes()
        cluster.controls[0].mark = control.Mark(store="s2", revision=3, epoch=1, complete=True)
        await cluster.client.nodes()
        await cluster.client.nodes()

        seen = cluster.controls[0].requests[-1].seen
        assert (seen.store, seen.revision, seen.epoch) == ("s2", 3, 1)

    async def test_says_that_an_answer_is_not_complete(self, cluster: Cluster) -> None:
        cluster.controls[0].mark = control.Mark(
            store="s1", complete=False, notice="2 of 3 nodes have reported"
        )
        await cluster.client.nodes()

        assert not cluster.client.mark.complete
        assert cluster.client.mark.notice == "2 of 3 nodes have reported"


class TestErrors:
    @pytest.mark.parametrize(
        ("code", "error"),
        [
            (grpc.StatusCode.NOT_FOUND, NotFoundError),
            (grpc.StatusCode.ABORTED, ConflictError),
            (grpc.StatusCode.ALREADY_EXISTS, ConflictError),
            (grpc.StatusCode.FAILED_PRECONDITION, ForbiddenStateError),
            (grpc.StatusCode.INVALID_ARGUMENT, InvalidDocumentError),
            (grpc.StatusCode.INTERNAL, ManagerFailedError),
            (grpc.StatusCode.UNIMPLEMENTED, ManagerFailedError),
        ],
    )
    async def test_are_named_by_what_to_do(
        self, cluster: Cluster, code: grpc.StatusCode, error: type[BayplanError]
    ) -> None:
        cluster.controls[0].failures = [(code, "words of the manager")]

        with pytest.raises(error):
            await cluster.client.nodes()

    async def test_a_refused_document_tells_every_problem(self, cluster: Cluster) -> None:
        cluster.controls[0].problems = (
            Problem(document=0, path="spec.replicas", message="must be at least 0"),
            Problem(document=1, path="", message="naïve — 名"),
        )
        with pytest.raises(InvalidDocumentError) as raised:
            await cluster.client.apply([deployment()])

        assert raised.value.problems == cluster.controls[0].problems

    async def test_a_thousand_problems_fit_the_trailers(self, cluster: Cluster) -> None:
        cluster.controls[0].problems = tuple(
            Problem(document=0, path=f"spec.x{number}", message="y" * 600) for number in range(1000)
        )
        with pytest.raises(InvalidDocumentError) as raised:
            await cluster.client.apply([deployment()])

        assert raised.value.problems[0].path == "spec.x0"
        assert "more problems" in raised.value.problems[-1].message


class TestWatches:
    async def test_begin_anew_after_the_leader_changed(self, cluster: Cluster) -> None:
        cluster.controls[0].pods = [pod()]
        cluster.controls[0].break_streams = 1
        changes = []
        async with aclosing(cluster.client.watch_pods()) as stream:
            async for change in stream:
                changes.append(change)
                if len(changes) == 2:
                    break

        assert [change.initial for change in changes] == [True, True]

    async def test_end_with_an_error_when_nobody_serves_them(self, cluster: Cluster) -> None:
        stream = cluster.client.watch_pods()
        await anext(stream)
        for host in ("m0", "m1", "m2"):
            cluster.network.kill(host)

        with pytest.raises(UnavailableError):
            await anext(stream)

    async def test_leave_no_call_behind(self, cluster: Cluster) -> None:
        async with aclosing(cluster.client.watch_pods()) as stream:
            await anext(stream)
        await asyncio.sleep(1)

        assert cluster.network.open_calls == 0


class TestValues:
    async def test_pods_come_without_the_wire(self, cluster: Cluster) -> None:
        end = agent.Exit(code=127, reason="StartError", message="gunicorn: not found")
        status = agent.ContainerStatus(name="main", restarts=3, last_exit=end)
        cluster.controls[0].pods = [
            pod(
                detail=agent.PodStatus(address="10.42.1.5", containers=[status]),
                usage=agent.Usage(cpu_millis=12),
            )
        ]
        (found,) = await cluster.client.pods()

        assert (found.restarts, found.address, found.want) == (3, "10.42.1.5", "Run")
        assert found.containers[0].last_exit is not None
        assert found.containers[0].last_exit.code == 127
        assert found.usage is not None
        assert found.usage.cpu_millis == 12
        assert found.template["spec"]["containers"][0]["image"] == "app:1"

    async def test_a_document_of_broken_json_harms_only_itself(self, cluster: Cluster) -> None:
        broken = document(deployment("broken"))
        broken.json = "{"
        cluster.controls[0].documents = [broken, document(deployment("web"))]

        assert [one.name for one in await cluster.client.list("Deployment")] == ["broken", "web"]

    async def test_node_changes_say_what_is_meant(self, cluster: Cluster) -> None:
        cluster.controls[0].nodes = [node()]
        await cluster.client.update_node(
            "n1",
            drain=False,
            set_taints=[Taint(key="gpu", effect="NoExecute")],
            remove_taints=["old", "disk:NoSchedule"],
        )
        request = cluster.controls[0].requests[-1]

        assert request.HasField("drain")
        assert not request.HasField("unschedulable")
        assert [(taint.key, taint.effect) for taint in request.remove_taints] == [
            ("old", ""),
            ("disk", "NoSchedule"),
        ]


class TestEndpoints:
    async def test_are_the_clients_own_values(self, cluster: Cluster) -> None:
        cluster.controls[0].services = [
            control.ServiceEndpoints(
                namespace="shop",
                name="web",
                ports=[agent.ServicePort(name="dns", port=53, udp=True, node_port=30053)],
                endpoints=[
                    agent.Endpoint(id="u1.0.1", node="n1", address="10.42.1.5", ports=[5353], ready=True)
                ],
                why="n2 has not reported yet",
            ),
            control.ServiceEndpoints(namespace="default", name="web"),
        ]

        (web,) = await cluster.client.endpoints(namespace="shop", service="web")
        assert web == ServiceEndpoints(
            namespace="shop",
            name="web",
            ports=(ServicePort(name="dns", port=53, protocol="UDP", is_http=False, node_port=30053),),
            endpoints=(
                Endpoint(id="u1.0.1", node="n1", address="10.42.1.5", ports=(5353,), ready=True, weight=0),
            ),
            why="n2 has not reported yet",
        )
        assert len(await cluster.client.endpoints()) == 2


class TestExec:
    async def test_carries_input_output_and_the_exit_code(self, cluster: Cluster) -> None:
        cluster.controls[0].exit_code = 3
        async with cluster.client.exec("web-0-x7k4q", ["cat"], stdin=True) as session:
            await session.write(b"hello")
            await session.close_stdin()
            outputs = [output async for output in session.output()]

        assert [(one.data, one.is_stderr) for one in outputs] == [(b"started\n", True), (b"HELLO", False)]
        assert session.exit_code == 3

    async def test_says_that_the_connection_was_lost(self, cluster: Cluster) -> None:
        async with cluster.client.exec("web-0-x7k4q", ["cat"], stdin=True) as session:
            output = session.output()
            await anext(output)
            cluster.network.kill("m0")
            with pytest.raises(UnavailableError, match="connection to the command was lost"):
                await anext(output)


class TestWaitReady:
    async def test_returns_once_all_pods_stay_ready(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment()])
        before = asyncio.get_running_loop().time()
        await cluster.client.wait_ready("Deployment", "web")

        assert 2 <= asyncio.get_running_loop().time() - before < 3

    async def test_tells_why_it_never_became_ready(self, cluster: Cluster) -> None:
        cluster.controls[0].settles = False
        await cluster.client.apply([deployment(replicas=1)])
        cluster.controls[0].pods = [
            pod(node="", status="Pending", ready=False, why="0/3 nodes: 3 lack 4 cpu (most free: n2, 1.6)")
        ]
        with pytest.raises(NotReadyError, match=r"web-0-x7k4q: Pending: 0/3 nodes: 3 lack 4 cpu"):
            await cluster.client.wait_ready("Deployment", "web")

    async def test_outlives_managers_that_are_away_for_a_while(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment()])
        for one in cluster.controls:
            one.failures = [(grpc.StatusCode.UNAVAILABLE, "no leader right now")] * 20

        await cluster.client.wait_ready("Deployment", "web", timeout_s=120)

    async def test_ends_when_the_workload_is_deleted_meanwhile(self, cluster: Cluster) -> None:
        with pytest.raises(NotFoundError):
            await cluster.client.wait_ready("Deployment", "web")


class TestApply:
    async def test_sends_a_thousand_documents_in_requests_that_fit(self, cluster: Cluster) -> None:
        applied = await cluster.client.apply([deployment(f"d{number}", replicas=0) for number in range(1200)])

        assert [len(request.documents) for request in cluster.controls[0].requests] == [500, 500, 200]
        assert applied[-1].name == "d1199"
