from __future__ import annotations

from typing import Any

import pytest

from agent.runtime.container_config import from_inspection, from_listing, to_create_body, to_seconds
from agent.runtime.port import ContainerSpec, ContainerState


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
