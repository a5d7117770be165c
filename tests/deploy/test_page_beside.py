from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import page_beside
from deploy.local_cluster import DEMO, TESTS

# Ends a while after it was told to, as a page does that has browsers.
SLOW = "import signal, sys, time; signal.signal(15, lambda *_: (time.sleep(0.3), sys.exit())); print(1, flush=True); time.sleep(60)"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """What the demo's page would be, noted as such."""
    monkeypatch.setattr(page_beside, "CACHE", tmp_path)
    command = [sys.executable, "-c", SLOW, "deploy.demo_page", "--project", DEMO.project]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for cluster in (DEMO, TESTS):
            (tmp_path / f"{cluster.project}-page.pid").write_text(str(process.pid))
        yield process
        process.kill()


class TestStop:
    def test_returns_when_the_page_has_ended(self, page: subprocess.Popen[bytes]) -> None:
        page_beside.stop(DEMO)

        assert page.poll() is not None, "the next one would find its port taken"

    def test_leaves_alone_whoever_has_the_number_now(self, page: subprocess.Popen[bytes]) -> None:
        page_beside.stop(TESTS)

        assert page.poll() is None
