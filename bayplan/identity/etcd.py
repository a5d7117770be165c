"""Certificates for etcd: a CA of its own, its members' certificates, and those of the managers.

A CA apart from the cluster's, because etcd asks only whether its CA signed: whoever held any
certificate of the cluster, each node among them, could read and write the store otherwise.
Pure but for randomness; `now_s` comes from the caller.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bayplan.identity.certificates import CLOCK_SKEW_S, CertificateError, Key, Root, new_key

ETCD_CA_LIFE_S = 10 * 365 * 86400.0
# etcd reads its files anew at each handshake, so new ones need no restart; two years bear a forgotten one.
ETCD_LEAF_LIFE_S = 2 * 365 * 86400.0
# How `etcdctl` on the member's own host, and etcd's own gateway, reach it.
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")

_CA_NAME = "bayplan etcd"


def new_etcd_ca(*, now_s: float) -> Root:
    """A CA for etcd alone."""
    key = new_key()
    # Two of them must differ by name: chains are looked up by it.
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    subject = _name(f"{_CA_NAME} {identifier.digest.hex()[:8]}")
    certificate = (
        _builder(subject, subject, key, key, now_s=now_s, life_s=ETCD_CA_LIFE_S)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Root(certificate=certificate, key=key)


def new_member(ca: Root, name: str, hosts: Sequence[str], *, now_s: float) -> tuple[Key, x509.Certificate]:
    """A member's key and certificate: for its clients, for its peers, and itself as a peer's client.

    `hosts`: names and addresses at which others reach it, and from which it reaches its peers: etcd compares
    a peer's address with what its certificate says. Raises CertificateError.
    """
    alternatives = [_alternative(host) for host in dict.fromkeys((*hosts, *LOCAL_HOSTS))]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return _leaf(ca, name, usages, alternatives, now_s=now_s)


def new_etcd_client(ca: Root, name: str, *, now_s: float) -> tuple[Key, x509.Certificate]:
    """A manager's key and certificate. It names no host, so that it is good from any."""
    return _leaf(ca, name, [ExtendedKeyUsageOID.CLIENT_AUTH], [], now_s=now_s)


def _leaf(
    ca: Root,
    name: str,
    usages: Sequence[x509.ObjectIdentifier],
    alternatives: Sequence[x509.GeneralName],
    *,
    now_s: float,
) -> tuple[Key, x509.Certificate]:
    key = new_key()
    builder = (
        _builder(_name(name), ca.certificate.subject, key, ca.key, now_s=now_s, life_s=ETCD_LEAF_LIFE_S)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return key, builder.sign(ca.key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, issuer_key: Key, *, now_s: float, life_s: float
) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(now_s, UTC)
    public = issuer_key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(seconds=CLOCK_SKEW_S))
        .not_valid_after(now + timedelta(seconds=life_s))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=signs_certificates,
        crl_sign=signs_certificates, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(text: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    except ValueError as error:
        raise CertificateError(f"{text!r} cannot be the name in a certificate: 1 to 64 characters") from error


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        # An address that is mistyped would be taken for a name, and found out when etcd starts.
        if not host or host.replace(".", "").isdigit() or any(each in host for each in " /:"):
            raise ValueError(host)  # noqa: TRY301
        return x509.DNSName(host)
    except ValueError as error:
        raise CertificateError(f"{host!r} is neither an address nor a host's name") from error
