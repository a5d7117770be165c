"""Managers' access on the etcd in memory, and those who are let in."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec

from bayplan.identity import certificates
from bayplan.identity.names import Identity, Kind
from bayplan.identity.tokens import JoinToken
from manager.access import records
from manager.access.authority import Authority
from manager.access.gate import void_reason
from manager.access.registry import Registry
from manager.access.roots import Issued, Roots
from manager.access.tokens import Tokens
from manager.store import keys
from manager.store.port import Put
from manager.store.sealed import SealedStore
from manager.store.sealing import ClusterKey
from tests.fakes.store import FakeEtcd, FakeStore

CLUSTER = "3f2a9c1d5e7b4a60"
CLUSTER_KEY = ClusterKey.generate()
START_S = 1_790_000_000.0
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


@dataclass
class Clock:
    """Wall time, which tests put forward."""

    now_s: float = START_S

    def __call__(self) -> float:
        return self.now_s

    @property
    def now_ms(self) -> int:
        return int(self.now_s * 1000)


@dataclass
class Member:
    """Somebody who was let in, and the key that nobody else has."""

    key: certificates.Key
    issued: Issued

    @property
    def leaf(self) -> certificates.Leaf:
        return certificates.read_leaf(certificates.from_pem(self.issued.certificates_pem)[0])

    @property
    def life_s(self) -> float:
        return self.leaf.expires_s - self.leaf.issued_s


def public(key: certificates.Key | None = None) -> ec.EllipticCurvePublicKey:
    """Of a new key unless one is given."""
    return (key or certificates.new_key()).public_key()


def an_identity(
    name: str = "n1", *, kind: str = "node", generation: int = 1, **more: object
) -> records.IdentityRecord:
    """As it is kept."""
    facts = {"created_ms": 1, **more}
    return records.IdentityRecord(kind=kind, name=name, generation=generation, **facts)  # type: ignore[arg-type]


def identity(kind: Kind, name: str) -> Identity:
    return Identity(cluster=CLUSTER, kind=kind, name=name)


@dataclass
class Desk:
    """The parts of access of one manager."""

    server: FakeEtcd
    clock: Clock
    name: str = "m1"
    life_s: float = DAY_S
    key: ClusterKey = CLUSTER_KEY
    store: SealedStore = field(init=False)
    registry: Registry = field(init=False)
    roots: Roots = field(init=False)
    tokens: Tokens = field(init=False)
    authority: Authority = field(init=False)

    def __post_init__(self) -> None:
        self.store = SealedStore(FakeStore(self.server, self.name), self.key)
        self.registry = Registry(self.store)
        self.roots = Roots(self.store, self.registry, cluster=CLUSTER, life_s=self.life_s, wall_s=self.clock)
        self.tokens = Tokens(self.store, wall_s=self.clock)
        self.authority = Authority(self.store, self.registry, self.roots, self.tokens, wall_s=self.clock)

    # -- letting in ----------------------------------------------------------------------------

    async def token(
        self, kind: Kind = Kind.NODE, *, name: str = "", ttl_ms: int = 0, uses: int = 0
    ) -> JoinToken:
        digest = self.roots.signing_digest
        token, _ = await self.tokens.create(kind, digest, name=name, ttl_ms=ttl_ms, uses=uses, made_by="anna")
        return token

    async def join(
        self, token: JoinToken, name: str = "n1", *, key: certificates.Key | None = None
    ) -> Member:
        key = key or certificates.new_key()
        request = certificates.certificate_request(key)
        issued = await self.authority.join_by_token(
            request, token_id=token.id, secret=token.secret, name=name
        )
        return Member(key, issued)

    async def node(self, name: str = "n1") -> Member:
        return await self.join(await self.token(Kind.NODE), name)

    async def user(self, name: str = "anna", *, role: int = 3, access_ends_ms: int = 0) -> Member:
        await self.authority.create_user(name, role=role, access_ends_ms=access_ends_ms)
        return await self.join(await self.token(Kind.USER, name=name))

    async def renew(self, member: Member) -> Member:
        """As who shows its certificate is answered."""
        key, leaf = certificates.new_key(), member.leaf
        issued = await self.authority.renew(leaf.identity, leaf.generation, key.public_key())
        return Member(key, issued)

    async def rejoin(self, member: Member, *, signer: certificates.Key | None = None) -> Member:
        """As who shows one that ran out."""
        key = certificates.new_key()
        request = certificates.certificate_request(key)
        issued = await self.authority.join_by_expired(
            request,
            certificate=certificates.to_der(member.leaf.certificate),
            signature=certificates.sign(signer or member.key, request),
        )
        return Member(key, issued)

    # -- looking -------------------------------------------------------------------------------

    async def kept(self, kind: str, name: str) -> records.IdentityRecord:
        """What the store has of an identity, whatever memory says."""
        found = await self.store.get(keys.pki_identity(kind, name))
        assert found is not None
        return records.decode_identity(found.value)

    def is_void(self, member: Member) -> bool:
        """Whether the gate of this manager would refuse it."""
        leaf = member.leaf
        record = self.registry.identities[(leaf.identity.kind.value, leaf.identity.name)]
        return bool(void_reason(record, leaf.generation, now_ms=self.clock.now_ms))

    async def uses_left(self, token: JoinToken) -> int:
        return next(each.uses_left for each in await self.tokens.all() if each.id == token.id)

    async def put(self, record: records.IdentityRecord) -> None:
        """Behind everybody's back."""
        key = keys.pki_identity(record.kind, record.name)
        await self.store.txn((), (Put(key=key, value=records.encode(record)),))


async def a_desk(
    server: FakeEtcd, clock: Clock, name: str = "m1", *, life_s: float = DAY_S, key: ClusterKey = CLUSTER_KEY
) -> Desk:
    """A manager's, in a cluster that is founded if it is not."""
    desk = Desk(server, clock, name, life_s, key)
    await desk.store.open()
    await desk.roots.found(None, ())
    return desk
