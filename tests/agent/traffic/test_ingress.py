"""Ingress on a real HAProxy: hosts, paths, certificates; and the PROXY protocol."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
import struct

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.traffic.ingress_maps import ingress_maps
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.traffic.world import DB, WEB, World, a_world, db, web

# A port that no service publishes, so that it is the ingress's: 80 belongs to the web service otherwise.
QUIET_WEB = web(ports=[pb.ServicePort(port=80, http=True)])


def a_certificate(name: str, *hosts: str) -> pb.IngressCertificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return pb.IngressCertificate(
        name=name,
        hosts=hosts,
        chain_pem=certificate.public_bytes(serialization.Encoding.PEM),
        key_pem=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


async def ask(world: World, host: str, path: str = "/") -> tuple[int, str]:
    return await world.get(path, headers=f"Host: {host}\r\n")


async def name_shown(world: World, host: str) -> str:
    """Of the certificate that a caller of `host` is shown."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(world.published, 443, ssl=trusting, server_hostname=host)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    (name,) = x509.load_der_x509_certificate(shown).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


class TestRules:
    async def test_the_exact_host_then_the_wildcard_then_any_and_the_longest_path(self) -> None:
        async with a_world() as world:
            names = ("shop", "shop-api", "wild", "any", "exact")
            services, rules, changes = [QUIET_WEB], [], []
            for number, (name, host, path, is_exact) in enumerate(
                (
                    ("shop", "shop.example", "/", False),
                    ("shop-api", "shop.example", "/api/", False),
                    ("wild", "*.shop.example", "/", False),
                    ("any", "", "/help", False),
                    ("exact", "shop.example", "/api/v1", True),
                )
            ):
                pod = await world.start_pod(name)
                services.append(web(name=name, vip=f"10.96.2.{number}", ports=[pb.ServicePort(port=80)]))
                rules.append(
                    pb.IngressRule(host=host, path=path, exact=is_exact, service=f"shop/{name}", port=80)
                )
                endpoint = pb.Endpoint(id=name, node="n1", address=pod.address, ports=[8080], ready=True)
                changes.append(pb.EndpointChanges(service=f"shop/{name}", full=True, put=[endpoint]))
            assert len(names) == len(rules)
            await world.until_applied(
                world.say(
                    services=services, endpoints=changes, ingress=pb.Ingress(ports=[80, 443], rules=rules)
                )
            )
            for host, path, answers in (
                ("shop.example", "/", "shop"),
                ("SHOP.example:80", "/x?y=/api", "shop"),
                ("shop.example", "/api", "shop-api"),
                ("shop.example", "/api/v2", "shop-api"),
                ("shop.example", "/apis", "shop"),
                ("shop.example", "/api/v1", "exact"),
                ("shop.example", "/api/v1/", "shop-api"),
                ("eu.shop.example", "/", "wild"),
                ("other.example", "/help/me", "any"),
            ):
                assert await ask(world, host, path) == (200, answers), (host, path)
            for host, path in (
                ("other.example", "/"),
                ("a.eu.shop.example", "/"),
                ("other.example", "/helpers"),
            ):
                assert (await ask(world, host, path))[0] == 404, (host, path)

    async def test_a_rule_without_its_service_hides_no_longer_one(self) -> None:
        async with a_world() as world:
            await world.start_pod("a")
            world.endpoints("a")
            rules = [
                pb.IngressRule(path="/", service=WEB, port=80),
                pb.IngressRule(path="/pay", service="shop/pay", port=80),
            ]
            await world.until_applied(
                world.say(services=[QUIET_WEB], ingress=pb.Ingress(ports=[80, 443], rules=rules))
            )
            assert await ask(world, "x", "/") == (200, "a")
            assert (await ask(world, "x", "/pay/now"))[0] == 503

    @pytest.mark.parametrize(
        ("host", "path"), [("a\nb", "/"), ("a b", "/"), ("a", "/x y"), ("a", "x"), ("a", "/#"), ("*", "/")]
    )
    def test_what_is_no_host_or_path_is_left_out(self, host: str, path: str) -> None:
        rules = [pb.IngressRule(host=host, path=path, service=WEB, port=80)]
        maps = ingress_maps(pb.Ingress(ports=[80, 443], rules=rules), lambda _key, _port: "shop.web.80")
        assert (maps.exact, maps.prefix) == ({}, {})


class TestCertificates:
    async def test_are_chosen_by_name_and_a_bad_one_harms_no_other(self) -> None:
        async with a_world() as world:
            await world.start_pod("a")
            world.endpoints("a")
            good, wild = (
                a_certificate("shop/good", "shop.example"),
                a_certificate("shop/wild", "*.wild.example"),
            )
            broken = a_certificate("shop/broken", "broken.example")
            broken.key_pem = good.key_pem
            ingress = pb.Ingress(
                ports=[80, 443],
                rules=[pb.IngressRule(path="/", service=WEB, port=80)],
                certificates=[broken, good, wild],
            )
            await world.until_applied(world.say(services=[QUIET_WEB], ingress=ingress))
            (problem,) = world.proxy.applied().problems
            assert problem.service == "shop/broken"
            assert "certificate cannot be used" in problem.message
            assert await name_shown(world, "shop.example") == "shop.example"
            assert await name_shown(world, "eu.wild.example") == "*.wild.example"
            _, head = await world.get("/head")
            assert "x-forwarded-proto: http\r\n" in head
            for path in world.directory.rglob("*.pem"):
                assert path.stat().st_mode & 0o777 == 0o600
                assert path.parent.stat().st_mode & 0o777 == 0o700

    async def test_a_new_one_is_served_after_a_reload(self) -> None:
        async with a_world() as world:
            rules = [pb.IngressRule(path="/", service=WEB, port=80)]
            for name in ("one.example", "two.example"):
                ingress = pb.Ingress(
                    ports=[80, 443], rules=rules, certificates=[a_certificate("shop/tls", name)]
                )
                await world.until_applied(world.say(services=[QUIET_WEB], ingress=ingress))
                assert await name_shown(world, name) == name


class TestProxyProtocol:
    async def test_a_pod_is_told_its_caller_before_all_else(self) -> None:
        async with a_world() as world:
            pod = await world.start_pod("a")
            world.say(
                services=[db(ports=[pb.ServicePort(port=5432, load_balancer=True, proxy_protocol=True)])]
            )
            await world.until_applied(world.endpoints("a", service=DB, target=5432))
            reader, writer = await asyncio.open_connection(world.published, 5432)
            address, port = writer.get_extra_info("sockname")
            assert await reader.readline() == b"a\n"
            # The pod echoes what came first: version 2's signature, then both ends.
            header = await reader.readexactly(28)
            assert header[:12] == b"\r\n\r\n\0\r\nQUIT\n"
            assert socket.inet_ntoa(header[16:20]) == address
            assert struct.unpack(">H", header[24:26]) == (port,)
            writer.close()
            assert pod.connections == 1
