"""What the agent reads of the host it runs on: identity, load, disks.

A port of its own, so that tests run many agents of different hosts in one process.
"""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostUse:
    """Counters of the whole host at one moment."""

    cpu_busy_s: float  # Since boot, summed over all processors.
    memory_bytes: int  # What programs hold, page cache apart.


class Host(Protocol):
    """One per agent. All calls are quick reads of the kernel's own tables."""

    @property
    def boot_id(self) -> str:
        """Another value after each boot."""
        ...

    @property
    def os(self) -> str: ...

    @property
    def arch(self) -> str:
        """In Kubernetes' words: amd64, arm64."""
        ...

    @property
    def hostname(self) -> str: ...

    def use(self) -> HostUse: ...

    def disk(self, path: str) -> tuple[int, int]:
        """(bytes in all, bytes free) of the file system that holds `path`."""
        ...


class LinuxHost:
    """Reads /proc.

    `boot_id` overrides the kernel's: a node that is itself a container shares the kernel of
    its host, so its entry point makes an id of its own for each start.
    """

    def __init__(self, *, boot_id: str = "") -> None:
        self._boot_id = boot_id or Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    @property
    def boot_id(self) -> str:
        return self._boot_id

    @property
    def os(self) -> str:
        return "linux"

    @property
    def arch(self) -> str:
        machine = platform.machine()
        return _GO_ARCHITECTURES.get(machine, machine)

    @property
    def hostname(self) -> str:
        return platform.node()

    def use(self) -> HostUse:
        # "cpu user nice system idle iowait irq softirq steal …", in clock ticks.
        with Path("/proc/stat").open() as stat:
            ticks = [int(field) for field in stat.readline().split()[1:9]]
        idle = ticks[3] + ticks[4]
        memory: dict[str, int] = {}
        for line in Path("/proc/meminfo").read_text().splitlines():
            key, _, rest = line.partition(":")
            memory[key] = int(rest.split()[0]) * 1024
        return HostUse(
            cpu_busy_s=(sum(ticks) - idle) / os.sysconf("SC_CLK_TCK"),
            memory_bytes=memory["MemTotal"] - memory["MemAvailable"],
        )

    def disk(self, path: str) -> tuple[int, int]:
        # The engine's directory may be invisible from here (the agent in a container of its own).
        use = shutil.disk_usage(path if Path(path).exists() else "/")
        return use.total, use.free
