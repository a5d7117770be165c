"""Certificates: keys, requests, roots, leaves. Pure but for randomness; `now_s` comes from the caller.

Leaves are short-lived X.509 certificates with one URI, the identity (X509-SVID of SPIFFE). What a
request asks for is not looked at beyond its public key: names, life and usages are the CA's decision.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bayplan.identity.names import Identity, IdentityError, Kind, manager_host, parse_identity

ROOT_LIFE_S = 10 * 365 * 86400.0
# Clocks of two hosts may differ by this much: certificates begin that long ago.
CLOCK_SKEW_S = 300.0

Key = ec.EllipticCurvePrivateKey

# What cryptography says of content that it cannot read; these have no common base.
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class CertificateError(ValueError):
    """A certificate or request that cannot be used; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """What a leaf certificate says. Its signature was checked by whoever gives it to us."""

    identity: Identity
    generation: int  # Of the identity's certificates: revoking ends a generation.
    issued_s: float
    expires_s: float
    issuer_key: str  # Which key signed it (hex of the authority key identifier).
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A root that can sign."""

    certificate: x509.Certificate
    key: Key


# Keys and requests


def new_key() -> Key:
    """P-256: what every TLS library bears."""
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: Key) -> bytes:
    """PKCS #8, not encrypted: it stands in files that only their owner can read, or sealed."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_from_pem(pem: bytes) -> Key:
    """The inverse. Raises CertificateError."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except _UNREADABLE as error:
        raise CertificateError("the private key cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError("the private key is of another kind than ours")
    return key


def certificate_request(key: Key) -> bytes:
    """PKCS #10 in DER: the public key, and proof that we hold the private one. It asks for nothing."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a request whose maker holds the private one. Raises CertificateError."""
    try:
        parsed = x509.load_der_x509_csr(request)
        is_valid = parsed.is_signature_valid
        key = parsed.public_key()
    except UnsupportedAlgorithm as error:
        raise CertificateError("the certificate request is of a kind that is not supported") from error
    except _UNREADABLE as error:
        raise CertificateError("this is no certificate request") from error
    if not is_valid:
        raise CertificateError("the certificate request is not signed by the key it names")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateError("the key must be of the kind P-256")
    return key


def sign(key: Key, message: bytes) -> bytes:
    """ECDSA with SHA-256."""
    return key.sign(message, ec.ECDSA(hashes.SHA256()))


def is_signed(certificate: x509.Certificate, signature: bytes, message: bytes) -> bool:
    """Whether the holder of `certificate` made `signature` over `message` with `sign`."""
    try:
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, *_UNREADABLE):
        return False
    return True


# Roots


def new_root(cluster: str, *, now_s: float) -> Root:
    """A root for ten years."""
    key = new_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # Two roots of one cluster must differ by name: chains are looked up by it.
    name = f"bayplan {cluster} {identifier.digest.hex()[:8]}"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = _ca_certificate(subject, key, subject, key, path_length=1, now_s=now_s)
    return Root(certificate=certificate, key=key)


def cross_signed(new: Root, by: Root, *, now_s: float) -> x509.Certificate:
    """The new root as the old one vouches for it: who trusts only the old one can verify what the new one signs."""
    return _ca_certificate(
        new.certificate.subject, new.key, by.certificate.subject, by.key, path_length=0, now_s=now_s
    )


def _ca_certificate(
    subject: x509.Name, key: Key, issuer: x509.Name, issuer_key: Key, *, path_length: int, now_s: float
) -> x509.Certificate:
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        _builder(subject, issuer, key.public_key(), issuer_key, now_s=now_s, life_s=ROOT_LIFE_S)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(usage, critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: Key,
    *,
    now_s: float,
    life_s: float,
) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(now_s, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(seconds=CLOCK_SKEW_S))
        .not_valid_after(now + timedelta(seconds=life_s))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )


# Leaves


def issue(
    root: Root,
    key: ec.EllipticCurvePublicKey,
    identity: Identity,
    *,
    generation: int,
    life_s: float,
    now_s: float,
) -> x509.Certificate:
    """A leaf for `identity`. Only a manager's may serve; nobody's may sign others."""
    subject = x509.Name([
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, identity.kind.value),
        x509.NameAttribute(NameOID.COMMON_NAME, identity.name),
        x509.NameAttribute(NameOID.SERIAL_NUMBER, str(generation)),
    ])  # fmt: skip
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(identity))]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if identity.kind is Kind.MANAGER:
        names.append(x509.DNSName(manager_host(identity.cluster)))
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        _builder(subject, root.certificate.subject, key, root.key, now_s=now_s, life_s=life_s)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(root.key, hashes.SHA256())
    )


def read_leaf(certificate: x509.Certificate) -> Leaf:
    """What a leaf of ours says. Raises CertificateError."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        if len(uris) != 1:
            raise IdentityError("the certificate must name one identity")  # noqa: TRY301 - told below
        identity = parse_identity(uris[0])
        issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        (number,) = certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
        generation = int(number.value)
    except IdentityError as error:
        raise CertificateError(str(error)) from error
    except (x509.ExtensionNotFound, *_UNREADABLE) as error:
        raise CertificateError("the certificate is none of Bayplan's") from error
    return Leaf(
        identity=identity,
        generation=generation,
        issued_s=certificate.not_valid_before_utc.timestamp() + CLOCK_SKEW_S,
        expires_s=certificate.not_valid_after_utc.timestamp(),
        issuer_key=(issuer.key_identifier or b"").hex(),
        certificate=certificate,
    )


def is_issued_by(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    """Whether `root`'s key signed it; time is not looked at."""
    try:
        certificate.verify_directly_issued_by(root)
    except (InvalidSignature, *_UNREADABLE):
        return False
    return True


# Forms


def from_der(der: bytes) -> x509.Certificate:
    """Raises CertificateError."""
    try:
        return x509.load_der_x509_certificate(der)
    except _UNREADABLE as error:
        raise CertificateError("this is no certificate") from error


def from_pem(pem: bytes) -> list[x509.Certificate]:
    """All certificates of a file, in order. Raises CertificateError."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except _UNREADABLE as error:
        raise CertificateError("no certificates can be read here") from error


def to_pem(*certificates: x509.Certificate) -> bytes:
    """One after the other."""
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def to_der(certificate: x509.Certificate) -> bytes:
    """DER."""
    return certificate.public_bytes(serialization.Encoding.DER)


def digest(certificate: x509.Certificate | bytes) -> str:
    """SHA-256 of the DER, hex: what a join token pins."""
    der = certificate if isinstance(certificate, bytes) else to_der(certificate)
    return hashlib.sha256(der).hexdigest()


def key_identifier(root: x509.Certificate) -> str:
    """Hex of a root's subject key identifier: what `Leaf.issuer_key` names."""
    return root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex()


def key_digest(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of a public key, hex: tells a repeated request from another one."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()
