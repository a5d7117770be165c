"""What ends up in a proxy's configuration, a DNS zone or the head of a request holds nothing that means something there."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayplan.resources.document import parse_document
from bayplan.resources.problems import DocumentError
from tests.bayplan.resources.builders import a_deployment, a_service, an_ingress, endpoints, with_field

# Each would end a value, begin another, or pass for a letter that it is not.
HOSTILE = ["\n", "\r", "\t", "\0", " ", '"', "'", "\\", "#", "$", "%", "{", "(", ";", "|", "\x7f", "\x85"]
TWINS = ["е", "ｅ", "٣", "\u2028", "\u200b", "\u202e", "ﬁ", "İ", "ſ", "²"]  # noqa: RUF001  # twins are what is tested

# Field, a document that has it, and what may stand there.
PLACES: list[tuple[str, Callable[[], dict[str, Any]], str]] = [
    ("metadata.name", a_service, "web-1"),
    ("metadata.namespace", a_service, "shop"),
    ("spec.clusterIP", a_service, "10.96.0.5"),
    ("spec.ports.0.name", a_service, "http"),
    ("spec.ports.0.targetPort", a_service, "http"),
    ("spec.ports.0.appProtocol", a_service, "kubernetes.io/ws"),
    ("spec.externalName", lambda: a_service(type="ExternalName"), "db.example.org"),
    ("metadata.name", an_ingress, "web-1"),
    ("spec.rules.0.host", an_ingress, "*.example.org"),
    ("spec.rules.0.http.paths.0.path", an_ingress, "/a/~b"),
    ("spec.rules.0.http.paths.0.backend.service.name", an_ingress, "web"),
    ("spec.rules.0.http.paths.0.backend.service.port", an_ingress, "http"),
    ("spec.tls", an_ingress, "shop.example.org"),
    ("metadata.name", endpoints, "web-1"),
    ("subsets.0.addresses.0.ip", endpoints, "10.0.0.6"),
    ("subsets.0.addresses.0.hostname", endpoints, "db-0"),
    ("subsets.0.ports.0.name", endpoints, "sql"),
    ("spec.template.spec.hostname", a_deployment, "web"),
    ("spec.template.spec.subdomain", a_deployment, "shop"),
]

_HARMLESS = re.compile(r"[A-Za-z0-9._~:@+=,/*-]*")


@pytest.mark.parametrize(("path", "make", "right"), PLACES, ids=[path for path, _, _ in PLACES])
class TestAnyText:
    def test_is_accepted_if_it_is_right(
        self, path: str, make: Callable[[], dict[str, Any]], right: str
    ) -> None:
        """Else the tests below would see refusals for other reasons."""
        parse_document(_placed(make(), path, right))

    @given(
        text=st.text(max_size=30),
        odd=st.sampled_from(HOSTILE + TWINS) | st.characters(),
        at=st.integers(0, 9),
    )
    def test_is_refused_or_harmless(
        self, *, path: str, make: Callable[[], dict[str, Any]], right: str, text: str, odd: str, at: int
    ) -> None:
        """Any text at all, and one that is nearly right."""
        for tried in (text, right[:at] + odd + right[at:]):
            try:
                resource = parse_document(_placed(make(), path, tried)).resource
            except DocumentError:
                continue

            assert _HARMLESS.fullmatch(tried)
            assert all(_HARMLESS.fullmatch(value) for value in _texts(resource.to_json_dict()))

    @pytest.mark.parametrize("odd", HOSTILE + TWINS)
    def test_is_refused_with_any_of_these_in_it(
        self, path: str, make: Callable[[], dict[str, Any]], right: str, odd: str
    ) -> None:
        for text in (f"{right}{odd}", f"{odd}{right}", f"{right[:2]}{odd}{right[2:]}"):
            with pytest.raises(DocumentError):
                parse_document(_placed(make(), path, text))


def _placed(document: dict[str, Any], path: str, text: str) -> dict[str, Any]:
    """`document` with `text` at `path`; two fields hold their texts in a mapping of their own."""
    value: Any = text
    if path.endswith("service.port"):
        value = {"name": text}
    elif path == "spec.tls":
        value = [{"secretName": "cert", "hosts": [text]}]
    return with_field(document, path, value)


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for one in inner for text in _texts(one)]


class TestAddresses:
    @given(st.ip_addresses(v=4))
    def test_are_those_of_one_host(self, address: ipaddress.IPv4Address) -> None:
        is_special = address.is_loopback or address.is_multicast or address.is_link_local
        document = with_field(endpoints(), "subsets.0.addresses.0.ip", str(address))
        try:
            parse_document(document)
        except DocumentError:
            assert is_special or int(address) in {0, 2**32 - 1}
        else:
            assert not is_special


class TestRequests:
    @given(path=st.text(max_size=20), name=st.text(max_size=10), value=st.text(max_size=20))
    def test_of_probes_cannot_be_two(self, path: str, name: str, value: str) -> None:
        """Whatever is accepted stays on its line."""
        probe = {"httpGet": {"port": 1, "path": path, "httpHeaders": [{"name": name, "value": value}]}}
        try:
            parse_document(a_deployment(livenessProbe=probe))
        except DocumentError:
            return

        assert re.fullmatch(r"[!-~]*", path)
        assert re.fullmatch(r"[!-9;-~]+", name)
        assert re.fullmatch(r"[ -~]*", value)
