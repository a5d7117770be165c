from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from bayplan.cli.etcd_certs import Order, make_certificates
from bayplan.cli.failures import CommandError
from tests.bayplan.cli.accounts import Accounts

NOW_S = 1_800_000_000.0
DAY_S = 86400.0


class TestEtcdCertificates:
    def make(self, order: Order, *, now_s: float = NOW_S, accounts: Accounts | None = None) -> list[str]:
        lines: list[str] = []
        make_certificates(order, accounts or Accounts(), lines.append, now_s=now_s)
        return lines

    def read(self, path: Path) -> x509.Certificate:
        return x509.load_pem_x509_certificate(path.read_bytes())

    def test_one_ca_signs_for_every_host(self, tmp_path: Path) -> None:
        self.make(Order(directory=tmp_path, hosts=["10.0.0.1"]))
        self.make(Order(directory=tmp_path, hosts=["10.0.0.2"], name="e2"))

        ca = self.read(tmp_path / "ca.pem")
        for place in (tmp_path, tmp_path / "e2"):
            self.read(place / "server.pem").verify_directly_issued_by(ca)
            self.read(place / "client.pem").verify_directly_issued_by(ca)
        assert (tmp_path / "e2/ca.pem").read_bytes() == (tmp_path / "ca.pem").read_bytes()
        assert not (tmp_path / "e2/ca.key").exists()

    def test_a_member_serves_and_calls_a_manager_only_calls(self, tmp_path: Path) -> None:
        self.make(Order(directory=tmp_path, hosts=["10.0.0.1", "etcd1.example"]))

        server, client = self.read(tmp_path / "server.pem"), self.read(tmp_path / "client.pem")
        usages = server.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert {*usages} == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
        names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert {str(name.value) for name in names} >= {"10.0.0.1", "etcd1.example", "localhost"}
        usages = client.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert [*usages] == [ExtendedKeyUsageOID.CLIENT_AUTH]

    def test_keys_are_for_their_owner_alone(self, tmp_path: Path) -> None:
        self.make(Order(directory=tmp_path, hosts=["10.0.0.1"]))

        assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.key")} == {0o600}
        assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.pem")} == {0o644}

    def test_keys_that_are_renewed_stay_readable_to_who_reads_them(self, tmp_path: Path) -> None:
        """`bay install` gives them to the groups of etcd and of the manager."""
        self.make(Order(directory=tmp_path, hosts=["10.0.0.1"]))
        keys = [tmp_path / "server.key", tmp_path / "client.key"]
        for key in keys:
            key.chmod(0o640)
            if os.geteuid() == 0:
                os.chown(key, 4711, 4712)
        before = [(key.stat().st_mode, key.stat().st_uid, key.stat().st_gid) for key in keys]
        texts = [key.read_text() for key in keys]

        self.make(Order(directory=tmp_path, hosts=["10.0.0.1"], is_renewal=True))

        assert [(key.stat().st_mode, key.stat().st_uid, key.stat().st_gid) for key in keys] == before
        assert [key.read_text() for key in keys] != texts
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    def test_a_servers_key_can_be_given_to_another_user(self, tmp_path: Path) -> None:
        accounts = Accounts()
        accounts.names.add("etcd")

        self.make(Order(directory=tmp_path, hosts=["10.0.0.1"], owner="etcd"), accounts=accounts)

        assert accounts.is_owned(tmp_path / "server.key", owner="etcd", group="etcd")
        with pytest.raises(CommandError, match="there is no user nobody-at-all"):
            self.make(Order(directory=tmp_path, hosts=["10.0.0.1"], owner="nobody-at-all"), accounts=accounts)

    def test_says_when_they_end(self, tmp_path: Path) -> None:
        said = self.make(Order(directory=tmp_path, hosts=["10.0.0.1"]))

        assert [re.findall(r"ends (\d{4})", line)[0] for line in said] == ["2037", "2029", "2029"]

    def test_what_is_good_is_kept(self, tmp_path: Path) -> None:
        order = Order(directory=tmp_path, hosts=["10.0.0.1"])
        self.make(order)
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}

        said = self.make(order, now_s=NOW_S + 600 * DAY_S)

        assert {line.split()[0] for line in said} == {"unchanged"}
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before

    @pytest.mark.parametrize(
        ("hosts", "later_s", "is_renewal"),
        [(["10.0.0.1"], 700 * DAY_S, False), (["10.0.0.9"], 0.0, False), (["10.0.0.1"], 0.0, True)],
        ids=["ends soon", "other hosts", "wanted"],
    )
    def test_is_made_anew_by_the_same_ca(
        self, tmp_path: Path, *, hosts: list[str], later_s: float, is_renewal: bool
    ) -> None:
        self.make(Order(directory=tmp_path, hosts=["10.0.0.1"]))
        ca, server = (tmp_path / "ca.pem").read_bytes(), (tmp_path / "server.pem").read_bytes()

        self.make(Order(directory=tmp_path, hosts=hosts, is_renewal=is_renewal), now_s=NOW_S + later_s)

        assert (tmp_path / "server.pem").read_bytes() != server
        assert (tmp_path / "ca.pem").read_bytes() == ca

    def test_without_the_cas_key_nothing_is_made(self, tmp_path: Path) -> None:
        self.make(Order(directory=tmp_path, hosts=["10.0.0.1"]))
        (tmp_path / "ca.key").unlink()

        with pytest.raises(CommandError, match="where the CA was made"):
            self.make(Order(directory=tmp_path, hosts=["10.0.0.2"], name="e2"))

    @pytest.mark.parametrize("host", ["10.0.0", "https://e1", "e1:2379", ""])
    def test_a_host_that_is_mistyped_is_refused(self, tmp_path: Path, host: str) -> None:
        with pytest.raises(CommandError, match="neither an address nor a host's name"):
            self.make(Order(directory=tmp_path, hosts=[host]))

    def test_shows_what_it_would_make(self, tmp_path: Path) -> None:
        self.make(Order(directory=tmp_path, hosts=["10.0.0.1"], dry_run=True))

        assert [*tmp_path.iterdir()] == []

    def test_tls_bears_them(self, tmp_path: Path) -> None:
        """A handshake in memory, each side asking for the other's certificate, the server named by its address."""
        self.make(Order(directory=tmp_path, hosts=["10.0.0.1"]))
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.pem"))
        server.verify_mode = ssl.CERT_REQUIRED
        server.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
        client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        client.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
        # The certificates are of another time than ours.
        for context in (server, client):
            context.verify_flags |= 0x200000  # X509_V_FLAG_NO_CHECK_TIME, which Python has no name for
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [
            server.wrap_bio(to_server, to_client, server_side=True),
            client.wrap_bio(to_client, to_server, server_hostname="10.0.0.1"),
        ]
        for _ in range(4):
            for end in ends:
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        assert all(end.version() for end in ends)
        assert dict(pair for each in ends[0].getpeercert()["subject"] for pair in each) == {  # type: ignore[index, misc]
            "commonName": "bayplan-manager"
        }

    def test_are_made_by_the_command(self, tmp_path: Path) -> None:
        words = ["admin", "etcd-certs", str(tmp_path / "etcd"), "--host", "10.0.0.2", "--name", "e2"]
        done = subprocess.run(
            [sys.executable, "-m", "bayplan.cli", *words], check=False, capture_output=True, text=True
        )

        assert done.returncode == 0, done.stderr
        assert (tmp_path / "etcd/e2/client.key").exists()
        assert f"next: copy {tmp_path}/etcd/e2" in done.stdout
