"""A real etcd for tests, in a process of its own, that can be killed and frozen."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.free_ports import free_port

START_TIMEOUT_S = 20.0
_CHECKOUT = Path(__file__).parent.parent


class EtcdMissingError(RuntimeError):
    """There is no etcd to test with."""

    def __init__(self) -> None:
        super().__init__("etcd is neither on PATH nor in .cache/bin: run `make setup`")


def etcd_binary() -> str:
    """Path of the binary. A missing one is an error, for a skipped test proves nothing."""
    found = shutil.which("etcd", path=str(_CHECKOUT / ".cache/bin")) or shutil.which("etcd")
    if found is None:
        raise EtcdMissingError
    return found


class RealEtcd:
    """One member with a data directory and ports of its own."""

    def __init__(self, directory: Path, *flags: str, scheme: str = "http") -> None:
        self._directory = directory
        self._flags = flags
        self._scheme = scheme
        self.port = free_port()
        self._peer_port = free_port()
        self._health_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, or start again on the same data; returns when it answers."""
        client, peer = f"{self._scheme}://{self.endpoint}", f"http://127.0.0.1:{self._peer_port}"
        command = [
            etcd_binary(),
            "--name=test",
            f"--data-dir={self._directory / 'data'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=test={peer}",
            "--snapshot-count=10000",
            "--experimental-watch-progress-notify-interval=2s",
            # A member alone elects itself the sooner.
            "--heartbeat-interval=50",
            "--election-timeout=500",
            "--logger=zap",
            f"--listen-metrics-urls=http://127.0.0.1:{self._health_port}",
            *self._flags,
        ]
        with (self._directory / "etcd.log").open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        self._wait_until_it_leads()

    def _wait_until_it_leads(self) -> None:
        give_up_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < give_up_s:
            try:
                with socket.create_connection(("127.0.0.1", self._health_port), timeout=1) as connection:
                    connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                    if b'"true"' in connection.makefile("rb").read():
                        return
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"etcd does not start, see {self._directory / 'etcd.log'}")

    def kill(self) -> None:
        """SIGKILL. Nothing happens if it is dead already."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ensure_running(self) -> None:
        """Undo whatever a test did."""
        if self._process is None:
            self.start()
        else:
            self.resume()

    def wipe(self) -> None:
        """Delete the data of a killed etcd."""
        assert self._process is None
        shutil.rmtree(self._directory / "data")

    def pause(self) -> None:
        """SIGSTOP."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # The signal takes its time to reach every thread.
        threads = Path(f"/proc/{self._process.pid}/task")
        while any(") T " not in (thread / "stat").read_text() for thread in threads.iterdir()):
            time.sleep(0.005)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def restart(self) -> None:
        """Start again without blocking the loop."""
        await asyncio.to_thread(self.start)
