"""The two wheels of this checkout: bayplan (everything) and bayplan-client (the package bayplan alone).

Run as `python -m deploy.wheels [DIRECTORY]`; the default is dist/.
"""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.shell import ROOT, ends, run

PROJECTS = (ROOT, ROOT / "packaging/client")


def build(directory: Path) -> list[Path]:
    """Build both into `directory`, without the network; returns their paths, bayplan's first."""
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    for project in PROJECTS:
        run([*command, "--wheel-dir", str(directory), str(project)], timeout_s=120)
    everything = next(directory.glob("bayplan-*.whl"))
    client = next(directory.glob("bayplan_client-*.whl"))
    return [everything, client]


def main() -> None:
    """See the module's docstring."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist"
    for wheel in build(directory):
        print(wheel)


if __name__ == "__main__":
    ends(main)
