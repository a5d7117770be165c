"""The commands that take secrets in and show that they are there, as users run them."""

from __future__ import annotations

import base64
import json
import os
import pty
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from bayplan.cli.text import now_ms
from tests.bayplan.cli.conftest import DAY_MS, Bay, text
from tests.bayplan.client.fake_control import document

VALUE = "hunter2!"


def encoded(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def a_secret(name: str = "db", **fields: Any) -> dict[str, Any]:
    data = {"password": encoded(VALUE), "user": encoded("me")}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "default"},
        "data": data,
        **fields,
    }


def data_of(bay: Bay) -> dict[str, bytes]:
    """What the one secret of the cluster holds."""
    (found,) = bay.control.documents
    return {key: base64.b64decode(value) for key, value in json.loads(found.json)["data"].items()}


class TestGet:
    async def test_secrets_in_kubectls_columns(self, bay: Bay) -> None:
        created_ms = now_ms() - 3 * DAY_MS
        bay.control.documents = [
            document(a_secret(), created_ms=created_ms),
            document(a_secret("tls", type="kubernetes.io/tls", data={}), created_ms=created_ms),
        ]
        ended = await bay("get", "secrets")

        assert ended.out == text("""
            NAME   TYPE                DATA   AGE
            db     Opaque              2      3d
            tls    kubernetes.io/tls   0      3d
        """)
        assert ended.err == ""

    @pytest.mark.parametrize("words", [("secret", "db"), ("secrets",)])
    async def test_yaml_hides_the_values_and_says_how_to_see_them(
        self, bay: Bay, words: tuple[str, ...]
    ) -> None:
        bay.control.documents = [document(a_secret())]
        ended = await bay("get", *words, "-o", "yaml")

        shown = yaml.safe_load(ended.out)
        assert shown.get("items", [shown])[0]["data"] == {"password": "", "user": ""}
        assert ended.err == "note: values are hidden; --show-secrets shows them\n"

    async def test_a_watch_hides_them_too(self, bay: Bay) -> None:
        bay.control.documents = [document(a_secret())]
        process = await bay.start("get", "secret/db", "-w", "-o", "json")
        assert process.stdout is not None
        shown = b"".join([await process.stdout.readline() for _ in range(15)])
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()

        assert b'"password": ""' in shown
        assert err.endswith(b"note: values are hidden; --show-secrets shows them\n")

    async def test_shows_the_values_when_asked(self, bay: Bay) -> None:
        bay.control.documents = [document(a_secret())]
        for words in (("secret", "db"), ("secrets",)):
            ended = await bay("get", *words, "-o", "json", "--show-secrets")
            assert encoded(VALUE) in ended.out
            assert ended.err == ""

    async def test_shows_values_in_no_table(self, bay: Bay) -> None:
        ended = await bay("get", "secrets", "--show-secrets")

        assert ended.code == 2
        assert "only -o yaml and -o json do" in ended.err

    async def test_those_who_may_not_are_told_so(self, bay: Bay) -> None:
        words = "alice is a viewer: reading secrets needs the role operator"
        bay.control.failures = [(grpc.StatusCode.PERMISSION_DENIED, words)]
        ended = await bay("get", "secrets", "-o", "yaml", "--show-secrets")

        assert (ended.code, ended.err) == (1, f"error: {words}\n")

    async def test_describe_names_the_keys(self, bay: Bay) -> None:
        bay.control.documents = [document(a_secret(immutable=True))]
        ended = await bay("describe", "secret", "db")

        assert "Type:            Opaque\nImmutable:       True\nData:\n  password\n  user\n" in ended.out
        assert encoded(VALUE) not in ended.out

    async def test_all_leaves_secrets_out(self, bay: Bay) -> None:
        """As kubectl does."""
        bay.control.documents = [document(a_secret())]
        assert (await bay("get", "all", "-o", "name")).out == ""


class TestApply:
    async def test_warns_and_does_not_wait(self, bay: Bay) -> None:
        ended = await bay("apply", "-f", "-", stdin=json.dumps(a_secret()))

        assert (ended.code, ended.out) == (0, "secret/db created\n")
        assert ended.err == "warning: secret/db: pods cannot use them yet\n"

    async def test_what_is_no_base64_is_shown_by_its_key_and_place_alone(self, bay: Bay) -> None:
        manifest = yaml.safe_dump(a_secret(data={"password": VALUE, "pin": 1234567}), sort_keys=False)
        ended = await bay("apply", "-f", "-", stdin=manifest)

        assert ended.code == 1
        assert "stdin:7:3  Secret/db data.password\n    is not base64: put plain text under" in ended.err
        assert "stdin:8:3  Secret/db data.pin\n    must be text: put it in quotes\n" in ended.err
        assert "hunter2" not in ended.err
        assert "1234567" not in ended.err
        assert not bay.control.requests

    async def test_what_was_read_with_hidden_values_is_refused(self, bay: Bay) -> None:
        """It would overwrite the values with nothing."""
        bay.control.documents = [document(a_secret())]
        hidden = (await bay("get", "secrets", "-o", "yaml")).out
        shown = (await bay("get", "secrets", "-o", "yaml", "--show-secrets")).out
        refused = await bay("apply", "-f", "-", stdin=hidden)

        assert refused.code == 1
        assert "this is a secret whose values were hidden: get it with --show-secrets" in refused.err
        assert data_of(bay)["password"] == VALUE.encode()
        assert (await bay("apply", "-f", "-", stdin=shown)).code == 0

    async def test_delete_takes_what_was_read_with_hidden_values(self, bay: Bay) -> None:
        bay.control.documents = [document(a_secret())]
        hidden = (await bay("get", "secret", "db", "-o", "yaml")).out

        assert (await bay("delete", "-f", "-", stdin=hidden)).out == 'secret "db" deleted\n'


class TestCreate:
    async def test_from_words_and_files(self, bay: Bay, tmp_path: Path) -> None:
        (tmp_path / "tls.key").write_bytes(b"\0\xff\n")
        (tmp_path / "more").mkdir()
        (tmp_path / "more" / "a").write_text("1")
        (tmp_path / "more" / "link").symlink_to("a")
        ended = await bay(
            "create",
            "secret",
            "generic",
            "db",
            "--from-literal=password=a=b ",
            "--from-literal=empty=",
            f"--from-file={tmp_path}/tls.key",
            f"--from-file=renamed={tmp_path}/tls.key",
            f"--from-file={tmp_path}/more",
            "-n",
            "shop",
        )

        assert (ended.code, ended.out) == (0, "secret/db created\n")
        assert ended.err == "warning: secret/db: pods cannot use them yet\n"
        assert data_of(bay) == {
            "password": b"a=b ",
            "empty": b"",
            "tls.key": b"\0\xff\n",
            "renamed": b"\0\xff\n",
            "a": b"1",
        }
        assert bay.control.documents[0].namespace == "shop"

    async def test_from_an_env_file(self, bay: Bay, tmp_path: Path) -> None:
        file = tmp_path / ".env"
        file.write_text('\ufeffUSER_NAME=me\n# a note\n\n  QUOTED="x" \nFROM_HERE\nEMPTY=\r\n')
        ended = await bay(
            "create", "secret", "generic", "db", f"--from-env-file={file}", env={"FROM_HERE": "ü"}
        )

        assert ended.code == 0
        assert data_of(bay) == {
            "USER_NAME": b"me",
            "QUOTED": b'"x" ',
            "FROM_HERE": "ü".encode(),
            "EMPTY": b"",
        }

    async def test_leaves_one_that_exists_as_it_is(self, bay: Bay) -> None:
        bay.control.documents = [document(a_secret())]
        ended = await bay("create", "secret", "generic", "db", "--from-literal=password=other")

        assert (ended.code, ended.err) == (1, "error: Secret default/db exists already\n")

    async def test_of_a_type_and_dry(self, bay: Bay) -> None:
        words = ("create", "secret", "generic", "git", "--type=kubernetes.io/ssh-auth")
        assert "must have the key ssh-privatekey" in (await bay(*words)).err
        ended = await bay(*words, "--from-literal=ssh-privatekey=x", "--dry-run")

        assert ended.out == "secret/git created (dry run)\n"
        assert not bay.control.documents

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            (f"--from-literal={VALUE}", "write --from-literal as KEY=VALUE"),
            (f"--from-literal=={VALUE}", "write --from-literal as KEY=VALUE"),
            (f"--from-literal=a b={VALUE}", 'data["a b"]: is not a key of a secret'),
            (f"--from-file=a=b={VALUE}", "write --from-file as PATH or KEY=PATH"),
            ("--from-file=a=.", "is a directory: its files name their own keys"),
            ("--from-file=/nowhere", "/nowhere"),
            ("--from-file=/dev/zero", "has more than the 1024 KiB of a secret"),
            ("--from-env-file=/dev/zero", "has more than the 1024 KiB of a secret"),
        ],
    )
    async def test_says_what_is_wrong_without_the_value(self, bay: Bay, option: str, message: str) -> None:
        ended = await bay("create", "secret", "generic", "db", option)

        assert ended.code in (1, 2)
        assert message in ended.err
        assert "hunter2" not in ended.err + ended.out
        assert not bay.control.requests

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (VALUE, "2: does not begin with NAME="),
            ("hunter2", "2: has no =, and names no variable that is set"),
            ("\xff", "is not UTF-8 text"),
        ],
    )
    async def test_an_env_file_is_refused_without_its_lines(
        self, bay: Bay, tmp_path: Path, line: str, message: str
    ) -> None:
        (tmp_path / ".env").write_bytes(f"A=1\n{line}\n".encode("latin-1"))
        ended = await bay("create", "secret", "generic", "db", f"--from-env-file={tmp_path}/.env")

        assert ended.code == 1
        assert message in ended.err
        assert "hunter2" not in ended.err

    async def test_a_key_given_twice_is_an_error(self, bay: Bay) -> None:
        ended = await bay("create", "secret", "generic", "db", "--from-literal=a=1", "--from-literal=a=2")
        assert (ended.code, ended.err) == (2, 'error: the key "a" is given twice\n')
        ended = await bay(
            "create", "secret", "generic", "db", "--from-literal=a=1", "--from-env-file=/dev/null"
        )
        assert "--from-env-file excludes" in ended.err


class TestRegistry:
    async def test_login_list_and_logout(self, bay: Bay) -> None:
        words = ("registry", "login", "reg.example:5000", "-u", "me", "--password-stdin")
        first = await bay(*words, stdin="hunter2 \r\n")
        again = await bay(*words, stdin="other")

        assert (first.code, first.out, first.err) == (0, "registry/reg.example:5000 created\n", "")
        assert again.out == "registry/reg.example:5000 configured\n"
        assert bay.control.logins == {"reg.example:5000": ("me", "other")}
        assert bay.control.requests[0].password == "hunter2 "
        assert (await bay("registry", "list")).out == text("""
            HOST               USERNAME
            reg.example:5000   me
        """)
        assert (await bay("registry", "list", "-q")).out == "reg.example:5000\n"
        assert json.loads((await bay("registry", "list", "-o", "json")).out) == [
            {"registry": "reg.example:5000", "username": "me"}
        ]
        ended = await bay("registry", "logout", "reg.example:5000")
        assert ended.out == 'registry "reg.example:5000" deleted\n'
        ended = await bay("registry", "logout", "reg.example:5000")
        assert (ended.code, ended.err) == (1, "error: there is no login for registry reg.example:5000\n")
        assert (await bay("registry", "list")).err == "Nothing found.\n"

    async def test_an_empty_password_is_refused(self, bay: Bay) -> None:
        words = ("registry", "login", "reg.example", "--username", "me")
        empty = await bay(*words, "--password-stdin", stdin="\n")
        unsaid = await bay(*words, stdin="hunter2")

        assert (empty.code, empty.err) == (1, "error: the password is empty\n")
        assert unsaid.code == 2
        assert "pipe the password in, and say --password-stdin" in unsaid.err
        assert not bay.control.requests

    async def test_a_terminal_is_asked_and_shows_nothing(self, bay: Bay) -> None:
        ours, theirs = pty.openpty()
        process = await bay.start("registry", "login", "reg.example", "-u", "me", terminal=theirs)
        shown = b""
        while b"Password:" not in shown:
            shown += os.read(ours, 1024)
        os.write(ours, b"hunter2\n")
        assert await process.wait() == 0
        shown += os.read(ours, 1024)
        os.close(theirs)
        os.close(ours)

        assert bay.control.logins == {"reg.example": ("me", "hunter2")}
        assert b"hunter2" not in shown
