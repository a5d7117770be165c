"""The small parts: rules in front of others', sysctls, resolv.conf, the WireGuard key, lost cables."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from agent.network import command, resolv_conf
from agent.network.forwarding import are_in_front, wanted_rules
from agent.network.links import wanted_links
from agent.network.observed import Device, Observed
from agent.network.plugs import without_cable
from agent.network.port import NetworkError
from agent.network.sysctls import have_sysctls, wanted_sysctls
from agent.network.wireguard import load_or_make
from agent.runtime.port import Container, ContainerState
from tests.agent.network.words import table

OURS = '-A FORWARD -i bay1 -m comment --comment "bayplan bay1" -j ACCEPT'
ANOTHER_CLUSTERS = '-A FORWARD -i bay2 -m comment --comment "bayplan bay2" -j ACCEPT'
SOMEBODYS = "-A FORWARD -j DROP"
RULES = wanted_rules(
    wanted_links(table(1, 2), Observed(), own=None), proxy_port=7460, forward_chain="FORWARD"
)[:2]


class TestRulesInFront:
    @pytest.mark.parametrize(
        ("listed", "is_right"),
        [
            ([OURS, OURS, SOMEBODYS], True),
            ([ANOTHER_CLUSTERS, OURS, OURS], True),
            (["-P FORWARD DROP", "-N DOCKER-USER", OURS, OURS], True),
            ([SOMEBODYS, OURS, OURS], False),
            ([OURS, SOMEBODYS, OURS], False),
            ([OURS], False),
            ([OURS, OURS, OURS], False),
            ([], False),
        ],
    )
    def test_somebody_elses_before_them_is_seen(self, listed: list[str], is_right: bool) -> None:  # noqa: FBT001
        assert are_in_front(listed, RULES, "bayplan bay1") is is_right


class TestSysctls:
    def test_only_what_differs_is_set(self, tmp_path: Path) -> None:
        (tmp_path / "ipv4").mkdir()
        (tmp_path / "ipv4/ip_forward").write_text("0\n")
        wanted = {"ipv4/ip_forward": "1", "ipv6/absent": "1"}

        assert have_sysctls(wanted, root=tmp_path) == ["net.ipv4.ip_forward"]
        assert have_sysctls(wanted, root=tmp_path) == []

    def test_a_refusal_says_what_to_set(self, tmp_path: Path) -> None:
        (tmp_path / "ipv4/ip_forward").mkdir(parents=True)

        with pytest.raises(
            NetworkError, match=r"net\.ipv4\.ip_forward is not 1 and cannot be set \(is a directory\)"
        ):
            have_sysctls(wanted_sysctls("bay1", ""), root=tmp_path)


class TestResolvConf:
    GATEWAY = IPv4Address("10.42.1.1")

    def test_it_says_what_kubernetes_says(self, tmp_path: Path) -> None:
        path = resolv_conf.have(tmp_path, "shop", gateway=self.GATEWAY, domain="cluster.local")

        assert path.read_text() == (
            "nameserver 10.42.1.1\n"
            "search shop.svc.cluster.local svc.cluster.local cluster.local\n"
            "options ndots:5\n"
        )
        assert path.stat().st_mode & 0o777 == 0o644

    def test_pods_that_run_see_a_change(self, tmp_path: Path) -> None:
        """They have the file itself mounted, so it is written in place."""
        path = resolv_conf.have(tmp_path, "shop", gateway=self.GATEWAY, domain="cluster.local")
        with path.open() as mounted:
            resolv_conf.have(tmp_path, "shop", gateway=self.GATEWAY, domain="other.example")

            assert "other.example" in mounted.read()

    @pytest.mark.parametrize("namespace", ["../etc", "a/b", "", "Shop", "a\nnameserver 1.2.3.4"])
    def test_a_name_that_is_none_is_refused(self, tmp_path: Path, namespace: str) -> None:
        with pytest.raises(ValueError, match="not the name of a namespace"):
            resolv_conf.have(tmp_path, namespace, gateway=self.GATEWAY, domain="cluster.local")


class TestWireguardKey:
    def test_it_is_made_once_and_for_its_owner_alone(self, tmp_path: Path) -> None:
        key = load_or_make(tmp_path)

        assert load_or_make(tmp_path) == key
        assert (tmp_path / "wireguard.key").stat().st_mode & 0o777 == 0o600
        assert len(key.public) == len(key.private) == 44
        assert key.private not in repr(key)

    def test_a_damaged_one_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "wireguard.key").write_text("?")

        assert load_or_make(tmp_path).public == load_or_make(tmp_path).public


class TestLostCables:
    def test_a_pod_in_whose_namespace_nothing_ends_has_lost_its_cable(self) -> None:
        connected, lost, never = (
            Container(
                id=name,
                name=name,
                labels={},
                state=ContainerState.RUNNING,
                image="",
                image_id="",
                created_s=0,
                pid=1,
            )
            for name in ("connected", "lost", "never")
        )
        devices = [Device(index=9, name="veth1", kind="veth", far_namespace=5, master=7)]

        missing = without_cable([connected, lost, never], {"connected": 5, "lost": 6}, devices)

        assert missing == [lost, never]


class TestCommand:
    async def test_a_failure_comes_with_its_own_words(self) -> None:
        with pytest.raises(NetworkError, match=r"^sh failed: no such table$"):
            await command.run("sh", "-c", "cat >/dev/null; echo no such table >&2; exit 1", text="x")

    async def test_a_missing_program_is_named(self) -> None:
        with pytest.raises(NetworkError, match="cannot run no-such-program: no such file or directory"):
            await command.run("no-such-program")
