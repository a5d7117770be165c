"""What is spoken on the two ports: TLS 1.2 and later, and nothing else."""

from __future__ import annotations

import asyncio
import socket

import grpc
import grpc.aio
import pytest
from OpenSSL import SSL

from bayplan.identity import certificates
from bayplan.v1 import access_pb2 as access
from bayplan.v1.access_pb2_grpc import AccessStub
from tests.attacks.world import World, denial

pytestmark = [pytest.mark.etcd, pytest.mark.asyncio(loop_scope="package")]

PORTS = pytest.mark.parametrize("offset", [0, 1], ids=["main port", "join port"])


def handshake(
    world: World, offset: int, version: int, *, ciphers: str = "ALL:@SECLEVEL=0", shows: bool = True
) -> str:
    """The version that was agreed upon, and that the server kept to the end. Raises SSL.Error."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    # As weak as this library can be made: it is the server that must refuse.
    context.set_cipher_list(ciphers.encode())
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    context.set_alpn_protos([b"h2"])
    if shows:
        credentials = world.admin.credentials
        context.use_privatekey(certificates.key_from_pem(credentials.key_pem))
        context.use_certificate(certificates.from_pem(credentials.certificates_pem)[0])
    with socket.create_connection(("127.0.0.1", world.managers[0].port + offset), timeout=5) as plain:
        plain.settimeout(None)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, (5).to_bytes(8, "little") + bytes(8))
        connection = SSL.Connection(context, plain)
        connection.set_connect_state()
        connection.do_handshake()
        # In TLS 1.3 a server that does not accept the certificate says so only now; else its settings come.
        connection.recv(1)
        return str(connection.get_protocol_version_name())


class TestVersions:
    @PORTS
    @pytest.mark.parametrize("version", [SSL.TLS1_VERSION, SSL.TLS1_1_VERSION], ids=["1.0", "1.1"])
    async def test_what_is_older_than_1_2_is_refused(self, world: World, offset: int, version: int) -> None:
        with pytest.raises(SSL.Error):
            await asyncio.to_thread(handshake, world, offset, version)

    @PORTS
    @pytest.mark.parametrize(
        ("version", "name"), [(SSL.TLS1_2_VERSION, "TLSv1.2"), (SSL.TLS1_3_VERSION, "TLSv1.3")]
    )
    async def test_1_2_and_1_3_are_spoken(self, world: World, offset: int, version: int, name: str) -> None:
        assert await asyncio.to_thread(handshake, world, offset, version) == name

    @PORTS
    @pytest.mark.parametrize("ciphers", ["aNULL", "eNULL", "3DES", "CAMELLIA", "kRSA"])
    async def test_weak_ciphers_are_refused(self, world: World, offset: int, ciphers: str) -> None:
        """Without authentication, without encryption, with old ciphers, without forward secrecy."""
        with pytest.raises(SSL.Error):
            await asyncio.to_thread(
                handshake, world, offset, SSL.TLS1_2_VERSION, ciphers=f"{ciphers}:@SECLEVEL=0"
            )

    async def test_without_a_certificate_the_main_port_ends_the_handshake(self, world: World) -> None:
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            with pytest.raises(SSL.Error):
                await asyncio.to_thread(handshake, world, 0, version, shows=False)


class TestPlainText:
    @PORTS
    async def test_grpc_without_encryption_gets_no_answer(self, world: World, offset: int) -> None:
        address = f"127.0.0.1:{world.managers[0].port + offset}"
        async with grpc.aio.insecure_channel(address) as channel:
            denied = await denial(AccessStub(channel).WhoAmI(access.WhoAmIRequest(), timeout=5))

        assert denied.code is grpc.StatusCode.UNAVAILABLE

    @PORTS
    @pytest.mark.parametrize(
        "greeting", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), b"GET / HTTP/1.1\r\nHost: m\r\n\r\n"]
    )
    async def test_plain_http_gets_nothing_but_an_alert(
        self, world: World, offset: int, greeting: bytes
    ) -> None:
        port = world.managers[0].port + offset
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(greeting)
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()

        # A TLS alert (21), if anything; no frame of HTTP/2, no line of HTTP/1.
        assert answer == b"" or answer[0] == 21
