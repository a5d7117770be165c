from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

from deploy import wheels
from deploy.shell import ROOT, StepError, run

# Installing from a package index takes as long as the network does.
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return wheels.build(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="module")
def python(built: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", str(home)])
    run([home / "bin/python", "-m", "pip", "install", "--quiet", str(built[1])], timeout_s=200)
    return home / "bin/python"


def packages(wheel: Path) -> set[str]:
    names = {name.partition("/")[0] for name in ZipFile(wheel).namelist()}
    return {name for name in names if not name.endswith(".dist-info")}


class TestWheels:
    def test_bayplan_brings_everything(self, built: list[Path]) -> None:
        assert packages(built[0]) == {"bayplan", "manager", "agent"}

    def test_client_brings_the_package_bayplan_alone(self, built: list[Path]) -> None:
        assert packages(built[1]) == {"bayplan"}
        assert "bayplan/py.typed" in ZipFile(built[1]).namelist()

    def test_client_asks_for_nothing_the_project_does_not(self) -> None:
        whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
        client = tomllib.loads((ROOT / "packaging/client/pyproject.toml").read_text())["project"][
            "dependencies"
        ]

        assert set(client) < set(whole)


class TestClientWheelInAFreshEnvironment:
    def test_the_client_can_be_imported(self, python: Path, tmp_path: Path) -> None:
        run([python, "-c", "import bayplan.client"], cwd=tmp_path)

    @pytest.mark.parametrize("module", ["agent", "manager", "numpy", "aiodocker", "aetcd"])
    def test_the_daemons_and_their_needs_are_not_there(
        self, python: Path, tmp_path: Path, module: str
    ) -> None:
        with pytest.raises(StepError, match="ModuleNotFoundError"):
            run([python, "-c", f"import {module}"], cwd=tmp_path)

    def test_bay_answers(self, python: Path, tmp_path: Path) -> None:
        assert "apply" in run([python.parent / "bay", "--help"], cwd=tmp_path)

    def test_a_typed_program_of_a_user_is_clean(self, python: Path, tmp_path: Path) -> None:
        """The README's example, under mypy strict, which finds the installed client and nothing of this checkout."""
        program = tmp_path / "client.py"
        program.write_text((ROOT / "examples/client.py").read_text())
        mypy = [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--config-file=",
            "--cache-dir",
            str(tmp_path / "cache"),
        ]

        said = run([*mypy, "--python-executable", str(python), str(program)], cwd=tmp_path, timeout_s=200)

        assert "no issues found" in said
