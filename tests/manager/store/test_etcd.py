"""What only a real etcd shows: failover, TLS, a full disk, versions."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from manager.store.etcd import EtcdStore, check_version
from manager.store.etcd_members import EtcdTls
from manager.store.port import (
    DeleteKey,
    Put,
    StoreFullError,
    StoreUnavailableError,
    StoreVersionError,
    UnknownOutcomeError,
)
from tests.chaos_proxy import ChaosProxy
from tests.contracts.store_harness import put, put_until_done, take
from tests.real_etcd import RealEtcd


class TestVersions:
    @pytest.mark.parametrize("version", ["3.4.23", "3.4.32", "3.5.6", "3.5.3", "3.6.0", "3.6.0-rc.1"])
    def test_sound_ones_are_accepted(self, version: str) -> None:
        check_version(version)

    @pytest.mark.parametrize("version", ["3.5.0", "3.5.1", "3.5.2"])
    def test_those_that_lose_data_are_refused(self, version: str) -> None:
        with pytest.raises(StoreVersionError, match=r"may lose data .* upgrade it to 3\.5\.6"):
            check_version(version)

    @pytest.mark.parametrize("version", ["3.4.22", "3.3.27", "2.3.8", "", "unknown"])
    def test_old_and_unknown_ones_are_refused(self, version: str) -> None:
        with pytest.raises(StoreVersionError, match=r"3\.4\.23 or later"):
            check_version(version)


class TestEndpoints:
    async def test_nothing_listens(self) -> None:
        store = EtcdStore(["127.0.0.1:1", "localhost:1"])

        with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1.*localhost:1"):
            await store.get("/x")
        with pytest.raises(StoreUnavailableError):
            await store.check_version()
        await store.aclose()

    @pytest.mark.parametrize("endpoint", ["https://127.0.0.1:2379", "ftp://127.0.0.1:2379"])
    def test_one_that_does_not_fit_the_tls_settings_is_refused(self, endpoint: str) -> None:
        with pytest.raises(ValueError, match="does not fit the TLS settings"):
            EtcdStore([endpoint])

    def test_none_is_refused(self) -> None:
        with pytest.raises(ValueError, match="endpoint is needed"):
            EtcdStore([])


@pytest.mark.etcd
class TestFailover:
    """Two ways to the etcd stand for two members."""

    @pytest.fixture
    async def proxies(self, etcd: RealEtcd) -> AsyncIterator[list[ChaosProxy]]:
        proxies = [ChaosProxy("127.0.0.1", etcd.port) for _ in range(2)]
        for proxy in proxies:
            await proxy.start()
        yield proxies
        for proxy in proxies:
            await proxy.stop()

    @pytest.fixture
    async def store(self, proxies: list[ChaosProxy]) -> AsyncIterator[EtcdStore]:
        store = EtcdStore([f"http://{proxy.endpoint}" for proxy in proxies])
        await store.check_version()
        yield store
        await store.aclose()

    async def test_a_frozen_member_costs_no_lease_and_no_event(
        self, store: EtcdStore, proxies: list[ChaosProxy], prefix: str
    ) -> None:
        lease = await store.grant_lease(3)
        start = await put(store, prefix + "leased", b"", lease.id)
        loop = asyncio.get_running_loop()
        async with aclosing(store.watch(prefix, from_revision=start + 1)) as watch:
            await put(store, prefix + "x", b"1")
            await take(watch, 1)
            proxies[0].stall()
            longest_silence_s = 0.0
            for _ in range(40):
                await asyncio.sleep(0.1)
                longest_silence_s = max(longest_silence_s, loop.time() - lease.answered_at_s)
            await put_until_done(store, prefix + "x", b"2")
            changes = await take(watch, 1)

        assert longest_silence_s < 2, "a leader would have been suspended"
        assert [change.value for change in changes] == [b"2"]
        assert await store.get(prefix + "leased") is not None

    async def test_a_dead_member_costs_nothing(
        self, store: EtcdStore, proxies: list[ChaosProxy], prefix: str
    ) -> None:
        await put(store, prefix + "x", b"1")
        proxies[0].is_refusing = True
        proxies[0].reset()
        await asyncio.sleep(0.1)

        await put(store, prefix + "x", b"2")

        found = await store.get(prefix + "x")
        assert found is not None
        assert found.value == b"2"

    async def test_a_watch_alone_notices_a_frozen_member(
        self, store: EtcdStore, proxies: list[ChaosProxy], etcd: RealEtcd, prefix: str
    ) -> None:
        """Nobody else uses the store: the connection's own pings must tell, within about 8 s."""
        other = EtcdStore([etcd.endpoint])
        start = await put(other, prefix + "start", b"")
        async with aclosing(store.watch(prefix, from_revision=start + 1)) as watch:
            await put(other, prefix + "x", b"1")
            await take(watch, 1)
            proxies[0].stall()
            await put(other, prefix + "x", b"2")
            async with asyncio.timeout(12):
                changes = await take(watch, 1)
        await other.aclose()

        assert [change.value for change in changes] == [b"2"]


@pytest.mark.etcd
class TestFullStore:
    @pytest.fixture
    def small_etcd(self, tmp_path: Path) -> Iterator[RealEtcd]:
        etcd = RealEtcd(tmp_path, f"--quota-backend-bytes={1024 * 1024}")
        etcd.start()
        yield etcd
        etcd.kill()

    async def test_it_says_what_cures_it(self, small_etcd: RealEtcd) -> None:
        store = EtcdStore([small_etcd.endpoint])
        for number in range(100):
            try:
                await store.txn((), (Put(key=f"/fill/{number}", value=bytes(100_000)),))
            except StoreFullError as error:
                message = str(error)
                break
        else:
            pytest.fail("it never filled")

        assert "NOSPACE" in message
        assert "etcdctl alarm disarm" in message
        assert (await store.status()).alarms == ("NOSPACE",)
        # Reading and deleting go on.
        assert await store.get("/fill/0") is not None
        await store.txn((), (DeleteKey(key="/fill/0"),))
        assert await store.get("/fill/0") is None
        await store.aclose()


def openssl(directory: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=directory, check=True, capture_output=True)


def make_authority(directory: Path, name: str) -> None:
    """`<name>.pem` and `<name>.key`."""
    openssl(
        directory, f"req -x509 -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.pem"
    )


def make_certificate(directory: Path, name: str, authority: str) -> None:
    """For 127.0.0.1, as a server and as a client."""
    openssl(directory, f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr")
    (directory / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
    signer = f"-CA {authority}.pem -CAkey {authority}.key -CAcreateserial"
    openssl(directory, f"x509 -req -in {name}.csr {signer} -extfile extensions -out {name}.pem")


@pytest.mark.etcd
class TestTls:
    @pytest.fixture
    def tls_etcd(self, tmp_path: Path) -> Iterator[RealEtcd]:
        make_authority(tmp_path, "ca")
        make_authority(tmp_path, "foreign")
        make_certificate(tmp_path, "server", "ca")
        make_certificate(tmp_path, "manager", "ca")
        etcd = RealEtcd(
            tmp_path,
            f"--cert-file={tmp_path / 'server.pem'}",
            f"--key-file={tmp_path / 'server.key'}",
            f"--trusted-ca-file={tmp_path / 'ca.pem'}",
            "--client-cert-auth",
            scheme="https",
        )
        etcd.start()
        yield etcd
        etcd.kill()

    async def test_both_sides_prove_who_they_are(self, tls_etcd: RealEtcd, tmp_path: Path) -> None:
        ca, cert, key = tmp_path / "ca.pem", tmp_path / "manager.pem", tmp_path / "manager.key"
        store = EtcdStore([f"https://{tls_etcd.endpoint}"], EtcdTls(ca=ca, cert=cert, key=key))
        await put(store, "/x", b"1")
        await store.aclose()

        for tls in (EtcdTls(ca=tmp_path / "foreign.pem", cert=cert, key=key), EtcdTls(ca=ca)):
            store = EtcdStore([tls_etcd.endpoint], tls)
            with pytest.raises((StoreUnavailableError, UnknownOutcomeError)):
                await put(store, "/x", b"2")
            await store.aclose()
