"""Where a manager is installed, for the tests of how it begins."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayplan.identity import certificates
from bayplan.identity.names import Kind
from bayplan.identity.tokens import JoinToken, parse_token
from manager.access.access import ADMIN_TOKEN_FILE, Access, begin
from manager.access.settings import AccessSettings
from tests.fakes.store import FakeEtcd, FakeStore
from tests.manager.access.world import Member

LIFE_S = 2 * 3600.0  # Several of them fit into what virtual time allows a test.


@dataclass
class Host:
    """Where a manager is installed."""

    server: FakeEtcd
    clock: Any
    directory: Path
    name: str = "m1"
    join: str = ""
    token: str = ""
    token_file: Path | None = None
    joining: Any = None
    etcd: FakeStore | None = None

    async def begin(self) -> Access:
        settings = AccessSettings(
            data_dir=self.directory, join=self.join, join_token=self.token, join_token_file=self.token_file,
            cluster_key_command="", certificate_life_s=LIFE_S, insecure_loopback=False,
        )  # fmt: skip
        more = {"joining": self.joining} if self.joining is not None else {}
        return await begin(
            settings,
            manager_id=self.name,
            etcd=self.etcd or FakeStore(self.server, self.name),
            wall_s=self.clock,
            chance=random.Random(1),
            **more,
        )

    def admin_token(self) -> JoinToken:
        return parse_token((self.directory / ADMIN_TOKEN_FILE).read_text())

    def modes(self) -> dict[str, str]:
        files = {path.name: path for path in self.directory.rglob("*")}
        return {name: f"{path.stat().st_mode & 0o777:o}" for name, path in files.items()}


async def let_in(
    access: Access, token: JoinToken, name: str = "", *, key: certificates.Key | None = None
) -> Member:
    key = key or certificates.new_key()
    issued = await access.authority.join_by_token(
        certificates.certificate_request(key), token_id=token.id, secret=token.secret, name=name
    )
    return Member(key, issued)


async def a_token(access: Access, kind: Kind) -> JoinToken:
    token, _ = await access.tokens.create(kind, access.roots.signing_digest, ttl_ms=0, uses=1, made_by="anna")
    return token


@asynccontextmanager
async def kept_up(*parts: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
