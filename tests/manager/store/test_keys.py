from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.store import keys

JUNK = [
    "",
    "/",
    "/other/v1/nodes/n1",
    keys.ROOT,
    keys.NODES,
    keys.NODES + "a/b",
    keys.NODES + "a b",
    keys.NODES + "\N{REPLACEMENT CHARACTER}",
    keys.NODES + "n" * 300,
    keys.RESOURCES + "Deployment",
    keys.RESOURCES + "Deployment//web",
    keys.RESOURCES + "Deployment/default/web/more",
    keys.RESOURCES + "../../meta",
    keys.PLACEMENTS + "uid",
    keys.PLACEMENTS + "uid/one",
    keys.PLACEMENTS + "uid/-1",
    keys.PLACEMENTS + "uid/01",
    keys.PLACEMENTS + "uid/\N{ARABIC-INDIC DIGIT ONE}",
    keys.PLACEMENTS + "uid/9999999999",
    keys.DECISIONS + "12",
    keys.REVISIONS + "uid",
    keys.PKI + "ca/more",
    keys.PKI_TOKENS + "a/b",
    keys.PKI_IDENTITIES + "node",
    keys.PKI_IDENTITIES + "node//n1",
    keys.SECRETS + "group",
    keys.SECRETS + "../meta",
    keys.SERVICES + "uid/more",
]


class TestKeys:
    def test_every_key_parses_back(self) -> None:
        assert keys.parse_manager(keys.manager("m1")) == "m1"
        assert keys.parse_node(keys.node("n1.example")) == "n1.example"
        assert keys.parse_resource(keys.resource("Deployment", "shop", "web")) == (
            "Deployment",
            "shop",
            "web",
        )
        assert keys.parse_placements(keys.placements("u1", 12)) == ("u1", 12)
        assert keys.parse_revision(keys.revision("u1", "0a1b2c3d")) == ("u1", "0a1b2c3d")
        assert keys.parse_decisions(keys.decisions(17)) == 17
        assert keys.parse_pki_token(keys.pki_token("t1")) == "t1"
        assert keys.parse_pki_identity(keys.pki_identity("node", "n1.example")) == ("node", "n1.example")
        assert keys.parse_service(keys.service("u1")) == "u1"
        assert keys.parse_secret(keys.secret("registry", "hub")) == ("registry", "hub")

    @pytest.mark.parametrize("key", JUNK)
    def test_junk_is_none_and_no_error(self, key: str) -> None:
        assert keys.parse_manager(key) is None
        assert keys.parse_node(key) is None
        assert keys.parse_service(key) is None
        assert keys.parse_resource(key) is None
        assert keys.parse_placements(key) is None
        assert keys.parse_revision(key) is None
        assert keys.parse_decisions(key) is None
        assert keys.parse_pki_token(key) is None
        assert keys.parse_pki_identity(key) is None
        assert keys.parse_secret(key) is None

    @pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "a\n", "\0", "ä", "-a", "x" * 300])
    def test_a_name_cannot_reach_another_key(self, name: str) -> None:
        with pytest.raises(ValueError, match="cannot be part of a key"):
            keys.resource("Deployment", "default", name)
        with pytest.raises(ValueError, match="cannot be part of a key"):
            keys.node(name)
        with pytest.raises(ValueError, match="cannot be part of a key"):
            keys.pki_token(name)
        with pytest.raises(ValueError, match="cannot be part of a key"):
            keys.pki_identity("user", name)
        with pytest.raises(ValueError, match="cannot be part of a key"):
            keys.secret(name, "x")

    def test_a_prefix_ends_with_its_slash(self) -> None:
        """Else the workload `u1` would own what belongs to `u10`."""
        assert not keys.placements("u10", 0).startswith(keys.placements_of("u1"))
        assert not keys.revision("u10", "aa").startswith(keys.revisions_of("u1"))
        assert not keys.resource("Job", "shop2", "x").startswith(keys.resources_of("Job", "shop"))
        assert not keys.pki_identity("nodes", "x").startswith(keys.pki_identities_of("node"))
        assert not keys.secret("shop2", "x").startswith(keys.secrets_of("shop"))

    @given(st.integers(0, 10**15), st.integers(0, 10**15))
    def test_decisions_sort_by_time(self, one: int, two: int) -> None:
        assert (one < two) == (keys.decisions(one) < keys.decisions(two))
