"""bench/load.py beside a test or a demo, that does other things meanwhile; and what the pods' logs say they executed."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.load_record import LIMIT_S
from bench.load_report import Report, read_report
from deploy.local_cluster import NODES, LocalCluster
from deploy.shell import ROOT, StepError

START_TIMEOUT_S = 10.0
END_TIMEOUT_S = LIMIT_S + 10.0
_EXECUTED = re.compile(r"^executed (\w+)\r?$", re.MULTILINE)


class LoadProcess:
    """`with LoadProcess(targets, path) as load: …; report = load.end()`."""

    def __init__(
        self,
        targets: Sequence[str],
        report: Path,
        *,
        rate: float = 300.0,
        websockets: int = 10,
        downloads: int = 10,
    ) -> None:
        """`targets`: URLs without a path, such as http://172.31.85.21."""
        self._path = report
        command = [sys.executable, "-m", "bench.load", "--commands", "--report", str(report)]
        command += [f"--rate={rate}", f"--websockets={websockets}", f"--downloads={downloads}"]
        command += [word for target in targets for word in ("--target", target)]
        report.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._wait_until_it_runs()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def stop_using(self, target: str) -> None:
        """Nothing new goes there from now on."""
        self._say(f"stop {target}")

    def use(self, target: str) -> None:
        self._say(f"use {target}")

    def mark(self, text: str) -> None:
        """The report will say when this was: its own clock, so that failures can be laid beside it."""
        self._say(f"mark {text}")

    def end(self) -> Report:
        """Wait for what is under way. Raises StepError, ReportError."""
        said, _ = self._process.communicate("end\n", timeout=END_TIMEOUT_S)
        print(said, end="", flush=True)
        return read_report(self._path)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise StepError(f"the load has ended: {self._process.communicate()[0]}") from error

    def _wait_until_it_runs(self) -> None:
        give_up_s = time.monotonic() + START_TIMEOUT_S
        while not self._path.exists() or not self._path.stat().st_size:
            if self._process.poll() is not None or time.monotonic() > give_up_s:
                self._process.kill()
                raise StepError(f"the load does not start: {self._process.communicate()[0]}")
            time.sleep(0.02)


def executed_ids(cluster: LocalCluster, workload: str) -> list[str]:
    """What its pods say they executed, those too that have ended: from their logs, of every node's own engine.

    `workload`: "Deployment/demo-app", as the label says. Nodes must run.
    """
    script = f"for id in $(docker ps --all --quiet --filter label=bayplan.io/workload={workload}); do docker logs $id; done"
    return [
        found
        for service in NODES.values()
        for found in _EXECUTED.findall(cluster.execute(service, "sh", "-c", script))
    ]
