from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayplan.identity.names import (
    Identity,
    IdentityError,
    Kind,
    is_identity_name,
    manager_host,
    parse_identity,
)

CLUSTER = "3f2a9c1d5e7b4a60"
# Written once more, by hand: the rule is what this file says, not what the code happens to do.
FIRST = frozenset(string.ascii_letters + string.digits)
REST = FIRST | frozenset("-_.")

names = st.from_regex(r"\A[A-Za-z0-9][-A-Za-z0-9_.]{0,62}\Z")
clusters = st.from_regex(r"\A[a-z0-9][-a-z0-9.]{0,62}\Z")


class TestNames:
    @given(st.text(max_size=70))
    def test_are_allowed_by_a_list_of_what_is_good(self, name: str) -> None:
        """Whatever Unicode brings next is refused without anybody thinking of it."""
        is_good = 1 <= len(name) <= 63 and name[0] in FIRST and set(name) <= REST

        assert is_identity_name(name) is is_good

    @given(names, st.characters(exclude_characters="".join(REST)), st.integers(0, 63))
    def test_one_bad_character_anywhere_is_enough(self, name: str, bad: str, at: int) -> None:
        assert not is_identity_name(name[:at] + bad + name[at:])

    @pytest.mark.parametrize("name", ["n1", "a", "Anna.Smith", "ci_runner-2", "7", "a" * 63])
    def test_usual_ones_are_good(self, name: str) -> None:
        assert is_identity_name(name)

    @pytest.mark.parametrize("name", ["", ".", "..", "-rf", "_x", "a/b", "n1\n", "nаme", "n 1", "a" * 64])  # noqa: RUF001 - a look-alike
    def test_what_could_leave_its_place_is_none(self, name: str) -> None:
        assert not is_identity_name(name)


class TestIdentities:
    @given(clusters, st.sampled_from(Kind), names)
    def test_are_read_back_from_their_uri(self, cluster: str, kind: Kind, name: str) -> None:
        identity = Identity(cluster=cluster, kind=kind, name=name)

        assert parse_identity(str(identity)) == identity

    def test_look_like_this(self) -> None:
        identity = Identity(cluster=CLUSTER, kind=Kind.NODE, name="n1")

        assert str(identity) == f"spiffe://{CLUSTER}/node/n1"
        assert identity.words == "node n1"
        assert manager_host(CLUSTER) == f"manager.{CLUSTER}"

    @given(st.text())
    def test_any_other_text_is_none(self, text: str) -> None:
        """Either it is refused in words, or it is exactly what such an identity is written as."""
        try:
            identity = parse_identity(text)
        except IdentityError as error:
            assert "is no identity" in str(error)  # noqa: PT017 - either may happen
        else:
            assert str(identity) == text

    @pytest.mark.parametrize(
        "uri",
        [
            "",
            f"spiffe://{CLUSTER}/node/",
            f"spiffe://{CLUSTER}/node/..",
            f"spiffe://{CLUSTER}/node/n1/x",
            f"spiffe://{CLUSTER}/node/n1\n",
            f"spiffe://{CLUSTER}/node/n1?admin",
            f"spiffe://{CLUSTER}/root/n1",
            f"spiffe://{CLUSTER}/Node/n1",
            f"SPIFFE://{CLUSTER}/node/n1",
            f"https://{CLUSTER}/node/n1",
            f"x spiffe://{CLUSTER}/node/n1",
            "spiffe:///node/n1",
            f"spiffe://user@{CLUSTER}/node/n1",
            f"spiffe://{CLUSTER}:7400/node/n1",
        ],
    )
    def test_what_is_nearly_one_is_refused(self, uri: str) -> None:
        with pytest.raises(IdentityError, match="is no identity"):
            parse_identity(uri)

    def test_what_is_refused_is_not_repeated_at_length(self) -> None:
        """It may come from anybody, and goes into a log line."""
        with pytest.raises(IdentityError) as caught:
            parse_identity("\x1b[2J" + "x" * 10_000)

        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 200
