from __future__ import annotations

import io
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from time import process_time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bayplan.manifests.errors import ManifestError
from bayplan.manifests.manifest import Manifest, check_manifests
from bayplan.manifests.read import read_manifests, read_text
from bayplan.resources.workloads import Deployment

EXAMPLE = Path(__file__).parents[3] / "examples" / "my-app"

WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 3
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: web
        image: web:1
"""


def read_and_check(text: str | bytes) -> list[Manifest]:
    manifests = read_text(text, source="shop.yaml")
    check_manifests(manifests)
    return manifests


def refusal_of(text: str | bytes) -> str:
    with pytest.raises(ManifestError) as caught:
        read_and_check(text)
    return str(caught.value)


def repeated(pattern: str, count: int) -> str:
    return "".join(pattern.format(n=n, last=n - 1) for n in range(1, count + 1))


class TestTheSeedsManifests:
    def test_are_read_as_they_stand(self) -> None:
        checked = check_manifests(read_manifests([EXAMPLE / "deployment.yaml", EXAMPLE / "service.yaml"]))

        deployment, service = (parsed.resource for parsed in checked)
        assert isinstance(deployment, Deployment)
        assert deployment.spec.replicas == 3
        assert deployment.spec.template.spec.containers[0].ports[0].container_port == 8080
        assert service.to_json_dict()["spec"] == {
            "type": "LoadBalancer",
            "selector": {"app": "my-app"},
            "ports": [{"port": 80, "targetPort": 8080}],
        }


class TestMessages:
    def test_name_file_line_column_document_field_and_cure(self) -> None:
        text = WEB + "        resources:\n          limits:\n            memory: 512mb\n"

        assert refusal_of(text) == (
            "shop.yaml:18:13  Deployment/web spec.template.spec.containers[0].resources.limits.memory\n"
            '    "512mb" is not a quantity. Did you mean 512Mi (mebibytes) or 512M?'
        )

    def test_list_every_problem_by_line(self) -> None:
        text = WEB.replace("replicas: 3", "replica: 3").replace("web:1", "WEB")

        assert [line for line in refusal_of(text).splitlines() if not line.startswith(" ")] == [
            "shop.yaml:6:3  Deployment/web spec.replica",
            "shop.yaml:15:9  Deployment/web spec.template.spec.containers[0].image",
        ]

    def test_a_missing_field_is_where_it_should_stand(self) -> None:
        assert refusal_of(WEB.replace("        image: web:1\n", "")).startswith(
            "shop.yaml:14:9  Deployment/web"
        )

    def test_what_a_manager_says_finds_its_line(self) -> None:
        manifest = read_and_check("---\n" + WEB)[0]

        assert manifest.position("spec.template.spec.containers[0].image") == (16, 9)
        assert manifest.position("no [ path") == (2, 1)
        assert str(manifest.locate_path("spec.replicas", "too many")) == (
            "shop.yaml:7:3  Deployment/web spec.replicas\n    too many"
        )

    def test_never_let_a_documents_control_characters_through(self) -> None:
        text = WEB.replace("name: web", 'name: "\\e[31mweb\\r\\nfake: line"').replace(
            "kind: D", '"\\e": 1\nkind: D'
        )

        message = refusal_of(text)

        assert message.isascii()
        assert all(line.isprintable() for line in message.split("\n"))


POISON: dict[str, tuple[str | bytes | Callable[[], str | bytes], str]] = {
    "billion laughs": (
        "a0: &a0 [x]\n" + repeated("a{n}: &a{n} [" + "*a{last}," * 9 + "]\n", 9),
        "shop.yaml:6:",
    ),
    "deep by aliases": ("a0: &a0 [x]\n" + repeated("a{n}: &a{n} [*a{last}]\n", 80), "64 levels"),
    "alias in itself": ("a: &a [*a]", "shop.yaml:1:8"),
    "alias of nothing": ("a: *b", "shop.yaml:1:4"),
    "alias as a key": ("a: &a b\n*a : c", "shop.yaml:2:1"),
    "merge into itself": ("a: &a {<<: *a}", "shop.yaml:1:12"),
    "merging a text": ("a: {<<: b}", "shop.yaml:1:5"),
    "many merges": (
        "a: &a {" + repeated("k{n}: 1,", 5000) + "}\n" + repeated("b{n}: {{<<: *a}}\n", 100),
        "100000 values",
    ),
    "nested flow": (lambda: "[" * 10_000, "shop.yaml:1:65"),
    "nested mappings": (lambda: "{a: " * 10_000, "64 levels"),
    "nested blocks": (lambda: "- " * 10_000, "shop.yaml:1:129"),
    "a megabyte of brackets": (lambda: "[" * 2**20, "64 levels"),
    "10 MB": (lambda: "a: b\n" * 2_000_000, "shop.yaml  \n".strip()),
    "many values": (lambda: "[" + "a," * 500_000 + "]", "100000 values"),
    "many documents": (lambda: "--- a\n" * 100_000, "1000 documents"),
    "many empty documents": (lambda: "---\n" * 250_000, "1000 documents"),
    "many duplicates": (lambda: "? a\n" * 100_000, "shop.yaml:2:3"),
    "many unknown fields": (lambda: WEB + repeated("  k{n}x: 1\n", 9000), "unknown field"),
    "many wrong items": (lambda: WEB + "        env:\n" + "        - {nam: 1}\n" * 3000, "unknown field"),
    "duplicate keys": (WEB.replace("  replicas: 3", "  replicas: 3\n  replicas: 4"), "shop.yaml:7:3"),
    "NaN": (WEB.replace("replicas: 3", "replicas: .nan"), "shop.yaml:6:13"),
    "infinity": (WEB.replace("replicas: 3", "replicas: -.INF"), "shop.yaml:6:13"),
    "too large a float": (WEB.replace("replicas: 3", "replicas: 1e999"), "shop.yaml:6:13"),
    "too long a number": (WEB.replace("replicas: 3", "replicas: " + "1" * 100_000), "shop.yaml:6:13"),
    "-1 replicas": (WEB.replace("replicas: 3", "replicas: -1"), "shop.yaml:6:3"),
    "1e9 replicas": (WEB.replace("replicas: 3", "replicas: 1000000000"), "shop.yaml:6:3"),
    "bad UTF-8": (WEB.encode().replace(b"web:1", b"w\xffb"), "shop.yaml:15:17"),
    "UTF-16": (WEB.encode("utf-16"), "shop.yaml:1:1"),
    "a lone surrogate": ("a: \ud800", "shop.yaml:1:4"),
    "NUL": (WEB.replace("web:1", "w\0b"), "shop.yaml:15:17"),
    "an escaped NUL": (WEB.replace("web:1", '"w\\0b"'), "shop.yaml:15:9"),
    "a control character": (WEB.replace("web:1", "w\x1bb"), "U+001B"),
    "a Python object": ('a: !!python/object/apply:os.system ["x"]', "shop.yaml:1:4"),
    "a tag of its own": ("a: !secret b", "shop.yaml:1:4"),
    "binary": ("a: !!binary aGk=", "shop.yaml:1:4"),
    "a mapping as a key": ("{a: b}: c", "shop.yaml:1:1"),
    "no key": (": c", "shop.yaml:1:1"),
    "tabs": ("a:\n\tb: c", "not tabs"),
    "no YAML": ("a: b: c", "shop.yaml:1:5"),
    "an open quote": ('a: "b', "shop.yaml:1:6"),
    "a list": ("- a", "shop.yaml:1:1"),
    "a text": ("a", "shop.yaml:1:1"),
    "a list's item": ("kind: List\nitems:\n- 3\n", "shop.yaml:3:3"),
    "a Compose file": ("name: x\nservices:\n  web:\n    image: a\n", "shop.yaml:2:1"),
}


class TestPoison:
    @pytest.mark.parametrize("name", POISON)
    def test_is_refused_with_its_place_within_a_second(self, name: str) -> None:
        text, expected = POISON[name]
        text = text() if callable(text) else text

        began = process_time()  # A busy machine is no slow parser.
        message = refusal_of(text)
        took_s = process_time() - began

        assert expected in message
        assert took_s < 1
        assert len(message) < 20_000

    @pytest.mark.parametrize(
        "name",
        ["billion laughs", "nested flow", "a megabyte of brackets", "10 MB", "many merges", "many documents"],
    )
    def test_takes_little_memory(self, name: str) -> None:
        text, _ = POISON[name]
        text = text() if callable(text) else text

        tracemalloc.start()
        try:
            refusal_of(text)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert peak_bytes < 50 * 2**20


class TestPlainWords:
    @pytest.mark.parametrize(
        "word",
        [
            "no",
            "yes",
            "on",
            "Off",
            "y",
            "010",
            "0x1f",
            "0o17",
            "1:30",
            "1_000",
            "2026-01-31",
            "=",
            "NaN",
            "<",
        ],
    )
    def test_of_older_yaml_stay_text(self, word: str) -> None:
        assert read_text(f"a: {word}", source="x")[0].document == {"a": word}

    @pytest.mark.parametrize(
        ("word", "value"),
        [
            ("true", True),
            ("False", False),
            ("null", None),
            ("~", None),
            ("", None),
            ("3", 3),
            ("-3", -3),
            ("1e3", 1000.0),
            ("1.5", 1.5),
            ('"3"', "3"),
            ("!!str 3", "3"),
        ],
    )
    def test_of_json_are_values(self, word: str, value: object) -> None:
        document = read_text(f"a: {word}", source="x")[0].document

        assert document == {"a": value}
        assert type(document["a"]) is type(value)

    def test_an_ambiguous_number_is_refused_where_a_number_is_needed(self) -> None:
        assert 'not the text "010"' in refusal_of(WEB.replace("replicas: 3", "replicas: 010"))


class TestAliases:
    def test_and_merges_are_unfolded_and_what_is_said_wins(self) -> None:
        text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n"
        manifest = read_text(text, source="x")[0]

        assert manifest.document == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2}}
        assert manifest.position("b.x") == (1, 8)
        assert manifest.position("c") == (3, 1)


class TestSources:
    def test_a_directory_is_read_by_name(self, tmp_path: Path) -> None:
        for name in ("b.yml", "a.yaml", "c.json", ".hidden.yaml", "notes.txt"):
            tmp_path.joinpath(name).write_text('{"kind": "K"}')
        tmp_path.joinpath("d.yaml").mkdir()

        assert [Path(one.source).name for one in read_manifests([tmp_path])] == ["a.yaml", "b.yml", "c.json"]

    def test_standard_input_and_several_documents(self) -> None:
        stdin = io.BytesIO(b"---\n---\nkind: A\n---\n# nothing\n---\nkind: B\n...\n")

        manifests = read_manifests(["-"], stdin=stdin)

        assert [(one.document["kind"], one.source) for one in manifests] == [("A", "stdin"), ("B", "stdin")]

    def test_a_list_is_its_items(self) -> None:
        manifests = read_text(
            "kind: List\napiVersion: v1\nitems:\n- kind: A\n- kind: B\n  x: 1\n", source="x"
        )

        assert [one.document["kind"] for one in manifests] == ["A", "B"]
        assert manifests[1].position("x") == (6, 3)

    def test_json_with_a_byte_order_mark(self) -> None:
        assert read_text(b'\xef\xbb\xbf{"a":\t"b"}', source="x")[0].document == {"a": "b"}

    def test_the_problems_of_all_files_are_said(self, tmp_path: Path) -> None:
        tmp_path.joinpath("a.yaml").write_text("a: *b")
        tmp_path.joinpath("b.yaml").write_text("- 1")
        empty = tmp_path / "empty"
        empty.mkdir()

        with pytest.raises(ManifestError) as caught:
            read_manifests([tmp_path, tmp_path / "gone.yaml", empty, "https://example.com/a.yaml"])

        assert [problem.source for problem in caught.value.problems] == [
            str(tmp_path / "a.yaml"),
            str(tmp_path / "b.yaml"),
            str(tmp_path / "gone.yaml"),
            str(empty),
            "https://example.com/a.yaml",
        ]

    def test_an_endless_file_is_refused(self) -> None:
        with pytest.raises(ManifestError, match="larger than 2 MiB"):
            read_manifests(["/dev/zero" if os.path.exists("/dev/zero") else "-"])  # noqa: PTH110  # a device, not a file

    def test_one_document_twice_names_both_places(self) -> None:
        message = refusal_of(
            WEB + "---\n" + WEB.replace("  name: web\n", "  namespace: default\n  name: web\n", 1)
        )

        assert message.startswith("shop.yaml:21:3  Deployment/web metadata.name")
        assert "shop.yaml:4:3" in message


FRAGMENTS = st.sampled_from(
    (
        *"a[]{},'\"#\n\t\\",
        "\x85",
        "é",
        "&a ",
        "*a",
        ": ",
        "- ",
        "? ",
        "  ",
        "<<: ",
        "!!str ",
        "!x ",
        "---\n",
        "...\n",
        *("|\n", ">\n", "%YAML 1.1\n", "kind: ", "List", "items:", "1e9", ".nan"),
    )
)


class TestAnyText:
    @settings(max_examples=200)
    @given(st.lists(FRAGMENTS, max_size=30).map("".join) | st.text() | st.binary())
    @example("&a a: *a")
    @example("- &a\n- *a")
    def test_is_read_or_refused(self, text: str | bytes) -> None:
        """Anything but ManifestError fails."""
        try:
            read_and_check(text)
        except ManifestError as error:
            refused = error
        else:
            return

        assert refused.problems
        assert all(problem.source == "shop.yaml" for problem in refused.problems)
