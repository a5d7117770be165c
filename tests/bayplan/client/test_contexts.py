from __future__ import annotations

import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bayplan.client import ContextError, contexts
from bayplan.client.contexts import Config, Context
from bayplan.client.login import context_name
from bayplan.identity.names import Identity, Kind
from tests.bayplan.client.fake_access import CLUSTER, a_root, credentials_of


def a_context(name: str = "demo", **changes: str) -> Context:
    return Context(
        name=name,
        managers=("10.0.0.1:7400", "10.0.0.2:7400"),
        cluster=changes.get("cluster", CLUSTER),
        user=changes.get("user", "admin"),
        role="admin",
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "bayplan/config.yaml"


@pytest.fixture
def saved(file: Path) -> Path:
    """With one context, logged in."""
    held = credentials_of(a_root(), Kind.USER, "admin", issued_s=time.time())
    contexts.save_login(file, held, lambda _: a_context())
    return file


class TestPlace:
    def test_is_named_or_below_the_users_configuration(self) -> None:
        assert contexts.config_file({"BAYPLAN_CONFIG": "/a/b.yaml"}) == Path("/a/b.yaml")
        assert contexts.config_file({"XDG_CONFIG_HOME": "/x"}) == Path("/x/bayplan/config.yaml")
        assert contexts.config_file({"XDG_CONFIG_HOME": "x"}) == Path.home() / ".config/bayplan/config.yaml"


class TestFile:
    def test_what_was_saved_is_read(self, saved: Path) -> None:
        config = contexts.read_config(saved)

        assert config == Config(current="demo", contexts={"demo": a_context()})
        assert contexts.own_identity(saved, a_context()).credentials.identity.name == "admin"

    def test_is_for_its_owner_alone(self, saved: Path) -> None:
        assert stat.S_IMODE(saved.stat().st_mode) == 0o600
        assert stat.S_IMODE(saved.parent.stat().st_mode) == 0o700
        directory = contexts.credentials_directory(saved, "demo")
        assert {stat.S_IMODE(one.stat().st_mode) for one in directory.iterdir()} == {0o600}

    def test_none_is_an_empty_one(self, file: Path) -> None:
        assert contexts.read_config(file) == Config()

    def test_an_id_of_digits_alone_stays_text(self, file: Path) -> None:
        held = credentials_of(a_root("123456"), Kind.USER, "a", issued_s=time.time(), cluster="123456")
        contexts.save_login(file, held, lambda _: a_context(cluster="123456"))

        assert contexts.read_config(file).contexts["demo"].cluster == "123456"

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("contexts: [\n", ":2: is no YAML"),
            ("a: b: c\n", ":1: is no YAML"),
            (
                "contexts: {}\ncurrent_context: x\n",
                ':2: unknown key "current_context". Did you mean current-context?',
            ),
            ("- x\n", ":1: the file must consist of `key: value`"),
            (
                "contexts:\n  demo:\n    managers: []\n    cluster: a\n    user: b\n",
                ":3: contexts.demo.managers must be a list",
            ),
            ("contexts:\n  demo:\n    managers: [a:1]\n    user: b\n", ":3: contexts.demo has no cluster"),
            ("contexts:\n  ../x:\n    managers: [a:1]\n", ":3: '../x' is no name of a context"),
            ("contexts: {}\ncontexts: {}\n", ':2: "contexts" stands here twice'),
            (
                "contexts:\n  demo:\n    managers: [[a]]\n    cluster: a\n    user: b\n",
                ":3: contexts.demo.managers must be text",
            ),
        ],
    )
    def test_damage_is_said_with_its_line(self, file: Path, text: str, words: str) -> None:
        file.parent.mkdir()
        file.write_text(text)

        with pytest.raises(ContextError) as raised:
            contexts.read_config(file)
        assert str(raised.value).startswith(str(file))
        assert words in str(raised.value)

    def test_bytes_that_are_no_text_are_said(self, file: Path) -> None:
        file.parent.mkdir()
        file.write_bytes(b"\xff")
        with pytest.raises(ContextError, match="is not UTF-8 text"):
            contexts.read_config(file)


class TestChoice:
    def test_the_word_given_wins_then_the_variable_then_the_current_one(self) -> None:
        config = Config(current="c", contexts={name: a_context(name) for name in "abc"})

        assert contexts.choose(config, "a", {"BAYPLAN_CONTEXT": "b"}).name == "a"
        assert contexts.choose(config, None, {"BAYPLAN_CONTEXT": "b"}).name == "b"
        assert contexts.choose(config, None, {}).name == "c"

    def test_without_any_it_says_how_to_get_one(self) -> None:
        with pytest.raises(ContextError, match="no cluster is known here: log in with `bay login"):
            contexts.choose(Config(), None, {})

    def test_without_a_current_one_it_names_those_known(self) -> None:
        config = Config(contexts={"a": a_context("a")})
        with pytest.raises(ContextError, match=r"use-context NAME.*Known are a\."):
            contexts.choose(config, None, {})

    def test_an_unknown_one_brings_a_suggestion(self) -> None:
        config = Config(contexts={"demo": a_context()})
        with pytest.raises(ContextError, match=r'there is no context "dmeo"\. Did you mean demo\?'):
            contexts.choose(config, "dmeo", {})
        with pytest.raises(ContextError, match="Known are demo"):
            contexts.choose(config, "x", {})


class TestIdentity:
    def test_without_credentials_it_says_how_to_log_in_again(self, saved: Path) -> None:
        with pytest.raises(ContextError, match=r'context "other" has no credentials .* --context other`'):
            contexts.own_identity(saved, a_context("other"))

    def test_of_another_cluster_is_refused(self, saved: Path) -> None:
        with pytest.raises(ContextError, match="is of cluster aaa, but its credentials are of"):
            contexts.own_identity(saved, a_context(cluster="aaa"))

    def test_that_others_can_read_is_refused(self, saved: Path) -> None:
        (contexts.credentials_directory(saved, "demo") / "identity.pem").chmod(0o644)
        with pytest.raises(ContextError, match="can be read by others"):
            contexts.own_identity(saved, a_context())


class TestNames:
    def identity(self, name: str = "admin", cluster: str = CLUSTER) -> Identity:
        return Identity(cluster=cluster, kind=Kind.USER, name=name)

    def test_the_first_is_the_default(self) -> None:
        assert context_name(Config(), self.identity()) == "default"

    def test_logging_in_again_replaces_the_same_users_context(self) -> None:
        config = Config(contexts={"demo": a_context()})
        assert context_name(config, self.identity()) == "demo"

    def test_another_cluster_or_user_takes_nobodys_place(self) -> None:
        config = Config().with_context(a_context("default", cluster="other"))
        assert context_name(config, self.identity()) == "3f2a9c1d"
        config = config.with_context(a_context("3f2a9c1d"))
        assert context_name(config, self.identity("bob")) == "3f2a9c1d-bob"

    def test_never_takes_anothers_place(self) -> None:
        taken = ("default", "3f2a9c1d", "3f2a9c1d-bob", "3f2a9c1d-2")
        config = Config(contexts={name: a_context(name, user="carol") for name in taken})

        assert context_name(config, self.identity("bob")) == "3f2a9c1d-3"


class TestChanges:
    def test_delete_takes_the_credentials_too(self, saved: Path) -> None:
        assert contexts.delete(saved, "demo")

        assert contexts.read_config(saved) == Config()
        assert not contexts.credentials_directory(saved, "demo").exists()

    def test_use_and_delete_refuse_what_is_not_there(self, saved: Path) -> None:
        for change in (contexts.use, contexts.delete):
            with pytest.raises(ContextError, match=r"Did you mean demo\?"):
                change(saved, "demos")

    def test_those_made_at_the_same_time_are_all_kept(self, file: Path) -> None:
        program = (
            "import sys, time\n"
            "from pathlib import Path\n"
            "from bayplan.client import contexts\n"
            "from bayplan.client.contexts import Context\n"
            "from bayplan.identity.credentials import Credentials\n"
            "from bayplan.identity.names import parse_identity\n"
            "name = sys.argv[2]\n"
            "held = Credentials(identity=parse_identity('spiffe://c/user/a'), issued_s=0, expires_s=1,\n"
            "    key_pem=b'', certificates_pem=b'', roots_pem=b'')\n"
            "made = Context(name=name, managers=('a:1',), cluster='c', user='a')\n"
            "contexts.save_login(Path(sys.argv[1]), held, lambda config: made)\n"
        )
        names = [f"c{number}" for number in range(5)]
        running = [subprocess.Popen([sys.executable, "-c", program, str(file), name]) for name in names]
        assert [one.wait(30) for one in running] == [0] * 5

        assert sorted(contexts.read_config(file).contexts) == names

    def test_a_place_that_cannot_be_written_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("")
        with pytest.raises(ContextError, match=r"cannot change .*Not a directory"):
            contexts.prepare(tmp_path / "a/b/config.yaml")
