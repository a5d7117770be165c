"""Join tokens in the wrong hands, and who is told their secrets."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bayplan.identity import certificates
from bayplan.identity.joining import JoinError, join
from bayplan.identity.names import Kind
from bayplan.identity.tokens import JoinToken, parse_token
from bayplan.v1 import access_pb2 as access
from bayplan.v1.access_pb2_grpc import AccessStub
from bayplan.v1.callers_pb2 import ROLE_VIEWER
from manager.access.attempts import FAILURES_MAX
from manager.store import keys
from tests.attacks.world import Member, World, denial
from tests.free_ports import free_port

pytestmark = [pytest.mark.etcd, pytest.mark.asyncio(loop_scope="package")]

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


async def uses_left(world: World, token: JoinToken) -> int:
    tokens = (await world.access().ListJoinTokens(access.ListJoinTokensRequest())).tokens
    return next(each.uses_left for each in tokens if each.id == token.id)


class TestTokensThatDoNotCount:
    async def test_used_up(self, world: World) -> None:
        token = parse_token(await world.token("node"))
        host = await world.host()
        await world.ask_to_join(host, token, "used-1")
        async with world.unchanged():
            denied = await denial(world.ask_to_join(host, token, "used-2"))

        assert denied.code is UNAUTHENTICATED
        assert "used up" in denied.words

    async def test_expired(self, world: World) -> None:
        token = parse_token(await world.token("node", ttl_ms=1))
        async with world.unchanged():
            denied = await denial(world.ask_to_join(await world.host(), token, "expired-1"))

        assert denied.code is UNAUTHENTICATED
        assert "expired" in denied.words

    async def test_revoked(self, world: World) -> None:
        token = parse_token(await world.token("node"))
        await world.access().RevokeJoinToken(access.RevokeJoinTokenRequest(id=token.id))
        async with world.unchanged():
            denied = await denial(world.ask_to_join(await world.host(), token, "revoked-1"))

        assert denied.code is UNAUTHENTICATED
        assert "revoked" in denied.words

    async def test_with_a_wrong_secret_or_id_and_nobody_learns_which(self, world: World) -> None:
        token = parse_token(await world.token("node"))
        address = await world.host()
        wrong = [
            replace(token, secret="0" * 32),
            replace(token, secret=""),
            replace(token, secret=token.secret[:-1]),
            replace(token, id="0" * 10),
            replace(token, id="../tokens/" + token.id),
        ]
        async with world.unchanged():
            denied = [await denial(world.ask_to_join(address, each, "wrong-1")) for each in wrong]

        assert {each.code for each in denied} == {UNAUTHENTICATED}
        assert len({each.words for each in denied}) == 1

    async def test_of_a_user_who_was_revoked(self, world: World) -> None:
        made = await world.access().CreateUser(access.CreateUserRequest(name="left", role=ROLE_VIEWER))
        await world.access().RevokeIdentity(access.RevokeIdentityRequest(kind="user", name="left"))
        async with world.unchanged():
            denied = await denial(world.ask_to_join(await world.host(), parse_token(made.token), ""))

        assert denied.code is UNAUTHENTICATED

    async def test_refusals_are_written_down(self, world: World) -> None:
        token = replace(parse_token(await world.token("node")), secret="f" * 32)
        address = await world.host()
        await denial(world.ask_to_join(address, token, "noted-1"))

        (entry,) = await world.audit(address=address.partition(":")[0])
        assert (entry.who, entry.method, entry.outcome) == ("", "bayplan.v1.Access/Join", "UNAUTHENTICATED")
        assert "not valid here" in entry.why
        assert "f" * 32 not in str(entry)


class TestATokenForAnotherRole:
    async def test_a_nodes_token_makes_a_node_whatever_name_is_given(self, world: World) -> None:
        """A manager's name leads neither to a manager's identity nor to the cluster key."""
        token = parse_token(await world.token("node"))
        reply = await world.ask_to_join(await world.host(), token, "m1")

        assert reply.identity == f"spiffe://{world.cluster}/node/m1"
        assert (reply.cluster_key, reply.cluster_key_id) == (b"", "")
        leaf = certificates.from_pem(reply.certificates.encode())[0]
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]

    async def test_a_users_token_makes_that_user_whatever_name_is_given(self, world: World) -> None:
        made = await world.access().CreateUser(access.CreateUserRequest(name="ursula", role=ROLE_VIEWER))
        reply = await world.ask_to_join(await world.host(), parse_token(made.token), "admin")

        assert reply.identity == f"spiffe://{world.cluster}/user/ursula"
        assert reply.role == ROLE_VIEWER
        assert reply.cluster_key == b""

    async def test_a_name_that_is_taken_is_not_taken_over(self, world: World) -> None:
        for kind, name in (("node", "n1"), ("manager", "m1")):
            token = parse_token(await world.token(kind))
            async with world.unchanged():
                denied = await denial(world.ask_to_join(await world.host(), token, name))

            assert denied.code is grpc.StatusCode.FAILED_PRECONDITION
            assert await uses_left(world, token) == 1

    async def test_tokens_beyond_every_measure_are_not_made(self, world: World) -> None:
        async with world.unchanged():
            for request in (
                access.CreateJoinTokenRequest(kind="user"),
                access.CreateJoinTokenRequest(kind="admin"),
                access.CreateJoinTokenRequest(kind="node", ttl_ms=366 * 86400 * 1000),
                access.CreateJoinTokenRequest(kind="node", ttl_ms=-1),
                access.CreateJoinTokenRequest(kind="node", uses=100_000),
                access.CreateJoinTokenRequest(kind="node", uses=-1),
            ):
                denied = await denial(world.access().CreateJoinToken(request))
                assert denied.code in {
                    grpc.StatusCode.INVALID_ARGUMENT,
                    grpc.StatusCode.FAILED_PRECONDITION,
                }


class TestGuessing:
    async def test_a_host_that_guesses_is_made_to_wait_and_others_are_not(self, world: World) -> None:
        token = parse_token(await world.token("node", uses=2))
        address, other = await world.host(), await world.host()
        async with world.unchanged():
            for guess in range(FAILURES_MAX):
                guessed = replace(token, secret=f"{guess:032x}")
                assert (await denial(world.ask_to_join(address, guessed, "guess-1"))).code is UNAUTHENTICATED
            # Even the right one, so that trying on tells nothing.
            denied = await denial(world.ask_to_join(address, token, "guess-1"))
        await world.ask_to_join(other, token, "guess-2")

        assert denied.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "too many failed attempts to join" in denied.words
        assert " wait " in denied.words
        outcomes = {entry.outcome for entry in await world.audit(address=address.partition(":")[0])}
        assert outcomes == {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"}


class TestRepetition:
    async def test_a_lost_answer_is_given_again_and_uses_nothing_up(self, world: World) -> None:
        """The same key asks twice, of two managers; another key with the token is refused."""
        token = parse_token(await world.token("node"))
        request = certificates.certificate_request(certificates.new_key())
        first, second = [await world.host(manager) for manager in world.managers]
        once = await world.ask_to_join(first, token, "lost-1", request=request)
        again = await world.ask_to_join(second, token, "lost-1", request=request)
        denied = await denial(world.ask_to_join(second, token, "lost-1"))

        assert once.identity == again.identity
        assert await uses_left(world, token) == 0
        assert denied.code is UNAUTHENTICATED

    @pytest.mark.parametrize("race", range(5))
    async def test_of_two_hosts_that_race_for_the_last_use_one_wins(self, world: World, race: int) -> None:
        token = parse_token(await world.token("node"))
        hosts = [await world.host(manager) for manager in world.managers]
        outcomes = await asyncio.gather(
            *(world.ask_to_join(host, token, f"race-{race}-{n}") for n, host in enumerate(hosts)),
            return_exceptions=True,
        )

        refused = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
        assert [each.code() for each in refused] == [UNAUTHENTICATED]
        assert len([each for each in outcomes if isinstance(each, access.JoinReply)]) == 1
        known = (await world.access().ListIdentities(access.ListIdentitiesRequest(kind="node"))).identities
        assert len([each for each in known if each.name.startswith(f"race-{race}-")]) == 1


@dataclass
class FalseManager:
    """A TLS server in a manager's place; keeps every byte that it is told."""

    certificates_pem: bytes
    key_pem: bytes
    heard: bytearray = field(default_factory=bytearray)

    @asynccontextmanager
    async def serving(self, directory: object) -> AsyncIterator[str]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # As many do: nothing is checked, the session's keys are no secret.
        path = f"{directory}/false-{id(self)}.pem"
        await asyncio.to_thread(_write, path, self.key_pem + self.certificates_pem)
        context.load_cert_chain(path)
        context.set_alpn_protocols(["h2"])
        port = free_port(in_a_row=2)
        server = await asyncio.start_server(self._listen, "127.0.0.1", port + 1, ssl=context)
        async with server:
            yield f"127.0.0.1:{port}"

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The settings of HTTP/2, so that a client goes on to ask.
        writer.write(bytes.fromhex("000000040000000000"))
        while data := await reader.read(65536):
            self.heard += data
        writer.close()


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(content)


class TestAFalseManager:
    async def test_of_another_root_is_told_nothing(self, world: World) -> None:
        token = parse_token(await world.token("node"))
        root = certificates.new_root(world.cluster, now_s=time.time())
        shown = world.signed(world.identity(Kind.MANAGER, "m1"), root=root).credentials
        chain = shown.certificates_pem + certificates.to_pem(root.certificate)
        false = FalseManager(chain, shown.key_pem)

        async with false.serving(world.directory) as address:
            with pytest.raises(JoinError, match="secret was not sent") as raised:
                await join([address], token, name="n50")

        assert raised.value.is_final
        assert not false.heard

    async def test_that_shows_the_true_root_beside_its_own_certificate_is_told_nothing(
        self, world: World
    ) -> None:
        """The true root is no secret: everybody is shown it at the join port."""
        token = parse_token(await world.token("node"))
        root = certificates.new_root(world.cluster, now_s=time.time())
        shown = world.signed(world.identity(Kind.MANAGER, "m1"), root=root).credentials
        false = FalseManager(shown.certificates_pem + world.roots_pem, shown.key_pem)

        async with false.serving(world.directory) as address:
            with pytest.raises(JoinError):
                await join([address], token, name="n50")

        assert token.secret.encode() not in false.heard
        assert not false.heard

    async def test_what_is_said_to_a_manager_is_what_a_false_one_would_hear(self, world: World) -> None:
        """The check of the two above: with a manager's own key the same server hears the token."""
        token = parse_token(await world.token("node"))
        shown = world.managers[0].access.own.credentials
        false = FalseManager(shown.certificates_pem + shown.roots_pem, shown.key_pem)

        async with false.serving(world.directory) as address:
            joining = asyncio.ensure_future(join([address], token, name="n50"))
            async with asyncio.timeout(5):
                while token.secret.encode() not in false.heard:  # noqa: ASYNC110 - bytes of a socket
                    await asyncio.sleep(0.01)
            joining.cancel()
            await asyncio.gather(joining, return_exceptions=True)


def asking_for_everything(world: World, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A request that asks to be an admin, a manager's server, and a CA."""
    names = [
        x509.UniformResourceIdentifier(str(world.identity(Kind.USER, "admin"))),
        x509.UniformResourceIdentifier(str(world.identity(Kind.MANAGER, "m1"))),
        x509.DNSName(f"manager.{world.cluster}"),
    ]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]
    subject = [
        x509.NameAttribute(NameOID.COMMON_NAME, "admin"),
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "user"),
        x509.NameAttribute(NameOID.SERIAL_NUMBER, "999"),
    ]
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name(subject))
        .add_extension(x509.BasicConstraints(ca=True, path_length=9), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def request_by(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)


def with_broken_signature() -> bytes:
    request = bytearray(certificates.certificate_request(certificates.new_key()))
    request[-1] ^= 1
    return bytes(request)


class TestCertificateRequests:
    async def test_of_what_is_asked_for_only_the_key_counts(self, world: World) -> None:
        key = certificates.new_key()
        token = parse_token(await world.token("node"))
        reply = await world.ask_to_join(
            await world.host(), token, "greedy", request=asking_for_everything(world, key)
        )
        leaf = certificates.from_pem(reply.certificates.encode())[0]
        extensions = leaf.extensions

        assert leaf.public_key() == key.public_key()
        assert certificates.read_leaf(leaf).identity == world.identity(Kind.NODE, "greedy")
        assert certificates.read_leaf(leaf).generation == 1
        assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
        assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
            ExtendedKeyUsageOID.CLIENT_AUTH
        ]
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [each.value for each in names] == [f"spiffe://{world.cluster}/node/greedy"]

    @pytest.mark.parametrize(
        "request_of",
        [
            lambda: request_by(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
            lambda: request_by(ec.generate_private_key(ec.SECP384R1())),
            lambda: request_by(ec.generate_private_key(ec.SECP256K1())),
            lambda: request_by(ed25519.Ed25519PrivateKey.generate()),
            with_broken_signature,
            lambda: b"",
            lambda: b"\x30\x82\xff\xff" + b"A" * 100,
            lambda: b"A" * 50_000,
        ],
        ids=["RSA", "P-384", "secp256k1", "Ed25519", "not signed by its key", "nothing", "cut off", "50 kB"],
    )
    async def test_what_is_no_request_of_a_good_key_is_refused(
        self, world: World, request_of: Callable[[], bytes]
    ) -> None:
        token = parse_token(await world.token("node"))
        async with world.unchanged():
            denied = await denial(world.ask_to_join(await world.host(), token, "odd-1", request=request_of()))

        assert denied.code is grpc.StatusCode.INVALID_ARGUMENT
        assert await uses_left(world, token) == 1

    async def test_renewal_looks_at_the_request_in_the_same_way(self, world: World) -> None:
        member: Member = world.members["node"]
        key = certificates.new_key()
        async with member.channel(world.address) as channel:
            stub = AccessStub(channel)
            reply = await stub.Renew(
                access.RenewRequest(certificate_request=asking_for_everything(world, key))
            )
            denied = await denial(
                stub.Renew(access.RenewRequest(certificate_request=with_broken_signature()))
            )

        leaf = certificates.from_pem(reply.certificates.encode())[0]
        assert certificates.read_leaf(leaf).identity == member.identity
        assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert reply.cluster_key == b""
        assert denied.code is grpc.StatusCode.INVALID_ARGUMENT


class TestWhatIsKept:
    async def test_of_a_secret_the_hash_alone(self, world: World) -> None:
        """Neither in etcd as it stands there, nor in what the managers read of it."""
        token = parse_token(await world.token("node"))
        raw = (await world.store.list(keys.ROOT)).items
        opened = await world.managers[0].access.store.get(keys.pki_token(token.id))

        assert opened is not None
        assert token.secret.encode() not in opened.value
        assert not [item.key for item in raw for secret in world.secrets if secret.encode() in item.value]

    async def test_a_list_of_tokens_shows_no_secret(self, world: World) -> None:
        listed = str(await world.access().ListJoinTokens(access.ListJoinTokensRequest()))

        assert not [secret for secret in world.secrets if secret in listed]
