"""A Docker Engine for the local cluster: use the one that answers, else start one.

Order: an engine that answers is used as it is; where systemd runs, its docker.service is
started; elsewhere (containers, sandboxes) a dockerd of our own, whose data lie in the
checkout's .cache, so that it neither touches nor inherits what another engine left in
/var/lib/docker. A dead one of ours (stale pid files, an orphaned containerd, bridges) is
cleaned up before; only what names our directories counts as ours.

    python3 -m deploy.engine up | down | clean
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from deploy.shell import CACHE, StepError, as_root, ends, run, say, works

DATA = CACHE / "engine"
PID_FILE = DATA / "dockerd.pid"
LOG = DATA / "dockerd.log"
# Sockets live here; short, since a unix socket's path may have 107 characters, and a checkout's may be long.
EXEC_ROOT = Path("/run/bayplan-engine")
SOCKET = Path("/var/run/docker.sock")
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30


def answers() -> bool:
    """Whether an engine answers on the default socket, or where DOCKER_HOST or the context point."""
    return works([*docker(), "version", "--format", "{{.Server.Version}}"])


def docker() -> list[str]:
    """The docker command, through sudo where only root may use the engine's socket."""
    if os.geteuid() == 0 or "DOCKER_HOST" in os.environ or not SOCKET.exists() or os.access(SOCKET, os.W_OK):
        return ["docker"]
    return as_root(["docker"])


def up() -> None:
    """Make an engine answer. Raises StepError with the engine's own words."""
    if answers():
        version = run([*docker(), "version", "--format", "{{.Server.Version}}"]).strip()
        say(f"Docker Engine {version} answers: using it")
        return
    if Path("/run/systemd/system").is_dir():
        say("Starting docker.service")
        run(as_root(["systemctl", "start", "docker"]), timeout_s=START_TIMEOUT_S)
    else:
        _as_root_myself("start")
    if not answers():
        raise StepError("the Docker Engine was started but does not answer: see `docker version`")


def down() -> None:
    """Stop the engine that `up` started here, if it did; an engine of the host's stays."""
    _as_root_myself("stop")


def clean() -> None:
    """`down`, and delete its images, containers and volumes."""
    _as_root_myself("wipe")


def _as_root_myself(action: str) -> None:
    if os.geteuid() == 0:
        {"start": _start, "stop": _stop, "wipe": _wipe}[action]()
        return
    run(as_root([sys.executable, "-m", "deploy.engine", f"_{action}"]), quiet=False)


def _start() -> None:
    _stop()
    for attempt in ("first", "second"):
        say(f"No Docker Engine answers: starting one (data and log: {DATA})")
        if _start_once():
            return
        if attempt == "first":
            # An engine killed at the wrong moment may leave data that no engine accepts; ours are a cache.
            say("It did not start; once more with empty data")
            _stop()
            shutil.rmtree(DATA / "data", ignore_errors=True)
    tail = "\n  ".join(LOG.read_text(errors="replace").splitlines()[-15:])
    raise StepError(f"dockerd does not start. The end of {LOG}:\n  {tail}")


def _start_once() -> bool:
    DATA.mkdir(parents=True, exist_ok=True)
    command = [
        "dockerd",
        f"--data-root={DATA / 'data'}",
        f"--exec-root={EXEC_ROOT}",
        f"--pidfile={PID_FILE}",
        f"--host=unix://{SOCKET}",
    ]
    with LOG.open("ab") as log:
        engine = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and engine.poll() is None:
        if answers():
            return True
        time.sleep(0.2)
    return False


def _stop() -> None:
    """End every process of our engine, the orphans of a killed one too, and remove what they left behind."""
    for name in ("dockerd", "containerd"):
        _end([pid for pid, words in _processes() if _is_ours(name, words)], signal.SIGTERM, signal.SIGKILL)
    # Only an engine that was killed leaves these. A shim ignores SIGTERM, and its container outlives it.
    _end([pid for pid, words in _processes() if _is_ours("containerd-shim", words)], signal.SIGKILL)
    _end([pid for pid, _ in _processes() if _is_in_our_container(pid)], signal.SIGKILL)
    for directory in (EXEC_ROOT, DATA):
        _unmount_below(directory)
    shutil.rmtree(EXEC_ROOT, ignore_errors=True)
    PID_FILE.unlink(missing_ok=True)


def _wipe() -> None:
    _stop()
    _unmount_below(DATA)
    shutil.rmtree(DATA, ignore_errors=True)


def _is_ours(name: str, words: list[str]) -> bool:
    # Shims are told apart by the containerd they report to, which lives below our exec root.
    return Path(words[0]).name.startswith(name) and any(str(EXEC_ROOT) in word for word in words)


def _is_in_our_container(pid: int) -> bool:
    try:
        cgroups = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False
    # .../docker/<container id>[/...], and the containers' data have the same ids.
    return any(
        (DATA / "data/containers" / container).is_dir() for container in re.findall(r"[0-9a-f]{64}", cgroups)
    )


def _processes() -> list[tuple[int, list[str]]]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if words[0]:
            found.append((int(entry.name), words))
    return found


def _end(pids: list[int], *signals: signal.Signals) -> None:
    """Send each signal to what is left of `pids`, giving it time after each."""
    for number in signals:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while pids and time.monotonic() < deadline:
            time.sleep(0.05)
            pids = [pid for pid in pids if _is_running(pid)]


def _is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def _unmount_below(directory: Path) -> None:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{directory}/")), reverse=True):
        works(["umount", "--lazy", mount])


def main() -> None:
    """See the module's docstring; `_start`, `_stop` and `_wipe` are the parts that run under sudo."""
    actions = {"up": up, "down": down, "clean": clean, "_start": _start, "_stop": _stop, "_wipe": _wipe}
    if len(sys.argv) != 2 or sys.argv[1] not in actions:
        raise StepError("usage: python3 -m deploy.engine up|down|clean")
    actions[sys.argv[1]]()


if __name__ == "__main__":
    ends(main)
