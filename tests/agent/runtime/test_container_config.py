from __future__ import annotations

from typing import Any

import pytest

from agent.runtime.container_config import from_inspection, from_listing, to_create_body, to_seconds
from agent.runtime.docker_networks import to_network_body
from agent.runtime.port import BridgeNetwork, ContainerSpec, ContainerState, Mount


def inspected(**state: Any) -> dict[str, Any]:
    return {
        "Id": "a",
        "Name": "/web",
        "Created": "2026-01-02T03:04:05Z",
        "Image": "sha256:1",
        "Config": {"Labels": None, "Image": "web"},
        "State": {
            "Status": "exited",
            "StartedAt": "2026-01-02T03:04:06.002Z",
            "FinishedAt": "2026-01-02T03:04:07Z",
            "ExitCode": 3,
            "OOMKilled": False,
            "Error": "",
            "Pid": 0,
        }
        | state,
        "NetworkSettings": {"Networks": None},
    }


class TestFromInspection:
    def test_nothing_ends_before_it_starts(self) -> None:
        """Docker 20.10 says so of a process that lived for a millisecond."""
        container = from_inspection(inspected(FinishedAt="2026-01-02T03:04:06.001Z"))

        assert container.finished_s == container.started_s

    def test_a_running_one_keeps_its_earlier_end(self) -> None:
        container = from_inspection(inspected(Status="running", FinishedAt="2026-01-02T03:04:05Z"))

        assert container.finished_s < container.started_s

    @pytest.mark.parametrize("status", ["removing", "dead", "something new"])
    def test_what_is_half_gone_does_not_run(self, status: str) -> None:
        assert from_inspection(inspected(Status=status)).state is ContainerState.EXITED

    def test_a_listing_alone_changes_the_state_and_keeps_the_rest(self) -> None:
        seen = from_inspection(inspected(Status="running", Pid=7))
        row = {"Id": "a", "State": "paused"} | dict.fromkeys(("Names", "Image", "ImageID", "Labels"), "web")
        row |= {"Created": "1", "NetworkSettings": {"Networks": None}}  # type: ignore[dict-item]  # as Docker's

        shown = from_listing(row, seen)

        assert (shown.state, shown.pid, shown.started_s) == (ContainerState.PAUSED, 7, seen.started_s)


class TestToSeconds:
    @pytest.mark.parametrize(
        ("written", "seconds"),
        [
            ("0001-01-01T00:00:00Z", 0.0),
            ("1970-01-01T00:00:01.5Z", 1.5),
            ("1970-01-01T00:00:01.123456789Z", 1.123456),
            ("1970-01-01T01:00:00.000000001+01:00", 0.0),
        ],
    )
    def test_reads_dockers_times(self, written: str, seconds: float) -> None:
        assert to_seconds(written) == seconds


class TestToCreateBody:
    def test_without_requests_and_limits_the_kernel_is_told_little(self) -> None:
        body = to_create_body(ContainerSpec(name="web", image="i", labels={}, command=(), args=()), {})

        assert "Entrypoint" not in body
        assert "Cmd" not in body
        assert body["HostConfig"]["CpuShares"] == 2
        assert not {"CpuQuota", "Memory"} & set(body["HostConfig"])

    def test_one_that_joins_another_says_nothing_of_a_network_or_a_name(self) -> None:
        """Docker refuses both: they are the other's."""
        spec = ContainerSpec(name="web", image="web", labels={}, joins="abc", hostname="")
        body = to_create_body(spec, {})

        assert body["HostConfig"]["NetworkMode"] == "container:abc"
        assert body["Hostname"] == ""
        assert "NetworkingConfig" not in body

    def test_a_sandbox_has_no_rights(self) -> None:
        body = to_create_body(ContainerSpec(name="sandbox", image="x", labels={}, is_sandbox=True), {})

        assert body["User"] == "65534:65534"
        assert body["StopSignal"] == "SIGKILL"
        assert body["HostConfig"]["CapDrop"] == ["ALL"]
        assert body["HostConfig"]["ReadonlyRootfs"] is True

    def test_a_network_an_address_and_files_for_reading(self) -> None:
        mount = Mount(source="/var/lib/x/shop.conf", target="/etc/resolv.conf")
        spec = ContainerSpec(
            name="web", image="i", labels={}, network="bay1", address="10.42.1.2", mounts=(mount,)
        )

        body = to_create_body(spec, {})

        assert body["HostConfig"]["NetworkMode"] == "bay1"
        endpoint = body["NetworkingConfig"]["EndpointsConfig"]["bay1"]
        assert endpoint == {"IPAMConfig": {"IPv4Address": "10.42.1.2"}}
        (mounted,) = body["HostConfig"]["Mounts"]
        assert mounted["ReadOnly"] is True
        assert (mounted["Type"], mounted["Source"], mounted["Target"]) == (
            "bind",
            mount.source,
            mount.target,
        )


class TestToNetworkBody:
    NETWORK = BridgeNetwork(name="bay1", bridge="bay1", subnet="10.42.1.0/24", gateway="10.42.1.1", mtu=1450)

    @pytest.mark.parametrize(
        ("version", "mode"),
        [
            ("20.10.24+dfsg1", None),
            ("27.5.1", None),
            ("28.0.0", "nat-unprotected"),
            ("29.4", "nat-unprotected"),
        ],
    )
    def test_engines_that_guard_containers_are_told_not_to(self, version: str, mode: str | None) -> None:
        """Older ones refuse the word."""
        options = to_network_body(self.NETWORK, {}, engine_version=version)["Options"]

        assert options.get("com.docker.network.bridge.gateway_mode_ipv4") == mode

    def test_the_engine_masquerades_nothing(self) -> None:
        options = to_network_body(self.NETWORK, {}, engine_version="20.10")["Options"]

        assert options["com.docker.network.bridge.enable_ip_masquerade"] == "false"
        assert options["com.docker.network.driver.mtu"] == "1450"
