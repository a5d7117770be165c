"""What containers use, read from the kernel's own files.

Not from the engine: its `stats` takes two samples, a second or two for each container. The group is
found from the process, so that it does not matter how the engine names groups, which version of cgroups
the host has, or whether the engine runs inside a container itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_NANOSECONDS = 1e9
_MICROSECONDS = 1e6
UNIFIED = ""  # The name of version 2's single hierarchy, as in /proc/<pid>/cgroup.


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted hierarchy: `root` is which part of it, `point` is where."""

    root: PurePosixPath
    point: Path


def read_usage(pids: Mapping[str, int], *, proc: Path = Path("/proc")) -> dict[str, tuple[float, int]]:
    """By container id: (cpu seconds since its start, memory in bytes). Reads files: call it in a thread.

    `pids`: by container id, its first process as the engine gave it. A container whose process is gone, or is
    another's by now, is left out. Memory is the kernel's charge without the page cache it could drop at once
    (inactive file pages), which is what Kubernetes and Docker count too.
    """
    mounts = read_mounts((proc / "self/mountinfo").read_text())
    usages = {}
    for container_id, pid in pids.items():
        try:
            groups = (proc / str(pid) / "cgroup").read_text()
            usages[container_id] = _read_one(container_id, groups, mounts)
        except (OSError, LookupError, ValueError):
            continue  # It ended while we looked.
    return usages


def read_mounts(mountinfo: str) -> dict[str, Mount]:
    """By controller ("memory", "cpuacct", … and UNIFIED): where it is mounted. The format: proc(5), mountinfo."""
    mounts: dict[str, Mount] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        fields = before.split(" ")
        mount = Mount(PurePosixPath(fields[3]), Path(fields[4]))
        for controller in [UNIFIED] if kind == "cgroup2" else options.split(","):
            # Inside a container the host's hierarchy may be mounted over a part of it: the later one is seen.
            mounts[controller] = mount
    return mounts


def find_group(container_id: str, groups: str, mounts: Mapping[str, Mount], controller: str) -> Path | None:
    """The directory of the container's group in a controller's hierarchy, None if it is not there.

    `groups`: the text of /proc/<pid>/cgroup. Raises LookupError if that process is none of the container's.
    """
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        group = _container_part(container_id, PurePosixPath(path))
        mount = mounts.get(controller)
        if mount is None:
            return None
        inside = group.relative_to(mount.root) if group.is_relative_to(mount.root) else group
        return mount.point / str(inside).lstrip("/")
    return None


def _container_part(container_id: str, path: PurePosixPath) -> PurePosixPath:
    """The container's own group; its process may have made deeper ones (systemd, an engine inside)."""
    for group in (path, *path.parents):
        if container_id in group.name:
            return group
    raise LookupError(container_id)


def _read_one(container_id: str, groups: str, mounts: Mapping[str, Mount]) -> tuple[float, int]:
    cpu = find_group(container_id, groups, mounts, "cpuacct")
    memory = find_group(container_id, groups, mounts, "memory")
    unified = find_group(container_id, groups, mounts, UNIFIED)
    if cpu is not None:
        cpu_s = int((cpu / "cpuacct.usage").read_text()) / _NANOSECONDS
    else:
        cpu_s = _statistic((_present(unified) / "cpu.stat"), "usage_usec") / _MICROSECONDS
    if memory is not None:
        used = int((memory / "memory.usage_in_bytes").read_text())
        droppable = _statistic(memory / "memory.stat", "total_inactive_file")
    else:
        used = int((_present(unified) / "memory.current").read_text())
        droppable = _statistic(_present(unified) / "memory.stat", "inactive_file")
    return cpu_s, max(0, used - droppable)


def _present(group: Path | None) -> Path:
    if group is None:
        raise LookupError
    return group


def _statistic(file: Path, name: str) -> int:
    for line in _lines(file):
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    raise LookupError(name)


def _lines(file: Path) -> Iterable[str]:
    return file.read_text().splitlines()
