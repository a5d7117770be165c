"""The demo's page in a process beside the demo: start it, end it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

from deploy.local_cluster import LocalCluster
from deploy.shell import CACHE, ROOT, StepError

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5.0


def start(cluster: LocalCluster) -> str:
    """In the place of an older one; returns its URL. Raises StepError."""
    stop(cluster)
    url = f"http://127.0.0.1:{cluster.page_port}"
    log_file = CACHE / f"{cluster.project}-page.log"
    command = [str(ROOT / ".venv/bin/python"), "-m", "deploy.demo_page", "--project", cluster.project]
    with log_file.open("wb") as log:
        # Not ended by the Ctrl-C of the shell that the demo was started from.
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    _pid_file(cluster).write_text(str(process.pid))
    give_up_s = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < give_up_s:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1):
            return url
        time.sleep(0.1)
    stop(cluster)
    raise StepError(f"the page does not start:\n{log_file.read_text(errors='replace')[-1000:]}")


def stop(cluster: LocalCluster) -> None:
    """It has ended then, and its port is free. None there is no error."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(_pid_file(cluster).read_text())
        give_up_s = time.monotonic() + STOP_TIMEOUT_S
        while _is_page(pid, cluster):
            os.kill(pid, signal.SIGTERM if time.monotonic() < give_up_s else signal.SIGKILL)
            time.sleep(0.1)
    _pid_file(cluster).unlink(missing_ok=True)


def _is_page(pid: int, cluster: LocalCluster) -> bool:
    """Whether it still runs; the number may be another process's by now. Raises OSError where there is none."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return {b"deploy.demo_page", cluster.project.encode()} <= {*words}


def _pid_file(cluster: LocalCluster) -> Path:
    return CACHE / f"{cluster.project}-page.pid"
