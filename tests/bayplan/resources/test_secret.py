from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayplan.manifests.manifest import check_manifests
from bayplan.manifests.read import read_text
from bayplan.resources.document import DOCUMENT_MAX_BYTES, parse_document, parse_json
from bayplan.resources.kinds import find_kind
from bayplan.resources.problems import DocumentError
from bayplan.resources.secret import DATA_MAX_BYTES, Secret, hidden, wrong_with_change

# Never to be seen in a message; neither base64 nor a key of a secret.
VALUE = "hunter2!"


def encoded(value: bytes | str) -> str:
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def a_secret(**fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, **fields}


def the_secret(**fields: Any) -> Secret:
    resource = parse_document(a_secret(**fields)).resource
    assert isinstance(resource, Secret)
    return resource


def problems_of(**fields: Any) -> dict[str, str]:
    with pytest.raises(DocumentError) as caught:
        parse_document(a_secret(**fields))
    return {problem.path: problem.message for problem in caught.value.problems}


class TestReading:
    def test_text_becomes_data_and_wins_there(self) -> None:
        secret = the_secret(data={"user": encoded("a"), "word": encoded("b")}, stringData={"word": "ü"})

        assert secret.to_json_dict() == {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "db", "namespace": "default"},
            "data": {"user": encoded("a"), "word": encoded("ü")},
        }

    def test_what_is_stored_reads_back_the_same(self) -> None:
        secret = the_secret(stringData={"a": "\0\n"}, type="example.com/own", immutable=True)

        assert parse_json(json.dumps(secret.to_json_dict())).resource == secret

    def test_equal_values_are_stored_equally(self) -> None:
        """`base64` breaks lines, and YAML keeps them; the order of keys says nothing."""
        broken = encoded("x" * 100)[:76] + "\n" + encoded("x" * 100)[76:] + "\n"
        first = the_secret(data={"b": broken, "a": ""}, type="Opaque", immutable=False)

        assert json.dumps(first.to_json_dict()) == json.dumps(
            the_secret(stringData={"a": "", "b": "x" * 100}).to_json_dict()
        )

    def test_says_that_pods_cannot_use_it_yet(self) -> None:
        assert parse_document(a_secret()).warnings == ("secrets are stored, but pods cannot use them yet",)

    def test_is_named_as_in_kubernetes(self) -> None:
        for word in ("secret", "secrets", "Secret"):
            kind = find_kind(word)
            assert kind is not None
            assert kind.full_name == "secret"

    def test_holds_a_mebibyte_of_data(self) -> None:
        """Which is more than any other document may have."""
        assert the_secret(stringData={"a": "x" * DATA_MAX_BYTES}).data
        assert problems_of(data={"a": encoded(b"x" * DATA_MAX_BYTES), "b": encoded(b"x")}) == {
            "data": "has 1025 KiB of data; a secret may have 1024 KiB"
        }

    def test_what_fits_no_etcd_is_refused(self) -> None:
        many = {f"{'k' * 240}{number}": "" for number in range(7000)}

        assert "a document may have 1440 KiB" in problems_of(data=many)[""]

    def test_other_documents_hold_no_more_than_before(self) -> None:
        service = {"apiVersion": "v1", "kind": "Service", "x": "y" * DOCUMENT_MAX_BYTES}
        with pytest.raises(DocumentError, match="a document may have 256 KiB"):
            parse_json(json.dumps(service))


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "path", "message"),
        [
            ({"data": {"word": VALUE}}, "data.word", "is not base64: put plain text under stringData"),
            ({"data": {"word": "ümlaut"}}, "data.word", "is not base64"),
            ({"data": {"word": "abc"}}, "data.word", "is not base64"),
            ({"data": VALUE}, "data", "must be a mapping of keys to values"),
            ({"stringData": [VALUE]}, "stringData", "must be a mapping of keys to values"),
            ({"data": {"word": [VALUE]}}, "data.word", "must be text"),
            ({"stringData": {"word": {VALUE: VALUE}}}, "stringData.word", "must be text"),
            ({"stringData": {"pin": 1234567}}, "stringData.pin", "must be text: put it in quotes"),
            ({"stringData": {"word": VALUE + "\ud800"}}, "stringData.word", "is not valid Unicode"),
            ({"data": {"a b": ""}}, 'data["a b"]', "is not a key of a secret"),
            ({"data": {"..a": ""}}, 'data["..a"]', "is not a key of a secret"),
            ({"data": {"k" * 254: ""}}, None, "is not a key of a secret"),
            ({"data": {1: ""}}, "data", "a key must be text"),
            ({"type": "kubernetes.io/tls", "stringData": {"tls.crt": VALUE}}, "data", "the key tls.key"),
            ({"spec": {"a": VALUE}}, "spec", "unknown field"),
            ({"stringdata": {"a": VALUE}}, "stringdata", 'did you mean "stringData"?'),
        ],
    )
    def test_name_the_key_and_never_the_value(
        self, fields: dict[str, Any], path: str | None, message: str
    ) -> None:
        problems = problems_of(**fields)

        assert path is None or path in problems
        assert any(message in said for said in problems.values()), problems
        assert "hunter2" not in str(problems)
        assert "1234567" not in str(problems)

    @given(st.text(min_size=9), st.sampled_from(["data", "stringData"]))
    def test_quote_no_value_whatever_it_is(self, value: str, field: str) -> None:
        problems = problems_of(**{field: {"key": value, "other": [value], "third": {"a": value}}})

        assert value not in str(problems)

    def test_one_whose_values_were_hidden(self) -> None:
        """It would overwrite the values with nothing."""
        seen = hidden(the_secret(stringData={"word": VALUE}).to_json_dict())

        assert list(problems_of(**seen).values()) == [
            "this is a secret whose values were hidden: get it with --show-secrets"
        ]

    @pytest.mark.parametrize(
        "line",
        [
            "*hunter2",
            "!hunter2 x",
            "&hunter2",
            "@hunter2",
            '"hunter2',
            "hunter2: hunter2",
            "{hunter2",
            "7" * 50,
        ],
    )
    def test_yaml_that_nobody_quoted_is_refused_without_it(self, line: str) -> None:
        text = f"kind: Secret\napiVersion: v1\nmetadata: {{name: db}}\nstringData:\n  word: {line}\n"
        with pytest.raises(ValueError, match=r"shop.yaml:[56]:") as caught:
            check_manifests(read_text(text, source="shop.yaml"))

        assert "hunter2" not in str(caught.value)
        assert "777" not in str(caught.value)


class TestHidden:
    def test_keeps_the_shape_and_says_what_is_hidden(self) -> None:
        annotations = {"team": "blue", "kubectl.kubernetes.io/last-applied-configuration": VALUE}
        document = the_secret(
            metadata={"name": "db", "annotations": annotations}, stringData={"a": VALUE, "b": VALUE}
        ).to_json_dict()

        assert hidden(document) == {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": "db",
                "namespace": "default",
                "annotations": {"team": "blue", "bayplan.io/hidden": "data"},
            },
            "data": {"a": "", "b": ""},
        }
        assert document["data"]["a"] == encoded(VALUE)


class TestChange:
    @pytest.mark.parametrize(
        ("before", "after", "words"),
        [
            ({"data": {"a": "eA=="}}, {"data": {"a": "eQ=="}}, ""),
            ({"immutable": True}, {"immutable": True, "metadata": {}}, ""),
            ({"data": {"a": "eA=="}}, {"data": {"a": "eA=="}, "immutable": True}, ""),
            ({"immutable": True}, {"immutable": True, "data": {"a": ""}}, "is immutable"),
            ({"immutable": True}, {}, "is immutable"),
            ({}, {"type": "kubernetes.io/tls"}, "has another type"),
        ],
    )
    def test_of_what_is_immutable_is_refused(
        self, before: dict[str, Any], after: dict[str, Any], words: str
    ) -> None:
        assert wrong_with_change(before, after).startswith(words)
        assert bool(wrong_with_change(before, after)) == bool(words)
