"""What 2,000 services of ten endpoints cost one node's proxy, beside what one service costs it.

A measurement of processes, not of a cluster: in a container of the nodes' image the agent's own code drives
a real HAProxy with tables that are made up (many_services_program.py). No leader and no request is involved.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.report import Comparison, Measured
from bench.traffic import many_services_program
from deploy.engine import docker
from deploy.images import NODE
from deploy.shell import StepError, say, works

SERVICES, ENDPOINTS = 2000, 10
CONTAINER = "bayplan-bench-services"
PYTHON = "/opt/bayplan/venv/bin/python"
TIMEOUT_S = 600
KEYS = ("endpoint_change_s", "reload_s", "haproxy_mib", "haproxy_idle_cpu")


def measure_many_services(changes: int) -> dict[str, Measured]:
    """`changes`: how many endpoints are replaced, one after the other."""
    beside = _run(1, changes)
    return results(_run(SERVICES, changes), beside)


def results(
    found: Mapping[str, Sequence[float]], beside: Mapping[str, Sequence[float]]
) -> dict[str, Measured]:
    """Each figure beside the same with one service."""
    return {
        key: Measured.of_runs(
            found[key], beside=Comparison(name="1 service", value=statistics.median(beside[key]))
        )
        for key in KEYS
    }


def _run(services: int, changes: int) -> dict[str, list[float]]:
    say(f"  {services} services of {ENDPOINTS} endpoints, in a container of its own")
    # The agent binds addresses that a host may not have yet, and reads the memory of another user's process.
    rights = ["--cap-add=NET_ADMIN", "--cap-add=SYS_PTRACE"]
    command = [
        *docker(), "run", "--rm", "--interactive", f"--name={CONTAINER}", "--network=none", *rights,
        "--tmpfs=/run/bayplan", f"--entrypoint={PYTHON}", NODE, "-",
        str(services), str(ENDPOINTS), str(changes),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command,
            input=Path(many_services_program.__file__).read_bytes(),
            stdout=subprocess.PIPE,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StepError(f"{services} services took longer than {TIMEOUT_S} s") from error
    finally:
        # Whatever ended the client has not ended the container.
        works([*docker(), "rm", "--force", CONTAINER])
    if done.returncode:
        raise StepError(f"the measurement of {services} services ended with {done.returncode}")
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found
