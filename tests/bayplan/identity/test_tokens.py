from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayplan.identity.tokens import TokenError, is_secret, new_token, parse_token, secret_hash

DIGEST = "ab" * 32


class TestTokens:
    def test_are_read_back_from_their_text(self) -> None:
        token = new_token(DIGEST)

        assert parse_token(str(token)) == token

    def test_look_like_this(self) -> None:
        token = new_token(DIGEST)

        assert str(token) == f"bay1.{DIGEST}.{token.id}.{token.secret}"
        assert (len(token.id), len(bytes.fromhex(token.secret))) == (10, 16)

    def test_are_never_the_same_twice(self) -> None:
        tokens = [new_token(DIGEST) for _ in range(100)]

        assert len({token.id for token in tokens}) == len({token.secret for token in tokens}) == 100

    def test_bear_the_white_space_that_comes_with_copying(self) -> None:
        token = new_token(DIGEST)

        assert parse_token(f"  {token}\r\n") == token

    def test_do_not_show_their_secret_to_a_log(self) -> None:
        token = new_token(DIGEST)

        assert token.secret not in repr(token)


class TestWhatIsNone:
    @given(st.text())
    def test_is_refused_in_words(self, text: str) -> None:
        with pytest.raises(TokenError, match="`bay join-token create` or `bay user create`"):
            parse_token(text)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda text: text[:-1],
            lambda text: text + "0",
            lambda text: text.upper(),
            lambda text: text.replace("bay1", "bay2"),
            lambda text: text.replace(".", "-"),
            lambda text: text.replace(".", ".\n", 1),
            lambda text: text[5:],
            lambda text: f"{text} {text}",
        ],
    )
    def test_is_never_repeated(self, damage) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - of str
        """It may be a good one with a small mistake, or somebody's password."""
        token = new_token(DIGEST)
        with pytest.raises(TokenError) as caught:
            parse_token(damage(str(token)))

        words = str(caught.value).lower()
        assert not any(part in words for part in (token.secret, token.secret[:8], token.id, DIGEST[:8]))
        assert caught.value.__cause__ is caught.value.__context__ is None


class TestSecrets:
    @given(st.text())
    def test_are_known_by_their_hash(self, secret: str) -> None:
        assert is_secret(secret, secret_hash(secret))
        assert not is_secret(secret + "x", secret_hash(secret))

    def test_are_not_found_in_it(self) -> None:
        secret = new_token(DIGEST).secret

        assert secret not in secret_hash(secret)
