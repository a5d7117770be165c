from __future__ import annotations

from pathlib import Path

from agent.dns.resolv_conf import ResolvConf, parse_servers

TEXT = """\
# made by hand
search example.org
nameserver 10.0.0.2
  nameserver\tfe80::1%eth0
nameserver 10.42.3.1
nameserver resolver.example.org
nameserver
nameserver 10.0.0.2
options ndots:2
nameserver 10.0.0.3
nameserver 10.0.0.4
"""


class TestServers:
    def test_are_taken_in_their_order_as_many_as_the_c_library_takes(self) -> None:
        assert parse_servers(TEXT, own=()) == ("10.0.0.2", "fe80::1%eth0", "10.42.3.1")

    def test_never_ourselves(self) -> None:
        """A host whose pods' name server is its own: it would ask itself for ever."""
        assert parse_servers(TEXT, own={"10.42.3.1"}) == ("10.0.0.2", "fe80::1%eth0", "10.0.0.3")

    def test_junk_names_none(self) -> None:
        assert parse_servers("\0\xff\nnameserver 1.2.3.4.5\n", own=()) == ()


class TestFile:
    def test_is_told_when_it_changes(self, tmp_path: Path) -> None:
        path = tmp_path / "resolv.conf"
        file = ResolvConf(path)

        assert [file.changed(), file.changed()] == ["", None]
        path.write_text(TEXT)
        assert [file.changed(), file.changed()] == [TEXT, None]
        path.write_bytes(b"\xff")
        assert file.changed() == "\ufffd"
        path.unlink()
        assert [file.changed(), file.changed()] == ["", None]
