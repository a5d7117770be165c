"""How the agent's process ends when it cannot run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import agent.main
from agent.identity import DIRECTORY
from bayplan.identity.credentials import CredentialsError, save_credentials
from tests.agent.test_identity import some_credentials

Ends = Callable[..., tuple[object, str]]


@pytest.fixture
def ends(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ends:
    """Run it, with flags; returns its exit code and what it said."""
    monkeypatch.setattr("agent.main.configure_log", lambda _: None)

    def end(*flags: str) -> tuple[object, str]:
        with pytest.raises(SystemExit) as ended:
            agent.main.main(["--node=n1", "--managers=127.0.0.1:1", f"--data-dir={tmp_path}", *flags])
        return ended.value.code, capsys.readouterr().err

    return end


class TestWhatMustBeMendedFirst:
    """Its unit stays down: `systemctl status` shows the words."""

    def test_a_host_that_was_renamed(self, ends: Ends, tmp_path: Path) -> None:
        save_credentials(tmp_path / DIRECTORY, some_credentials("n2"))

        code, said = ends()

        assert code == agent.main.MEND_FIRST
        assert said.startswith(f"bayplan-agent: {tmp_path}/identity belongs to node n2, and --node says n1")

    def test_credentials_that_are_damaged(self, ends: Ends, tmp_path: Path) -> None:
        save_credentials(tmp_path / DIRECTORY, some_credentials())
        (tmp_path / DIRECTORY / "identity.pem").write_bytes(b"junk")

        code, said = ends()

        assert code == agent.main.MEND_FIRST
        assert said.startswith(f"bayplan-agent: {tmp_path}/identity/identity.pem is damaged")

    def test_beside_another_failure(self, ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
        async def fail(*_: object, **__: object) -> None:
            raise ExceptionGroup("parts", [CredentialsError("no identity"), RuntimeError("a part failed")])

        monkeypatch.setattr("agent.main._run", fail)

        code, said = ends()

        assert code == agent.main.MEND_FIRST
        assert said.startswith("bayplan-agent: no identity\n")

    def test_a_token_that_is_none(self, ends: Ends) -> None:
        code, said = ends("--join-token=hunter2")

        assert code == agent.main.MEND_FIRST
        assert said.startswith("bayplan-agent: this is no join token")


class TestFailure:
    def test_of_a_part_ends_it_so_that_its_unit_restarts_it(
        self, ends: Ends, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(*_: object, **__: object) -> None:
            raise ExceptionGroup("parts", [RuntimeError("a part failed")])

        monkeypatch.setattr("agent.main._run", fail)

        assert ends()[0] == 1


class TestPublishedAddresses:
    @pytest.mark.parametrize("given", ["node.example", "0.0.0.0", "::", "192.0.2.1,192.0.2.2"])
    def test_are_those_of_interfaces(self, ends: Ends, given: str) -> None:
        code, said = ends(f"--publish-address={given}")

        assert code == agent.main.MEND_FIRST
        assert "is not the address of one interface" in said
