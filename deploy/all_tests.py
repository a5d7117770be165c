"""Every test: those on bare hosts beside the others, for they mostly wait for other machines' work.

    python3 -m deploy.all_tests

Their output follows when the others are done. Both must pass.
"""

from __future__ import annotations

import subprocess
import sys

from deploy.shell import CACHE, ROOT, StepError, ends

HOSTS = "tests/e2e/test_install.py"
LOG = CACHE / "test-hosts.log"


def test() -> None:
    """Raise StepError unless all pass."""
    pytest = [sys.executable, "-m", "pytest"]
    with LOG.open("w") as log:
        hosts = subprocess.Popen([*pytest, HOSTS], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    try:
        others = subprocess.run([*pytest, f"--ignore={HOSTS}"], cwd=ROOT, check=False)
    finally:
        # After Ctrl-C it ends by itself, and takes its containers away.
        hosts.wait()
    print(LOG.read_text(), flush=True)
    failed = [name for name, code in ((HOSTS, hosts.returncode), ("the others", others.returncode)) if code]
    if failed:
        raise StepError(f"tests failed: {' and '.join(failed)}")


if __name__ == "__main__":
    ends(test)
