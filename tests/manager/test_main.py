"""How the manager's process ends when it cannot run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

import manager.main
from bayplan.identity.credentials import CredentialsError
from manager.access.access import NotAMemberError
from manager.members import DuplicateManagerError
from manager.store.sealing import ClusterKeyError, WrongClusterKeyError

Ends = Callable[[Exception], tuple[object, str]]

REVOKED = NotAMemberError("manager m1 was revoked: it stops")


@pytest.fixture(params=["at the start", "while it runs"])
def ends(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Ends:
    """Let it fail, by itself or deep in its parts; returns its exit code and what it said."""
    monkeypatch.setattr("manager.main.configure_log", lambda: None)
    monkeypatch.setattr("sys.argv", ["bayplan-manager", "--id=m1", "--advertise=10.0.0.1:7400"])

    def end(error: Exception) -> tuple[object, str]:
        async def fail() -> None:
            raise error

        async def run(_: object) -> None:
            if request.param == "at the start":
                await fail()
            async with asyncio.TaskGroup() as parts, asyncio.TaskGroup() as inner:
                parts.create_task(asyncio.sleep(3600))
                inner.create_task(fail())

        monkeypatch.setattr("manager.main._run", run)
        with pytest.raises(SystemExit) as ended:
            manager.main.main()
        return ended.value.code, capsys.readouterr().err

    return end


class TestEnd:
    @pytest.mark.parametrize(
        "error",
        [
            REVOKED,
            CredentialsError("cannot read identity.pem: Permission denied"),
            WrongClusterKeyError(of_store="a", of_manager="b"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_on_what_must_be_mended_on_this_host_its_unit_stays_down(
        self, ends: Ends, error: Exception
    ) -> None:
        assert ends(error) == (manager.main.MEND_FIRST, f"bayplan-manager: {error}\n")

    def test_whatever_else_fails_with_it(self, ends: Ends) -> None:
        code, said = ends(ExceptionGroup("parts", [REVOKED, OSError(28, "No space left on device")]))

        assert code == manager.main.MEND_FIRST
        assert f"bayplan-manager: {REVOKED}\n" in said

    @pytest.mark.parametrize(
        "error",
        [
            OSError(98, "cannot listen on 0.0.0.0:7400"),
            DuplicateManagerError("another manager runs as m1"),
            ClusterKeyError("vault gave no cluster key within 10 s"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_on_what_may_be_mended_elsewhere_it_is_restarted(self, ends: Ends, error: Exception) -> None:
        assert ends(error) == (1, f"bayplan-manager: {error}\n")
