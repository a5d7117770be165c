"""The agent's own identity: got once by a join token, then renewed for as long as the agent runs.

An agent whose certificate ran out while no manager could be reached shows it all the same, at the
managers' join port and with a signature of its key, and is given a new one unless it was revoked.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from agent.settings import AgentSettings
from bayplan.identity.credentials import Credentials, OwnIdentity, load_credentials, save_credentials
from bayplan.identity.joining import Joined, JoinError, join, joining_key, rejoin, renew
from bayplan.identity.names import Kind
from bayplan.identity.tokens import TokenError, parse_token
from bayplan.transport.port import Transport

log = structlog.get_logger(__name__)

DIRECTORY = "identity"
JOIN_RETRY_S = 2.0
# A token that is refused now will not be good later; the operator puts another into the file.
REFUSED_RETRY_S = 30.0
_RETRY_MIN_S = 1.0
_RETRY_MAX_S = 30.0
# Without a good certificate the node is of no use: a link that comes back is found out soon.
_RETRY_EXPIRED_S = 2.0
# Wall time leaps when a host was asleep or its clock is set; the loop's timers do not notice.
_LOOK_EVERY_S = 60.0
# When every agent is told to renew, they come spread over this long.
SPREAD_S = 5.0


# `joining.join`, `renew` and `rejoin`, or what takes their place in a test.
Asks = Callable[..., Awaitable[Joined]]


class NoTokenError(Exception):
    """A host that is no node yet, and was given nothing to become one with; the text says what it needs."""


async def own_identity(settings: AgentSettings, *, joining: Asks = join) -> OwnIdentity:
    """The one on disk, else one by the join token, however long that takes.

    Raises: NoTokenError, CredentialsError, OSError.
    """
    directory = settings.data_dir / DIRECTORY
    known = load_credentials(directory)
    if known is not None and known.identity.name != settings.node:
        raise NoTokenError(
            f"{directory} belongs to node {known.identity.name}, and --node says {settings.node}: to let this"
            " host join under another name, empty the data directory and give it a new join token"
        )
    if known is None:
        known = await _join(settings, directory, joining)
    return OwnIdentity(known)


async def _join(settings: AgentSettings, directory: Path, joining: Asks) -> Credentials:
    if not settings.join_token and settings.join_token_file is None:
        raise NoTokenError(
            f"{directory} holds no identity: this host joins with --join-token-file or --join-token"
            " (`bay join-token create --role node` prints the whole command)"
        )
    while True:
        wait_s = JOIN_RETRY_S
        try:
            text = _token(settings)
            if text:
                token = parse_token(text)
                with joining_key(directory, token.id) as key:
                    joined = await joining(settings.managers, token, name=settings.node, key=key)
                    # What is for somebody else has no place on a node.
                    if joined.credentials.identity.kind is Kind.NODE:
                        save_credentials(directory, joined.credentials)
                _check_kind(joined)
                log.info("node.joined", identity=str(joined.credentials.identity))
                return joined.credentials
            log.info("join.waiting", file=str(settings.join_token_file))
        except TokenError as error:
            raise NoTokenError(str(error)) from error
        except JoinError as error:
            log.error("join.failed", error=str(error), final=error.is_final)  # noqa: TRY400 - says all
            wait_s = REFUSED_RETRY_S if error.is_final else JOIN_RETRY_S
        await asyncio.sleep(wait_s)


def _check_kind(joined: Joined) -> None:
    kind = joined.credentials.identity.kind
    if kind is not Kind.NODE:
        raise NoTokenError(
            f"the join token is for a {kind}, not for a node: make another one with"
            " `bay join-token create --role node`"
        )


def _token(settings: AgentSettings) -> str:
    if settings.join_token:
        return settings.join_token
    assert settings.join_token_file is not None
    try:
        return settings.join_token_file.read_text(errors="replace").strip()
    except FileNotFoundError:
        return ""


class Renewal:
    """Keeps the certificate fresh.

    Args:
        managers: addresses to ask, any of them.
    """

    def __init__(
        self,
        own: OwnIdentity,
        directory: Path,
        *,
        transport: Transport,
        managers: Callable[[], Sequence[str]],
        wall_s: Callable[[], float],
        chance: random.Random,
        renewing: Asks = renew,
        rejoining: Asks = rejoin,
    ) -> None:
        self._own = own
        self._directory = directory
        self._transport = transport
        self._managers = managers
        self._wall_s = wall_s
        self._chance = chance
        self._renewing = renewing
        self._rejoining = rejoining
        self._asked = asyncio.Event()
        self._is_saved = True

    def ask(self) -> None:
        """The managers want every agent to renew."""
        self._asked.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wait_until_due()
            await self._renew()

    async def _wait_until_due(self) -> None:
        due_s = self._own.credentials.renew_at_s(self._chance)
        while not self._asked.is_set() and (left_s := due_s - self._wall_s()) > 0:
            try:
                async with asyncio.timeout(min(left_s, _LOOK_EVERY_S)):
                    await self._asked.wait()
            except TimeoutError:
                if not self._is_saved:
                    self._save()
        if self._asked.is_set():
            await asyncio.sleep(self._chance.uniform(0.0, SPREAD_S))
        self._asked.clear()

    async def _renew(self) -> None:
        pause_s = _RETRY_MIN_S
        while True:
            try:
                joined = await self._ask_managers()
            except JoinError as error:
                left_s = self._own.credentials.expires_s - self._wall_s()
                log.warning("certificate.not_renewed", error=str(error), good_for_s=round(left_s))
                # Who was refused asks seldom, who cannot be heard often once it matters.
                most_s = REFUSED_RETRY_S if error.is_final else max(left_s, _RETRY_EXPIRED_S)
                await asyncio.sleep(self._chance.uniform(0.5, 1.0) * min(pause_s, most_s))
                pause_s = min(pause_s * 2, _RETRY_MAX_S)
            else:
                self._own.replace(joined.credentials)
                log.info("certificate.renewed", expires_s=round(joined.credentials.expires_s))
                self._save()
                return

    def _save(self) -> None:
        """A full disk costs nothing but the restart: then the one before, which is on it, must do."""
        try:
            save_credentials(self._directory, self._own.credentials)
        except OSError as error:
            log.warning("certificate.not_saved", error=str(error))
            self._is_saved = False
        else:
            self._is_saved = True

    async def _ask_managers(self) -> Joined:
        # In another order each time: one that cannot be reached must not cost every agent its patience.
        managers = list(self._managers())
        self._chance.shuffle(managers)
        if self._wall_s() < self._own.credentials.expires_s:
            return await self._renewing(managers, self._transport.channel)
        return await self._rejoining(managers, self._own.credentials)
