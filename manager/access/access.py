"""All of identity in one manager: how it gets its own, and what it keeps running for the others'.

A manager that finds an empty store founds the cluster: it makes the cluster key, the CA, its own
certificate, and a token for the first admin. One that is told whom to join is let in by a token and
given the cluster key. Who has the cluster key is a manager: it can sign for itself.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog

from bayplan.identity import certificates
from bayplan.identity.credentials import (
    Credentials,
    OwnIdentity,
    load_credentials,
    save_credentials,
    write_private,
)
from bayplan.identity.joining import Joined, JoinError, join, joining_key
from bayplan.identity.names import Identity, Kind
from bayplan.identity.tokens import TokenError, parse_token
from bayplan.transport.grpc import join_address
from bayplan.v1 import callers_pb2
from manager.access.audit import Audit
from manager.access.authority import Authority
from manager.access.backup import Backup, read_backup, write_backup
from manager.access.cluster_keys import FILE, ClusterKeys, read_keys
from manager.access.connections import Connections
from manager.access.gate import Gate
from manager.access.registry import Registry
from manager.access.roots import Issued, Roots
from manager.access.settings import AccessSettings
from manager.access.tokens import NotLetInError, Tokens
from manager.errors import RefusedError
from manager.store import keys
from manager.store.meta import ensure_meta
from manager.store.port import Store, StoreError
from manager.store.sealed import SealedStore
from manager.store.sealing import ClusterKey, cluster_key_from_command, write_cluster_key
from manager.store.swap import ConflictError

log = structlog.get_logger(__name__)

ADMIN = "admin"
ADMIN_TOKEN_FILE = "admin.token"  # noqa: S105 - a file's name
ADMIN_TOKEN_TTL_MS = 24 * 3600 * 1000
JOIN_RETRY_S = 2.0
_SETTLE_EVERY_S = 5.0


class NotAMemberError(Exception):
    """A manager that cannot be one of this cluster; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What `begin` has put together."""

    store: SealedStore
    own: OwnIdentity
    registry: Registry
    roots: Roots
    tokens: Tokens
    authority: Authority
    audit: Audit
    cluster_keys: ClusterKeys
    directory: Path
    chance: random.Random
    wall_s: Callable[[], float]

    @property
    def cluster(self) -> str:
        """Its id: that of this manager's certificate, whatever the store says."""
        return self.own.credentials.identity.cluster

    def gate(self, methods: dict[str, callers_pb2.Callers], *, called: Callable[[str, str], None]) -> Gate:
        """In front of every method that this manager serves. `called`: as the gate has it."""
        return Gate(
            methods,
            registry=self.registry,
            audit=self.audit,
            cluster=lambda: self.cluster,
            manager=self.own.credentials.identity.name,
            wall_s=self.wall_s,
            called=called,
        )

    async def establish(self) -> None:
        """Make sure that the store has a keyring and a CA: it may have been wiped. Raises StoreError."""
        await self.store.open()
        await self.roots.found(self.registry.ca, tuple(self.registry.identities.values()))

    async def run(
        self,
        is_leading: Callable[[], bool],
        ports: tuple[int, int],
        managers: Callable[[], Iterable[str]] = lambda: (),
    ) -> None:
        """Until cancelled. Raises NotAMemberError when this manager is revoked.

        Args:
            is_leading: whether this manager does.
            ports: main and join port.
            managers: addresses of the others, host:port: one of them may pass hundreds of agents on.
        """
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self.store.watch_keyring(), name="keyring")
            parts.create_task(self.registry.run(), name="identities")
            parts.create_task(self.audit.run(), name="audit")
            parts.create_task(self.cluster_keys.run(), name="cluster-key")
            parts.create_task(self._keep_certificate(), name="certificate")
            parts.create_task(self._keep_copy(), name="identities-copy")
            parts.create_task(self._end_rotations(is_leading), name="ca-rotation")
            parts.create_task(Connections(ports, managers=managers).run(), name="connections")

    # -- its own certificate -------------------------------------------------------------------

    async def _keep_certificate(self) -> None:
        """A new one at 50-70 % of its life, and when the roots change."""
        changed = asyncio.Event()
        self.registry.changed.append(changed.set)
        renew_at_s = self.own.credentials.renew_at_s(self.chance)
        while True:
            is_due = self.wall_s() >= renew_at_s
            if is_due or self.own.credentials.roots_pem != self.roots.as_pem():
                await self._renew()
                renew_at_s = self.own.credentials.renew_at_s(self.chance)
            self._check_member()
            changed.clear()
            try:
                async with asyncio.timeout(max(0.5, min(renew_at_s - self.wall_s(), 60.0))):
                    await changed.wait()
            except TimeoutError:
                pass

    async def _renew(self) -> None:
        key, identity = certificates.new_key(), self.own.credentials.identity
        record = self.registry.identities.get((identity.kind.value, identity.name))
        if record is None:
            return
        try:
            issued = await self.authority.renew(identity, record.generation, key.public_key())
        except NotLetInError as error:
            raise NotAMemberError(f"{error}: this manager stops") from error
        except (StoreError, ConflictError) as error:
            log.warning("certificate.not_renewed", error=str(error))
            return
        credentials = _credentials(issued, key)
        try:
            save_credentials(self.directory / "identity", credentials)
        except OSError as error:
            # A full disk stops no manager: it can always sign for itself, so the one on disk may be old.
            log.error("certificate.not_saved", error=str(error))  # noqa: TRY400 - says all
        self.own.replace(credentials)
        log.info("certificate.renewed", expires_s=credentials.expires_s)

    def _check_member(self) -> None:
        identity = self.own.credentials.identity
        record = self.registry.identities.get((identity.kind.value, identity.name))
        if record is not None and record.is_revoked:
            raise NotAMemberError(
                f"manager {identity.name} was revoked: it stops. To let this host join again, remove"
                f" {self.directory} and start it with a new join token"
            )

    # -- the copy on disk ----------------------------------------------------------------------

    async def _keep_copy(self) -> None:
        changed = asyncio.Event()
        self.registry.changed.append(changed.set)
        while True:
            changed.clear()
            copy = Backup(ca=self.registry.ca, identities=tuple(self.registry.identities.values()))
            text, _ = self.cluster_keys.current()
            try:
                await asyncio.to_thread(
                    write_backup, self.directory, copy, ClusterKey.from_text(text.decode())
                )
            except OSError as error:
                log.error("identities_copy.not_written", error=str(error))  # noqa: TRY400 - says all
            await changed.wait()
            await asyncio.sleep(1.0)

    # -- rotation of the CA --------------------------------------------------------------------

    async def _end_rotations(self, is_leading: Callable[[], bool]) -> None:
        """Drop the old root once nobody holds a good certificate of it."""
        while True:
            await asyncio.sleep(_SETTLE_EVERY_S)
            ca = self.registry.ca
            if ca is None or len(ca.roots) < 2 or not is_leading() or self.roots.waiting():
                continue
            try:
                await self.roots.finish()
            except (StoreError, RefusedError) as error:
                log.info("ca.rotation_not_finished", error=str(error))

    # -- the first admin -----------------------------------------------------------------------

    async def new_admin_token(self) -> Path:
        """Write a token for the user `admin` into the data directory, and say where. Raises StoreError."""
        token, _ = await self.tokens.create(
            Kind.USER,
            self.roots.signing_digest,
            name=ADMIN,
            ttl_ms=ADMIN_TOKEN_TTL_MS,
            uses=1,
            made_by="this host",
        )
        path = self.directory / ADMIN_TOKEN_FILE
        await asyncio.to_thread(write_private, path, f"{token}\n".encode())
        # Last: where there is a user, whoever founds the cluster makes no token any more.
        await self.authority.create_user(ADMIN, role=callers_pb2.ROLE_ADMIN, access_ends_ms=0)
        return path


async def begin(
    settings: AccessSettings,
    *,
    manager_id: str,
    etcd: Store,
    wall_s: Callable[[], float],
    chance: random.Random,
    joining: Callable[..., Awaitable[Joined]] | None = None,
) -> Access:
    """Found the cluster, join it (by showing a token to another manager: `joining`), or be who this manager was before.

    Raises: NotAMemberError, CredentialsError, ClusterKeyError, WrongClusterKeyError, StoreError, OSError.
    """
    directory = settings.data_dir
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.chmod(0o700)
    credentials = load_credentials(directory / "identity")
    key, next_key = await _cluster_key(settings)
    _check_name(directory, credentials, manager_id)
    if credentials is None and settings.join:
        joined = await _join(settings, manager_id, joining or join)
        credentials = joined.credentials
        if not settings.cluster_key_command:
            key = ClusterKey.from_text(joined.cluster_key.decode())
    if key is None:
        key = await _founding_key(etcd, directory, credentials)
    meta = await ensure_meta(
        etcd, lambda: secrets.token_hex(8), cluster_id=credentials.identity.cluster if credentials else ""
    )
    _check_cluster(directory, credentials, meta.cluster_id)
    store = SealedStore(etcd, key)
    if next_key is not None:
        store.replace_cluster_key(next_key)
    await store.open()
    registry = Registry(store)
    roots = Roots(store, registry, cluster=meta.cluster_id, life_s=settings.certificate_life_s, wall_s=wall_s)
    tokens = Tokens(store, wall_s=wall_s)
    cluster_keys = ClusterKeys(
        store, key, None if settings.cluster_key_command else directory, following=next_key
    )
    authority = Authority(
        store, registry, roots, tokens, wall_s=wall_s, check_manager=cluster_keys.check_settled
    )
    backup = read_backup(directory, [each for each in (next_key, key) if each is not None])
    if await roots.found(backup.ca, backup.identities):
        log.warning("ca.founded", root=roots.signing_digest, from_copy=backup.ca is not None)
    if credentials is None:
        credentials = await _enrol(authority, directory, meta.cluster_id, manager_id)
    elif wall_s() >= credentials.expires_s:
        # It was stopped for long. Whoever it serves first shall see a good one.
        credentials = await _renewed(authority, directory, credentials)
    access = Access(
        store=store,
        own=OwnIdentity(credentials),
        registry=registry,
        roots=roots,
        tokens=tokens,
        authority=authority,
        audit=Audit(directory / "audit.jsonl", wall_s=wall_s),
        cluster_keys=cluster_keys,
        directory=directory,
        chance=chance,
        wall_s=wall_s,
    )
    if not any(record.kind == Kind.USER for record in registry.identities.values()):
        path = await access.new_admin_token()
        log.warning(
            "cluster.founded", cluster=meta.cluster_id, root=roots.signing_digest,
            next=f"run `bay init` on this host: it logs in with the token in {path}",
        )  # fmt: skip
    return access


def _check_name(directory: Path, credentials: Credentials | None, manager_id: str) -> None:
    if credentials is not None and credentials.identity.name != manager_id:
        raise NotAMemberError(
            f"{directory} belongs to manager {credentials.identity.name}, and --id says {manager_id}:"
            " give each manager a --data-dir of its own"
        )


def _check_cluster(directory: Path, credentials: Credentials | None, cluster: str) -> None:
    if credentials is not None and credentials.identity.cluster != cluster:
        raise NotAMemberError(
            f"{directory} belongs to cluster {credentials.identity.cluster}, and this etcd to {cluster}:"
            " point --etcd at its own, or empty the directory and join this one"
        )


async def _cluster_key(settings: AccessSettings) -> tuple[ClusterKey | None, ClusterKey | None]:
    if settings.cluster_key_command:
        return await cluster_key_from_command(settings.cluster_key_command), None
    return read_keys(settings.data_dir)


async def _founding_key(etcd: Store, directory: Path, credentials: Credentials | None) -> ClusterKey:
    """For a cluster that does not exist yet."""
    if credentials is not None or await etcd.get(keys.KEYRING) is not None:
        raise NotAMemberError(
            f"this cluster exists, and {directory} has no {FILE}: run `bay join-token create --role manager`"
            " where you are logged in, empty this directory, and start this manager with --join HOST:PORT and"
            " --join-token-file"
        )
    key = ClusterKey.generate()
    # On disk before anything is encrypted under it.
    write_cluster_key(directory / FILE, key)
    return key


async def _enrol(authority: Authority, directory: Path, cluster: str, manager_id: str) -> Credentials:
    """A certificate by our own hand: whoever holds the cluster key can sign."""
    key = certificates.new_key()
    identity = Identity(cluster=cluster, kind=Kind.MANAGER, name=manager_id)
    return _kept(directory, await authority.enrol(identity, key.public_key()), key)


async def _renewed(authority: Authority, directory: Path, expired: Credentials) -> Credentials:
    leaf = certificates.read_leaf(certificates.from_pem(expired.certificates_pem)[0])
    key = certificates.new_key()
    try:
        issued = await authority.renew(leaf.identity, leaf.generation, key.public_key())
    except NotLetInError as error:
        raise NotAMemberError(
            f"{error}. To let this host join again, remove {directory} and start it with a new join token"
        ) from error
    return _kept(directory, issued, key)


def _kept(directory: Path, issued: Issued, key: certificates.Key) -> Credentials:
    """On disk before it is shown."""
    credentials = _credentials(issued, key)
    save_credentials(directory / "identity", credentials)
    return credentials


def _credentials(issued: Issued, key: certificates.Key) -> Credentials:
    leaf = certificates.read_leaf(certificates.from_pem(issued.certificates_pem)[0])
    return Credentials(
        identity=issued.identity,
        issued_s=leaf.issued_s,
        expires_s=leaf.expires_s,
        key_pem=certificates.key_to_pem(key),
        certificates_pem=issued.certificates_pem,
        roots_pem=issued.roots_pem,
    )


async def _join(
    settings: AccessSettings, manager_id: str, joining: Callable[..., Awaitable[Joined]]
) -> Joined:
    """By the token, as soon as there is one and the other manager answers. Raises NotAMemberError."""
    while True:
        text = settings.join_token
        if not text and settings.join_token_file is not None and settings.join_token_file.exists():
            text = settings.join_token_file.read_text(errors="replace").strip()
        if not text and settings.join_token_file is None:
            raise NotAMemberError(
                "joining needs --join-token-file or --join-token: `bay join-token create --role manager`"
            )
        try:
            if text:
                token = parse_token(text)
                with joining_key(settings.data_dir, token.id) as key:
                    joined = await joining([settings.join], token, name=manager_id, key=key)
                    # What is for somebody else has no place here.
                    if joined.credentials.identity.kind is Kind.MANAGER:
                        _keep_joined(settings, joined)
                _check_kind(joined)
                return joined
            log.info("join.waiting", file=str(settings.join_token_file))
        except TokenError as error:
            raise NotAMemberError(str(error)) from error
        except JoinError as error:
            if error.is_final:
                raise NotAMemberError(f"{settings.join}: {error}") from error
            log.warning("join.failed", manager=join_address(settings.join), error=str(error))
        await asyncio.sleep(JOIN_RETRY_S)


def _keep_joined(settings: AccessSettings, joined: Joined) -> None:
    if not settings.cluster_key_command:
        # Whatever lay there before, such as that of a founding that another manager was faster with.
        key = ClusterKey.from_text(joined.cluster_key.decode())
        write_cluster_key(settings.data_dir / FILE, key)
    save_credentials(settings.data_dir / "identity", joined.credentials)


def _check_kind(joined: Joined) -> None:
    kind = joined.credentials.identity.kind
    if kind is not Kind.MANAGER:
        raise NotAMemberError(
            f"the join token is for a {kind}, not for a manager: make another one with"
            " `bay join-token create --role manager`"
        )
