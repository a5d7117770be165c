"""A real HAProxy for tests, in a process of its own, supervised by the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from agent.traffic.main import haproxy_arguments

_CACHE = Path(__file__).parent.parent / ".cache/haproxy"
_IMAGE = "bayplan-node:dev"
# The program and its libraries, but not the C library: the host's own is not mixed with another.
_COPY = r"""
set -e
mkdir -p /copy/lib
ldd /usr/sbin/haproxy | awk '/=> \// {print $3}' | grep -vE '/lib(c|m|dl|pthread|rt|stdc\+\+|gcc_s)\.so' |
    xargs -I{} cp -L {} /copy/lib/
cp /usr/sbin/haproxy /copy/haproxy.bin
"""


class HaproxyMissingError(RuntimeError):
    """There is no HAProxy to test with."""

    def __init__(self) -> None:
        super().__init__(f"haproxy is not on PATH, and there is no image {_IMAGE}: run `make images`")


def haproxy_binary() -> str:
    """Path of the program, or of one copied out of the nodes' image. A missing one is an error."""
    found = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return found or str(_copied())


def _copied() -> Path:
    program = _CACHE / "haproxy"
    if program.exists():
        return program
    beside = _CACHE.with_name(f"haproxy.{os.getpid()}")
    beside.mkdir(parents=True)
    command = ["docker", "run", "--rm", "--network", "none", "--volume", f"{beside}:/copy"]
    copied = subprocess.run([*command, "--entrypoint", "sh", _IMAGE, "-c", _COPY], check=False)
    if copied.returncode:
        shutil.rmtree(beside)
        raise HaproxyMissingError
    wrapper = beside / "haproxy"
    wrapper.write_text('#!/bin/sh\nLD_LIBRARY_PATH="${0%/*}/lib" exec "$0.bin" "$@"\n')
    wrapper.chmod(0o755)
    if _CACHE.exists():
        shutil.rmtree(beside)  # Another test run was faster.
    else:
        beside.rename(_CACHE)
    return program


class RealHaproxy:
    """Master and workers, in a process group of their own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.log = directory / "haproxy.log"

    @property
    def pid(self) -> int:
        """The master's."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start with the configuration that is there. Does not wait until it serves."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [haproxy_binary(), *haproxy_arguments(self._directory, connections=2000)],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL to all of it. Nothing happens if it is dead already."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
