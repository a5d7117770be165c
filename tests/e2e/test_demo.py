from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.shell import ROOT

HERE = Path(__file__).parent


def demo(example: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.demo", "up", "--cluster", "tests", "--example", str(example)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.usefixtures("cluster")
class TestDemo:
    def test_runs_through_and_again_on_its_own_cluster(self) -> None:
        for _ in range(2):
            done = demo(ROOT / "examples/my-app")

            assert done.returncode == 0, done.stdout + done.stderr
            assert "All 3 pods run again, on the other nodes" in done.stdout
            assert "Another manager took a write" in done.stdout
            assert "make demo-down" in done.stdout

    def test_ends_with_an_error_at_the_step_that_does_not_see_its_pods(self, tmp_path: Path) -> None:
        """The example's manifests with an image whose command is missing."""
        example = tmp_path / "my-app"
        shutil.copytree(ROOT / "examples/my-app", example)
        shutil.copy(HERE / "broken-app/Dockerfile", example / "Dockerfile")

        done = demo(example)

        assert done.returncode == 1
        assert "gunicorn" in done.stderr
        assert "Kill node" not in done.stdout
