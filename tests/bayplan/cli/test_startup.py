from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from bayplan.client import contexts
from bayplan.client.contexts import Context
from bayplan.identity.names import Kind
from bayplan.v1 import control_pb2 as control
from tests.bayplan.cli.conftest import Bay
from tests.bayplan.client.fake_access import CLUSTER, a_root, credentials_of
from tests.bayplan.client.fake_control import deployment, document, pod

HEAVY = {
    *("grpc", "google", "pydantic", "numpy", "yaml", "rich", "structlog", "aiohttp"),
    *("cryptography", "OpenSSL"),
}
# Typer needs it to read any argument; it takes 25 ms, our own models would take more.
TYPERS_OWN = {"pydantic"}


def imported_by(*words: str, env: dict[str, str] | None = None) -> set[str]:
    """Top-level packages that `bay words` imports."""
    program = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
        "from bayplan.cli.main import main\n"
        f"main({list(words)!r})"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )
    return {name.partition(".")[0] for name in json.loads(ended.stderr.splitlines()[-1])}


class TestStartup:
    def test_help_imports_nothing_heavy(self) -> None:
        assert not imported_by("--help") & HEAVY

    def test_the_help_of_a_command_imports_nothing_heavy(self) -> None:
        assert not imported_by("get", "--help") & HEAVY - TYPERS_OWN

    def test_get_pods_imports_no_more_than_it_needs(self) -> None:
        env = {"BAYPLAN_INSECURE_LOOPBACK": "1"}
        heavy = imported_by("get", "pods", "--managers", "127.0.0.1:1", env=env) & HEAVY
        assert heavy <= {"grpc", "google"} | TYPERS_OWN

    def test_with_a_good_certificate_nothing_reads_certificates(self, tmp_path: Path) -> None:
        """The configuration is YAML, which takes 20 ms; `cryptography` would take 100."""
        file = tmp_path / "config.yaml"
        held = credentials_of(a_root(), Kind.USER, "admin", issued_s=time.time())
        made = Context(name="demo", managers=("127.0.0.1:1",), cluster=CLUSTER, user="admin")
        contexts.save_login(file, held, lambda _: made)

        heavy = imported_by("get", "pods", env={"BAYPLAN_CONFIG": str(file)}) & HEAVY
        assert heavy <= {"grpc", "google", "yaml"} | TYPERS_OWN


class TestCompletion:
    async def complete(self, bay: Bay, line: str) -> list[str]:
        words = line.split(" ")
        env = {
            "_BAY_COMPLETE": "complete_bash",
            "COMP_WORDS": "\n".join(words),
            "COMP_CWORD": str(len(words) - 1),
        }
        ended = await bay(env=env)
        return ended.out.split()

    async def test_offers_commands_and_kinds(self, bay: Bay) -> None:
        assert "apply" in await self.complete(bay, "bay a")
        assert "deployments" in await self.complete(bay, "bay get d")
        assert await self.complete(bay, "bay get ing") == ["ingresses"]

    async def test_offers_the_names_that_the_cluster_knows(self, bay: Bay) -> None:
        bay.control.documents = [document(deployment("web")), document(deployment("api"))]
        bay.control.pods = [pod()]
        bay.control.services = [control.ServiceEndpoints(namespace="default", name="shop")]

        assert await self.complete(bay, "bay get ep s") == ["shop"]
        assert await self.complete(bay, "bay get deploy w") == ["web"]
        assert await self.complete(bay, "bay scale deploy/a") == ["deploy/api"]
        assert await self.complete(bay, "bay why w") == ["web-0-x7k4q"]

    async def test_offers_namespaces(self, bay: Bay) -> None:
        assert await self.complete(bay, "bay get pods -n d") == ["default"]

    async def test_bear_that_bash_cuts_an_address(self, bay: Bay) -> None:
        """It gives 127.0.0.1:7400 as three words, and --managers=… as more."""
        bay.control.pods = [pod()]
        host, port = bay.address.split(":")

        assert await self.complete(bay, f"bay --managers {host} : {port} why w") == ["web-0-x7k4q"]
        assert await self.complete(bay, f"bay --managers = {host} : {port} why w") == ["web-0-x7k4q"]

    async def test_a_silent_cluster_does_not_hold_the_shell_up(self, bay: Bay) -> None:
        bay.control.hangs = True
        async with asyncio.timeout(5):
            assert await self.complete(bay, "bay get deploy w") == []

    async def test_scripts_for_three_shells(self, bay: Bay) -> None:
        for shell in ("bash", "zsh", "fish"):
            assert "_BAY_COMPLETE" in (await bay("completion", shell)).out
        assert (await bay("completion", "tcsh")).code == 2
