from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bayplan.v1 import access_pb2 as api
from manager.access import cluster_keys as module
from manager.access.cluster_keys import FILE, NEXT_FILE, ClusterKeys, read_keys
from manager.errors import RefusedError
from manager.store import keys
from manager.store.port import Put
from manager.store.sealed import SealedStore
from manager.store.sealing import ClusterKey, ClusterKeyError, WrongClusterKeyError, write_cluster_key
from tests.fakes.store import FakeEtcd, FakeStore

pytestmark = pytest.mark.virtual_time

SECRET = keys.secret("default", "db")


class Host:
    """A manager's cluster key and the disk that it is on."""

    def __init__(self, server: FakeEtcd, name: str, directory: Path | None) -> None:
        self.server, self.name, self.directory = server, name, directory

    async def start(self, key: ClusterKey | None = None) -> ClusterKeys:
        """With the key given, else with what is on disk, as access.begin does."""
        following = None
        if key is None:
            assert self.directory is not None
            key, following = read_keys(self.directory)
            assert key is not None
        elif self.directory is not None:
            write_cluster_key(self.directory / FILE, key)
        self.store = SealedStore(FakeStore(self.server, self.name), key)
        if following is not None:
            self.store.replace_cluster_key(following)
        await self.store.open()
        return ClusterKeys(self.store, key, self.directory, following=following)

    def files(self) -> set[str]:
        assert self.directory is not None
        return {path.name for path in self.directory.iterdir()}


KEY = ClusterKey.generate()


@pytest.fixture
def hosts(server: FakeEtcd, tmp_path: Path) -> list[Host]:
    for name in ("m1", "m2"):
        (tmp_path / name).mkdir()
    return [Host(server, name, tmp_path / name) for name in ("m1", "m2")]


async def to_nobody(request: api.TakeClusterKeyRequest) -> None:
    """It is alone."""
    del request


async def value(host: Host) -> bytes:
    found = await host.store.get(SECRET)
    assert found is not None
    return found.value


class TestTaking:
    async def test_the_next_key_is_on_disk_before_it_is_used(self, hosts: list[Host]) -> None:
        held = await hosts[0].start(KEY)
        following = ClusterKey.generate()
        await held.take(following.to_text().encode())

        assert hosts[0].directory is not None
        assert read_keys(hosts[0].directory) == (KEY, following)
        assert (hosts[0].directory / NEXT_FILE).stat().st_mode & 0o777 == 0o600
        assert held.current() == (KEY.to_text().encode(), KEY.id), "until the store is encrypted under it"

    @pytest.mark.parametrize("text", [b"", b"junk", b"\xff", KEY.to_text().encode()[:-8]])
    async def test_what_is_no_key_is_refused_and_not_repeated(self, hosts: list[Host], text: bytes) -> None:
        held = await hosts[0].start(KEY)
        with pytest.raises(RefusedError) as caught:
            await held.take(text)

        assert str(caught.value) == "that is no cluster key"
        assert hosts[0].files() == {FILE}

    async def test_where_a_command_gives_it_nothing_is_taken(self, server: FakeEtcd) -> None:
        held = await Host(server, "m1", None).start(KEY)
        with pytest.raises(RefusedError, match="comes from a command: change it there"):
            await held.take(ClusterKey.generate().to_text().encode())


class TestRotating:
    async def test_everything_is_under_the_new_key_and_the_old_one_is_gone(
        self, hosts: list[Host], server: FakeEtcd
    ) -> None:
        held = await hosts[0].start(KEY)
        await hosts[0].store.txn((), (Put(key=SECRET, value=b"hunter2"),))
        given: list[api.TakeClusterKeyRequest] = []

        async def give(request: api.TakeClusterKeyRequest) -> None:
            given.append(request)

        key_id, rewritten = await held.rotate(give)

        assert hosts[0].directory is not None
        current, following = read_keys(hosts[0].directory)
        assert current is not None
        assert following is None
        assert current.id == key_id == held.current()[1] != KEY.id
        assert rewritten == 1
        assert [(each.id, each.key) for each in given] == [(key_id, current.to_text().encode())]
        with pytest.raises(WrongClusterKeyError):
            await SealedStore(FakeStore(server, "old"), KEY).open()
        await hosts[0].start()
        assert await value(hosts[0]) == b"hunter2"

    async def test_who_has_taken_it_goes_on_and_settles(self, hosts: list[Host]) -> None:
        """Another manager leads the rotation."""
        first, second = [await host.start(KEY) for host in hosts]
        await hosts[0].store.txn((), (Put(key=SECRET, value=b"hunter2"),))

        async def give(request: api.TakeClusterKeyRequest) -> None:
            await second.take(request.key)

        async with asyncio.TaskGroup() as parts:
            running = [
                parts.create_task(part)
                for part in (second.run(), hosts[0].store.watch_keyring(), hosts[1].store.watch_keyring())
            ]
            key_id, _ = await first.rotate(give)
            assert await value(hosts[1]) == b"hunter2"
            await asyncio.sleep(3)
            for task in running:
                task.cancel()

        assert second.current()[1] == key_id
        assert [host.files() for host in hosts] == [{FILE}, {FILE}]
        await hosts[1].start()
        assert await value(hosts[1]) == b"hunter2"

    async def test_nothing_changes_unless_every_other_manager_has_it(
        self, hosts: list[Host], server: FakeEtcd
    ) -> None:
        held = await hosts[0].start(KEY)
        revision = server.revision

        async def give(request: api.TakeClusterKeyRequest) -> None:
            del request
            raise RefusedError("manager m2 could not be given it")

        with pytest.raises(RefusedError):
            await held.rotate(give)

        assert server.revision == revision
        assert hosts[0].files() == {FILE}
        assert held.current()[1] == KEY.id

    async def test_where_a_command_gives_it_the_data_keys_alone_are_new(self, server: FakeEtcd) -> None:
        host = Host(server, "m1", None)
        held = await host.start(KEY)
        await host.store.txn((), (Put(key=SECRET, value=b"hunter2"),))
        before = server.get(keys.KEYRING)

        assert await held.rotate(to_nobody) == (KEY.id, 1)
        assert server.get(keys.KEYRING) != before
        assert held.current()[1] == KEY.id


class TestTwoRotationsAtOnce:
    """There is one file for the next key: the second waits, or the key in use could be on no disk."""

    async def test_by_one_manager(self, hosts: list[Host]) -> None:
        held = await hosts[0].start(KEY)
        outcomes = await asyncio.gather(
            held.rotate(to_nobody), held.rotate(to_nobody), return_exceptions=True
        )

        assert sorted(type(each).__name__ for each in outcomes) == ["RefusedError", "tuple"]

    async def test_by_two(self, hosts: list[Host]) -> None:
        first, second = [await host.start(KEY) for host in hosts]
        await first.take(ClusterKey.generate().to_text().encode())
        with pytest.raises(RefusedError, match="is being replaced: try again in a minute"):
            await first.take(ClusterKey.generate().to_text().encode())
        with pytest.raises(RefusedError, match="is being replaced"):
            await first.rotate(to_nobody)
        with pytest.raises(RefusedError, match="is being replaced"):
            first.check_settled()

        await asyncio.sleep(60)
        first.check_settled()
        await second.rotate(lambda request: first.take(request.key))

    async def test_after_one_that_failed_nobody_waits(self, hosts: list[Host]) -> None:
        held = await hosts[0].start(KEY)

        async def give(request: api.TakeClusterKeyRequest) -> None:
            del request
            raise RefusedError("manager m2 could not be given it")

        with pytest.raises(RefusedError):
            await held.rotate(give)
        await held.rotate(to_nobody)


class TestAFullDisk:
    async def test_ends_nothing_and_the_key_is_written_when_there_is_room(
        self, hosts: list[Host], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = [await host.start(KEY) for host in hosts]
        key_id, _ = await first.rotate(lambda request: second.take(request.key))
        await hosts[1].store.open()
        running = asyncio.ensure_future(second.run())
        with monkeypatch.context() as full:
            full.setattr(module, "write_cluster_key", refuse)
            await asyncio.sleep(3)
            assert not running.done()
            assert hosts[1].files() == {FILE, NEXT_FILE}, "with the key in use"
        await asyncio.sleep(3)

        assert hosts[1].files() == {FILE}
        assert second.current()[1] == key_id
        running.cancel()


def refuse(path: Path, key: ClusterKey) -> None:
    raise ClusterKeyError(f"cannot write the cluster key {key.id} to {path}: No space left on device")


class TestRestart:
    """Of a manager that has taken the next key, while another one rotates."""

    async def test_before_the_store_is_under_the_next_key(self, hosts: list[Host]) -> None:
        held = await hosts[0].start(KEY)
        await hosts[0].store.txn((), (Put(key=SECRET, value=b"hunter2"),))
        await held.take(ClusterKey.generate().to_text().encode())
        again = await hosts[0].start()

        assert await value(hosts[0]) == b"hunter2"
        assert again.current()[1] == KEY.id
        assert hosts[0].files() == {FILE, NEXT_FILE}

    async def test_after_it_is(self, hosts: list[Host]) -> None:
        """It was stopped between taking and settling."""
        first, second = [await host.start(KEY) for host in hosts]
        await hosts[0].store.txn((), (Put(key=SECRET, value=b"hunter2"),))
        key_id, _ = await first.rotate(lambda request: second.take(request.key))
        assert hosts[1].files() == {FILE, NEXT_FILE}
        again = await hosts[1].start()

        assert await value(hosts[1]) == b"hunter2"
        assert again.current()[1] == key_id, "what a manager that joins now is given"
        assert hosts[1].files() == {FILE}

    async def test_after_it_is_and_before_the_rotation_after_that(self, hosts: list[Host]) -> None:
        """The file of the next key is written a second time: the one in it must be elsewhere by then."""
        first, second = [await host.start(KEY) for host in hosts]
        await hosts[0].store.txn((), (Put(key=SECRET, value=b"hunter2"),))
        await first.rotate(lambda request: second.take(request.key))
        again = await hosts[1].start()
        await again.take(ClusterKey.generate().to_text().encode())
        await hosts[1].start()

        assert await value(hosts[1]) == b"hunter2"


class TestFiles:
    def test_where_there_are_none_there_are_none(self, tmp_path: Path) -> None:
        assert read_keys(tmp_path) == (None, None)

    @pytest.mark.parametrize("name", [FILE, NEXT_FILE])
    def test_a_damaged_one_is_named(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.touch(mode=0o600)
        path.write_text("junk")
        with pytest.raises(ClusterKeyError, match=f"{name}: a cluster key is one line"):
            read_keys(tmp_path)
