from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.load_process import LoadProcess
from bench.load_record import Kind
from bench.load_report import ReportError, read_report
from deploy.demo_app.app import App
from deploy.shell import ROOT
from tests.free_ports import free_port

WITHIN_S = 10.0


@pytest.fixture
def url() -> Iterator[str]:
    """Of an app, in a thread with a loop of its own."""
    found: list[str] = []
    listening = threading.Event()
    apps: list[tuple[App, asyncio.AbstractEventLoop]] = []

    async def serve() -> None:
        app = App(pod="web-0", node="n1", version="1", say=lambda line: listening.set())  # noqa: ARG005
        apps.append((app, asyncio.get_running_loop()))
        await app.run("127.0.0.1", 0)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert listening.wait(WITHIN_S)
    (app, loop), *_ = apps
    found.append(f"http://127.0.0.1:{app.port}")
    yield found[0]
    loop.call_soon_threadsafe(app.leave)
    thread.join(WITHIN_S)


def wait_for(path: Path, text: str) -> None:
    give_up_s = time.monotonic() + WITHIN_S
    while text not in path.read_text():
        assert time.monotonic() < give_up_s, path.read_text()
        time.sleep(0.02)


class TestLoadProcess:
    def test_obeys_and_reports(self, url: str, tmp_path: Path) -> None:
        nobody, path = f"http://127.0.0.1:{free_port()}", tmp_path / "report.jsonl"
        with LoadProcess([url, nobody], path, rate=100.0, websockets=1, downloads=1) as load:
            wait_for(path, '"failure"')
            load.stop_using(nobody)
            load.mark("stopped")
            wait_for(path, '"stopped"')
            load.use(nobody)
            load.mark("used")
            wait_for(path, '"used"')
            report = load.end()

        stopped_s, used_s = report.marks["stopped"], report.marks["used"]
        assert report.failures
        assert all(failure.target == nobody for failure in report.failures)
        assert not [failure for failure in report.failures if stopped_s < failure.began_s < used_s]
        assert report.summary["failures"] == len(report.failures)
        assert report.summary["well"][Kind.POST] > 0
        assert set(report.seconds[0]["pods"]) == {"web-0"}
        assert "stopped" in report.text()

    @pytest.mark.parametrize(("is_there", "code"), [(True, 0), (False, 1)])
    def test_says_by_its_exit_code_whether_anything_failed(
        self, url: str, tmp_path: Path, *, is_there: bool, code: int
    ) -> None:
        path = tmp_path / "report.jsonl"
        target = url if is_there else f"http://127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "bench.load", "--target", target, "--report", str(path)]
        command += ["--seconds", "0.3", "--rate", "50", "--websockets", "0", "--downloads", "0"]

        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)

        assert (done.returncode, done.stderr) == (code, "")
        assert done.stdout.startswith("15 requests")

    def test_a_report_without_an_end_is_none(self, tmp_path: Path) -> None:
        path = tmp_path / "report.jsonl"
        path.write_text(json.dumps({"load": {"targets": [], "rate": 1, "began_at": 0}}) + "\n")

        with pytest.raises(ReportError, match="no summary"):
            read_report(path)
