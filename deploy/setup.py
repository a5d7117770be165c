"""Make this machine ready: what is missing of the distribution's packages, the environment, an engine.

On the host only Docker, Compose and Python's venv are installed, after they were listed and the
user agreed (YES=1 or CI=true say so beforehand). All else lies in the checkout or in images.

    python3 -m deploy.setup            .venv
    python3 -m deploy.setup --engine   and an engine that answers
    python3 -m deploy.setup --images   and the images of the local cluster
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

from deploy import engine, images
from deploy.shell import ROOT, StepError, as_root, concurrently, ends, run, say, works

VENV = ROOT / ".venv"
LOCK = ROOT / "requirements-dev.lock"
PYTHONS = ("python3", "python3.13", "python3.12", "python3.11", "/usr/bin/python3")


def prepare_host(*, with_engine: bool) -> None:
    """Install what is missing, if the user agrees. Raises StepError with the command when not."""
    missing = _missing_packages(with_engine=with_engine)
    if not missing:
        return
    say(f"Missing on this machine, to be installed from its distribution: {' '.join(missing)}")
    install = "apt-get install --no-install-recommends " + " ".join(missing)
    if not _agreed():
        raise StepError(f"not installed. Run `{install}` as root, or `make setup YES=1`")
    if not _known(missing[0]):
        run(as_root(["apt-get", "update"]), quiet=False)
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    run(as_root([*environment, *install.split(), "--yes"]), quiet=False, timeout_s=600)


def prepare_environment() -> None:
    """The checkout's .venv with the locked packages and the project itself; nothing if it is up to date."""
    stamp = VENV / ".lock"
    wanted = hashlib.sha256(LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    say("Environment .venv (when the locks change: about half a minute)")
    if not (VENV / "bin/python").exists():
        shutil.rmtree(VENV, ignore_errors=True)
        run([_python(), "-m", "venv", str(VENV)])
    pip = [str(VENV / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--require-hashes", "--requirement", str(LOCK)], timeout_s=600)
    run([*pip, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)], timeout_s=120)
    stamp.write_text(wanted)


def _missing_packages(*, with_engine: bool) -> list[str]:
    missing = []
    if not _has_venv():
        missing.append("python3-venv")
    if with_engine:
        if shutil.which("docker") is None or (not _has_dockerd() and not engine.answers()):
            missing.append("docker.io")
            # Newer distributions ship the client apart.
            missing += ["docker-cli"] if shutil.which("docker") is None and _known("docker-cli") else []
        if not works(["docker", "compose", "version"]) and shutil.which("docker-compose") is None:
            missing.append("docker-compose-v2" if _known("docker-compose-v2") else "docker-compose")
    return missing


def _has_dockerd() -> bool:
    return shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def _has_venv() -> bool:
    return (VENV / "bin/python").exists() or works([_python(), "-c", "import ensurepip, venv"])


def _known(package: str) -> bool:
    return works(["apt-cache", "show", "--no-all-versions", package])


def _agreed() -> bool:
    if os.environ.get("YES") == "1" or os.environ.get("CI") == "true":
        return True
    if not sys.stdin.isatty():
        return False
    say("Install them? [y/N] ")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _python() -> str:
    for name in PYTHONS:
        path = shutil.which(name)
        if path and works([path, "-c", "import sys; assert (3, 11) <= sys.version_info < (3, 14)"]):
            return path
    raise StepError("Python 3.11, 3.12 or 3.13 is needed, and none is on the PATH")


def main() -> None:
    """See the module's docstring."""
    if not Path("/etc/debian_version").exists():
        say("Not Debian or Ubuntu: install Docker, Compose and Python's venv yourself if they are missing")
    with_images = "--images" in sys.argv[1:]
    with_engine = with_images or "--engine" in sys.argv[1:]
    prepare_host(with_engine=with_engine)
    if with_engine:
        # Asks for a password at most once, and not while others write to the terminal.
        engine.up()
    if with_images:
        concurrently(prepare_environment, images.build_all)
    else:
        prepare_environment()


if __name__ == "__main__":
    ends(main)
