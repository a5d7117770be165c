"""A host to install on, of which nobody notices anything."""

from __future__ import annotations

import tomllib
from pathlib import Path

from bayplan.cli.install import (
    ETCD_CERTIFICATES,
    Environment,
    Plan,
    Wanted,
    plan_agent,
    plan_manager,
)
from bayplan.cli.install_steps import Host, carry_out
from bayplan.identity.tokens import new_token
from tests.bayplan.cli.accounts import Accounts

NOW_S = 1_800_000_000.0
DAY_S = 86400.0
TOKEN = str(new_token("ab" * 32))
OPT = Environment(programs="/opt/bayplan/bin", python="/usr")
FIRST = Wanted(settings={"id": "m1", "advertise": "10.0.0.1:7400"})


class Machine:
    """A host below a directory, with Bayplan's programs in /opt."""

    def __init__(self, root: Path) -> None:
        self.accounts = Accounts()
        self.host = Host(root=root, accounts=self.accounts)
        for name in ("manager", "agent", "proxy", "dns"):
            self.write(f"/opt/bayplan/bin/bayplan-{name}", "")
        self.write("/usr/bin/etcd", "")

    def write(self, path: str, text: str) -> None:
        self.host.path(path).parent.mkdir(parents=True, exist_ok=True)
        self.host.path(path).write_text(text)

    def read(self, path: str) -> str:
        return self.host.path(path).read_text()

    def mode(self, path: str) -> str:
        return f"{self.host.path(path).stat().st_mode & 0o7777:o}"

    def group(self, path: str) -> str:
        return self.accounts.owners[self.host.path(path).stat().st_ino][1]

    def settings(self, name: str) -> dict[str, object]:
        return tomllib.loads(self.read(f"/etc/bayplan/{name}.toml"))

    def do(self, plan: Plan, *, dry_run: bool = False) -> list[str]:
        lines: list[str] = []
        carry_out(plan.steps, self.host, lines.append, dry_run=dry_run)
        return lines

    def manager(self, wanted: Wanted = FIRST, *, dry_run: bool = False) -> list[str]:
        return self.do(plan_manager(wanted, OPT, self.host), dry_run=dry_run)

    def agent(self, *, token: str = "", **settings: str) -> list[str]:
        return self.do(plan_agent(Wanted(settings=settings, token=token), OPT, self.host))

    def certificates(self) -> None:
        for name in ("ca.pem", "server.pem", "server.key", "client.pem", "client.key"):
            self.write(f"{ETCD_CERTIFICATES}/{name}", name)
