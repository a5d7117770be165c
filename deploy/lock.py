"""Resolve the locks again: versions and hashes for plain pip, Python 3.11 to 3.13.

The environment of development first: its stub generator holds protobuf back, and what runs must be
what was tested. The locks name no package index, so that any site's own serves them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from deploy.shell import ROOT, ends, run


def resolve() -> None:
    """Write requirements-dev.lock and requirements.lock, with uv from an environment of its own."""
    with tempfile.TemporaryDirectory() as directory:
        run([sys.executable, "-m", "venv", directory])
        run([Path(directory, "bin/pip"), "install", "--quiet", "uv>=0.9,<1"])
        compile_lock = [
            str(Path(directory, "bin/uv")), "pip", "compile", "pyproject.toml", "--universal",
            "--python-version", "3.11", "--generate-hashes", "--upgrade", "--quiet",
            "--custom-compile-command", "make lock",
        ]  # fmt: skip
        run([*compile_lock, "--group", "dev", "--output-file", "requirements-dev.lock"], cwd=ROOT)
        run([*compile_lock, "--constraint", "requirements-dev.lock", "--output-file", "requirements.lock"])


if __name__ == "__main__":
    ends(resolve)
