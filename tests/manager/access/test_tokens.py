from __future__ import annotations

import pytest

from bayplan.identity.names import Kind
from bayplan.identity.tokens import parse_token
from manager.access import records
from manager.access.tokens import KEPT_MS, TOKENS_MAX, TTL_MAX_MS, USES_MAX, NotLetInError
from manager.errors import RefusedError
from manager.store import keys
from tests.fakes.store import FakeEtcd
from tests.manager.access.world import DAY_S, HOUR_S, Clock, Desk

pytestmark = pytest.mark.virtual_time

DIGEST = "ab" * 32


async def refusal(desk: Desk, token_id: str, secret: str) -> str:
    """Why this one may not be used (any more)."""
    with pytest.raises(NotLetInError) as caught:
        desk.tokens.check_good((await desk.tokens.find(token_id, secret))[0])
    return str(caught.value)


class TestCreate:
    async def test_a_token_serves_once_within_an_hour_unless_told_otherwise(
        self, desk: Desk, clock: Clock
    ) -> None:
        token, record = await desk.tokens.create(Kind.NODE, DIGEST, ttl_ms=0, uses=0, made_by="anna")

        assert parse_token(str(token)).root_digest == DIGEST
        assert (record.kind, record.made_by, record.uses_left) == ("node", "anna", 1)
        assert record.expires_ms == clock.now_ms + HOUR_S * 1000
        assert await desk.tokens.all() == [record]

    async def test_of_its_secret_only_a_hash_is_kept(self, desk: Desk) -> None:
        token = await desk.token()
        found = await desk.store.get(keys.pki_token(token.id))

        assert found is not None
        assert token.secret.encode() not in found.value
        assert token.secret not in repr(records.decode_token(found.value))

    @pytest.mark.parametrize(("ttl_ms", "uses"), [(-1, 0), (TTL_MAX_MS + 1, 0), (0, -1), (0, USES_MAX + 1)])
    async def test_there_are_limits(self, desk: Desk, ttl_ms: int, uses: int) -> None:
        with pytest.raises(RefusedError, match="a token lives at most 30 days, and serves at most 1000"):
            await desk.token(ttl_ms=ttl_ms, uses=uses)

    async def test_junk_between_them_stands_in_nobodys_way(self, desk: Desk, server: FakeEtcd) -> None:
        server.put(keys.pki_token("junk"), b"junk")
        token = await desk.token()

        assert [each.id for each in await desk.tokens.all()] == [token.id]
        with pytest.raises(LookupError, match="there is no join token junk"):
            await desk.tokens.revoke("junk")
        with pytest.raises(NotLetInError, match="this token is not valid here"):
            await desk.tokens.find("junk", "secret")

    async def test_there_cannot_be_any_number_of_them(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("manager.access.tokens.TOKENS_MAX", 2)
        for _ in range(2):
            await desk.token()

        with pytest.raises(RefusedError, match="there are 2 join tokens: revoke some, or wait"):
            await desk.token()
        assert TOKENS_MAX >= 100, "whole clusters join at once"


class TestUse:
    async def test_the_right_secret_is_let_in(self, desk: Desk) -> None:
        token = await desk.token()
        record, _ = await desk.tokens.find(token.id, token.secret)
        desk.tokens.check_good(record)

        assert record.id == token.id

    @pytest.mark.parametrize("token_id", ["", "nobody", "../ca", "a/b", "x" * 300, "\0"])
    async def test_an_unknown_id_and_a_wrong_secret_are_told_the_same(
        self, desk: Desk, token_id: str
    ) -> None:
        token = await desk.token()

        words = await refusal(desk, token_id, token.secret)
        assert words == await refusal(desk, token.id, "0" * 32) == await refusal(desk, token.id, "")
        assert words.startswith("this token is not valid here: make a new one with `bay join-token create`")

    async def test_an_expired_one(self, desk: Desk, clock: Clock) -> None:
        token = await desk.token(ttl_ms=60_000)
        clock.now_s += 59.9
        desk.tokens.check_good((await desk.tokens.find(token.id, token.secret))[0])
        clock.now_s += 3 * HOUR_S

        assert await refusal(desk, token.id, token.secret) == (
            "this token expired 2 h ago; make a new one with `bay join-token create --role node`"
        )

    async def test_a_used_up_one_of_a_user(self, desk: Desk) -> None:
        await desk.authority.create_user("bob", role=1, access_ends_ms=0)
        token = await desk.token(Kind.USER, name="bob")
        await desk.join(token)

        assert await refusal(desk, token.id, token.secret) == (
            "this token is used up; make a new one with `bay user create bob`"
        )

    async def test_a_revoked_one(self, desk: Desk) -> None:
        token = await desk.token(Kind.MANAGER, uses=5)
        await desk.tokens.revoke(token.id)
        await desk.tokens.revoke(token.id)

        assert await refusal(desk, token.id, token.secret) == (
            "this token was revoked; make a new one with `bay join-token create --role manager`"
        )

    @pytest.mark.parametrize("token_id", ["", "nobody", "../ca", "x" * 300])
    async def test_an_unknown_one_cannot_be_revoked(self, desk: Desk, token_id: str) -> None:
        with pytest.raises(LookupError, match="there is no join token") as caught:
            await desk.tokens.revoke(token_id)
        assert len(str(caught.value)) < 150


class TestEnd:
    async def test_it_is_kept_for_a_day_to_say_why(self, desk: Desk, clock: Clock) -> None:
        token = await desk.token()
        clock.now_s += HOUR_S + DAY_S
        assert [each.id for each in await desk.tokens.all()] == [token.id]
        assert "expired 1 d ago" in await refusal(desk, token.id, token.secret)

    async def test_then_it_is_thrown_away(self, desk: Desk, clock: Clock, server: FakeEtcd) -> None:
        token = await desk.token()
        clock.now_s += HOUR_S + KEPT_MS / 1000 + 1

        assert await desk.tokens.all() == []
        assert server.items(keys.PKI_TOKENS) == ()
        assert "not valid here" in await refusal(desk, token.id, token.secret)
