"""How a process comes by its certificates: the first one for a join token, every other for the one before.

The key is made here and never leaves the host. Before the token's secret is sent, the root that the
manager shows is compared with the digest in the token: a false manager learns nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
from cryptography import x509
from cryptography.x509.oid import NameOID

from bayplan.identity import certificates
from bayplan.identity.credentials import Credentials, write_private
from bayplan.identity.names import IdentityError, parse_identity
from bayplan.identity.tokens import JoinToken
from bayplan.transport.errors import words_of
from bayplan.transport.grpc import join_address, join_channel
from bayplan.v1 import access_pb2 as access
from bayplan.v1.access_pb2_grpc import AccessStub

TIMEOUT_S = 10.0

# What trying again will not cure.
_FINAL = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
}


class JoinError(Exception):
    """No certificate was got. `is_final`: trying again will not help, something must be changed first."""

    def __init__(self, message: str, *, is_final: bool) -> None:
        super().__init__(message)
        self.is_final = is_final


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What a manager gave."""

    credentials: Credentials
    managers: tuple[str, ...]
    role: int = 0  # Of a user: a value of Role.
    cluster_key: bytes = field(default=b"", repr=False)  # For managers alone.


@contextmanager
def joining_key(directory: Path, token_id: str) -> Iterator[certificates.Key]:
    """The key to `join` with by this token; save what was got before the `with` ends. Raises OSError.

    It is on disk before a manager hears of it: were it lost after the manager has written the token's use
    down, the token would be gone, and nobody joined by it. It stays when the `with` ends by an exception,
    so that the next attempt takes it up.
    """
    # The dot: no context, which has a directory beside it, is called so.
    path = directory / f".joining-{token_id}.key"
    try:
        key = certificates.key_from_pem(path.read_bytes())
    except (FileNotFoundError, certificates.CertificateError):
        key = certificates.new_key()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, certificates.key_to_pem(key))
    yield key
    path.unlink(missing_ok=True)


async def join(
    managers: Sequence[str], token: JoinToken, *, name: str, key: certificates.Key | None = None
) -> Joined:
    """A first certificate. `name`: of the node or manager; a user's is in the token. Raises JoinError.

    Who tries again gives the same `key`: if the answer was lost, the same certificate is given again,
    and the token is not used a second time.
    """
    key = key or certificates.new_key()

    async def ask(address: str) -> Joined:
        root = await _pinned_root(address, token.root_digest)
        request = access.JoinRequest(
            certificate_request=certificates.certificate_request(key),
            name=name,
            token=access.TokenProof(id=token.id, secret=token.secret),
        )
        # Whatever cluster it is: the pinned root has signed for it.
        return await _join_at(address, certificates.to_pem(root), _cluster_of(root), request, key)

    return await _first_that_answers(managers, ask)


async def rejoin(managers: Sequence[str], expired: Credentials) -> Joined:
    """A new certificate for one that ran out, by proof that we still hold its key. Raises JoinError."""
    key = certificates.new_key()
    before = certificates.from_pem(expired.certificates_pem)[0]
    content = certificates.certificate_request(key)
    request = access.JoinRequest(
        certificate_request=content,
        name=expired.identity.name,
        expired=access.ExpiredProof(
            certificate=certificates.to_der(before),
            signature=certificates.sign(certificates.key_from_pem(expired.key_pem), content),
        ),
    )
    return await _first_that_answers(
        managers,
        lambda address: _join_at(address, expired.roots_pem, expired.identity.cluster, request, key),
    )


async def renew(managers: Sequence[str], channel_to: Callable[[str], grpc.aio.Channel]) -> Joined:
    """A new certificate for the one that `channel_to` shows, which is still good. Raises JoinError."""
    key = certificates.new_key()
    request = access.RenewRequest(certificate_request=certificates.certificate_request(key))

    async def ask(address: str) -> Joined:
        channel = channel_to(address)
        try:
            return _joined(await AccessStub(channel).Renew(request, timeout=TIMEOUT_S), key)
        finally:
            await channel.close()

    return await _first_that_answers(managers, ask)


async def _first_that_answers(managers: Sequence[str], ask: Callable[[str], Awaitable[Joined]]) -> Joined:
    failures: list[str] = []
    for address in managers:
        try:
            return await ask(address)
        except grpc.aio.AioRpcError as error:
            if error.code() in _FINAL:
                raise JoinError(error.details() or error.code().name, is_final=True) from error
            failures.append(f"{address}: {words_of(error)}")
        except JoinError as error:
            if error.is_final:
                raise
            failures.append(f"{address}: {error}")
    raise JoinError("; ".join(failures), is_final=False)


async def _join_at(
    address: str, roots_pem: bytes, cluster: str, request: access.JoinRequest, key: certificates.Key
) -> Joined:
    channel = join_channel(address, roots_pem, cluster)
    try:
        return _joined(await AccessStub(channel).Join(request, timeout=TIMEOUT_S), key)
    finally:
        await channel.close()


def _joined(reply: access.JoinReply, key: certificates.Key) -> Joined:
    try:
        leaf = certificates.read_leaf(certificates.from_pem(reply.certificates.encode())[0])
        identity = parse_identity(reply.identity)
    except (certificates.CertificateError, IdentityError) as error:
        raise JoinError(f"the manager sent what is no certificate: {error}", is_final=True) from error
    if leaf.identity != identity or leaf.certificate.public_key() != key.public_key():
        raise JoinError("the manager sent a certificate that is not ours", is_final=True)
    return Joined(
        credentials=Credentials(
            identity=identity,
            issued_s=leaf.issued_s,
            expires_s=leaf.expires_s,
            key_pem=certificates.key_to_pem(key),
            certificates_pem=reply.certificates.encode(),
            roots_pem=reply.roots.encode(),
        ),
        managers=tuple(reply.managers),
        role=reply.role,
        cluster_key=reply.cluster_key,
    )


# The pinned root


async def _pinned_root(address: str, root_digest: str) -> x509.Certificate:
    try:
        shown = await asyncio.to_thread(_shown_certificates, join_address(address))
    except OSError as error:
        raise JoinError(error.strerror or str(error) or "no answer", is_final=False) from error
    except ValueError as error:
        raise JoinError(f"{address!r} is not host:port", is_final=True) from error
    for certificate in shown:
        if certificates.digest(certificate) == root_digest:
            return certificate
    raise JoinError(
        f"{address} is not a manager of the cluster that made this token: its root is another one than the"
        " token names. The token's secret was not sent",
        is_final=True,
    )


def _shown_certificates(address: str) -> list[x509.Certificate]:
    """What a TLS server shows, before it is trusted. Blocks. Raises OSError, ValueError."""
    from OpenSSL import SSL  # Needed once in a host's life, and two MiB.

    host, _, port = address.rpartition(":")
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    # Compared with the token's digest next; nothing is sent before.
    context.set_verify(SSL.VERIFY_NONE)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_alpn_protos([b"h2"])
    with socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT_S) as plain:
        # pyOpenSSL asks the socket itself, which must not be in Python's own non-blocking mode.
        plain.settimeout(None)
        seconds = int(TIMEOUT_S).to_bytes(8, "little") + bytes(8)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        connection = SSL.Connection(context, plain)
        connection.set_connect_state()
        try:
            connection.do_handshake()
        except SSL.Error as error:
            raise ConnectionError("what answered there speaks no TLS") from error
        return list(connection.get_peer_cert_chain(as_cryptography=True) or ())


def _cluster_of(root: x509.Certificate) -> str:
    """Its common name is `bayplan <cluster> <key>`."""
    (name,) = root.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value).split(" ")[1]
