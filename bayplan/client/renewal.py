"""A context's certificate, kept fresh: it lives for a day, and users should not notice.

Looked at before each call, not by a task: a program that asks nothing needs none, and one that was
asleep for a week gets a new one when it wakes. Programs that share a context share what one of them got.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bayplan.client import contexts
from bayplan.client.contexts import Context
from bayplan.client.errors import AccessDeniedError, BayplanError, ContextError, UnavailableError
from bayplan.identity.credentials import (
    Credentials,
    CredentialsError,
    OwnIdentity,
    load_credentials,
    save_credentials,
)

# While the certificate is good, a command does not wait longer than this for the next one.
PATIENCE_S = 5.0
# With one that ran out nothing else can be done; three managers that do not answer take as long.
PATIENCE_EXPIRED_S = 30.0
# Until a renewal that failed, or what failed of it, is tried again.
RETRY_S = 30.0

_LOCK_LOOK_EVERY_S = 0.05


class Renewal:
    """Renews what `own` shows, on disk and in memory.

    Args:
        file: the configuration that holds `context`.
        context: whose certificate it is.
        own: what the transport shows.
        managers: whom to ask for a new one.
        now_s: wall time.
        chance: spreads renewals.
    """

    def __init__(
        self,
        file: Path,
        context: Context,
        own: OwnIdentity,
        managers: Sequence[str],
        *,
        now_s: Callable[[], float] = time.time,
        chance: random.Random | None = None,
    ) -> None:
        self.context = context
        self._file = file
        self._directory = contexts.credentials_directory(file, context.name)
        self._own = own
        self._managers = tuple(managers)
        self._now_s = now_s
        self._chance = chance or random.Random()  # noqa: S311  # spreads load, guards nothing
        self._renewing = asyncio.Lock()
        self._due_s = own.credentials.renew_at_s(self._chance)
        self._key_on_disk = own.credentials.key_pem  # As far as we know.
        self._save_again_s = math.inf

    async def refresh(self) -> None:
        """Renew if it is time to.

        Raises:
            AccessDeniedError: the certificate ran out, and the managers give no other.
            UnavailableError: it ran out, and no manager answers.
        """
        if self._now_s() >= self._save_again_s:
            self._save()
        if self._now_s() < self._due_s:
            return
        async with self._renewing:
            if self._now_s() >= self._due_s:
                await self._renew()

    async def renew_now(self) -> None:
        """Whether it is due or not. Raises as `refresh` does, and only once the certificate has run out."""
        async with self._renewing:
            await self._renew()

    @property
    def _is_expired(self) -> bool:
        return self._now_s() >= self._own.credentials.expires_s

    async def _renew(self) -> None:
        from bayplan.identity.joining import JoinError

        try:
            patience_s = PATIENCE_EXPIRED_S if self._is_expired else PATIENCE_S
            until_s = asyncio.get_running_loop().time() + patience_s
            async with self._alone(until_s), asyncio.timeout_at(until_s):
                await self._adopt_or_ask()
        except (JoinError, CredentialsError, ContextError, OSError) as error:
            # TimeoutError is an OSError too.
            if self._is_expired:
                raise self._expired(error) from error
            # The old one is good: who may not go on with it is told so by the manager.
            self._due_s = min(self._now_s() + RETRY_S, self._own.credentials.expires_s)

    async def _adopt_or_ask(self) -> None:
        from bayplan.identity import joining
        from bayplan.transport.grpc import GrpcTransport

        on_disk = load_credentials(self._directory)
        if on_disk is not None and self._is_newer(on_disk):
            self._replace(on_disk)
            self._key_on_disk = on_disk.key_pem
            self._save_again_s = math.inf
            if self._now_s() < self._due_s:
                return
        if self._is_expired:
            joined = await joining.rejoin(self._managers, self._own.credentials)
        else:
            joined = await joining.renew(self._managers, GrpcTransport(self._own).channel)
        self._replace(joined.credentials)
        self._save()

    def _is_newer(self, found: Credentials) -> bool:
        """Whether another program renewed it. Somebody else who logged in to the context meanwhile is not us."""
        own = self._own.credentials
        return found.identity == own.identity and found.expires_s > own.expires_s

    def _replace(self, credentials: Credentials) -> None:
        self._own.replace(credentials)
        self._due_s = credentials.renew_at_s(self._chance)

    def _save(self) -> None:
        """Unless the context was deleted, or logged in to anew. Else again later: what is not kept can be shown."""
        try:
            with contexts.locked(self._file):
                on_disk = load_credentials(self._directory)
                if on_disk is not None and on_disk.key_pem == self._key_on_disk:
                    save_credentials(self._directory, self._own.credentials)
                    self._key_on_disk = self._own.credentials.key_pem
        except (CredentialsError, ContextError):
            self._save_again_s = self._now_s() + RETRY_S
        else:
            self._save_again_s = math.inf

    @asynccontextmanager
    async def _alone(self, until_s: float) -> AsyncIterator[None]:
        """No other program renews this context at the same time. Raises ContextError, OSError."""
        name = self.context.name
        lock = os.open(self._directory.with_name(f".{name}.renewal.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                async with asyncio.timeout_at(until_s):
                    while not contexts.try_lock(lock):  # noqa: ASYNC110  # its holder does not tell us
                        await asyncio.sleep(_LOCK_LOOK_EVERY_S)
            except TimeoutError as error:
                raise ContextError(
                    f'another program is renewing context "{name}" and did not end in time: try again'
                ) from error
            yield
        finally:
            os.close(lock)

    def _expired(self, error: Exception) -> BayplanError:
        from bayplan.identity.joining import JoinError

        ago = in_words(self._now_s() - self._own.credentials.expires_s)
        begin = f"your certificate expired {ago} ago and was not renewed"
        if isinstance(error, JoinError) and error.is_final:
            name = self._own.credentials.identity.name
            return AccessDeniedError(
                f"{begin}: {error}; ask an admin for `bay user create {name}`'s token and log in again"
            )
        if isinstance(error, TimeoutError):
            return UnavailableError(f"{begin}: no manager answered in time")
        if isinstance(error, OSError):
            return UnavailableError(f"{begin}: cannot write {error.filename}: {error.strerror}")
        return UnavailableError(f"{begin}: {error}")


def in_words(seconds: float) -> str:
    """A length of time, rounded down, as it stands in a sentence: 3 h."""
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s or (seconds >= unit_s and unit == "min"):
            return f"{int(seconds // unit_s)} {unit}"
    return f"{int(max(seconds, 0))} s"
