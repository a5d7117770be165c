"""The documents say what is so: their links, commands, targets and messages exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

import bayplan.cli.main  # noqa: F401 - adds the commands
from agent.options import SETTINGS as AGENT_SETTINGS
from bayplan.cli.app import app
from bayplan.manifests.manifest import check_manifests
from bayplan.manifests.read import read_text
from bayplan.resources.service import ServicePort, ServiceSpec
from bayplan.settings import Setting
from bench import cluster_figures
from bench.traffic import figures as traffic_figures
from deploy.shell import ROOT
from manager.main import SETTINGS as MANAGER_SETTINGS

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("bench/*.md"), *ROOT.glob("docs/**/*.md")])
SOURCES = ("bayplan", "manager", "agent", "deploy")

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# A message in the first cell of a table's row, in one or two backticks.
MESSAGE = re.compile(r"^\| (`+)(.+?)\1 \|", re.MULTILINE)
FORBIDDEN = ("issue #", "TODO", "FIXME")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def code_of(text: str) -> Iterator[str]:
    """What the documents show as code: fenced, indented, or in backticks."""
    yield from FENCE.findall(text)
    yield from re.findall(r"^ {4}.+$", text, re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@cache
def texts_of_the_source() -> str:
    """Every string in the code; a value that is filled in is a line break."""
    texts = []
    for package in SOURCES:
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.JoinedStr):
                    texts.append(
                        "\n".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return "\n".join(texts)


@cache
def targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@cache
def commands() -> dict[str, frozenset[str]]:
    """Each command of bay, those of groups with spaces, and its options."""
    found: dict[str, frozenset[str]] = {}

    def add(words: str, one: Any) -> None:
        options = {option for parameter in one.params for option in parameter.opts}
        found[words] = frozenset(options) | {"--managers", "--help", "-h"}
        for word, inner in one.commands.items() if isinstance(one, TyperGroup) else ():
            add(f"{words} {word}".strip(), inner)

    add("", get_command(app))
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
class TestDocument:
    def test_links_lead_somewhere(self, document: Path) -> None:
        for link in LINK.findall(FENCE.sub("", document.read_text())):
            if link.startswith(("http://", "https://", "mailto:")):
                continue
            path, _, section = link.partition("#")
            target = (document.parent / path).resolve() if path else document
            assert target.exists(), link
            if section and target.suffix == ".md":
                headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
                assert section in map(anchor, headings), link

    def test_make_targets_exist(self, document: Path) -> None:
        for code in code_of(document.read_text()):
            for target in re.findall(r"\bmake ([a-z][a-z0-9-]*)", code):
                assert target in targets(), code

    def test_commands_of_bay_exist_with_their_options(self, document: Path) -> None:
        for code in code_of(document.read_text()):
            for line in re.findall(r"(?:^|[\s(`$])bay ([a-z][^|`#;)\n]*)", code, re.MULTILINE):
                words = line.partition(" -- ")[0].split()
                begins = [" ".join(words[:count]) for count in (3, 2, 1)]
                found = next((begin for begin in begins if begin in commands()), "")
                assert found, line
                options = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
                known = commands()[found]
                unknown = [
                    option
                    for option in options
                    if option not in known and not {f"-{letter}" for letter in option[1:]} <= known
                ]
                assert unknown == [], line

    def test_says_nothing_of_where_it_was_written(self, document: Path) -> None:
        text = document.read_text()

        assert [word for word in (*FORBIDDEN, f"{ROOT}/") if word in text] == []
        ways_up = re.findall(r"(?:\.\./)+[\w.-]+", text)
        assert [way for way in ways_up if not (document.parent / way).resolve().is_relative_to(ROOT)] == []


class TestReadme:
    def test_its_program_is_the_example(self) -> None:
        programs = re.findall(
            r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
        )

        assert programs == [(ROOT / "examples/client.py").read_text()]


class TestPerformance:
    def test_has_a_row_for_each_figure(self) -> None:
        text = (ROOT / "docs/performance.md").read_text()

        figures = (*cluster_figures.FIGURES, *traffic_figures.FIGURES)
        assert [figure.key for figure in figures if f"({figure.key})" not in text] == []


class TestServices:
    TEXT = (ROOT / "docs/services.md").read_text()

    def test_its_documents_are_taken_without_a_warning(self) -> None:
        blocks = re.findall(r"^```yaml\n(.*?)^```", self.TEXT, re.MULTILINE | re.DOTALL)
        parsed = [
            each for block in blocks for each in check_manifests(read_text(block, source="services.md"))
        ]

        assert {each.resource.kind for each in parsed} == {"Deployment", "Service", "Endpoints"}
        assert [each.warnings for each in parsed if each.warnings] == []

    def test_names_every_field_of_a_service(self) -> None:
        fields = {
            field.alias for model in (ServiceSpec, ServicePort) for field in model.model_fields.values()
        }
        fields |= {*ServiceSpec.refused, *ServiceSpec.harmless}

        # Those that their tables' rows explain with others.
        plain = {"port", "name", "protocol", "externalName", "sessionAffinityConfig"}
        missing = {field for field in fields - plain if not re.search(rf"`{field}\b[^`]*`", self.TEXT)}
        assert missing == set()

    def test_names_every_annotation(self) -> None:
        known = re.findall(
            r'"(bayplan\.io/[a-z-]+)"', (ROOT / "bayplan/resources/annotations.py").read_text()
        )
        assert len(known) >= 8

        assert [key for key in known if f"| `{key}` |" not in self.TEXT] == []


class TestInstall:
    @pytest.mark.parametrize(
        ("settings", "begin"),
        [(MANAGER_SETTINGS, "Managers:"), (AGENT_SETTINGS, "Agents:")],
        ids=["managers", "agents"],
    )
    def test_has_a_row_for_each_setting(self, settings: tuple[Setting, ...], begin: str) -> None:
        table = (ROOT / "docs/install.md").read_text().partition(f"\n{begin}\n\n")[2]
        rows = set(re.findall(r"`([a-z-]+)`", table.partition("\n\n")[0]))

        missing = {setting.key for setting in settings} - rows
        # They have flags that are of use for a moment only: operate.md.
        assert missing <= {"join-token", "new-admin-token", "insecure-loopback"}


class TestOperate:
    def test_names_metrics_that_there_are(self) -> None:
        text = (ROOT / "docs/operate.md").read_text().partition("### Metrics\n")[2].partition("\n## ")[0]
        named = {name.removesuffix("_total") for name in re.findall(r"`(bayplan_\w+)", text)}
        assert len(named) > 15

        source = texts_of_the_source()
        assert sorted(name for name in named if name not in source) == []


class TestErrors:
    def test_every_message_is_one_of_the_program(self) -> None:
        messages = [match[1] for match in MESSAGE.findall((ROOT / "docs/errors.md").read_text())]
        assert len(messages) > 100

        source = texts_of_the_source()
        unknown = [
            message
            for message in messages
            if not all(part.strip() in source for part in message.split("…") if part.strip())
        ]
        assert unknown == []
