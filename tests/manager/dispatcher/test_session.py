from __future__ import annotations

import asyncio

import pytest

from bayplan.model.placements import Want
from bayplan.v1 import agent_link_pb2 as wire
from manager.dispatcher.session import ASSIGNMENTS_PER_MESSAGE, OUTBOX_MAX, NodeSession

pytestmark = pytest.mark.virtual_time


def a_session() -> NodeSession:
    return NodeSession("n1", wire.Hello(node="n1"), wire.Epoch(store="s", revision=7))


def wanted(**pods: Want) -> dict[str, wire.Assignment]:
    return {uid: wire.Assignment(uid=uid, want=int(want)) for uid, want in pods.items()}  # type: ignore[arg-type]  # equal values


async def said(session: NodeSession) -> list[wire.ManagerMessage]:
    """Everything queued so far; ends the session."""
    session.close()
    return [message async for message in session.outgoing()]


class TestTell:
    async def test_sends_everything_at_first_even_if_there_is_nothing(self) -> None:
        session = a_session()
        session.tell({}, {}, 5)
        (message,) = await said(session)

        assert message.assignments.full
        assert message.epoch.revision == 7

    async def test_sends_what_changed_and_what_may_be_forgotten_later(self) -> None:
        session = a_session()
        told: dict[str, Want] = {}
        session.tell(wanted(a=Want.RUN, b=Want.RUN), told, 5)
        session.tell(wanted(a=Want.RUN, b=Want.RUN), told, 6)
        session.tell(wanted(b=Want.STOP, c=Want.RUN), told, 7)
        first, second = await said(session)

        assert [pod.uid for pod in first.assignments.pods] == ["a", "b"]
        assert not second.assignments.full
        assert [(pod.uid, pod.want) for pod in second.assignments.pods] == [
            ("b", wire.WANT_STOP),
            ("c", wire.WANT_RUN),
        ]
        assert second.assignments.forget == ["a"]
        assert told == {"b": Want.STOP, "c": Want.RUN}

    async def test_cuts_many_changes_into_messages_that_fit(self) -> None:
        session = a_session()
        told: dict[str, Want] = {}
        session.tell({}, told, 5)
        session.tell(wanted(**{f"p{number}": Want.RUN for number in range(1200)}), told, 6)
        _, *parts = await said(session)

        assert all(len(part.assignments.pods) <= ASSIGNMENTS_PER_MESSAGE for part in parts)
        assert sum(len(part.assignments.pods) for part in parts) == 1200


class TestSendInTurn:
    async def test_sends_what_is_so_when_its_turn_has_come_and_keeps_the_order(self) -> None:
        session = a_session()
        versions = [1]

        def news() -> list[wire.ManagerMessage]:
            return [wire.ManagerMessage(traffic=wire.Traffic(version=versions[-1]))]

        session.send_in_turn(news)
        session.tell({}, {}, 5)
        for version in range(2, 500):
            versions.append(version)
            session.send_in_turn(news)
        outgoing = session.outgoing()
        first, second = await anext(outgoing), await anext(outgoing)
        session.send_in_turn(news)
        session.close()

        assert first.traffic.version == 499
        assert second.HasField("assignments")
        assert [message.traffic.version async for message in outgoing] == [499]

    async def test_breaks_the_stream_of_an_agent_that_takes_nothing(self) -> None:
        session = a_session()
        for _ in range(OUTBOX_MAX):
            session.send(wire.ManagerMessage())
        session.send_in_turn(list)

        assert session.is_closed


class TestOutbox:
    async def test_of_a_slow_agent_breaks_its_stream_and_stays_bounded(self) -> None:
        session = a_session()
        for _ in range(OUTBOX_MAX + 10):
            session.send(wire.ManagerMessage())

        assert session.is_closed
        assert len(await said(session)) < OUTBOX_MAX

    async def test_ends_with_the_words_of_the_goodbye(self) -> None:
        session = a_session()
        session.close("the leader has changed")
        session.send(wire.ManagerMessage())
        (message,) = [message async for message in session.outgoing()]

        assert message.goodbye.reason == "the leader has changed"
        await asyncio.sleep(0)
