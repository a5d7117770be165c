"""`bayplan-dns` as it is run: a process, port 53, and a bridge that comes, goes and comes back.

In a network namespace of its own, so it needs root, and no port of this host.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import pytest

from agent.dns.stats import SOCKET_NAME
from agent.dns.zone_file import FILE_NAME, write_zone
from tests.agent.dns.builders import WEB, a_network, a_service, a_traffic, lines_of, values

GATEWAY = "10.42.3.1"
# Measured 33 MB; the agent itself needs some 90.
MEMORY_MAX_KIB = 48 * 1024


def main(directory: Path) -> None:
    """Runs inside the namespace; whatever raises fails the test."""
    from pyroute2 import IPRoute

    write_zone(
        directory / FILE_NAME,
        [
            line.replace("127.42.", "10.42.")
            for line in lines_of(a_traffic(a_service(vip="10.96.0.7")), a_network())
        ],
    )
    serving = subprocess.Popen([sys.executable, "-m", "agent.dns.main", f"--run-dir={directory}"])
    try:
        until(lambda: b'"address": "10.42.3.1"' in told(directory))
        with IPRoute() as kernel:
            assert not answers(), "the bridge is not there yet"
            for _ in range(2):
                kernel.link("add", ifname="bay1", kind="bridge")
                bridge = kernel.link_lookup(ifname="bay1")[0]
                kernel.addr("add", index=bridge, address=GATEWAY, prefixlen=24)
                kernel.link("set", index=bridge, state="up")
                kernel.link("set", index=kernel.link_lookup(ifname="lo")[0], state="up")
                until(answers)
                until(lambda: answers(over=dns.query.tcp))
                kernel.link("del", index=bridge)
                assert not answers(), "the bridge is gone"
        memory_kib = int(Path(f"/proc/{serving.pid}/status").read_text().split("VmRSS:")[1].split()[0])
        assert memory_kib < MEMORY_MAX_KIB, memory_kib
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(timeout=10) == 0
    finally:
        serving.kill()
        serving.wait()


def answers(over: Callable[..., dns.message.Message] = dns.query.udp) -> bool:
    try:
        return values(over(dns.message.make_query(WEB, "A"), GATEWAY, timeout=1)) == ["10.96.0.7"]
    except (OSError, dns.exception.Timeout):
        return False


def told(directory: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(str(directory / SOCKET_NAME))
        except OSError:
            return b""
        return asking.recv(65536)


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
class TestProcess:
    def test_outlives_the_bridge_that_it_listens_on(self, tmp_path: Path) -> None:
        inside = ["unshare", "--net", sys.executable, "-m", "tests.agent.dns.test_process", str(tmp_path)]
        done = subprocess.run(inside, check=False, capture_output=True, text=True, timeout=50)

        assert done.returncode == 0, done.stdout + done.stderr


class TestImports:
    def test_are_few(self) -> None:
        """It runs on every node beside the agent: what it does not need must not come in unseen."""
        heavy = {"grpc", "google", "aiodocker", "aiohttp", "cryptography", "numpy", "pydantic", "yaml"}
        program = "import agent.dns.main, sys; print(*{name.partition('.')[0] for name in sys.modules})"
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

        assert heavy & set(done.stdout.split()) == set()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
