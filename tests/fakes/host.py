"""A host for agents that run many in one process."""

from __future__ import annotations

from agent.host import HostUse


class FakeHost:
    """Obeys `Host`. Everything may be set by the test; `reboot` gives it another boot id."""

    def __init__(self, name: str = "n1", *, boots: int = 1) -> None:
        self.hostname = name
        self.os = "linux"
        self.arch = "amd64"
        self.boots = boots
        self.cpu_busy_s = 0.0
        self.memory_bytes = 2**30
        self.disk_total_bytes = 100 * 2**30
        self.disk_free_bytes = 60 * 2**30

    @property
    def boot_id(self) -> str:
        return f"{self.hostname}-boot-{self.boots}"

    def reboot(self) -> None:
        self.boots += 1

    def use(self) -> HostUse:
        return HostUse(cpu_busy_s=self.cpu_busy_s, memory_bytes=self.memory_bytes)

    def disk(self, path: str) -> tuple[int, int]:
        del path
        return self.disk_total_bytes, self.disk_free_bytes
