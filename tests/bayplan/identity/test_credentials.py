from __future__ import annotations

import asyncio
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayplan.identity import certificates
from bayplan.identity.credentials import (
    Credentials,
    CredentialsError,
    OwnIdentity,
    load_credentials,
    save_credentials,
    write_private,
)
from bayplan.identity.names import Identity, Kind

NOW_S = 1_790_000_000.0
DAY_S = 86_400.0
ROOT = certificates.new_root("c1", now_s=NOW_S)


def some_credentials(name: str = "n1", *, issued_s: float = NOW_S) -> Credentials:
    key = certificates.new_key()
    identity = Identity(cluster="c1", kind=Kind.NODE, name=name)
    leaf = certificates.issue(ROOT, key.public_key(), identity, generation=1, life_s=DAY_S, now_s=issued_s)
    return Credentials(
        identity=identity,
        issued_s=issued_s,
        expires_s=issued_s + DAY_S,
        key_pem=certificates.key_to_pem(key),
        # Two, as while roots are rotated.
        certificates_pem=certificates.to_pem(leaf, ROOT.certificate),
        roots_pem=certificates.to_pem(ROOT.certificate),
    )


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """It does not exist yet."""
    return tmp_path / "state" / "identity"


class TestFiles:
    def test_bring_back_what_was_saved(self, directory: Path) -> None:
        saved = some_credentials()
        save_credentials(directory, saved)

        assert load_credentials(directory) == saved

    def test_are_replaced(self, directory: Path) -> None:
        save_credentials(directory, some_credentials())
        renewed = some_credentials(issued_s=NOW_S + DAY_S / 2)
        save_credentials(directory, renewed)

        assert load_credentials(directory) == renewed
        assert sorted(path.name for path in directory.iterdir()) == ["identity.pem", "roots.pem"]

    def test_are_for_their_owner_alone_whatever_the_umask(self, directory: Path) -> None:
        before = os.umask(0)
        try:
            save_credentials(directory, some_credentials())
        finally:
            os.umask(before)

        assert mode(directory) == 0o700
        assert {mode(path) for path in directory.iterdir()} == {0o600}

    def test_a_directory_that_was_open_is_closed(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        directory.chmod(0o755)
        save_credentials(directory, some_credentials())

        assert mode(directory) == 0o700

    def test_where_there_are_none_there_are_none(self, directory: Path) -> None:
        assert load_credentials(directory) is None
        directory.mkdir(parents=True)
        assert load_credentials(directory) is None

    def test_the_key_is_not_shown_to_a_log(self) -> None:
        assert "PRIVATE" not in repr(some_credentials())

    def test_can_be_read_by_programs_that_know_pem(self, directory: Path) -> None:
        """The lines before the first block disturb none of them."""
        save_credentials(directory, some_credentials())
        content = (directory / "identity.pem").read_bytes()

        assert certificates.key_from_pem(content)
        assert len(certificates.from_pem(content)) == 2
        assert content.startswith(b"Identity: spiffe://c1/node/n1\n")


class TestBadFiles:
    @pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o666])
    def test_a_key_that_others_can_read_is_refused(self, directory: Path, bits: int) -> None:
        save_credentials(directory, some_credentials())
        path = directory / "identity.pem"
        path.chmod(bits)

        with pytest.raises(CredentialsError) as caught:
            load_credentials(directory)

        assert str(caught.value) == f"{path} can be read by others (mode {bits:o}): chmod 600 {path}"

    @pytest.mark.parametrize(
        "damage",
        [
            pytest.param(lambda _: b"", id="empty"),
            pytest.param(lambda content: content[:30], id="cut in the header"),
            pytest.param(lambda content: content[:200], id="cut in the key"),
            pytest.param(lambda content: content[: content.index(b"-----BEGIN CERT")], id="no certificate"),
            pytest.param(lambda content: content[content.index(b"-----BEGIN") :], id="no header"),
            pytest.param(lambda content: content.replace(b"Issued: 1", b"Issued: x"), id="no number"),
            pytest.param(lambda content: content.replace(b"spiffe", b"http"), id="no identity"),
            pytest.param(lambda content: b"\xff\xfe" + content, id="no text"),
        ],
    )
    def test_a_damaged_one_is_named_with_its_cure(self, directory: Path, damage) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - of bytes
        save_credentials(directory, some_credentials())
        path = directory / "identity.pem"
        path.write_bytes(damage(path.read_bytes()))

        with pytest.raises(CredentialsError) as caught:
            load_credentials(directory)

        assert str(caught.value).startswith(f"{path} is damaged (")
        assert str(caught.value).endswith(f"remove {directory}, and join again with a new token")
        assert "PRIVATE" not in str(caught.value).replace("END PRIVATE KEY", "")

    @given(st.binary(max_size=200))
    def test_no_content_is_an_error_without_words(
        self, tmp_path_factory: pytest.TempPathFactory, content: bytes
    ) -> None:
        directory = tmp_path_factory.getbasetemp() / "any-content"
        directory.mkdir(exist_ok=True)
        (directory / "roots.pem").write_bytes(b"")
        path = directory / "identity.pem"
        path.touch(mode=0o600)
        path.write_bytes(content)

        with pytest.raises(CredentialsError, match="is damaged"):
            load_credentials(directory)

    def test_one_that_cannot_be_read_says_why(self, directory: Path) -> None:
        (directory / "identity.pem").mkdir(parents=True)

        with pytest.raises(CredentialsError, match=r"cannot read .*identity\.pem: Is a directory"):
            load_credentials(directory)


class TestCrash:
    """Between the two writes; `identity.pem` cannot be written there."""

    def crashed(self, directory: Path, credentials: Credentials) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        in_the_way = directory / f".identity.pem.{os.getpid()}"
        in_the_way.mkdir()
        with pytest.raises(OSError, match="Is a directory"):
            save_credentials(directory, credentials)
        in_the_way.rmdir()

    def test_in_a_renewal_leaves_the_old_certificate_and_the_new_roots(self, directory: Path) -> None:
        """Which trust the old one's root too: nothing is lost."""
        old, new = some_credentials(), some_credentials()
        new = replace(new, roots_pem=new.roots_pem * 2)
        save_credentials(directory, old)
        self.crashed(directory, new)

        assert load_credentials(directory) == replace(old, roots_pem=new.roots_pem)
        save_credentials(directory, new)
        assert load_credentials(directory) == new

    def test_in_the_first_joining_leaves_nothing_to_start_with(self, directory: Path) -> None:
        self.crashed(directory, some_credentials())

        assert load_credentials(directory) is None

    def test_what_another_process_left_half_written_is_not_looked_at(self, directory: Path) -> None:
        saved = some_credentials()
        save_credentials(directory, saved)
        (directory / ".identity.pem.1").write_bytes(b"half")

        assert load_credentials(directory) == saved


class TestWritePrivate:
    def test_it_is_closed_from_its_first_byte_on(self, tmp_path: Path) -> None:
        path = tmp_path / "admin.token"
        path.write_bytes(b"old")
        path.chmod(0o644)
        write_private(path, b"new")

        assert (path.read_bytes(), mode(path)) == (b"new", 0o600)
        assert [each.name for each in tmp_path.iterdir()] == ["admin.token"]


class TestRenewal:
    @given(st.integers(), st.floats(60, 30 * DAY_S))
    def test_is_due_between_half_and_seventy_percent_of_a_life(self, seed: int, life_s: float) -> None:
        credentials = replace(CREDENTIALS, expires_s=NOW_S + life_s)
        due_s = credentials.renew_at_s(random.Random(seed))

        assert 0.5 - 1e-6 <= (due_s - NOW_S) / life_s <= 0.7 + 1e-6

    def test_of_many_that_joined_together_is_spread(self) -> None:
        chance = random.Random(1)
        due_s = [CREDENTIALS.renew_at_s(chance) for _ in range(100)]

        assert max(due_s) - min(due_s) > 0.15 * DAY_S


CREDENTIALS = some_credentials()


class TestOwnIdentity:
    async def test_who_waits_hears_of_a_replacement(self) -> None:
        own = OwnIdentity(CREDENTIALS)
        waiting = [asyncio.ensure_future(own.newer_than(own.version)) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(each.done() for each in waiting)

        renewed = some_credentials()
        own.replace(renewed)
        await asyncio.gather(*waiting)

        assert (own.credentials, own.version) == (renewed, 2)

    async def test_who_comes_late_does_not_wait(self) -> None:
        own = OwnIdentity(CREDENTIALS)
        own.replace(CREDENTIALS)
        await own.newer_than(1)

    async def test_each_replacement_is_heard_of(self) -> None:
        own = OwnIdentity(CREDENTIALS)
        for version in (1, 2, 3):
            waiting = asyncio.ensure_future(own.newer_than(version))
            await asyncio.sleep(0)
            assert not waiting.done()
            own.replace(CREDENTIALS)
            await waiting
