"""What our certificates say, and what they do not let through. TLS itself: tests/bayplan/transport/test_tls.py."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from bayplan.identity import certificates
from bayplan.identity.certificates import CertificateError, Root
from bayplan.identity.names import Identity, Kind, manager_host

CLUSTER = "3f2a9c1d5e7b4a60"
NOW_S = 1_790_000_000.0
DAY_S = 86_400.0
ROOT = certificates.new_root(CLUSTER, now_s=NOW_S)
KEY = certificates.new_key()
NODE = Identity(cluster=CLUSTER, kind=Kind.NODE, name="n1")
MANAGER = Identity(cluster=CLUSTER, kind=Kind.MANAGER, name="m1")
USER = Identity(cluster=CLUSTER, kind=Kind.USER, name="anna")


def a_leaf(
    identity: Identity = NODE, *, root: Root = ROOT, generation: int = 1, life_s: float = DAY_S
) -> x509.Certificate:
    return certificates.issue(
        root, KEY.public_key(), identity, generation=generation, life_s=life_s, now_s=NOW_S
    )


def names_in(leaf: x509.Certificate) -> x509.SubjectAlternativeName:
    return leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def usages_of(leaf: x509.Certificate) -> set[x509.ObjectIdentifier]:
    return set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def by_hand(
    *,
    names: list[x509.GeneralName] | None,
    generation: str | None = "1",
    with_issuer: bool = True,
) -> x509.Certificate:
    """Signed by our root, and yet none that our code would make."""
    about = [] if generation is None else [x509.NameAttribute(NameOID.SERIAL_NUMBER, generation)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(about))
        .issuer_name(ROOT.certificate.subject)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(dt.datetime.fromtimestamp(NOW_S, dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(NOW_S + DAY_S, dt.UTC))
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if with_issuer:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ROOT.key.public_key())
        builder = builder.add_extension(issuer, critical=False)
    return builder.sign(ROOT.key, hashes.SHA256())


class TestLeaf:
    @pytest.mark.parametrize("identity", [NODE, MANAGER, USER], ids=str)
    def test_names_one_identity_and_is_read_back(self, identity: Identity) -> None:
        leaf = a_leaf(identity, generation=7)
        read = certificates.read_leaf(leaf)

        assert names_in(leaf).get_values_for_type(x509.UniformResourceIdentifier) == [str(identity)]
        assert (read.identity, read.generation) == (identity, 7)
        assert (read.issued_s, read.expires_s) == (NOW_S, NOW_S + DAY_S)
        assert read.issuer_key == certificates.key_identifier(ROOT.certificate)
        assert read.certificate == leaf

    @pytest.mark.parametrize("identity", [NODE, USER], ids=str)
    def test_of_nodes_and_users_cannot_serve(self, identity: Identity) -> None:
        leaf = a_leaf(identity)

        assert usages_of(leaf) == {ExtendedKeyUsageOID.CLIENT_AUTH}
        assert names_in(leaf).get_values_for_type(x509.DNSName) == []

    def test_of_managers_can_serve_under_their_common_host_name(self) -> None:
        leaf = a_leaf(MANAGER)

        assert usages_of(leaf) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
        assert names_in(leaf).get_values_for_type(x509.DNSName) == [manager_host(CLUSTER)]

    @pytest.mark.parametrize("identity", [NODE, MANAGER, USER], ids=str)
    def test_can_sign_nothing(self, identity: Identity) -> None:
        extensions = a_leaf(identity).extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        usage = extensions.get_extension_for_class(x509.KeyUsage)

        assert constraints.critical
        assert not constraints.value.ca
        assert usage.critical
        assert usage.value.digital_signature
        assert not usage.value.key_cert_sign
        assert not usage.value.crl_sign

    def test_begins_a_while_ago_and_ends_when_it_should(self) -> None:
        """Clocks of two hosts differ."""
        leaf = a_leaf(life_s=60.0)

        assert leaf.not_valid_before_utc.timestamp() == NOW_S - certificates.CLOCK_SKEW_S == NOW_S - 300
        assert leaf.not_valid_after_utc.timestamp() == NOW_S + 60

    def test_bears_the_key_of_the_request_and_no_serial_number_twice(self) -> None:
        one, other = a_leaf(), a_leaf()

        assert one.public_key() == KEY.public_key()
        assert one.serial_number != other.serial_number

    def test_knows_its_root(self) -> None:
        leaf, other = a_leaf(), certificates.new_root(CLUSTER, now_s=NOW_S)

        assert certificates.is_issued_by(leaf, ROOT.certificate)
        assert not certificates.is_issued_by(leaf, other.certificate)

    def test_of_another_key_under_our_roots_name_is_not_ours(self) -> None:
        """Names are free to all; the signature counts."""
        false = Root(certificate=ROOT.certificate, key=certificates.new_key())

        assert not certificates.is_issued_by(a_leaf(root=false), ROOT.certificate)


class TestReadLeaf:
    """Of certificates that a root of ours has signed, but no code of ours has made."""

    URI = x509.UniformResourceIdentifier(str(NODE))

    def test_what_by_hand_makes_is_otherwise_good(self) -> None:
        assert certificates.read_leaf(by_hand(names=[self.URI])).identity == NODE

    @pytest.mark.parametrize(
        ("certificate", "words"),
        [
            pytest.param(ROOT.certificate, "is none of Bayplan's", id="a root"),
            pytest.param(by_hand(names=None), "is none of Bayplan's", id="no names"),
            pytest.param(by_hand(names=[x509.DNSName("n1")]), "must name one identity", id="a host"),
            pytest.param(
                by_hand(names=[URI, x509.UniformResourceIdentifier(str(USER))]),
                "must name one identity",
                id="two identities",
            ),
            pytest.param(
                by_hand(names=[x509.UniformResourceIdentifier("spiffe://other/ns/x/sa/y")]),
                "is no identity",
                id="somebody else's SPIFFE",
            ),
            pytest.param(by_hand(names=[URI], generation=None), "is none of", id="no generation"),
            pytest.param(by_hand(names=[URI], generation="one"), "is none of", id="generation in words"),
            pytest.param(by_hand(names=[URI], with_issuer=False), "is none of", id="no issuer's key"),
        ],
    )
    def test_refuses_what_says_too_little_or_too_much(
        self, certificate: x509.Certificate, words: str
    ) -> None:
        with pytest.raises(CertificateError, match=words):
            certificates.read_leaf(certificate)


LEAF = a_leaf()


class TestGarbage:
    """What comes from strangers is refused in words, whatever it is."""

    DER = certificates.to_der(LEAF)
    REQUEST = certificates.certificate_request(KEY)

    @given(st.binary())
    def test_as_a_certificate(self, content: bytes) -> None:
        with pytest.raises(CertificateError):
            certificates.from_der(content)

    @given(st.binary())
    def test_as_a_file_of_certificates(self, content: bytes) -> None:
        with pytest.raises(CertificateError):
            certificates.from_pem(content)

    @given(st.binary())
    def test_as_a_key(self, content: bytes) -> None:
        with pytest.raises(CertificateError):
            certificates.key_from_pem(content)

    @given(st.binary())
    def test_as_a_request(self, content: bytes) -> None:
        with pytest.raises(CertificateError):
            certificates.requested_key(content)

    @given(st.binary())
    def test_as_a_signature(self, content: bytes) -> None:
        assert not certificates.is_signed(a_leaf(), content, b"message")

    @pytest.mark.filterwarnings("ignore")  # cryptography's, of what it will refuse later.
    @pytest.mark.parametrize("by", [0x01, 0x80, 0xFF])
    def test_each_changed_byte_of_a_certificate(self, by: int) -> None:
        """It cannot be read, or it is not ours any more, or all that was signed is still the same."""
        for changed in with_each_byte_changed(self.DER, by):
            try:
                certificate = certificates.from_der(changed)
            except CertificateError:
                continue
            is_same = certificate.tbs_certificate_bytes == LEAF.tbs_certificate_bytes
            assert is_same or not certificates.is_issued_by(certificate, ROOT.certificate)
            assert not certificates.is_signed(certificate, b"", b"message")
            with contextlib.suppress(CertificateError):
                certificates.read_leaf(certificate)

    @pytest.mark.parametrize("by", [0x01, 0x80, 0xFF])
    def test_each_changed_byte_of_a_request(self, by: int) -> None:
        """The same."""
        signed = x509.load_der_x509_csr(self.REQUEST).tbs_certrequest_bytes
        for changed in with_each_byte_changed(self.REQUEST, by):
            with contextlib.suppress(CertificateError):
                certificates.requested_key(changed)
                assert x509.load_der_x509_csr(changed).tbs_certrequest_bytes == signed


def with_each_byte_changed(content: bytes, by: int) -> Iterator[bytes]:
    for at, byte in enumerate(content):
        yield content[:at] + bytes([byte ^ by]) + content[at + 1 :]


def a_request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    """As another program makes them."""
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "any")])
    )
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)


class TestRequests:
    def test_bring_a_public_key(self) -> None:
        assert certificates.requested_key(certificates.certificate_request(KEY)) == KEY.public_key()

    def test_ask_for_nothing(self) -> None:
        request = x509.load_der_x509_csr(certificates.certificate_request(KEY))

        assert list(request.subject) == []
        assert list(request.extensions) == []

    def test_what_they_ask_for_is_not_looked_at(self) -> None:
        """Of an attacker's request nothing but the key gets into the certificate."""
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(
                x509.Name([
                    x509.NameAttribute(NameOID.COMMON_NAME, "admin"),
                    x509.NameAttribute(NameOID.SERIAL_NUMBER, "99"),
                ])
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([
                    x509.UniformResourceIdentifier(f"spiffe://{CLUSTER}/user/admin"),
                    x509.DNSName(manager_host(CLUSTER)),
                ]),
                critical=False,
            )
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(KEY, hashes.SHA256())
        )  # fmt: skip
        key = certificates.requested_key(request.public_bytes(serialization.Encoding.DER))
        leaf = certificates.issue(ROOT, key, NODE, generation=1, life_s=DAY_S, now_s=NOW_S)
        plain = a_leaf(NODE)

        assert leaf.subject == plain.subject
        assert list(leaf.extensions) == list(plain.extensions)

    @pytest.mark.parametrize(
        "key",
        [
            pytest.param(ec.generate_private_key(ec.SECP384R1()), id="P-384"),
            pytest.param(ec.generate_private_key(ec.SECP256K1()), id="secp256k1"),
            pytest.param(ed25519.Ed25519PrivateKey.generate(), id="Ed25519"),
            pytest.param(rsa.generate_private_key(65537, 2048), id="RSA"),
        ],
    )
    def test_of_other_kinds_of_keys_are_refused(
        self, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    ) -> None:
        with pytest.raises(CertificateError, match="the key must be of the kind P-256"):
            certificates.requested_key(a_request(key))

    def test_for_somebody_elses_key_are_refused(self) -> None:
        """Else one could get a certificate for a key that one does not hold."""
        victim, thief = certificates.new_key(), certificates.new_key()
        spki, other = (
            key.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            for key in (thief, victim)
        )
        stolen = certificates.certificate_request(thief).replace(spki, other)

        with pytest.raises(CertificateError, match="is not signed by the key it names"):
            certificates.requested_key(stolen)

    def test_repeated_they_are_known_by_their_key(self) -> None:
        same = [certificates.requested_key(certificates.certificate_request(KEY)) for _ in range(2)]
        other = certificates.new_key().public_key()

        assert len({certificates.key_digest(key) for key in same}) == 1
        assert certificates.key_digest(other) != certificates.key_digest(same[0])


class TestKeys:
    def test_are_read_back(self) -> None:
        assert (
            certificates.key_from_pem(certificates.key_to_pem(KEY)).private_numbers() == KEY.private_numbers()
        )

    def test_of_another_kind_are_refused(self) -> None:
        pem = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with pytest.raises(CertificateError, match="of another kind than ours"):
            certificates.key_from_pem(pem)

    def test_under_a_pass_phrase_are_refused(self) -> None:
        pem = KEY.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"swordfish"),
        )
        with pytest.raises(CertificateError, match="cannot be read"):
            certificates.key_from_pem(pem)

    def test_sign_what_their_certificate_vouches_for(self) -> None:
        signature = certificates.sign(KEY, b"message")

        assert certificates.is_signed(a_leaf(), signature, b"message")
        assert not certificates.is_signed(a_leaf(), signature, b"another")
        assert not certificates.is_signed(ROOT.certificate, signature, b"message")


def verifier(*trusted: Root, at_s: float = NOW_S) -> verification.ServerVerifier:
    """Somebody else's reading of RFC 5280, as a client that dials a manager."""
    return (
        verification.PolicyBuilder()
        .store(verification.Store([root.certificate for root in trusted]))
        .time(dt.datetime.fromtimestamp(at_s, dt.UTC))
        .build_server_verifier(x509.DNSName(manager_host(CLUSTER)))
    )


class TestRoots:
    def test_may_sign_for_ten_years(self) -> None:
        root = ROOT.certificate
        constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)

        assert constraints.critical
        assert constraints.value.ca
        assert root.subject == root.issuer
        assert root.not_valid_after_utc.timestamp() == NOW_S + 3650 * DAY_S
        assert certificates.is_issued_by(root, root)

    def test_of_one_cluster_differ_by_name(self) -> None:
        """Chains are looked up by it."""
        other = certificates.new_root(CLUSTER, now_s=NOW_S)

        assert other.certificate.subject != ROOT.certificate.subject
        assert all(CLUSTER in root.certificate.subject.rfc4514_string() for root in (ROOT, other))

    def test_are_pinned_by_the_digest_of_their_der(self) -> None:
        der = certificates.to_der(ROOT.certificate)
        expected = hashlib.sha256(der).hexdigest()

        assert certificates.digest(ROOT.certificate) == certificates.digest(der) == expected
        assert certificates.digest(certificates.from_der(der)) == expected

    def test_a_manager_is_verified_by_its_root(self) -> None:
        leaf = a_leaf(MANAGER)

        assert verifier(ROOT).verify(leaf, []) == [leaf, ROOT.certificate]

    @pytest.mark.parametrize("identity", [NODE, USER], ids=str)
    def test_nobody_else_is_taken_for_a_manager(self, identity: Identity) -> None:
        with pytest.raises(verification.VerificationError):
            verifier(ROOT).verify(a_leaf(identity), [])

    def test_a_manager_of_another_cluster_is_not(self) -> None:
        other = Identity(cluster="other", kind=Kind.MANAGER, name="m1")
        with pytest.raises(verification.VerificationError):
            verifier(ROOT).verify(a_leaf(other), [])

    @pytest.mark.parametrize("at_s", [NOW_S - 301, NOW_S + DAY_S + 1])
    def test_a_certificate_counts_within_its_time(self, at_s: float) -> None:
        with pytest.raises(verification.VerificationError):
            verifier(ROOT, at_s=at_s).verify(a_leaf(MANAGER), [])


class TestCrossSigning:
    NEW = certificates.new_root(CLUSTER, now_s=NOW_S)
    CROSS = certificates.cross_signed(NEW, ROOT, now_s=NOW_S)

    def test_leads_who_trusts_the_old_root_alone_to_what_the_new_one_signs(self) -> None:
        leaf = a_leaf(MANAGER, root=self.NEW)

        assert verifier(ROOT).verify(leaf, [self.CROSS]) == [leaf, self.CROSS, ROOT.certificate]

    def test_without_it_they_are_not_led(self) -> None:
        with pytest.raises(verification.VerificationError):
            verifier(ROOT).verify(a_leaf(MANAGER, root=self.NEW), [])

    def test_is_passed_over_by_who_trusts_the_new_one(self) -> None:
        leaf = a_leaf(MANAGER, root=self.NEW)

        assert verifier(self.NEW).verify(leaf, [self.CROSS]) == [leaf, self.NEW.certificate]
        assert verifier(ROOT, self.NEW).verify(leaf, [self.CROSS])[0] == leaf

    def test_does_not_make_the_new_one_trust_the_old(self) -> None:
        with pytest.raises(verification.VerificationError):
            verifier(self.NEW).verify(a_leaf(MANAGER), [self.CROSS])

    def test_reaches_no_further_than_leaves(self) -> None:
        """The new root cannot, under the old one's name, vouch for a third."""
        third = certificates.new_root(CLUSTER, now_s=NOW_S)
        further = certificates.cross_signed(third, self.NEW, now_s=NOW_S)
        with pytest.raises(verification.VerificationError):
            verifier(ROOT).verify(a_leaf(MANAGER, root=third), [further, self.CROSS])

    def test_is_the_new_root_by_another_issuer(self) -> None:
        assert self.CROSS.public_key() == self.NEW.certificate.public_key()
        assert self.CROSS.subject == self.NEW.certificate.subject
        assert certificates.is_issued_by(self.CROSS, ROOT.certificate)


class TestFiles:
    def test_keep_the_order(self) -> None:
        leaf = a_leaf()
        pem = certificates.to_pem(leaf, ROOT.certificate)

        assert certificates.from_pem(pem) == [leaf, ROOT.certificate]
