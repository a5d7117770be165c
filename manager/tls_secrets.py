"""Certificates for Ingresses, read from secrets: checked here, so that no proxy is told of one it cannot load.

What is wrong is said without a byte of the key. Certificate and key are written anew from what was read of
them: whatever else stands in the secret goes nowhere.
"""

from __future__ import annotations

import base64

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from bayplan.resources.secret import Secret
from manager.planning.ingress import CertificateView

TLS_TYPE = "kubernetes.io/tls"
# A check of 4096 bits takes 0.3 s, of 8192 already 5 s, and meanwhile the leader answers nobody.
RSA_BITS_MAX = 4096


class _UnusableError(Exception):
    """A private key; the message is the problem."""


def certificate_view(secret: Secret) -> CertificateView:
    """What proxies can use of it, or why they cannot."""
    if secret.type != TLS_TYPE:
        return CertificateView(problem=f"is of the type {secret.type}, not {TLS_TYPE}")
    try:
        chain = x509.load_pem_x509_certificates(base64.b64decode(secret.data["tls.crt"]))
    except (ValueError, UnsupportedAlgorithm):
        return CertificateView(problem="has no readable certificate in tls.crt")
    try:
        key = _key_of(base64.b64decode(secret.data["tls.key"]))
    except _UnusableError as error:
        return CertificateView(problem=str(error))
    public = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        certified = chain[0].public_key().public_bytes(*public)
    except (ValueError, UnsupportedAlgorithm):
        return CertificateView(problem="has a certificate in tls.crt for a kind of key that nobody knows")
    if certified != key.public_key().public_bytes(*public):
        return CertificateView(
            problem="has a tls.key that does not belong to the first certificate in tls.crt"
        )
    return CertificateView(
        chain_pem=b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain),
        key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def _key_of(pem: bytes) -> PrivateKeyTypes:
    try:
        # Unchecked, for its size alone.
        key = load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
        if not isinstance(key, RSAPrivateKey):
            return key
        if key.key_size <= RSA_BITS_MAX:
            return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # TypeError: it is encrypted, and nobody has the password.
        raise _UnusableError("has no readable private key without a password in tls.key") from error
    raise _UnusableError(
        f"has an RSA key of {key.key_size} bits in tls.key: at most {RSA_BITS_MAX} are supported"
    )
