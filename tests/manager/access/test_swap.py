"""manager/store/swap.py, by which whoever joins, and every token, is written down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from manager.store import keys
from manager.store.port import DeleteKey, Put, UnknownOutcomeError
from manager.store.swap import ConflictError, retried, swap, swap_all
from tests.fakes.store import FakeEtcd, FakeStore

pytestmark = pytest.mark.virtual_time

ONE, OTHER = keys.node("n1"), keys.node("n2")


@pytest.fixture
def store(server: FakeEtcd) -> FakeStore:
    return FakeStore(server, "m1")


def values(server: FakeEtcd) -> dict[str, bytes]:
    return {item.key: item.value for item in server.items()}


class TestSwap:
    async def test_makes_what_is_absent_once(self, store: FakeStore, server: FakeEtcd) -> None:
        assert await swap(store, ONE, b"1", version=0) == server.revision
        assert await swap(store, ONE, b"2", version=0) is None
        assert values(server) == {ONE: b"1"}

    async def test_replaces_the_version_that_was_read(self, store: FakeStore, server: FakeEtcd) -> None:
        version = await swap(store, ONE, b"1", version=0)
        assert version is not None
        assert await swap(store, ONE, b"2", version=version) is not None
        assert await swap(store, ONE, b"3", version=version) is None
        assert values(server) == {ONE: b"2"}


class TestSwapAll:
    async def test_does_all_or_nothing(self, store: FakeStore, server: FakeEtcd) -> None:
        at = server.put(ONE, b"1")
        both = [Put(key=ONE, value=b"2"), Put(key=OTHER, value=b"2")]

        assert await swap_all(store, both, versions={ONE: at, OTHER: 7}) is None
        assert values(server) == {ONE: b"1"}
        assert await swap_all(store, both, versions={ONE: at, OTHER: 0}) == server.revision
        assert values(server) == {ONE: b"2", OTHER: b"2"}

    async def test_a_lost_reply_is_done_all_the_same(self, store: FakeStore, server: FakeEtcd) -> None:
        server.drop_next_reply("m1")
        both = [Put(key=ONE, value=b"2"), Put(key=OTHER, value=b"2")]

        assert await swap_all(store, both, versions={ONE: 0, OTHER: 0}) == server.revision
        assert values(server) == {ONE: b"2", OTHER: b"2"}

    async def test_a_lost_reply_after_which_somebody_else_wrote_is_not_taken_for_done(
        self, store: FakeStore, server: FakeEtcd
    ) -> None:
        """Whether it was done for a while cannot be told: the caller reads again, and decides anew."""
        server.drop_next_reply("m1")
        both = [Put(key=ONE, value=b"2"), Put(key=OTHER, value=b"2")]
        swapping = asyncio.ensure_future(swap_all(store, both, versions={ONE: 0, OTHER: 0}))
        await asyncio.sleep(0.1)
        assert values(server)[OTHER] == b"2"
        server.put(OTHER, b"theirs")

        assert await swapping is None
        assert values(server) == {ONE: b"2", OTHER: b"theirs"}

    async def test_a_request_that_never_arrived_is_done_by_its_repetition(
        self, store: FakeStore, server: FakeEtcd
    ) -> None:
        server.cut("m1")
        swapping = asyncio.ensure_future(swap(store, ONE, b"1", version=0))
        await asyncio.sleep(0.1)
        await asyncio.sleep(3.0)  # Its time is up.
        server.heal("m1")

        assert await swapping is not None
        assert values(server) == {ONE: b"1"}

    async def test_no_answer_twice_is_the_callers_to_decide(self, store: FakeStore, server: FakeEtcd) -> None:
        server.cut("m1")
        with pytest.raises(UnknownOutcomeError):
            await swap(store, ONE, b"1", version=0)

    async def test_a_lost_reply_to_a_deletion(self, store: FakeStore, server: FakeEtcd) -> None:
        at = server.put(ONE, b"1")
        server.drop_next_reply("m1")

        assert await swap_all(store, [DeleteKey(key=ONE)], versions={ONE: at}) is not None
        assert values(server) == {}

    async def test_a_deletion_that_somebody_else_was_faster_than_is_not_taken_for_done(
        self, store: FakeStore, server: FakeEtcd
    ) -> None:
        at = server.put(ONE, b"1")
        server.drop_next_reply("m1")
        swapping = asyncio.ensure_future(swap_all(store, [DeleteKey(key=ONE)], versions={ONE: at}))
        await asyncio.sleep(0.1)
        server.put(ONE, b"theirs")

        assert await swapping is None


class TestRetried:
    def racing(self, times: int) -> Callable[[], Awaitable[str | None]]:
        """An attempt that others are faster than so often."""
        left = [times]

        async def attempt() -> str | None:
            left[0] -= 1
            return "done" if left[0] < 0 else None

        return attempt

    async def test_goes_on_while_others_are_faster(self) -> None:
        assert await retried("the token", self.racing(4)) == "done"

    async def test_gives_up_at_last(self) -> None:
        with pytest.raises(ConflictError, match="the token is being changed by others all the time"):
            await retried("the token", self.racing(5))
