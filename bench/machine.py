"""The machine that a benchmark ran on, in words."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

_KIB_PER_GIB = 1024**2


def describe() -> tuple[str, str]:
    """Two lines: the machine and the date."""
    memory = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    gib = int(memory[1]) / _KIB_PER_GIB if memory else 0.0
    return (
        f"machine: {os.cpu_count()} x {_processor()}, {gib:.1f} GiB memory, Linux {platform.release()}",
        f"date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def _processor() -> str:
    named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return named[1] if named else platform.machine()
