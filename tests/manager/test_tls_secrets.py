from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateNumbers, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from bayplan.identity.certificates import key_to_pem, new_key, new_root, to_pem
from bayplan.resources.secret import Secret
from manager.tls_secrets import TLS_TYPE, certificate_view

ROOT = new_root("test", now_s=1_700_000_000)
CHAIN, KEY = to_pem(ROOT.certificate), key_to_pem(ROOT.key)
ENCRYPTED = ROOT.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))
# As it is, but for the name of the key's algorithm.
UNKNOWN_KEY = (
    b"-----BEGIN CERTIFICATE-----\n"
    + base64.encodebytes(
        ROOT.certificate.public_bytes(Encoding.DER).replace(
            bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0209")
        )
    )
    + b"-----END CERTIFICATE-----\n"
)


def a_secret(chain: bytes = CHAIN, key: bytes = KEY, kind: str = TLS_TYPE) -> Secret:
    data = {"tls.crt": base64.b64encode(chain).decode(), "tls.key": base64.b64encode(key).decode()}
    return Secret.model_validate({"metadata": {"name": "cert"}, "type": kind, "data": data})


def an_rsa_key(bits: int) -> bytes:
    """None that works, made at once."""
    p, q = (1 << bits // 2) - 1, (1 << bits // 2) - 3
    numbers = RSAPrivateNumbers(
        p=p, q=q, d=3, dmp1=1, dmq1=1, iqmp=1, public_numbers=RSAPublicNumbers(e=65537, n=p * q)
    )
    return key_to_pem(numbers.private_key(unsafe_skip_rsa_key_validation=True))  # type: ignore[arg-type]


class TestCertificates:
    def test_are_taken_as_they_are_and_nothing_beside_them(self) -> None:
        view = certificate_view(
            a_secret(chain=b"words\n" + CHAIN + b"bind :22\n" + CHAIN, key=KEY + b"user root\n")
        )

        assert view.problem == ""
        assert view.chain_pem == CHAIN + CHAIN
        assert view.key_pem.strip() == KEY.strip()

    @pytest.mark.parametrize(
        ("secret", "problem"),
        [
            (a_secret(kind="Opaque"), "is of the type Opaque, not kubernetes.io/tls"),
            (a_secret(chain=b""), "has no readable certificate in tls.crt"),
            (a_secret(chain=b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "tls.crt"),
            (a_secret(key=b"nonsense"), "has no readable private key without a password in tls.key"),
            (a_secret(key=ENCRYPTED), "has no readable private key without a password in tls.key"),
            (a_secret(chain=UNKNOWN_KEY), "for a kind of key that nobody knows"),
            (a_secret(key=an_rsa_key(2048)), "has no readable private key"),
            # A check would take minutes, and hold up the leader.
            (a_secret(key=an_rsa_key(16384)), "has an RSA key of 16384 bits in tls.key: at most 4096"),
            (a_secret(key=key_to_pem(new_key())), "does not belong to the first certificate"),
        ],
    )
    def test_that_no_proxy_could_load_are_refused_in_words_without_the_key(
        self, secret: Secret, problem: str
    ) -> None:
        view = certificate_view(secret)

        assert problem in view.problem
        assert (view.chain_pem, view.key_pem) == (b"", b"")
