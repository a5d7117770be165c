"""Bayplan's own runs: starting pods, losing a node or its link, losing the leader, the command line.

Documents travel through the Python client over an open connection, as in any program that uses it.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from bayplan.client import BayplanError, Client
from bench.measure import (
    MEMORY_LIMIT_MIB,
    Rig,
    started_s,
    time_failover,
    time_first_answer,
    time_start,
    until_running,
)
from deploy import links
from deploy.engine import docker
from deploy.local_cluster import MANAGERS, NODES, LocalCluster
from deploy.shell import ROOT, StepError, run
from tests.e2e.documents import deployment

NAME = "bench"
WORKLOAD = f"Deployment/{NAME}"
# Between two faults. A standby takes a dead leader's place at once no more than every 30 s; a node that
# is back must have been reached by its witnesses again, who try every 15 s.
LEADER_REST_S = 35.0
NODE_REST_S = 16.0
ATTEMPT_TIMEOUT_S = 2.0
LEADER_RUN_REPLICAS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderFailover:
    """Seconds from the kill of the leader."""

    answered_s: float  # To the answer to a write, after a read that a later leader answered.
    acted_s: float  # To the start of the container that the write asked for.


def time_bayplan_start(rig: Rig, count: int) -> float:
    """Seconds from the order to the start of the last of `count` pods; they are deleted afterwards."""
    with asyncio.Runner() as loop, _connected(loop, rig.cluster.local) as client:
        try:
            return time_start(rig, WORKLOAD, count, lambda: loop.run(_apply(client, count)))
        finally:
            rig.cluster.delete_everything()


@contextmanager
def pods(rig: Rig, count: int) -> Iterator[None]:
    """So many pods run meanwhile."""
    with asyncio.Runner() as loop, _connected(loop, rig.cluster.local) as client:
        loop.run(_apply(client, count))
    try:
        with rig.cluster.watched() as watch:
            until_running(watch, WORKLOAD, count)
        yield
    finally:
        rig.cluster.delete_everything()


def time_node_failover(rig: Rig, victim: str) -> float:
    """Seconds from a node's power failure to the TCP answer of the last replacement."""
    kill = kill_command(rig.cluster.local, NODES[victim])
    try:
        with pods(rig, rig.failover_replicas):
            try:
                return time_failover(rig, WORKLOAD, victim, lambda: run(kill))
            finally:
                rig.cluster.start_node(victim)
                rig.cluster.wait_until_whole()
    finally:
        time.sleep(NODE_REST_S)


def time_link_cut(rig: Rig, victim: str) -> float:
    """Seconds from the cut of a node's link to the TCP answer of the last replacement."""
    link = rig.cluster.local.link(victim)
    try:
        with pods(rig, rig.failover_replicas):
            try:
                return time_failover(rig, WORKLOAD, victim, lambda: links.change("down", link))
            finally:
                rig.cluster.heal_link(victim)
                rig.cluster.wait_until_whole()
    finally:
        time.sleep(NODE_REST_S)


def time_leader_failover(rig: Rig) -> LeaderFailover:
    """See LeaderFailover. The leader's container is killed, the nodes and etcd are left alone."""
    leader = rig.cluster.leader()
    try:
        with pods(rig, LEADER_RUN_REPLICAS):
            try:
                return _kill_leader(rig, leader)
            finally:
                rig.cluster.start_manager(leader)
                rig.cluster.wait_until_whole()
    finally:
        time.sleep(LEADER_REST_S)


def time_command(rig: Rig, *arguments: str) -> float:
    """Wall seconds of one `bay` with these arguments."""
    began_s = time.monotonic()
    done = rig.cluster.bay(*arguments)
    taken_s = time.monotonic() - began_s
    if done.returncode != 0:
        raise StepError(f"`bay {' '.join(arguments)}` ended with {done.returncode}:\n{done.stderr}")
    return taken_s


def time_bare_python() -> float:
    """Wall seconds of a Python program that does nothing, in the environment that `bay` runs in."""
    began_s = time.monotonic()
    subprocess.run([ROOT / ".venv/bin/python", "-c", "pass"], check=True)
    return time.monotonic() - began_s


def kill_command(local: LocalCluster, service: str) -> list[str]:
    """The container is found beforehand, so that only the kill itself counts."""
    return [*docker(), "kill", local.container(service)]


def _kill_leader(rig: Rig, leader: str) -> LeaderFailover:
    local = rig.cluster.local
    survivors = [
        address
        for manager, address in zip(MANAGERS, local.addresses.split(","), strict=True)
        if manager != leader
    ]
    kill = kill_command(local, leader)
    with rig.cluster.watched() as watch:
        before = {one.id for one in until_running(watch, WORKLOAD, LEADER_RUN_REPLICAS)}
        killed_s = time.time()
        answered_s = asyncio.run(_time_read_and_write(survivors, lambda: run(kill)))
        running = until_running(watch, WORKLOAD, LEADER_RUN_REPLICAS + 1)
        acted_s = max(started_s(rig, one) for one in running if one.id not in before) - killed_s
    return LeaderFailover(answered_s=answered_s, acted_s=acted_s)


async def _time_read_and_write(survivors: list[str], kill: Callable[[], object]) -> float:
    """Seconds from the kill until a survivor has answered a read by a later leader, and then a write.

    In this order: a write alone may be the dying leader's, or that of a follower which reaches
    etcd while nobody leads; only the read's higher epoch shows that another leads.
    """
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                Client.from_context(managers=[address], timeout_s=ATTEMPT_TIMEOUT_S)
            )
            for address in survivors
        ]
        for client in clients:
            await client.nodes()
        epoch = max(client.mark.epoch for client in clients)

        async def attempt(client: Client) -> bool:
            try:
                await client.pods(workload=NAME)
                if client.mark.epoch <= epoch:
                    return False
                await client.scale("Deployment", NAME, LEADER_RUN_REPLICAS + 1)
            except BayplanError:
                return False
            return True

        return await time_first_answer(kill, [partial(attempt, client) for client in clients])


async def _apply(client: Client, count: int) -> None:
    limits = {"limits": {"memory": f"{MEMORY_LIMIT_MIB}Mi"}}
    await client.apply([deployment(NAME, replicas=count, resources=limits)])


@contextmanager
def _connected(loop: asyncio.Runner, local: LocalCluster) -> Iterator[Client]:
    """A client whose connection is there already: what it takes to connect is not measured."""
    client = Client.from_context(managers=local.addresses.split(","))
    try:
        loop.run(client.version())
        yield client
    finally:
        loop.run(client.__aexit__(None, None, None))
