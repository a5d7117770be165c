from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import page_beside
from deploy.local_cluster import TESTS
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


@pytest.fixture(autouse=True)
def _no_page_afterwards() -> Iterator[None]:
    """It would go on, with its load."""
    yield
    page_beside.stop(TESTS)


@pytest.mark.usefixtures("cluster")
class TestDemo:
    def test_runs_through_and_again_on_its_own_cluster(self) -> None:
        for _ in range(2):
            done = demo(ROOT / "examples/my-app")

            assert done.returncode == 0, done.stdout + done.stderr
            assert "All 3 pods run again, on the other nodes" in done.stdout
            assert "Another manager took a write" in done.stdout
            assert done.stdout.count("hello from my-app-") >= 2 * 3 + 2 * 2
            assert "make demo-down" in done.stdout
            url = f"http://127.0.0.1:{TESTS.page_port}"
            assert url in done.stdout
            with urllib.request.urlopen(f"{url}/live", timeout=10) as live:
                assert json.loads(live.readline().removeprefix(b"data: "))["nodes"]

    def test_ends_with_an_error_at_the_step_that_does_not_see_its_pods(self, tmp_path: Path) -> None:
        """The example's manifests with an image whose command is missing."""
        example = tmp_path / "my-app"
        shutil.copytree(ROOT / "examples/my-app", example)
        shutil.copy(HERE / "broken-app/Dockerfile", example / "Dockerfile")

        done = demo(example)

        assert done.returncode == 1
        assert "gunicorn" in done.stderr
        assert "Kill node" not in done.stdout


@pytest.mark.usefixtures("cluster")
class TestPowerCut:
    def test_tells_second_by_second_what_a_client_saw(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "deploy.power_cut", "--cluster", "tests"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 0, done.stdout + done.stderr
        rows = re.findall(r"^ *([+-]\d+) s +(\d+) +\d+ ", done.stdout, re.MULTILINE)
        answered = {int(second): int(count) for second, count in rows}
        assert {*range(-3, 16)} <= set(answered), done.stdout
        # The cut itself may silence one second; the load goes on through the hosts that live.
        assert all(answered[second] > 0 for second in (*range(-3, 0), *range(2, 16))), done.stdout
        assert "Failed before the cut: 0" in done.stdout, done.stdout
        assert "Failed later, through hosts that live: 0" in done.stdout, done.stdout
        assert "is there again" in done.stdout
