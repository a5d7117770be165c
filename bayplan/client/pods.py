"""Calls about pods: what runs, why, and what it says."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from bayplan.client import wire
from bayplan.client.calls import Calls
from bayplan.client.exec import ExecSession
from bayplan.client.managers import ATTEMPT_S
from bayplan.client.types import (
    Explanation,
    Output,
    Pod,
    PodsChange,
)
from bayplan.v1 import agent_link_pb2 as agent
from bayplan.v1 import control_pb2 as control


class PodCalls(Calls):
    """List, watch, explain, read logs, run commands."""

    async def pods(
        self,
        *,
        namespace: str = "default",
        workload_kind: str = "",
        workload: str = "",
        name: str = "",
        node: str = "",
        selector: Mapping[str, str] | None = None,
        attempts: bool = False,
    ) -> tuple[Pod, ...]:
        """Pods that fit everything given; `attempts`: with earlier attempts of their slots.

        `namespace` "": in each. `name` may be a prefix that fits no other pod.
        """
        request = _pods_request(
            namespace=namespace,
            workload_kind=workload_kind,
            workload=workload,
            name=name,
            node=node,
            selector=selector,
            attempts=attempts,
        )
        reply = await self._ask(lambda stub: stub.ListPods, request)
        return wire.from_pods(reply.pods)

    async def watch_pods(
        self,
        *,
        namespace: str = "default",
        workload_kind: str = "",
        workload: str = "",
        name: str = "",
        node: str = "",
        selector: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[PodsChange, None]:
        """What there is, then each change. After a break it begins anew, with `initial` set."""
        request = _pods_request(
            namespace=namespace,
            workload_kind=workload_kind,
            workload=workload,
            name=name,
            node=node,
            selector=selector,
        )
        stream = self._watch(lambda stub: stub.WatchPods, request, first_within_s=ATTEMPT_S)
        async with aclosing(stream):
            async for message in stream:
                yield PodsChange(
                    mark=wire.from_mark(message.mark),
                    initial=message.initial,
                    pods=wire.from_pods(message.pods),
                    deleted=tuple(message.deleted),
                )

    async def why(self, pod: str, *, namespace: str = "default") -> Explanation:
        """Why a pod is here, pending, or replaced. Raises: NotFoundError."""
        request = control.WhyRequest(namespace=namespace, pod=pod)
        reply = await self._ask(lambda stub: stub.Why, request)
        return Explanation(
            pod=wire.from_pod(reply.pod),
            summary=reply.summary,
            decisions=tuple(wire.from_event(event) for event in reply.decisions),
        )

    async def logs(
        self,
        pod: str = "",
        *,
        namespace: str = "default",
        node: str = "",
        container: str = "",
        follow: bool = False,
        previous: bool = False,
        tail: int = -1,
        since_ms: int = 0,
        timestamps: bool = False,
    ) -> AsyncGenerator[Output, None]:
        """What a pod has written; without a pod but with a node, its agent's own log.

        Args:
            pod: its name, or a prefix that fits no other.
            namespace: of the pod.
            node: instead of a pod.
            container: of a pod that has several.
            follow: go on until the container ends.
            previous: of the container before the last restart.
            tail: that many lines from the end; -1: all.
            since_ms: from this time on.
            timestamps: each line begins with its time.

        Raises: NotFoundError.
        """
        options = agent.LogOptions(
            container=container,
            follow=follow,
            previous=previous,
            tail=tail,
            since_ms=since_ms,
            timestamps=timestamps,
        )
        request = control.LogsRequest(
            namespace="" if node else namespace, pod=pod, node=node, options=options
        )
        stream = self._managers.stream(lambda stub: stub.Logs, request, first_within_s=None)
        async with aclosing(stream):
            async for chunk in stream:
                if chunk.stdout:
                    yield Output(data=chunk.stdout)
                if chunk.stderr:
                    yield Output(data=chunk.stderr, is_stderr=True)

    def exec(
        self,
        pod: str,
        command: Sequence[str],
        *,
        namespace: str = "default",
        container: str = "",
        tty: bool = False,
        stdin: bool = False,
        rows: int = 0,
        columns: int = 0,
    ) -> ExecSession:
        """Run a command in a pod; see ExecSession. It is never repeated on another manager."""
        options = agent.ExecOptions(
            container=container, command=command, tty=tty, stdin=stdin, rows=rows, columns=columns
        )
        start = control.ExecStart(namespace=namespace, pod=pod, options=options, seen=self._managers.seen())
        return ExecSession(lambda: self._managers.open(lambda stub: stub.Exec), start)


def _pods_request(
    *,
    namespace: str,
    workload_kind: str,
    workload: str,
    name: str,
    node: str,
    selector: Mapping[str, str] | None,
    attempts: bool = False,
) -> control.ListPodsRequest:
    return control.ListPodsRequest(
        namespace=namespace,
        workload_kind=workload_kind,
        workload=workload,
        name=name,
        node=node,
        selector=selector or {},
        attempts=attempts,
    )
