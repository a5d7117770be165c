from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import agent.main
import manager.main
from bayplan.cli.install import (
    plan_etcd,
)
from tests.bayplan.cli.install_machine import Machine


class TestUnits:
    @pytest.fixture
    def units(self, machine: Machine) -> list[Path]:
        machine.certificates()
        machine.manager()
        machine.agent(managers="10.0.0.1:7400")
        machine.do(
            plan_etcd("e1", "10.0.0.1", [], is_existing=False, program="/usr/bin/etcd", host=machine.host)
        )
        return sorted(machine.host.path("/etc/systemd/system").glob("*.service"))

    def test_are_hardened(self, units: list[Path]) -> None:
        wanted = {
            "NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes", "SystemCallFilter=@system-service",
            "LockPersonality=yes", "Restart=always", "StartLimitIntervalSec=0",
        }  # fmt: skip
        assert len(units) == 5
        for unit in units:
            lines = unit.read_text().splitlines()
            assert wanted - set(lines) == set()
            keys = [line.partition("=")[0] for line in lines]
            assert {
                "ProtectHome",
                "RestrictAddressFamilies",
                "KillMode",
                "TimeoutStopSec",
                "LimitNOFILE",
                "CapabilityBoundingSet",
                "RestartSec",
            } <= {*keys}

    def test_have_no_capability_that_they_do_not_need(self, units: list[Path]) -> None:
        assert {unit.stem: values(unit, "CapabilityBoundingSet") for unit in units} == {
            "bayplan-etcd": [""],
            "bayplan-manager": [""],
            "bayplan-agent": [
                "CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE CAP_SYS_PTRACE CAP_KILL CAP_CHOWN",
            ],
            "bayplan-proxy": [
                "CAP_NET_BIND_SERVICE CAP_NET_ADMIN CAP_SETUID CAP_SETGID CAP_KILL",
            ],
            "bayplan-dns": ["CAP_NET_BIND_SERVICE"],
        }

    def test_of_agent_proxy_and_name_server_meet_in_a_directory_that_outlives_each(
        self, units: list[Path]
    ) -> None:
        for unit in units:
            if unit.stem in ("bayplan-agent", "bayplan-proxy", "bayplan-dns"):
                assert values(unit, "RuntimeDirectory") == ["bayplan"]
                assert values(unit, "RuntimeDirectoryMode") == ["0711"]
                assert values(unit, "RuntimeDirectoryPreserve") == ["yes"]

    def test_of_proxy_and_name_server_go_on_whatever_becomes_of_the_agent(self, units: list[Path]) -> None:
        for unit in units:
            if unit.stem in ("bayplan-proxy", "bayplan-dns"):
                assert values(unit, "RestartSec") == ["200ms"]
                for binds in ("PartOf", "BindsTo", "Requires"):
                    assert values(unit, binds) == []
                assert "agent" not in " ".join(values(unit, "After") + values(unit, "Before"))
            if unit.stem == "bayplan-agent":
                assert "bayplan-proxy.service bayplan-dns.service" in values(unit, "Wants")[0]

    @pytest.mark.parametrize(
        ("name", "code"),
        [
            ("manager", manager.main.MEND_FIRST),
            ("agent", agent.main.MEND_FIRST),
            ("proxy", agent.main.MEND_FIRST),
            ("dns", agent.main.MEND_FIRST),
        ],
    )
    def test_do_not_restart_what_must_be_mended_first(self, units: list[Path], name: str, code: int) -> None:
        (unit,) = [each for each in units if each.stem == f"bayplan-{name}"]

        assert f"RestartPreventExitStatus={code}" in unit.read_text().splitlines()

    def test_systemd_understands_them(self, units: list[Path]) -> None:
        """Where its tools are installed; programs and users that this host lacks are replaced."""
        tool = ["systemd-analyze", "verify"]
        try:
            subprocess.run([tool[0], "--version"], check=True, capture_output=True)
        except OSError:
            pytest.skip("no systemd-analyze here")
        for unit in units:
            text = re.sub(r"^ExecStart=.*$", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE)
            unit.write_text(re.sub(r"^(User|Group)=.*$", r"\1=daemon", text, flags=re.MULTILINE))

            done = subprocess.run([*tool, str(unit)], check=False, capture_output=True, text=True)

            assert (done.returncode, done.stderr) == (0, "")


def values(unit: Path, key: str) -> list[str]:
    """Of each line with that key."""
    lines = [line.partition("=") for line in unit.read_text().splitlines()]
    return [value for name, _, value in lines if name == key]
