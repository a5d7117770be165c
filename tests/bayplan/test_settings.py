from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayplan.settings import Setting, is_loopback
from tests.bayplan.settings_program import NOWHERE, SETTINGS, Ended, read


class TestStrength:
    def test_the_default_holds_where_nothing_is_said(self) -> None:
        found = read()

        assert (found.text("data-dir"), found.source("data-dir")) == ("/var/lib/thing", "default")
        assert (found.number("port"), found.flag("is-quick"), found.all("label")) == (7400, False, ())

    def test_the_file_is_stronger_than_the_default(self, file: Path) -> None:
        file.write_text('# ours\ndata-dir = "/file"\nport = 1\nis-quick = true\n')

        found = read(file=file)

        assert (found.text("data-dir"), found.source("data-dir")) == ("/file", f"{file}:2")
        assert (found.number("port"), found.flag("is-quick")) == (1, True)

    def test_a_variable_is_stronger_than_the_file(self, file: Path) -> None:
        file.write_text('data-dir = "/file"\nport = 1\nis-quick = true\n')

        found = read(
            environ={"BAYPLAN_DATA_DIR": "/env", "BAYPLAN_PORT": "2", "BAYPLAN_IS_QUICK": "0"}, file=file
        )

        assert (found.text("data-dir"), found.source("data-dir")) == ("/env", "BAYPLAN_DATA_DIR")
        assert (found.number("port"), found.flag("is-quick")) == (2, False)

    def test_a_flag_is_stronger_than_a_variable(self) -> None:
        environ = {"BAYPLAN_DATA_DIR": "/env", "BAYPLAN_PORT": "2", "BAYPLAN_IS_QUICK": "false"}

        found = read("--data-dir=/flag", "--port", "3", "--is-quick", environ=environ)

        assert (found.text("data-dir"), found.source("data-dir")) == ("/flag", "flag")
        assert (found.number("port"), found.flag("is-quick")) == (3, True)

    def test_the_last_of_the_same_flag_wins(self) -> None:
        assert read("--port=1", "--port=2").number("port") == 2

    def test_what_is_repeated_is_gathered_with_the_strongest_last(self, file: Path) -> None:
        file.write_text('labels = [\n  "a=file",\n  "b=file",\n]\n')

        found = read("--label=c=1", "--label=a=2", environ={"BAYPLAN_LABELS": "b=env, d=env,"}, file=file)

        assert found.all("label") == ("a=file", "b=file", "b=env", "d=env", "c=1", "a=2")
        assert found.source("label") == f"{file}:1, BAYPLAN_LABELS, flag"

    def test_an_empty_variable_counts_as_not_set(self, file: Path) -> None:
        """Compose passes on as empty what the host's environment does not have."""
        file.write_text('data-dir = "/file"\n')
        empty = dict.fromkeys(
            ["BAYPLAN_DATA_DIR", "BAYPLAN_PORT", "BAYPLAN_IS_QUICK", "BAYPLAN_CONFIG_FILE"], ""
        )

        found = read(environ=empty, file=file)

        assert (found.text("data-dir"), found.number("port"), found.flag("is-quick")) == (
            "/file",
            7400,
            False,
        )

    def test_a_flag_may_be_empty(self) -> None:
        assert read("--data-dir=", environ={"BAYPLAN_DATA_DIR": "/env"}).text("data-dir") == ""

    @pytest.mark.parametrize(("text", "value"), [("1", True), ("true", True), ("0", False), ("false", False)])
    def test_a_variable_says_yes_or_no(self, text: str, value: bool) -> None:  # noqa: FBT001 - the case's outcome
        assert read(environ={"BAYPLAN_IS_QUICK": text}).flag("is-quick") is value


class TestFile:
    def test_the_flag_names_another_file(self, file: Path, tmp_path: Path) -> None:
        file.write_text("port = 1\n")
        other = tmp_path / "other.toml"
        other.write_text("port = 2\n")
        environ = {"BAYPLAN_CONFIG_FILE": str(tmp_path / "missing.toml")}

        assert read(f"--config={other}", environ=environ, file=file).number("port") == 2

    def test_the_variable_names_another_file(self, file: Path) -> None:
        file.write_text("port = 1\n")

        assert read(environ={"BAYPLAN_CONFIG_FILE": str(file)}).number("port") == 1

    def test_a_named_file_that_is_missing_is_an_error(self, ended: Ended) -> None:
        for how in (
            ended.read("--config=/nowhere/x.toml"),
            ended.read(environ={"BAYPLAN_CONFIG_FILE": "/nowhere/x.toml"}),
        ):
            assert (how.code, how.error) == (2, "/nowhere/x.toml cannot be read: No such file or directory")

    def test_a_default_file_that_is_there_and_cannot_be_read_is_an_error(
        self, tmp_path: Path, ended: Ended
    ) -> None:
        assert ended.read(file=tmp_path).error == f"{tmp_path} cannot be read: Is a directory"

    @pytest.mark.parametrize(
        ("document", "says"),
        [
            ('\ndatadir = "/x"', ':2: unknown key "datadir", did you mean "data-dir"?'),
            ('data_dir = "/x"', ':1: unknown key "data_dir", did you mean "data-dir"?'),
            ('DATA-DIR = "/x"', ':1: unknown key "DATA-DIR", did you mean "data-dir"?'),
            ('label = "a=b"', ':1: unknown key "label", did you mean "labels"?'),
            ("x = 1", ':1: unknown key "x"; known are data-dir, port, labels, is-quick, token'),
            ("port = 1\n[thing]\nport = 2", ':2: "thing" is a table; every key stands at the top level'),
            ("[[label]]\na = 1", ':1: "label" is a table; every key stands at the top level'),
            ("is.quick = true", ':1: "is" is a table; every key stands at the top level'),
            ("data-dir = 5", ':1: data-dir must be text, not a whole number: write data-dir = "5"'),
            ("data-dir = true", ":1: data-dir must be text, not true or false"),
            ('data-dir = ["/x"]', ":1: data-dir must be text, not a list"),
            ("data-dir = 2026-11-23", ":1: data-dir must be text, not a date"),
            ('port = "1"', ":1: port must be a whole number, not text"),
            ("port = true", ":1: port must be a whole number, not true or false"),
            ("port = 1.5", ":1: port must be a whole number, not a number"),
            ("port = -1", ":1: port must not be negative"),
            ('is-quick = "true"', ":1: is-quick must be true or false, not text"),
            ("is-quick = 1", ":1: is-quick must be true or false, not a whole number"),
            ('labels = "a=b"', ':1: labels must be a list of texts, not text: write labels = ["a=b"]'),
            ('labels = ["a=b", 3]', ":1: labels must be a list of texts, but holds a whole number"),
            ("port = 1\nport = 2\n", ":2:9: is not TOML: Cannot overwrite a value"),
            ("port = 1\n\nport", ":3: is not TOML: Expected '=' after a key in a key/value pair"),
        ],
    )
    def test_what_is_wrong_is_said_with_its_place(
        self, file: Path, ended: Ended, document: str, says: str
    ) -> None:
        file.write_text(document)

        assert (ended.read(file=file).code, ended.error) == (2, f"{file}{says}")

    def test_a_file_that_is_no_text_is_an_error(self, file: Path, ended: Ended) -> None:
        file.write_bytes(b'data-dir = "\xff"')

        assert ended.read(file=file).error == f"{file} is not UTF-8 text"

    @pytest.mark.parametrize(
        "document",
        [
            'data-dir = """\nport = 1\n"""\nis-quick = true\nport = 2\n',
            'labels = [\n"a=b",\n# port = 1\n]\n  "port" = 2\n',
            "# port = 1\r\ndata-dir = '''\r\nport = 1\r\n'''\r\n\t'port'=2\r\n",
        ],
    )
    def test_the_line_is_that_of_the_key(self, file: Path, document: str) -> None:
        """What looks like the key stands in a text, a list or a comment before it."""
        file.write_bytes(document.encode())

        found = read(file=file)

        assert (found.number("port"), found.source("port")) == (2, f"{file}:5")

    def test_a_key_written_oddly_is_said_without_a_line(self, file: Path) -> None:
        file.write_text('"p\\u006Frt" = 2\n')

        assert (read(file=file).number("port"), read(file=file).source("port")) == (2, str(file))


class TestCommandLine:
    @pytest.mark.parametrize(
        ("argv", "environ", "says"),
        [
            (["--port=x"], {}, "--port is 'x', not a whole number"),
            (["--port=-1"], {}, "--port is '-1', not a whole number"),
            ([], {"BAYPLAN_PORT": "1.5"}, "BAYPLAN_PORT is '1.5', not a whole number"),
            ([], {"BAYPLAN_IS_QUICK": "yes"}, "BAYPLAN_IS_QUICK is 'yes', not one of 1, true, 0, false"),
            (["--is-quick=1"], {}, "argument --is-quick: ignored explicit argument '1'"),
            (["--colour=red"], {}, "unrecognized arguments: --colour=red"),
        ],
    )
    def test_what_is_wrong_ends_it_with_2(
        self, ended: Ended, argv: list[str], environ: dict[str, str], says: str
    ) -> None:
        assert (ended.read(*argv, environ=environ).code, ended.error) == (2, says)

    def test_what_must_be_given_is_said_at_once(self, ended: Ended, file: Path) -> None:
        needed = tuple(Setting(name=name, help="needed", default=None) for name in ("id", "where"))

        with pytest.raises(SystemExit) as end:
            read("--where=", file=file, settings=needed)

        says = (
            f"missing: --id (BAYPLAN_ID), --where (BAYPLAN_WHERE); give it here, as a variable or in {file}"
        )
        assert (ended.saw(end.value).code, ended.error) == (2, says)

    def test_help_names_variables_and_defaults(self, ended: Ended) -> None:
        words = " ".join(ended.read("--help").out.split())

        assert ended.code == 0
        assert "where things are kept (BAYPLAN_DATA_DIR; default: /var/lib/thing)" in words
        assert "a label (may be repeated; BAYPLAN_LABELS: separated by commas)" in words
        assert "100 % quick (BAYPLAN_IS_QUICK)" in words
        assert "(BAYPLAN_CONFIG_FILE)" in words

    def test_a_message_says_where_a_wrong_value_came_from(self, file: Path) -> None:
        file.write_text("port = 1\n")

        assert read("--port=1").whence("port") == ""
        assert read(environ={"BAYPLAN_PORT": "1"}).whence("port") == " (from BAYPLAN_PORT)"
        assert read(file=file).whence("port") == f" (from {file}:1)"


class TestPrintConfig:
    def test_shows_each_value_and_its_source(self, ended: Ended, file: Path) -> None:
        file.write_text('\nlabels = ["a=b"]\nis-quick = true\n')

        shown = ended.read("--print-config", "--label=c=d", environ={"BAYPLAN_PORT": "7"}, file=file)

        assert shown.code == 0
        assert shown.out.splitlines() == [
            f"# {file}",
            'data-dir = "/var/lib/thing"  # default',
            "port = 7  # BAYPLAN_PORT",
            "labels = [",
            f'    "a=b",  # {file}:2',
            '    "c=d",  # flag',
            "]",
            f"is-quick = true  # {file}:3",
            'token = ""  # default',
        ]

    def test_says_that_there_is_no_file(self, ended: Ended) -> None:
        assert ended.read("--print-config").out.startswith(f"# {NOWHERE} (does not exist)\n")

    def test_shows_what_is_missing_and_ends_with_2(self, ended: Ended) -> None:
        with pytest.raises(SystemExit) as end:
            read("--print-config", settings=(Setting(name="id", help="needed", default=None), *SETTINGS))

        assert ended.saw(end.value).code == 2
        assert 'id = ""  # missing\n' in ended.out
        assert "port = 7400  # default\n" in ended.out

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_is_a_file_with_the_same_values(
        self, tmp_path_factory: pytest.TempPathFactory, text: str
    ) -> None:
        file = tmp_path_factory.mktemp("printed") / "thing.toml"
        with pytest.MonkeyPatch.context() as patch, file.open("w", newline="") as out:
            patch.setattr(sys, "stdout", out)
            with pytest.raises(SystemExit):
                read(f"--data-dir={text}", f"--label={text}", "--print-config")

        assert tomllib.loads(file.read_text())["labels"] == [text]
        assert (read(file=file).text("data-dir"), read(file=file).all("label")) == (text, (text,))


class TestSecret:
    SECRET = "bay1.abc.def.s3cret"

    def test_is_not_printed(self, ended: Ended, file: Path) -> None:
        file.write_text(f'token = "{self.SECRET}"\n')

        for shown, source in (
            (ended.read("--print-config", f"--token={self.SECRET}").out, "flag"),
            (ended.read("--print-config", environ={"BAYPLAN_TOKEN": self.SECRET}).out, "BAYPLAN_TOKEN"),
            (ended.read("--print-config", file=file).out, f"{file}:1"),
        ):
            assert f'token = "(hidden)"  # {source}\n' in shown
            assert self.SECRET not in shown

    def test_is_not_in_messages(self, ended: Ended, file: Path) -> None:
        file.write_text("token = 1234567\n")

        assert "1234567" not in ended.read(file=file).error

    def test_is_not_in_what_debuggers_show(self) -> None:
        assert self.SECRET not in repr(read(f"--token={self.SECRET}"))


class TestLoopback:
    @pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
    def test_this_host_itself(self, host: str) -> None:
        assert is_loopback(host)

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "manager1", "127.0.0.1.example", ""])
    def test_everything_else(self, host: str) -> None:
        assert not is_loopback(host)


class TestImport:
    def test_is_light(self) -> None:
        """The daemons answer --help and --print-config before anything heavy is needed."""
        program = "import sys, bayplan.settings; sys.exit(bool({'grpc', 'pydantic'} & set(sys.modules)))"

        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
