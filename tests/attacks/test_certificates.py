"""Certificates that should not count, shown to live managers, and by false ones."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bayplan.identity import certificates
from bayplan.identity.credentials import OwnIdentity
from bayplan.identity.joining import JoinError, join, rejoin
from bayplan.identity.names import Kind
from bayplan.identity.tokens import parse_token
from bayplan.transport.grpc import GrpcTransport, join_channel
from bayplan.v1 import access_pb2 as access
from bayplan.v1 import control_pb2 as control
from bayplan.v1.access_pb2_grpc import AccessServicer, AccessStub, add_AccessServicer_to_server
from bayplan.v1.callers_pb2 import ROLE_VIEWER
from bayplan.v1.control_pb2_grpc import ControlStub
from tests.attacks.world import Denial, Member, World, denial, read_to_end
from tests.free_ports import free_port

pytestmark = [pytest.mark.etcd, pytest.mark.asyncio(loop_scope="package")]

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
# A stolen key is of no use within this: "Attacks" of the fault list.
REVOKED_WITHIN_S = 5.0


async def shown_to(world: World, member: Member) -> list[Denial]:
    """What both managers say to it."""
    denied = []
    for manager in world.managers:
        async with member.channel(manager.address) as channel:
            denied.append(await denial(AccessStub(channel).WhoAmI(access.WhoAmIRequest(), timeout=5)))
    return denied


def by_hand(
    world: World,
    issuer: x509.Certificate,
    issuer_key: certificates.Key,
    *,
    usages: list[x509.ObjectIdentifier] | None,
    chain: tuple[x509.Certificate, ...] = (),
) -> Member:
    """The admin's name in a certificate that no code of ours would sign."""
    key = certificates.new_key()
    now = dt.datetime.now(dt.UTC)
    identity = world.identity(Kind.USER, "admin")
    public = issuer_key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, "1")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))]), critical=False
        )
    )
    if usages is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    leaf = builder.sign(issuer_key, hashes.SHA256())
    return Member(
        replace(
            world.admin.credentials,
            key_pem=certificates.key_to_pem(key),
            certificates_pem=certificates.to_pem(leaf, *chain),
        )
    )


class TestCertificatesThatDoNotCount:
    async def test_expired(self, world: World) -> None:
        member = world.signed(world.admin.identity, life_s=-1)

        assert [each.code for each in await shown_to(world, member)] == [UNAVAILABLE] * 2

    async def test_not_valid_yet(self, world: World) -> None:
        key = certificates.new_key()
        leaf = certificates.issue(
            world.managers[0].ca, key.public_key(), world.admin.identity,
            generation=1, life_s=7200, now_s=time.time() + 3600,
        )  # fmt: skip
        shown = replace(
            world.admin.credentials,
            key_pem=certificates.key_to_pem(key),
            certificates_pem=certificates.to_pem(leaf),
        )

        assert [each.code for each in await shown_to(world, Member(shown))] == [UNAVAILABLE] * 2

    async def test_of_a_foreign_root_with_our_clusters_name(self, world: World) -> None:
        root = certificates.new_root(world.cluster, now_s=time.time())
        member = world.signed(world.admin.identity, root=root)

        assert [each.code for each in await shown_to(world, member)] == [UNAVAILABLE] * 2

    async def test_of_a_foreign_root_with_our_roots_name_and_key_identifier(self, world: World) -> None:
        """Chains are looked up by name: it is the signature that counts."""
        ours = world.managers[0].ca.certificate
        false = certificates.Root(certificate=ours, key=certificates.new_key())
        member = world.signed(world.admin.identity, root=false)

        assert [each.code for each in await shown_to(world, member)] == [UNAVAILABLE] * 2

    async def test_self_signed(self, world: World) -> None:
        key = certificates.new_key()
        name = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, "1")])
        own = certificates.Root(
            certificate=(
                x509.CertificateBuilder()
                .subject_name(name)
                .issuer_name(name)
                .public_key(key.public_key())
                .serial_number(1)
                .not_valid_before(dt.datetime.now(dt.UTC))
                .not_valid_after(dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
                .sign(key, hashes.SHA256())
            ),
            key=key,
        )
        member = by_hand(world, own.certificate, key, usages=[ExtendedKeyUsageOID.CLIENT_AUTH])

        assert [each.code for each in await shown_to(world, member)] == [UNAVAILABLE] * 2

    async def test_for_servers_alone(self, world: World) -> None:
        ca = world.managers[0].ca
        member = by_hand(world, ca.certificate, ca.key, usages=[ExtendedKeyUsageOID.SERVER_AUTH])

        assert [each.code for each in await shown_to(world, member)] == [UNAVAILABLE] * 2

    async def test_signed_by_a_node(self, world: World) -> None:
        """A leaf may sign nothing."""
        node = world.members["node"].credentials
        (leaf,) = certificates.from_pem(node.certificates_pem)
        signer = certificates.key_from_pem(node.key_pem)
        member = by_hand(world, leaf, signer, usages=[ExtendedKeyUsageOID.CLIENT_AUTH], chain=(leaf,))

        assert [each.code for each in await shown_to(world, member)] == [UNAVAILABLE] * 2

    async def test_of_another_cluster_by_our_own_root(self, world: World) -> None:
        other = world.signed(world.identity(Kind.USER, "admin", cluster="ffffffffffffffff")).credentials
        # By its own identity a client knows whom to dial: one of theirs that is told to dial ours.
        denied = await shown_to(world, Member(replace(other, identity=world.admin.identity)))

        assert [each.code for each in denied] == [UNAUTHENTICATED] * 2
        assert "is for cluster ffffffffffffffff" in denied[0].words
        assert {entry.manager for entry in await world.audit(who=str(other.identity))} == {"m1", "m2"}

    async def test_of_somebody_who_was_never_let_in(self, world: World) -> None:
        """Whoever stole the root's key cannot make up a name: the store must know it."""
        member = world.signed(world.identity(Kind.USER, "made-up"))
        denied = await shown_to(world, member)

        assert [each.code for each in denied] == [UNAUTHENTICATED] * 2
        assert {entry.manager for entry in await world.audit(who="made-up")} == {"m1", "m2"}

    async def test_without_an_identity(self, world: World) -> None:
        """Our root signed it, and it names nobody of ours."""
        ca = world.managers[0].ca
        key = certificates.new_key()
        now = dt.datetime.now(dt.UTC)
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")]))
            .issuer_name(ca.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(hours=1))
            .sign(ca.key, hashes.SHA256())
        )
        shown = replace(
            world.admin.credentials,
            key_pem=certificates.key_to_pem(key),
            certificates_pem=certificates.to_pem(leaf),
        )

        assert [each.code for each in await shown_to(world, Member(shown))] == [UNAUTHENTICATED] * 2


@dataclass
class FalseManager(AccessServicer):
    """Notes everybody who asks to join."""

    heard: list[Any] = field(default_factory=list)

    async def Join(self, request: access.JoinRequest, context: Any) -> access.JoinReply:  # noqa: N802 - gRPC's
        self.heard.append(request)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "heard you")
        raise AssertionError

    async def WhoAmI(self, request: access.WhoAmIRequest, context: Any) -> access.WhoAmIReply:  # noqa: N802 - gRPC's
        self.heard.append((request, dict(context.auth_context())))
        return access.WhoAmIReply()


class TestANodeThatServesAsAManager:
    """Its certificate is good, and the root that it shows is the one that tokens pin."""

    async def test_nobody_speaks_to_it(self, world: World) -> None:
        false, port = FalseManager(), free_port(in_a_row=2)  # type: ignore[abstract]  # gRPC answers for the other methods
        transport = GrpcTransport(OwnIdentity(world.members["node"].credentials))
        register = partial(add_AccessServicer_to_server, false)
        listener = await transport.serve("127.0.0.1", port, [register], [])
        address = f"127.0.0.1:{port}"
        token = parse_token(await world.token("node"))
        try:
            async with world.admin.channel(address) as channel:
                denied = await denial(AccessStub(channel).WhoAmI(access.WhoAmIRequest(), timeout=5))
            with pytest.raises(JoinError):
                await join([address], token, name="n99")
            with pytest.raises(JoinError):
                await rejoin([address], world.members["node"].credentials)
        finally:
            await listener.stop(0)

        assert denied.code is UNAVAILABLE
        assert not false.heard


class TestRevocation:
    async def test_it_ends_calls_and_open_streams_on_every_manager(self, world: World) -> None:
        """The thief has streams open at both managers; one of them is told."""
        thief = await world.user("thief", ROLE_VIEWER)
        channels = [thief.channel(manager.address) for manager in world.managers]
        try:
            streams = [ControlStub(channel).Watch(control.ListRequest()) for channel in channels]
            for stream in streams:
                await stream.read()
            reading = [read_to_end(each, within_s=REVOKED_WITHIN_S) for each in streams]

            await world.access(0).RevokeIdentity(access.RevokeIdentityRequest(kind="user", name="thief"))

            assert {each.code for each in await asyncio.gather(*reading)} == {UNAUTHENTICATED}
            for channel in channels:
                denied = await denial(AccessStub(channel).WhoAmI(access.WhoAmIRequest()))
                assert denied == Denial(UNAUTHENTICATED, "the certificate of user thief was revoked")
        finally:
            for channel in channels:
                await channel.close()
        found = await world.audit(who=str(thief.identity))
        assert {(each.manager, each.method.rpartition("/")[2]) for each in found} >= {
            ("m1", "Watch"), ("m2", "Watch"), ("m1", "WhoAmI"), ("m2", "WhoAmI"),
        }  # fmt: skip

    async def test_nothing_leads_back_in(self, world: World) -> None:
        """Neither renewal, nor a certificate of an earlier generation, nor proof by one that ran out."""
        node = await world.node("stolen")
        before = world.signed(node.identity, life_s=-10)
        await world.access(0).RevokeIdentity(access.RevokeIdentityRequest(kind="node", name="stolen"))
        async with world.unchanged():
            request = access.RenewRequest(
                certificate_request=certificates.certificate_request(certificates.new_key())
            )
            async with node.channel(world.managers[1].address) as channel:
                denied = await denial(AccessStub(channel).Renew(request))
            with pytest.raises(JoinError, match="revoked"):
                await rejoin([await world.host()], before.credentials)
        # The name is given to another host.
        again = await world.node("stolen")

        assert denied.code is UNAUTHENTICATED
        assert {each.code for each in await shown_to(world, node)} == {UNAUTHENTICATED}
        async with again.channel(world.address) as channel:
            assert await AccessStub(channel).WhoAmI(access.WhoAmIRequest())

    async def test_a_certificate_that_ran_out_is_proof_for_its_own_name_alone(self, world: World) -> None:
        """Signed by another key, of another cluster, and too long ago."""
        node = world.members["node"]
        ran_out = world.signed(node.identity, life_s=-10)
        foreign = world.signed(
            node.identity, life_s=-10, root=certificates.new_root(world.cluster, now_s=time.time())
        )
        long_ago = world.signed(node.identity, made_s=time.time() - 31 * 86400)
        request = certificates.certificate_request(certificates.new_key())
        address = await world.host()

        def proof(member: Member, signer: Member) -> access.JoinRequest:
            shown = certificates.from_pem(member.credentials.certificates_pem)[0]
            key = certificates.key_from_pem(signer.credentials.key_pem)
            return access.JoinRequest(
                certificate_request=request,
                expired=access.ExpiredProof(
                    certificate=certificates.to_der(shown), signature=certificates.sign(key, request)
                ),
            )

        async with world.unchanged(), join_channel(address, world.roots_pem, world.cluster) as channel:
            for refused in (proof(ran_out, node), proof(foreign, foreign), proof(long_ago, long_ago)):
                assert (await denial(AccessStub(channel).Join(refused))).code is UNAUTHENTICATED
            garbage = access.JoinRequest(
                certificate_request=request, expired=access.ExpiredProof(certificate=b"x", signature=b"y")
            )
            assert (await denial(AccessStub(channel).Join(garbage))).code is grpc.StatusCode.INVALID_ARGUMENT


class TestTheEndOfALife:
    async def test_a_stream_ends_with_the_certificate_that_it_began_with(self, world: World) -> None:
        """And the connection is heard no more: it would outlive its certificate for as long as it is used."""
        member = world.signed(world.members["viewer"].identity, life_s=2.0)
        async with member.channel(world.address) as channel:
            stub = ControlStub(channel)
            stream = stub.Watch(control.ListRequest())
            await stream.read()

            assert (await read_to_end(stream, within_s=6)).code is UNAVAILABLE
            denied = await denial(stub.ListNodes(control.ListNodesRequest()))
            assert denied.code is UNAUTHENTICATED
            assert "has run out" in denied.words

    async def test_a_users_access_ends_on_open_streams_too(self, world: World) -> None:
        guest = await world.user("guest", ROLE_VIEWER, ttl_ms=2000)
        async with guest.channel(world.managers[1].address) as channel:
            stub = ControlStub(channel)
            stream = stub.Watch(control.ListRequest())
            await stream.read()

            assert (await read_to_end(stream, within_s=6)).code in {UNAUTHENTICATED, UNAVAILABLE}
            assert (await denial(stub.ListNodes(control.ListNodesRequest()))).code is UNAUTHENTICATED
        with pytest.raises(JoinError, match="the access of user guest has ended"):
            await rejoin([await world.host()], guest.credentials)
