"""A container engine in memory: containers, local images and their faults, on the event loop's time.

It outlives the agents that use it, as a real engine does: an agent's restart is a new `SimulatedRuntime` on
the same `SimulatedEngine`. What tests do behind the agent's back is done here too: kill and remove containers,
pause them, run foreign ones, freeze the engine or pull its plug. Everything is deterministic.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.runtime.image_name import parse_image_name, qualify
from agent.runtime.port import (
    HOST_NETWORK,
    AddressTakenError,
    BridgeNetwork,
    Container,
    ContainerGoneError,
    ContainerSpec,
    ContainerState,
    EngineError,
    EngineUnavailableError,
    NetworkTakenError,
    Output,
    StartError,
)
from agent.runtime.simulated_images import Program, SimulatedImage, SimulatedRegistry

EPOCH_S = 1_700_000_000.0
SIGKILL_EXIT_CODE = 137
EXIT_CODE_NOT_STARTED = 128  # Docker's, where it was not the command's fault.
# A frozen engine is given up as the real one is.
ANSWER_S = 10.0
# The kernel lets a process grow for a moment before it sees that there is no room.
OOM_AFTER_S = 0.05
HINTS_MAX = 256  # As many events as Docker keeps.
SANDBOX_IMAGE = qualify("bayplan-sandbox:1")
HANGS = "hangs"  # As words for `SimulatedEngine.fail_probes`: it takes connections and never answers.


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a command run inside a container does."""

    output: tuple[Output, ...] = ()
    exit_code: int = 0
    runs_s: float = 0.0
    echoes_input: bool = False  # Like `cat`: until its input ends.
    shows_size: bool = False  # Like `stty size`: says the terminal's rows and columns.


@dataclass(slots=True, kw_only=True, eq=False)
class SimulatedContainer:
    """A container's state. Changed by `SimulatedEngine` only."""

    spec: ContainerSpec
    shown: Container
    image: SimulatedImage
    program: Program
    log: list[tuple[float, Output]] = field(default_factory=list)
    is_removed: bool = False
    faults: dict[str, str] = field(default_factory=dict)  # What probes meet, by place; "": at any.
    ends_at: float | None = None  # Loop time at which the program ends by itself.
    remaining_s: float | None = None  # The same, while it is paused.
    ran_s: float = 0.0  # In earlier stretches of this run (before a pause).
    runs_since: float = 0.0  # Loop time.
    timer: asyncio.TimerHandle | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_running(self) -> bool:
        return self.shown.state in (ContainerState.RUNNING, ContainerState.PAUSED)


class SimulatedEngine:
    """One host's engine.

    Args:
        registry: where pulls come from; several engines may share one.
        name: makes container ids differ between engines.
        subnet: addresses of containers in no network of ours, as of Docker's own bridge; each is given once.
        start_delay_s, pull_delay_s: how long one start, one pull takes.
        cpu_millis, memory_bytes: what the host has.
        wall_s: seconds since the Unix epoch; by default it follows the loop's time.

    `programs`, by command and args together, win over the image's; `commands` are what `exec` finds,
    `executed` what it was asked for, and `killed_commands` what was killed.
    """

    def __init__(
        self,
        registry: SimulatedRegistry | None = None,
        *,
        name: str = "engine",
        subnet: str = "172.17.0.0/16",
        start_delay_s: float = 0.05,
        pull_delay_s: float = 0.2,
        cpu_millis: int = 4000,
        memory_bytes: int = 8 * 1024**3,
        wall_s: Callable[[], float] | None = None,
    ) -> None:
        self.registry = registry or SimulatedRegistry()
        self.name = name
        self.start_delay_s = start_delay_s
        self.pull_delay_s = pull_delay_s
        self.cpu_millis = cpu_millis
        self.memory_bytes = memory_bytes
        self.programs: dict[tuple[str, ...], Program] = {}
        self.commands: dict[tuple[str, ...], Command] = {}
        self.executed: list[tuple[str, ...]] = []
        self.killed_commands: list[tuple[str, ...]] = []
        self.containers: dict[str, SimulatedContainer] = {}  # By id, foreign ones too.
        self.images: dict[str, SimulatedImage] = {}  # By every name with tag or digest, and by id.
        self.networks: dict[
            str, tuple[BridgeNetwork, Mapping[str, str]]
        ] = {}  # With labels, foreign ones too.
        self.pulled: list[str] = []  # Ids, in the order of their first pull.
        self.pulls = 0  # How often the registry was asked.
        self.subscribers: list[asyncio.Queue[Container | None]] = []
        self._wall_s = wall_s or _wall_of_the_loop
        self._addresses = ipaddress.ip_network(subnet).hosts()
        next(self._addresses)  # The bridge's own.
        self._made = 0
        self._is_up = True
        self._is_answering = asyncio.Event()
        self._is_answering.set()

    # --- what a client asks -------------------------------------------------------------------------

    async def answer(self, deadline_s: float = ANSWER_S) -> None:
        """Every request passes here first. Raises EngineUnavailableError."""
        self._must_be_up()
        try:
            async with asyncio.timeout(deadline_s):
                await self._is_answering.wait()
        except TimeoutError as error:
            raise EngineUnavailableError("the container engine did not answer in time") from error
        await asyncio.sleep(0)
        self._must_be_up()

    async def work(self, duration_s: float) -> None:
        """Be busy with a request; the plug may be pulled meanwhile."""
        await asyncio.sleep(duration_s)
        await self.answer()

    def get(self, container_id: str) -> SimulatedContainer:
        """Raises ContainerGoneError."""
        found = self.containers.get(container_id)
        if found is None:
            raise ContainerGoneError(f"No such container: {container_id}")
        return found

    def named(self, name: str) -> SimulatedContainer | None:
        """The container of that name."""
        return next((found for found in self.containers.values() if found.shown.name == name), None)

    def create(
        self, spec: ContainerSpec, image: SimulatedImage, labels: Mapping[str, str]
    ) -> SimulatedContainer:
        """A new container; its name is free."""
        self._made += 1
        container_id = hashlib.sha256(f"{self.name}/{self._made}".encode()).hexdigest()
        program = self.programs.get((*(spec.command or ()), *(spec.args or ())), image.program)
        shown = Container(
            id=container_id,
            name=spec.name,
            labels=dict(labels),
            state=ContainerState.CREATED,
            image=spec.image,
            image_id=image.id,
            created_s=self._wall_s(),
        )
        made = SimulatedContainer(spec=spec, shown=shown, image=image, program=program)
        self.containers[container_id] = made
        self._notify(made)
        return made

    def start(self, container: SimulatedContainer) -> None:
        """Raises StartError."""
        program = container.program
        if program.start_exit_code:
            error = program.start_error or "exec: executable file not found in $PATH"
            self._show(container, exit_code=program.start_exit_code, error=error)
            raise StartError(error, exit_code=program.start_exit_code)
        address = self._address_for(container.spec)
        self._show(
            container,
            state=ContainerState.RUNNING,
            started_s=self._wall_s(),
            finished_s=0.0,
            exit_code=0,
            oom_killed=False,
            error="",
            address=address,
            pid=1000 + self._made,
        )
        container.ran_s = 0.0
        container.runs_since = _now()
        self._write_next(container, program.output)
        if 0 < container.spec.memory_limit_bytes < program.memory_bytes:
            self._end_later(container, OOM_AFTER_S, exit_code=SIGKILL_EXIT_CODE, oom_killed=True)
        elif program.runs_s is not None:
            self._end_later(container, program.runs_s, exit_code=program.exit_code)

    def ensure_network(self, network: BridgeNetwork, labels: Mapping[str, str]) -> None:
        """Raises NetworkTakenError."""
        has, owner = self.networks.get(network.name, (network, labels))
        if owner != labels:
            raise NetworkTakenError(f"the network {network.name} is there and is not this node's")
        if has != network and any(
            each.is_running and each.spec.network == network.name for each in self.containers.values()
        ):
            raise EngineError(f"the network {network.name} has other settings, and containers use it")
        for other, _ in self.networks.values():
            if other.name != network.name and ipaddress.ip_network(other.subnet).overlaps(
                ipaddress.ip_network(network.subnet)
            ):
                raise NetworkTakenError(
                    f"the network {other.name} has the range {other.subnet}, which overlaps {network.subnet}"
                )
        self.networks[network.name] = (network, labels)

    async def stop(self, container: SimulatedContainer, grace_s: float) -> None:
        """SIGTERM, SIGKILL after the grace; returns when it has ended."""
        program = container.program
        if not container.is_running:
            return
        if container.shown.state is ContainerState.PAUSED:
            self.unpause(container.shown.id)
        is_obeying = not program.ignores_sigterm and program.stop_s <= grace_s
        # It may end by itself before.
        end_s = program.stop_s if is_obeying else grace_s
        deadline = _now() + end_s
        while container.is_running and _now() < deadline:
            changed = container.changed
            try:
                async with asyncio.timeout_at(deadline):
                    await changed.wait()
            except TimeoutError:
                break
        if container.is_running:
            self._end(container, exit_code=program.stop_exit_code if is_obeying else SIGKILL_EXIT_CODE)

    def usage(self, container: SimulatedContainer) -> tuple[float, int]:
        """(cpu seconds since its start, memory in bytes)."""
        ran_s = container.ran_s
        if container.shown.state is ContainerState.RUNNING:
            ran_s += _now() - container.runs_since
        return ran_s * container.program.cpu_cores, container.program.memory_bytes

    # --- what happens behind the agent's back -------------------------------------------------------

    def load_image(self, image: str, program: Program | None = None) -> None:
        """Have an image that no registry knows, like one built on the host."""
        pushed = SimulatedRegistry()
        pushed.push(image, program)
        # What was built here has no digest: that is a registry's word.
        found = replace(pushed.find(parse_image_name(image), None), digest="")
        self.images |= {qualify(image): found, found.id: found}

    def ensure_sandbox_image(self) -> str:
        """The image of a program that only waits; it obeys SIGTERM."""
        if SANDBOX_IMAGE not in self.images:
            self.load_image(SANDBOX_IMAGE, Program(stop_exit_code=0, memory_bytes=0))
        return self.images[SANDBOX_IMAGE].id

    def add_foreign(
        self, name: str, labels: Mapping[str, str] | None = None, *, network: str = "", address: str = ""
    ) -> str:
        """A running container that is not ours; returns its id."""
        image = SimulatedImage(id="sha256:" + "f" * 64, digest="", program=Program(), size_bytes=0)
        spec = ContainerSpec(
            name=name, image="foreign", labels=labels or {}, network=network, address=address
        )
        container = self.create(spec, image, labels or {})
        self.start(container)
        return container.shown.id

    def add_foreign_network(self, name: str, subnet: str) -> None:
        """A network that is not ours."""
        gateway = str(ipaddress.ip_network(subnet)[1])
        network = BridgeNetwork(name=name, bridge=name, subnet=subnet, gateway=gateway, mtu=1500)
        self.networks[name] = (network, {})

    def write(self, container: SimulatedContainer, output: Output) -> None:
        """The container's program says something."""
        container.log.append((self._wall_s(), output))
        _wake(container)

    def kill_container(
        self, container_id: str, *, exit_code: int = SIGKILL_EXIT_CODE, oom_killed: bool = False
    ) -> None:
        """Its process ends: `docker kill`, a crash, the kernel."""
        self._end(self.get(container_id), exit_code=exit_code, oom_killed=oom_killed)

    def remove_container(self, container_id: str) -> None:
        """`docker rm -f`."""
        container = self.get(container_id)
        if container.is_running:
            self._end(container, exit_code=SIGKILL_EXIT_CODE)
        del self.containers[container_id]
        container.is_removed = True
        self._notify(container)

    def pause(self, container_id: str) -> None:
        """`docker pause`: its process stands still."""
        container = self.get(container_id)
        assert container.shown.state is ContainerState.RUNNING
        container.ran_s += _now() - container.runs_since
        if container.timer is not None and container.ends_at is not None:
            container.timer.cancel()
            container.remaining_s = container.ends_at - _now()
        self._show(container, state=ContainerState.PAUSED)

    def unpause(self, container_id: str) -> None:
        """`docker unpause`; no error if it is not paused."""
        container = self.get(container_id)
        if container.shown.state is not ContainerState.PAUSED:
            return
        container.runs_since = _now()
        self._show(container, state=ContainerState.RUNNING)
        if container.remaining_s is not None:
            self._end_later(container, container.remaining_s, exit_code=container.program.exit_code)
            container.remaining_s = None

    def fail_probes(self, container_id: str, words: str = "connection refused", *, place: str = "") -> None:
        """From now on probes of it fail, at one place (":8080/live") or at all."""
        self.get(container_id).faults[place] = words

    def heal_probes(self, container_id: str) -> None:
        """The end of `fail_probes`."""
        self.get(container_id).faults.clear()

    def fault_of(self, container: SimulatedContainer, place: str) -> str:
        """What a probe meets at a place; empty: an answer."""
        up_s = container.ran_s + _now() - container.runs_since
        if not container.is_running or up_s < container.program.serves_after_s:
            return "connection refused"
        return container.faults.get(place) or container.faults.get("", "")

    @property
    def is_frozen(self) -> bool:
        """Whether it answers nobody."""
        return not self._is_answering.is_set()

    def freeze(self) -> None:
        """The engine answers nobody; containers run on."""
        self._is_answering.clear()

    def thaw(self) -> None:
        """The end of `freeze`."""
        self._is_answering.set()

    def kill(self, *, with_containers: bool = False) -> None:
        """The engine's process dies, or with its containers the whole host."""
        self._is_up = False
        self._is_answering.set()
        for queue in self.subscribers:
            _offer(queue, None)
        self.subscribers.clear()
        if with_containers:
            for container in list(self.containers.values()):
                if container.is_running:
                    self._end(container, exit_code=SIGKILL_EXIT_CODE)

    def restart(self) -> None:
        """The engine comes back with what it had."""
        self._is_up = True

    # --- inside ---------------------------------------------------------------------------------------

    def _address_for(self, spec: ContainerSpec) -> str:
        """Raises StartError."""
        if spec.joins:
            joined = self.containers.get(spec.joins)
            if joined is None or not joined.is_running:
                raise StartError(
                    f"cannot join network of a non running container: {spec.joins}",
                    exit_code=EXIT_CODE_NOT_STARTED,
                )
            return ""
        if spec.network == HOST_NETWORK:
            return ""
        if not spec.network:
            return str(next(self._addresses))
        if spec.network not in self.networks:
            raise StartError(f"network {spec.network} not found", exit_code=EXIT_CODE_NOT_STARTED)
        if any(each.is_running and each.shown.address == spec.address for each in self.containers.values()):
            raise AddressTakenError("Address already in use", exit_code=EXIT_CODE_NOT_STARTED)
        return spec.address or str(next(self._addresses))

    def _must_be_up(self) -> None:
        if not self._is_up:
            raise EngineUnavailableError("cannot connect to the container engine: connection refused")

    def _write_next(self, container: SimulatedContainer, pieces: tuple[Output, ...]) -> None:
        if not pieces or not container.is_running:
            return
        self.write(container, pieces[0])
        if every_s := container.program.output_every_s:
            asyncio.get_running_loop().call_later(every_s, self._write_next, container, pieces[1:])
        else:
            self._write_next(container, pieces[1:])

    def _end_later(
        self, container: SimulatedContainer, delay_s: float, *, exit_code: int, oom_killed: bool = False
    ) -> None:
        container.ends_at = _now() + delay_s
        container.timer = asyncio.get_running_loop().call_at(
            container.ends_at, lambda: self._end(container, exit_code=exit_code, oom_killed=oom_killed)
        )

    def _end(self, container: SimulatedContainer, *, exit_code: int, oom_killed: bool = False) -> None:
        if not container.is_running:
            return
        if container.timer is not None:
            container.timer.cancel()
        container.timer = container.ends_at = container.remaining_s = None
        if container.shown.state is ContainerState.RUNNING:
            container.ran_s += _now() - container.runs_since
        self._show(
            container,
            state=ContainerState.EXITED,
            finished_s=self._wall_s(),
            exit_code=exit_code,
            oom_killed=oom_killed,
            address="",
            pid=0,
        )

    def _show(self, container: SimulatedContainer, **changes: Any) -> None:
        container.shown = replace(container.shown, **changes)
        self._notify(container)

    def _notify(self, container: SimulatedContainer) -> None:
        _wake(container)
        for queue in self.subscribers:
            _offer(queue, container.shown)


def _wake(container: SimulatedContainer) -> None:
    """Let everybody look again who waits for the container."""
    container.changed.set()
    container.changed = asyncio.Event()


def _offer(queue: asyncio.Queue[Container | None], item: Container | None) -> None:
    """A listener that does not listen loses events, as with Docker; never the end."""
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(item)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _wall_of_the_loop() -> float:
    return EPOCH_S + _now()
