from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.dns.zone_file import DamagedZoneError, ZoneFile, write_zone
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.dns.builders import (
    WEB,
    a_network,
    a_port,
    a_service,
    a_traffic,
    an_endpoint,
    asked,
    lines_of,
    records,
)

LINES = lines_of(
    a_traffic(a_service(vip="10.96.0.7", ports=[a_port()]), a_service("db"), db=[an_endpoint("127.42.3.9")])
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "zone.jsonl"


class TestZoneFile:
    def test_is_read_when_it_is_there(self, path: Path) -> None:
        file = ZoneFile(path)
        assert file.read() is None

        write_zone(path, LINES)

        zone = file.read()
        assert zone is not None
        assert (zone.gateway, zone.domain, len(zone.services)) == (
            IPv4Address("127.42.3.1"),
            "cluster.local",
            2,
        )
        assert file.read() is None

    def test_is_read_again_when_it_was_replaced(self, path: Path) -> None:
        """Even by one as long, within the same tick of the file system's clock: it is another file."""
        file = ZoneFile(path)
        write_zone(path, LINES)
        file.read()

        write_zone(path, lines_of(a_traffic(a_service("db")), a_network("127.42.4.0/24")))

        zone = file.read()
        assert zone is not None
        assert (zone.gateway, list(zone.services)) == (IPv4Address("127.42.4.1"), [("default", "db")])

    def test_what_did_not_change_is_not_read_anew(self, path: Path) -> None:
        file = ZoneFile(path)
        write_zone(path, LINES)
        before = file.read()
        write_zone(path, [*LINES, *lines_of(a_traffic(a_service("shop")))[1:]])
        after = file.read()

        assert before is not None
        assert after is not None
        assert len(after.services) == 3
        assert after.services["default", "db"] is before.services["default", "db"]

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\xff\xfe",
            b"[]\n",
            b"{}\n",
            b'{"format": 2}\n',
            LINES[0].encode()[:-5],
            LINES[0].encode() + b"\n{}\n",
            "\n".join(LINES).replace("127.42.3.9", "127.42.3.999").encode(),
            "\n".join(LINES).replace('["127.42.3.9","127-42-3-9"]', "[]").encode(),
        ],
    )
    def test_a_damaged_one_is_refused_once(self, path: Path, content: bytes) -> None:
        path.parent.mkdir()
        path.write_bytes(content)
        file = ZoneFile(path)

        with pytest.raises(DamagedZoneError, match="is damaged"):
            file.read()
        assert file.read() is None

    def test_everybody_may_read_it(self, path: Path) -> None:
        """The server need not be root."""
        write_zone(path, LINES)

        assert path.stat().st_mode & 0o777 == 0o644
        assert [each.name for each in path.parent.iterdir()] == ["zone.jsonl"]


class TestNames:
    # What ends a line, a label, a string or a name in some format that is written or read here.
    HOSTILE = st.one_of(st.text(alphabet="ab-._\\\"'\n\r\0\u2028 é", max_size=12), st.just("a" * 300))

    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_whatever_they_say_harm_no_other_service(self, path: Path, data: st.DataObject) -> None:
        """Managers have refused them long before; here they are looked up at the most."""

        def text(good: str) -> str:
            return data.draw(st.one_of(st.just(good), self.HOSTILE))

        odd = pb.Service(
            namespace=text("shop"),
            name=text("odd"),
            vip=text("10.96.0.9"),
            ports=[pb.ServicePort(name=text("http"), port=80)],
        )
        alias = pb.Service(namespace="shop", name=text("alias"), external_name=text("example.org"))
        headless = a_service("each", ports=[a_port()])
        table = a_traffic(
            odd,
            alias,
            headless,
            a_service(vip="10.96.0.7", ports=[a_port()]),
            each=[an_endpoint("127.42.3.9", hostname=text("db-0")), an_endpoint(text("127.42.3.10"))],
        )
        write_zone(path, lines_of(table))

        zone = ZoneFile(path).read()

        assert zone is not None
        assert records(asked(zone, WEB)) == [f"{WEB[:-1]} A 10.96.0.7"]
        each = "each.default.svc.cluster.local"
        assert f"{each} A 127.42.3.9" in records(asked(zone, f"{each}."))
        for name, kind in (
            (f"_http._tcp.{each}.", "SRV"),
            ("9.0.96.10.in-addr.arpa.", "PTR"),
            ("9.3.42.127.in-addr.arpa.", "PTR"),
        ):
            asked(zone, name, kind)
