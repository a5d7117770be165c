"""Who owns what, where all files belong to whoever runs the tests."""

from __future__ import annotations

from pathlib import Path

from bayplan.cli.install_steps import SystemUser


class Accounts:
    """Of a host whose files all belong to whoever runs the tests: remembers who owns what instead."""

    def __init__(self) -> None:
        self.names = {"root"}
        self.owners: dict[int, tuple[str, str]] = {}  # By inode: files are renamed.

    def exists(self, name: str) -> bool:
        return name in self.names

    def create(self, user: SystemUser) -> None:
        self.names.add(user.name)

    def own(self, path: Path, *, owner: str | None, group: str) -> None:
        assert {owner or "root", group} <= self.names
        before = self.owners.get(path.stat().st_ino, ("root", "root"))
        self.owners[path.stat().st_ino] = (owner or before[0], group)

    def is_owned(self, path: Path, *, owner: str | None, group: str) -> bool:
        found = self.owners.get(path.stat().st_ino, ("root", "root"))
        return found[1] == group and owner in (None, found[0])
