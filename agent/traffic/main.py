"""`bayplan-proxy`: HAProxy with the configuration that the agent writes, as a process of its own.

It waits until there is one, and then becomes HAProxy: whoever supervises it supervises HAProxy itself,
which goes on when the agent ends, is upgraded, or fails. It takes the agent's own settings. It imports
little, for a HAProxy that was killed comes back through it.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.options import SETTINGS_FILE, read_options
from agent.traffic.places import CONFIGURATION, CONNECTIONS_MAX, DIRECTORY, MASTER_SOCKET

BINARY = "haproxy"
# Exit code for what must be mended on this host first, as for wrong settings: the unit does not restart.
MEND_FIRST = 2
# Dynamic servers are no experiment from here on, and are deleted safely.
VERSION_MIN = (2, 6)
WAIT_S = 0.2
# Two descriptors a connection, and some for listeners, checks and sockets; an old worker has its own.
FILES_RESERVED = 2000
_VERSION = re.compile(r"HAProxy version (\d+)\.(\d+)")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exits with 2 and words on what an operator must put right."""
    run(sys.argv[1:] if arguments is None else arguments, os.environ, binary=BINARY)


def run(argv: Sequence[str], environ: Mapping[str, str], *, binary: str, file: Path = SETTINGS_FILE) -> None:
    """Become HAProxy. Does not return."""
    given = read_options(
        "bayplan-proxy", "Runs HAProxy for this host's agent.", argv=argv, environ=environ, file=file
    )
    directory = Path(given.text("run-dir")) / DIRECTORY
    path = shutil.which(binary)
    problem = _version_problem(path)
    if path is None or problem:
        sys.stderr.write(f"bayplan-proxy: {problem}\n")
        sys.exit(MEND_FIRST)
    configuration = directory / CONFIGURATION
    while not configuration.exists():
        time.sleep(WAIT_S)
    os.execv(path, [path, *haproxy_arguments(directory, connections=_connections())])  # noqa: S606 - it becomes HAProxy


def haproxy_arguments(directory: Path, *, connections: int) -> list[str]:
    """Master and workers, in the foreground. `connections`: 0 where the configuration's own limit goes."""
    limit = ["-n", str(connections)] if connections else []
    return ["-W", "-S", f"{directory / MASTER_SOCKET},mode,600", "-f", str(directory / CONFIGURATION), *limit]


def _version_problem(path: str | None) -> str:
    wanted = ".".join(str(part) for part in VERSION_MIN)
    if path is None:
        return f"HAProxy is not installed: services need version {wanted} or later (Debian: apt-get install haproxy)"
    said = subprocess.run([path, "-v"], capture_output=True, text=True, check=False).stdout  # noqa: S603 - from PATH
    found = _VERSION.search(said)
    if found is None:
        return f"{path} -v does not say a version of HAProxy"
    if (int(found[1]), int(found[2])) < VERSION_MIN:
        return f"HAProxy {found[1]}.{found[2]} is too old: {wanted} or later is needed"
    return ""


def _connections() -> int:
    """How many connections the limit of open files allows, where that is fewer than the configuration asks for.

    HAProxy raises its own limit, but without the right to it does not start at all.
    """
    needed = 2 * CONNECTIONS_MAX + FILES_RESERVED
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= needed:
        return 0
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, needed))
    except (OSError, ValueError):
        sys.stderr.write(
            f"bayplan-proxy: only {hard} open files are allowed, not the {needed} wanted: fewer connections are taken\n"
        )
        return max((hard - FILES_RESERVED) // 2, 100)
    return 0


if __name__ == "__main__":
    main()
