from __future__ import annotations

from pathlib import Path

import pytest

from agent.runtime.cgroup_usage import read_usage

ID = "c" * 64


class Host:
    """A /proc and a /sys/fs/cgroup of files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc = root / "proc"
        self.mounts: list[str] = []

    def mount(self, kind: str, point: str, *, root: str = "/", options: str = "rw") -> None:
        self.mounts.append(f"30 23 0:28 {root} {self.root}/{point} rw,relatime - {kind} {kind} {options}")
        self.write("proc/self/mountinfo", "\n".join(["1 0 8:1 / / rw - ext4 /dev/sda rw", *self.mounts]))

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def write_v1(self, group: str) -> None:
        self.write(f"cpuacct/{group}/cpuacct.usage", "2500000000\n")
        self.write(f"memory/{group}/memory.usage_in_bytes", "5000\n")
        self.write(f"memory/{group}/memory.stat", "inactive_file 1\ntotal_inactive_file 1000\n")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


class TestReadUsage:
    def test_version_1(self, host: Host) -> None:
        host.mount("cgroup", "memory", options="rw,memory")
        host.mount("cgroup", "cpuacct", options="rw,cpu,cpuacct")
        host.write("proc/7/cgroup", f"4:memory:/docker/{ID}\n2:cpu,cpuacct:/docker/{ID}\n0::/docker/{ID}\n")
        host.write_v1(f"docker/{ID}")

        assert read_usage({ID: 7}, proc=host.proc) == {ID: (2.5, 4000)}

    @pytest.mark.parametrize("group", [f"/docker/{ID}", f"/system.slice/docker-{ID}.scope"])
    def test_version_2(self, host: Host, group: str) -> None:
        """Whichever driver names the groups, and though systemd inside has made one of its own."""
        host.mount("cgroup2", "unified")
        host.write("proc/7/cgroup", f"0::{group}/init.scope\n")
        host.write(f"unified{group}/cpu.stat", "usage_usec 1500000\nuser_usec 1\n")
        host.write(f"unified{group}/memory.current", "9000\n")
        host.write(f"unified{group}/memory.stat", "anon 1\ninactive_file 500\n")

        assert read_usage({ID: 7}, proc=host.proc) == {ID: (1.5, 8500)}

    def test_an_engine_in_a_container_that_sees_its_own_part_only(self, host: Host) -> None:
        outer = "/docker/" + "0" * 64
        host.mount("cgroup", "memory", root=outer, options="rw,memory")
        host.mount("cgroup", "cpuacct", root=outer, options="rw,cpuacct")
        host.write(
            "proc/7/cgroup", f"4:memory:{outer}/docker/{ID}\n2:cpuacct:{outer}/docker/{ID}\n0::/docker/{ID}\n"
        )
        host.write_v1(f"docker/{ID}")

        assert read_usage({ID: 7}, proc=host.proc) == {ID: (2.5, 4000)}

    def test_another_process_with_the_same_number_is_not_counted(self, host: Host) -> None:
        host.mount("cgroup", "memory", options="rw,memory")
        host.write("proc/7/cgroup", "4:memory:/system.slice/sshd.service\n")

        assert read_usage({ID: 7, "d" * 64: 8}, proc=host.proc) == {}
