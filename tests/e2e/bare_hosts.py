"""Bare Debian hosts as containers, on which a document's commands are run as they stand there.

A fenced block that follows `<!-- host: first -->` is run on that host, one after `<!-- host: all -->` on each.
Replaced in it: the document's addresses by the containers', `bay1.MANAGER` and `bay1.NODE` by the tokens that
were printed last. Lines with scp are done from outside, since no ssh server runs in the containers, and pip
takes what it needs from packages in the image. Process 1 is systemd, so that units run as hardened as they are.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy import images
from deploy.engine import docker
from deploy.shell import CACHE, ROOT, run

IMAGE = "bayplan-bare-host:dev"
NETWORK, NET, BRIDGE = "bayplan-hosts", "172.31.87", "bayplan-bare"
NAMES = ("first", "second", "third", "fourth")
UNITS = ("bayplan-etcd", "bayplan-manager", "bayplan-agent", "bayplan-proxy", "bayplan-dns")
# What the image has for pip, instead of an index.
OFFLINE = (
    "--env=PIP_NO_INDEX=1",
    "--env=PIP_FIND_LINKS=/opt/wheelhouse",
    "--env=PIP_ROOT_USER_ACTION=ignore",
)
BUILD_TIMEOUT_S = 900
BLOCK_TIMEOUT_S = 300

# A container as a host: docker-compose.yml says why these.
_AS_HOST = (
    "--cap-add=ALL", "--cap-drop=SYS_RESOURCE", "--security-opt=seccomp:unconfined",
    "--security-opt=apparmor:unconfined", "--sysctl=net.ipv4.ip_forward=1", "--cgroupns=private",
    "--tmpfs=/run", "--tmpfs=/run/lock",
)  # fmt: skip

# Stands for the image that the document's example names, which is not pulled here.
_APP = "trap exit TERM; busybox httpd -p 80; while :; do busybox sleep 0.2; done"
_IMPORT_APP = (
    "tar -C / -c bin/busybox | docker import --change 'ENV PATH=/bin' "
    f"""--change 'CMD ["busybox", "sh", "-c", "{_APP}"]' - nginx:1.27"""
)

_BLOCK = re.compile(
    r"^(?P<heading>#+ [^\n]+)$|^<!-- host: (?P<host>\w+) -->\n```sh\n(?P<script>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
_TOKEN = re.compile(r"\bbay1\.[0-9a-f]{64}\.\S+")
_TOKEN_ROLE = re.compile(r"^bay join-token create --role (\w+)", re.MULTILINE)
_SCP = re.compile(r"^scp -r (\S+) root@(\S+):(\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Commands, and where the document says they are run."""

    section: str
    host: str
    script: str


def read_blocks(text: str) -> list[Block]:
    """Those that say on which host, in the document's order."""
    blocks = []
    section = ""
    for match in _BLOCK.finditer(text):
        if match["heading"]:
            section = match["heading"].lstrip("# ")
        else:
            blocks.append(Block(section=section, host=match["host"], script=match["script"]))
    return blocks


class BareHosts:
    """Four of them: three for the cluster, one that comes later."""

    def __init__(self, wheel: Path) -> None:
        self._wheel = wheel
        self._tokens: dict[str, str] = {}  # By role.
        self.addresses: Mapping[str, str] = {
            name: f"{NET}.{11 + number}" for number, name in enumerate(NAMES)
        }

    # Life

    def up(self) -> None:
        """From nothing, whatever an earlier run left."""
        self._build()
        self.down()
        subnet = [f"--subnet={NET}.0/24", f"--opt=com.docker.network.bridge.name={BRIDGE}"]
        run([*docker(), "network", "create", *subnet, NETWORK])
        for name, address in self.addresses.items():
            words = ["--detach", f"--name={_container(name)}", f"--hostname={name}"]
            words += [f"--network={NETWORK}", f"--ip={address}", *_AS_HOST]
            run([*docker(), "run", *words, IMAGE])
        for name in NAMES:
            self.bash(name, "until docker version >/dev/null 2>&1; do sleep 0.2; done")
            self.bash(name, _IMPORT_APP)
            self.give_wheel(name, self._wheel)

    def down(self) -> None:
        """Remove all of it. None there is no error."""
        found = run([*docker(), "ps", "--all", "--quiet", f"--filter=name=^{NETWORK}-"]).split()
        if found:
            run([*docker(), "rm", "--force", "--volumes", *found], timeout_s=60)
        if run([*docker(), "network", "ls", "--quiet", f"--filter=name=^{NETWORK}$"]).strip():
            run([*docker(), "network", "rm", NETWORK])

    def _build(self) -> None:
        images.build_python()
        context = CACHE / "bare-host"
        context.mkdir(parents=True, exist_ok=True)
        here = Path(__file__).parent / "hosts"
        for file in (*here.iterdir(), ROOT / "requirements.lock"):
            shutil.copy(file, context / file.name)
        run(
            [*docker(), "build", "--quiet", "--tag", IMAGE, str(context)],
            env=images.builder(),
            timeout_s=BUILD_TIMEOUT_S,
        )

    # Commands

    def bash(self, host: str, script: str, *, timeout_s: float = 60) -> str:
        """Run it as root; its stdout. Raises StepError with what it said last."""
        command = [*docker(), "exec", *OFFLINE, "--workdir=/root", _container(host)]
        return run([*command, "bash", "-euo", "pipefail", "-c", script], timeout_s=timeout_s)

    def attempt(self, host: str, script: str) -> subprocess.CompletedProcess[str]:
        """As `bash`, for what may fail."""
        command = [*docker(), "exec", "--workdir=/root", _container(host), "bash", "-c", script]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    def follow(self, blocks: Sequence[Block]) -> None:
        """Run them as the document says."""
        for block in blocks:
            for host in NAMES[:3] if block.host == "all" else [block.host]:
                self._run(host, block.script)

    def reboot(self, host: str) -> None:
        """Shut down and start; what comes up then, units brought up."""
        run([*docker(), "restart", _container(host)], timeout_s=BLOCK_TIMEOUT_S)

    def give_wheel(self, host: str, wheel: Path) -> None:
        """In the place of any other."""
        self.bash(host, "rm -f bayplan-*.whl")
        run([*docker(), "cp", str(wheel), f"{_container(host)}:/root/{wheel.name}"])

    def _run(self, host: str, script: str) -> None:
        script = self._here(script)
        for part in _parts(script):
            if copy := _SCP.match(part):
                self._copy(host, source=copy[1], address=copy[2], target=copy[3])
                continue
            said = self.bash(host, part, timeout_s=BLOCK_TIMEOUT_S)
            self._tokens |= zip(_TOKEN_ROLE.findall(part), _TOKEN.findall(said), strict=False)

    def _here(self, script: str) -> str:
        for number, name in enumerate(NAMES, start=1):
            script = re.sub(rf"\b10\.0\.0\.{number}\b", self.addresses[name], script)
        script = re.sub(r"\bn4\b", NAMES[3], script)  # A node is called as its host.
        for role, token in self._tokens.items():
            script = script.replace(f"bay1.{role.upper()}", token)
        return script

    def _copy(self, host: str, *, source: str, address: str, target: str) -> None:
        """`scp -r`: with the modes of the files, owned by root."""
        (to,) = [name for name, at in self.addresses.items() if at == address]
        pack = [*docker(), "exec", _container(host), "tar", "-C", source, "-c", "."]
        unpack = f"mkdir -p {target} && tar -C {target} --no-same-owner -x"
        packed = subprocess.run(pack, check=True, capture_output=True).stdout
        run([*docker(), "exec", "--interactive", _container(to), "bash", "-c", unpack], stdin=packed)

    # Looking

    def pods(self, host: str) -> set[str]:
        """Ids of the pods' containers that run there, as its engine says."""
        return set(self.bash(host, "docker ps --quiet --no-trunc --filter label=bayplan.io/pod").split())

    def report(self) -> str:
        """What a developer wants to see after a failure."""
        parts = []
        for name in NAMES:
            for unit in UNITS:
                said = self.attempt(name, f"journalctl --no-pager --output=cat --lines=25 --unit={unit}")
                parts.append(f"--- {name} {unit}\n{said.stdout}")
        return "\n".join(parts)


def _container(host: str) -> str:
    return f"{NETWORK}-{host}"


def _parts(script: str) -> Iterator[str]:
    """The script, cut before and after each line with scp."""
    part = ""
    for line in script.splitlines(keepends=True):
        if _SCP.match(line):
            if part:
                yield part
            yield line
            part = ""
        else:
            part += line
    if part:
        yield part
