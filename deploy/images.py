"""The images of the local cluster, and the test tools that are taken out of them.

Public bases (python:3.11-slim-bookworm, the official etcd) are used where they can be pulled. A
site without a public registry gets a Debian base made by debootstrap, and Debian's etcd on it;
the choice is made once and then kept, so that a build does not change with the weather.

Nothing is installed on the host for this: debootstrap runs from its unpacked package, and the
etcd that tests start on the host is copied out of its image.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

from deploy.engine import docker
from deploy.shell import CACHE, ROOT, StepError, as_root, concurrently, run, say, works

PYTHON = "bayplan-python:3.11"
DEBIAN = "bayplan-debian:bookworm"
MANAGER, NODE, HOST = "bayplan:dev", "bayplan-node:dev", "bayplan-host:dev"
ETCD, REGISTRY = "bayplan-etcd:dev", "bayplan-registry:dev"

PUBLIC_PYTHON = "python:3.11-slim-bookworm"
PUBLIC_ETCD = "quay.io/coreos/etcd:v3.5.21"  # 3.5.0-3.5.2 lose data.

PROBE_TIMEOUT_S = 5
PULL_TIMEOUT_S = 240
BUILD_TIMEOUT_S = 900

# What the tests run on the host: name → (image, path in it).
TOOLS = {
    "etcd": (ETCD, ("/usr/bin/etcd", "/usr/local/bin/etcd")),
    "etcdctl": (ETCD, ("/usr/bin/etcdctl", "/usr/local/bin/etcdctl")),
    "docker-registry": (REGISTRY, ("/usr/bin/docker-registry",)),
    "busybox": (NODE, ("/bin/busybox", "/usr/bin/busybox")),
}


def build_all() -> None:
    """Every image of docker-compose.yml, from what is cached wherever nothing changed."""
    build_python()
    concurrently(
        lambda: _build(MANAGER, ROOT, "Dockerfile", target="manager"),
        lambda: _build(HOST, ROOT, "Dockerfile", target="host"),
        _have_etcd,
        lambda: _build(REGISTRY, ROOT / "deploy/image", "registry.Dockerfile"),
    )
    _build(NODE, ROOT, "Dockerfile", target="node")
    take_tools()


def _have_etcd() -> None:
    if not (_exists(ETCD) or _pull(PUBLIC_ETCD, "quay.io", tag=ETCD)):
        _build(ETCD, ROOT / "deploy/image", "etcd.Dockerfile")


def build_python() -> None:
    """Python on Debian with the host's CA certificates, which every other image stands on."""
    context = CACHE / "python-image"
    context.mkdir(parents=True, exist_ok=True)
    _put(_host_certificates(), context / "ca-certificates.crt")
    _put(ROOT / "deploy/image/python.Dockerfile", context / "Dockerfile")
    if not _exists(DEBIAN) and not _pull(PUBLIC_PYTHON, "registry-1.docker.io", tag=DEBIAN):
        _bootstrap_debian()
    _build(PYTHON, context, "Dockerfile", base=DEBIAN)


def push(context: Path, tag: str) -> None:
    """Build an app as its Dockerfile says, on the Python image, and push it to the registry in its name."""
    command = [*docker(), "build", "--quiet", "--build-arg", f"BASE={PYTHON}", "--tag", tag, str(context)]
    run(command, env=builder(), timeout_s=PULL_TIMEOUT_S)
    run([*docker(), "push", "--quiet", tag], timeout_s=PULL_TIMEOUT_S)


def take_tools() -> None:
    """Copy what tests start on the host out of the images, into .cache/bin."""
    directory = CACHE / "bin"
    directory.mkdir(parents=True, exist_ok=True)
    for tool, (image, paths) in TOOLS.items():
        # The image's id, so that a tool follows its image.
        stamp = directory / f".{tool}.image"
        image_id = run([*docker(), "image", "inspect", "--format", "{{.Id}}", image])
        if (directory / tool).exists() and stamp.exists() and stamp.read_text() == image_id:
            continue
        container = run([*docker(), "create", image]).strip()
        try:
            target = directory / tool
            target.unlink(missing_ok=True)
            if not any(works([*docker(), "cp", "-L", f"{container}:{path}", target]) for path in paths):
                raise StepError(f"{image} has no {tool} at {' or '.join(paths)}")
        finally:
            run([*docker(), "rm", "--volumes", container])
        stamp.write_text(image_id)


def _build(tag: str, context: Path, file: str, *, target: str = "", base: str = PYTHON) -> None:
    say(f"Image {tag}")
    directory = ROOT / "deploy/image" if context == ROOT else context
    command = [*docker(), "build", "--quiet", "--tag", tag, "--file", str(directory / file)]
    command += ["--build-arg", f"BASE={base}"]
    index = os.environ.get("PIP_INDEX_URL", "")
    if target:
        command += ["--target", target]
        # A site's own package index serves the image too; one that is a path of this host cannot.
        command += ["--build-arg", f"PIP_INDEX_URL={index}"] if index.startswith("http") else []
    run([*command, str(context)], timeout_s=BUILD_TIMEOUT_S, env=builder())


def builder() -> dict[str, str]:
    """The classic builder where the BuildKit plug-in is missing: without it newer clients refuse or nag."""
    return {} if works([*docker(), "buildx", "version"]) else {"DOCKER_BUILDKIT": "0"}


def _put(source: Path, target: Path) -> None:
    """A copy that is never seen in half, and is left alone where it is right: groups of tests build at the same time."""
    if target.exists() and target.read_bytes() == source.read_bytes():
        return
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, partial)
    partial.replace(target)


def _exists(image: str) -> bool:
    return works([*docker(), "image", "inspect", image])


def _pull(image: str, registry: str, *, tag: str) -> bool:
    """Whether `image` could be had as `tag`. A registry that does not answer at once is not waited for."""
    try:
        urllib.request.urlopen(f"https://{registry}/v2/", timeout=PROBE_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        pass  # It answers; 401 is how registries greet.
    except OSError:
        say(f"{registry} is not in reach: building locally what {image} would bring")
        return False
    say(f"Pulling {image}")
    if not works([*docker(), "pull", image], timeout_s=PULL_TIMEOUT_S):
        say(f"{image} cannot be pulled: building locally what it would bring")
        return False
    run([*docker(), "tag", image, tag])
    return True


def _bootstrap_debian() -> None:
    """Debian 12's minimal system as an image, from a tar that is kept in .cache."""
    tar = CACHE / "debian-bookworm.tar"
    if not tar.exists():
        _unpack_debootstrap()
        say(f"Making a Debian base image from {_mirror()} (once, about a minute)")
        _as_root_debootstrap(tar)
    run([*docker(), "import", str(tar), DEBIAN], timeout_s=PULL_TIMEOUT_S)


def _mirror() -> str:
    """Where Debian comes from: DEBIAN_MIRROR, else what debootstrap itself would take."""
    chosen = os.environ.get("DEBIAN_MIRROR")
    if chosen:
        return chosen
    script = (CACHE / "debootstrap/usr/sbin/debootstrap").read_text()
    found = re.search(r'^DEF_MIRROR="([^"]+)"', script, re.MULTILINE)
    if found is None:
        raise StepError("debootstrap names no mirror: set DEBIAN_MIRROR to one of Debian's")
    return found[1]


def _unpack_debootstrap() -> None:
    home = CACHE / "debootstrap"
    if (home / "usr/sbin/debootstrap").exists():
        return
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    packages = ["debootstrap", "debian-archive-keyring"]
    fetch = ["apt-get", "-o", "APT::Sandbox::User=root", "download", *packages]
    try:
        run(fetch, cwd=home)
    except StepError:
        # A machine whose package lists were never fetched.
        run(as_root(["apt-get", "update"]))
        run(fetch, cwd=home)
    for package in home.glob("*.deb"):
        run(["dpkg", "-x", package, home])


def _as_root_debootstrap(tar: Path) -> None:
    home, system, mirror = CACHE / "debootstrap", CACHE / "debian", _mirror()
    keyring = home / "usr/share/keyrings/debian-archive-keyring.gpg"
    path = os.environ["PATH"]
    if shutil.which("wget") is None:
        path = f"{_wget_of_ours(home)}:{path}"
    run(as_root(["rm", "-rf", str(system)]))
    environment = [f"DEBOOTSTRAP_DIR={home / 'usr/share/debootstrap'}", f"PATH={path}:/usr/sbin:/sbin"]
    command = [home / "usr/sbin/debootstrap", "--variant=minbase", f"--keyring={keyring}"]
    run(
        as_root(["env", *environment, *map(str, command), "bookworm", str(system), mirror]),
        timeout_s=BUILD_TIMEOUT_S,
    )
    run(as_root(["rm", "-rf", str(system / "var/cache/apt/archives"), str(system / "var/lib/apt/lists")]))
    sources = "".join(
        f"deb {mirror} {suite} main\n"
        for mirror, suite in (
            (mirror, "bookworm"),
            (mirror, "bookworm-updates"),
            (f"{mirror}-security", "bookworm-security"),
        )
    )
    run(as_root(["tee", str(system / "etc/apt/sources.list")]), stdin=sources.encode())
    partial = tar.with_suffix(".partial")
    run(as_root(["tar", "-C", str(system), "-cf", str(partial), "."]))
    run(as_root(["rm", "-rf", str(system)]))
    partial.replace(tar)


def _wget_of_ours(home: Path) -> Path:
    """The one use that debootstrap makes of wget, for hosts that have none: `wget [options] URL -O FILE`."""
    script = home / "bin/wget"
    script.parent.mkdir(exist_ok=True)
    script.write_text(
        f"#!{sys.executable}\n"
        "import sys, urllib.request\n"
        "words = sys.argv[1:]\n"
        "to = words[words.index('-O') + 1]\n"
        "urls = [word for word in words if '://' in word]\n"
        "urllib.request.urlretrieve(urls[0], to)\n"
    )
    script.chmod(0o755)
    return script.parent


def _host_certificates() -> Path:
    default = Path(ssl.get_default_verify_paths().cafile or "")
    for candidate in (Path("/etc/ssl/certs/ca-certificates.crt"), default):
        if candidate.is_file():
            return candidate
    raise StepError("this host has no CA certificates: install ca-certificates")
