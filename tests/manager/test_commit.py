from __future__ import annotations

import asyncio

import pytest

from manager.commit import Committer, FencedError
from manager.history import decode_history
from manager.store import keys
from manager.store.port import Compare, Field, Put, StoreFullError
from tests.fakes.store import FakeEtcd, FakeStore

pytestmark = pytest.mark.virtual_time


def a_committer(server: FakeEtcd, name: str = "m1") -> Committer:
    """Of the term that holds the leader key now."""
    leader, last = server.get(keys.LEADER), server.get(keys.COMMIT)
    epoch = leader.create_revision if leader else server.put(keys.LEADER, name.encode())
    guard = Compare(key=keys.LEADER, field=Field.CREATE_REVISION, to=epoch)
    return Committer(FakeStore(server, name), guard=guard, epoch=epoch, last=last.value if last else None)


def write(key: str, value: str = "x") -> list[Put]:
    return [Put(key=keys.ROOT + key, value=value.encode())]


def value_of(server: FakeEtcd, key: str) -> str | None:
    found = server.get(keys.ROOT + key)
    return found.value.decode() if found else None


class TestCommitter:
    async def test_writes_everything_or_nothing_in_one_revision(self) -> None:
        server = FakeEtcd()
        committer = a_committer(server)
        revision = await committer.commit([*write("a"), *write("b")])

        assert {item.mod_revision for item in server.items(keys.ROOT) if item.key != keys.LEADER} == {
            revision
        }

    async def test_is_fenced_when_another_leads(self) -> None:
        server = FakeEtcd()
        old = a_committer(server)
        await old.commit(write("a", "old"))
        server.delete(keys.LEADER)
        await a_committer(server, "m2").commit(write("a", "new"))

        with pytest.raises(FencedError):
            await old.commit(write("a", "late"))
        assert value_of(server, "a") == "new"

    async def test_is_fenced_when_the_next_leader_has_not_written_yet(self) -> None:
        server = FakeEtcd()
        old = a_committer(server)
        await old.commit(write("a"))
        server.delete(keys.LEADER)
        server.put(keys.LEADER, b"m2")

        with pytest.raises(FencedError):
            await old.commit(write("b"))
        assert value_of(server, "b") is None

    async def test_is_done_once_when_its_reply_is_lost(self) -> None:
        server = FakeEtcd()
        committer = a_committer(server)
        server.drop_next_reply("m1")
        await committer.commit(write("a"))
        await committer.commit(write("b"))

        assert decode_history(server.get(keys.COMMIT).value).sequence == 2  # type: ignore[union-attr]  # written
        assert (value_of(server, "a"), value_of(server, "b")) == ("x", "x")

    async def test_waits_out_a_store_that_is_down(self) -> None:
        server = FakeEtcd()
        committer = a_committer(server)
        server.kill()
        commit = asyncio.create_task(committer.commit(write("a")))
        await asyncio.sleep(20)
        server.restart()
        await commit

        assert value_of(server, "a") == "x"

    async def test_is_not_taken_for_one_that_its_caller_gave_up(self) -> None:
        """The first was done although its reply was lost and its caller went away: the second comes after it."""
        server = FakeEtcd()
        committer = a_committer(server)
        server.drop_next_reply("m1")
        given_up = asyncio.create_task(committer.commit(write("a", "first")))
        await asyncio.sleep(1)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        await committer.commit(write("b", "second"))

        assert (value_of(server, "a"), value_of(server, "b")) == ("first", "second")

    async def test_goes_on_after_one_that_was_given_up_and_never_done(self) -> None:
        server = FakeEtcd()
        committer = a_committer(server)
        server.kill()
        given_up = asyncio.create_task(committer.commit(write("a", "first")))
        await asyncio.sleep(1)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        server.restart()
        await committer.commit(write("b", "second"))

        assert (value_of(server, "a"), value_of(server, "b")) == (None, "second")

    async def test_is_not_taken_for_one_that_a_full_store_refused(self) -> None:
        server = FakeEtcd()
        committer = a_committer(server)
        server.is_full = True
        with pytest.raises(StoreFullError):
            await committer.commit(write("a", "first"))
        server.is_full = False
        await committer.commit(write("b", "second"))

        assert (value_of(server, "a"), value_of(server, "b")) == (None, "second")

    async def test_is_one_at_a_time(self) -> None:
        server = FakeEtcd()
        committer = a_committer(server)
        revisions = await asyncio.gather(*(committer.commit(write(f"k{number}")) for number in range(20)))

        assert sorted(revisions) == revisions
        assert len(set(revisions)) == 20
