"""A real Docker Engine and a real image registry for tests, with an image that needs neither.

An engine that answers is used as it is. Where none answers, one of our own is started, with its own data,
socket, bridge and containerd namespace, and everything of it is removed afterwards. Tests find the
fixtures through their conftest: `from tests.docker_engine import docker_engine, image_registry`.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.free_ports import free_port

CACHE = Path(__file__).parent.parent / ".cache"
IMAGE = "bayplan-test/busybox:1"
APPLETS = (
    "cat",
    "echo",
    "env",
    "false",
    "head",
    "hostname",
    "printf",
    "seq",
    "sh",
    "sleep",
    "stty",
    "tail",
    "true",
)
ENGINE_START_S = 30.0
REGISTRY_START_S = 10.0
ENGINES_MAX = 50


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


@dataclass(frozen=True)
class DockerEngine:
    """A real engine, and what a test does behind our back. `image` is there already."""

    socket: str
    image: str = IMAGE

    def call(
        self,
        method: str,
        path: str,
        *,
        body: bytes | dict[str, Any] | None = None,
        account: dict[str, str] | None = None,
        **params: str,
    ) -> bytes:
        """One request; raises RuntimeError with the engine's words."""
        connection = _UnixConnection(self.socket)
        headers = {"Content-Type": "application/json"}
        if isinstance(body, bytes):
            headers = {"Content-Type": "application/x-tar"}
        elif body is not None:
            body = json.dumps(body).encode()
        if account is not None:
            headers["X-Registry-Auth"] = base64.urlsafe_b64encode(json.dumps(account).encode()).decode()
        with contextlib.closing(connection):
            connection.request(method, f"/{quote(path, safe='/:@')}?{urlencode(params)}", body, headers)
            answer = connection.getresponse()
            data = answer.read()
        if answer.status >= 400 or b'"errorDetail"' in data:
            raise RuntimeError(f"{method} {path}: {answer.status} {data.decode()}")
        return data

    def answers(self) -> bool:
        """Whether there is an engine."""
        try:
            return self.call("GET", "_ping") == b"OK"
        except (OSError, RuntimeError, http.client.HTTPException):
            return False

    def load_image(self, name: str = IMAGE) -> None:
        """Make an image: a static busybox and nothing else. Each name gives an image of its own."""
        busybox = _tool("busybox-static", "bin/busybox")
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            tar.add(busybox, "bin/busybox")
            for applet in APPLETS:
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        repository, _, tag = name.rpartition(":")
        changes = f"ENV PATH=/bin NAME={name}"
        self.call(
            "POST",
            "images/create",
            body=layer.getvalue(),
            fromSrc="-",
            repo=repository,
            tag=tag,
            changes=changes,
        )

    def run(self, name: str, *command: str) -> str:
        """Run a container that is not Bayplan's; returns its id."""
        body = {"Image": self.image, "Cmd": list(command)}
        made = json.loads(self.call("POST", "containers/create", body=body, name=name))
        self.call("POST", f"containers/{made['Id']}/start")
        return str(made["Id"])

    def is_running(self, name: str) -> bool:
        """Whether the container is there and runs."""
        try:
            return bool(json.loads(self.call("GET", f"containers/{name}/json"))["State"]["Running"])
        except RuntimeError:
            return False

    def inspect(self, container_id: str) -> dict[str, Any]:
        """All that the engine knows of a container."""
        found: dict[str, Any] = json.loads(self.call("GET", f"containers/{container_id}/json"))
        return found

    def push(self, name: str, **account: str) -> None:
        """Push an image made for this, and forget it here. `account`: username and password."""
        repository, _, tag = name.rpartition(":")
        self.load_image(name)
        self.call("POST", f"images/{repository}/push", tag=tag, account=account)
        self.call("DELETE", f"images/{name}")


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    """An engine with the test image."""
    with contextlib.ExitStack() as stack:
        engine = _existing_engine() or stack.enter_context(_own_engine())
        engine.load_image()
        yield engine


def _existing_engine() -> DockerEngine | None:
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    engine = DockerEngine(host.removeprefix("unix://"))
    return engine if host.startswith("unix://") and engine.answers() else None


@contextlib.contextmanager
def _own_engine() -> Iterator[DockerEngine]:
    """A dockerd of our own. Needs root and Debian's docker.io, or the like, on the host."""
    dockerd = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin")
    if dockerd is None or os.geteuid() != 0:
        pytest.skip("no Docker Engine answers, and none can be started (needs root and dockerd)")
    home = Path(tempfile.mkdtemp(prefix="bayplan-engine-"))
    # Its name must not be that of another run at the same time.
    bridge = _make_bridge()
    command = [dockerd, "--host", f"unix://{home}/docker.sock", "--pidfile", f"{home}/pid"]
    command += ["--data-root", f"{home}/data", "--exec-root", f"{home}/exec", "--bridge", bridge]
    command += ["--containerd-namespace", bridge, "--containerd-plugins-namespace", f"{bridge}-plugins"]
    log = (home / "log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    engine = DockerEngine(f"{home}/docker.sock")
    try:
        _wait_until(engine.answers, ENGINE_START_S, lambda: (home / "log").read_text()[-2000:])
        yield engine
    finally:
        if engine.answers():
            for row in json.loads(engine.call("GET", "containers/json", all="1")):
                engine.call("DELETE", f"containers/{row['Id']}", force="1", v="1")
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        log.close()
        subprocess.run(["ip", "link", "delete", bridge], check=True)
        shutil.rmtree(home, ignore_errors=True)


def _make_bridge() -> str:
    """The first free name baytestN, with 10.213.N.1/24; returns the name."""
    for number in range(ENGINES_MAX):
        bridge = f"baytest{number}"
        made = subprocess.run(
            ["ip", "link", "add", bridge, "type", "bridge"], check=False, capture_output=True
        )
        if made.returncode == 0:
            subprocess.run(["ip", "address", "add", f"10.213.{number}.1/24", "dev", bridge], check=True)
            subprocess.run(["ip", "link", "set", bridge, "up"], check=True)
            return bridge
    pytest.fail("there is no free name for a bridge")


class ImageRegistry:
    """Debian's docker-registry on a free port of the loopback interface, which engines trust without TLS.

    `account`: a line of an htpasswd file; without one everybody may pull and push.
    """

    def __init__(self, home: Path, *, account: str = "") -> None:
        self._port = free_port()
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = {
            "PATH": os.environ["PATH"],
            "REGISTRY_HTTP_ADDR": self.name,
            "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(home / "data"),
            "REGISTRY_LOG_LEVEL": "error",
        }
        config = "version: 0.1\nstorage: {filesystem: {}}\nhttp: {}\n"
        if account:
            (home / "htpasswd").write_text(f"{account}\n")
            config += f"auth: {{htpasswd: {{realm: test, path: {home}/htpasswd}}}}\n"
        (home / "config.yml").write_text(config)

    @property
    def name(self) -> str:
        """Host and port, as in names of images."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """It keeps what was pushed before it was stopped."""
        assert self._process is None
        binary = _tool("docker-registry", "usr/bin/docker-registry")
        log = (self._home / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [binary, "serve", self._home / "config.yml"], env=self._environment, stdout=log, stderr=log
            )
        _wait_until(self._answers, REGISTRY_START_S, lambda: (self._home / "log").read_text()[-2000:])

    def stop(self) -> None:
        """No error if it is stopped."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=10)
            self._process = None

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


@pytest.fixture
def image_registry(tmp_path: Path) -> Iterator[ImageRegistry]:
    """An empty registry that runs."""
    home = tmp_path / "registry"
    home.mkdir()
    registry = ImageRegistry(home)
    registry.start()
    yield registry
    registry.stop()


def _tool(package: str, path: str) -> Path:
    """A program of a Debian package, unpacked into the checkout's cache."""
    tool = CACHE / package / path
    if not tool.exists():
        packages = CACHE / "debs"
        packages.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=packages, check=True, capture_output=True)
        (archive,) = packages.glob(f"{package}_*.deb")
        subprocess.run(["dpkg", "-x", archive, CACHE / package], check=True)
    return tool


def _wait_until(is_true: Any, limit_s: float, explain: Any) -> None:
    until = time.monotonic() + limit_s
    while not is_true():
        if time.monotonic() > until:
            pytest.fail(f"it did not come up: {explain()}")
        time.sleep(0.05)
