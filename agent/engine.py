"""What the container engine shows of ours, kept fresh.

Docker's events are hints: it drops them to slow listeners. A full listing every 15 s is the
truth. Both are taken at their beginning: what was seen later, by the runner that just made a
container, is never overwritten by an older picture.

The same place knows whether the engine answers at all, in its own words.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass

import structlog

from agent.next_step import in_order
from agent.runtime.port import (
    LABEL_CONTAINER,
    LABEL_POD,
    Container,
    ContainerGoneError,
    EngineError,
    EngineUnavailableError,
    Runtime,
)

log = structlog.get_logger(__name__)

LIST_EVERY_S = 15.0
LIST_AGAIN_S = 2.0  # While the engine does not answer.
# A call that hangs longer than this is an outage; Docker answers these in milliseconds. A listing
# looks at every container, and bears some that hang.
LOOK_TIMEOUT_S = 10.0
LIST_TIMEOUT_S = 20.0
# Restarting Docker takes some seconds: shorter silence is not worth an alarm.
OUTAGE_AFTER_S = 10.0
# Starting one container gives three hints, and its runner looks by itself meanwhile: what was looked at since
# needs no other look, and what others do, and ends, bear a moment.
HINT_GATHER_S = 0.2
# More changed pods than this are cheaper to list than to inspect one by one.
INSPECT_MAX = 4
HINTS_RETRY_S = 1.0


@dataclass(slots=True)
class _Seen:
    container: Container
    look: int  # Number of the look that showed it.


class Engine:
    """One per agent. `changed` is called with a pod's uid whenever its containers changed."""

    def __init__(self, runtime: Runtime, changed: Callable[[str], None]) -> None:
        self._runtime = runtime
        self._changed = changed
        self._seen: dict[str, _Seen] = {}  # By container id.
        self._looks = 0
        self.is_known = asyncio.Event()  # The engine was listed at least once.
        self._hinted: dict[str, int] = {}  # By pod: how many looks had begun at the last hint of it.
        self._has_hints = asyncio.Event()
        self._list_now = asyncio.Event()
        self._failing_since_s: float | None = None
        self._failure = ""

    # What is seen

    def of(self, pod_uid: str) -> tuple[Container, ...]:
        """The pod's containers, oldest attempt first."""
        return in_order(
            [
                seen.container
                for seen in self._seen.values()
                if seen.container.labels.get(LABEL_POD) == pod_uid
            ]
        )

    def all(self) -> list[Container]:
        return [seen.container for seen in self._seen.values()]

    def note(self, container: Container) -> None:
        """The engine has just shown it."""
        self._looks += 1
        self._put(container, self._looks)

    def note_removed(self, container_id: str) -> None:
        seen = self._seen.pop(container_id, None)
        if seen is not None:
            self._changed(seen.container.labels.get(LABEL_POD, ""))

    async def look(self, container_id: str) -> Container | None:
        """Ask for one container now. None: it is gone. Raises EngineError."""
        self._looks += 1
        look = self._looks
        try:
            async with self.call():
                container = await self._runtime.inspect(container_id)
        except ContainerGoneError:
            self.note_removed(container_id)
            return None
        self._put(container, look)
        return container

    def list_soon(self) -> None:
        """Something is unclear: list everything now."""
        self._list_now.set()

    # Whether it answers

    @contextlib.asynccontextmanager
    async def call(self, timeout_s: float = LOOK_TIMEOUT_S) -> AsyncIterator[None]:
        """Around a quick call: notes whether the engine answers. Raises EngineUnavailableError for a hung one."""
        began_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError as error:
            silent = EngineUnavailableError(f"no answer from the container engine within {timeout_s:.0f} s")
            self.failed(silent, since_s=began_s)
            raise silent from error
        except EngineUnavailableError as error:
            self.failed(error, since_s=began_s)
            raise
        self._failing_since_s = None

    def failed(self, error: EngineUnavailableError, *, since_s: float) -> None:
        if self._failing_since_s is None:
            self._failing_since_s = since_s
            self._list_now.set()
        self._failure = str(error)

    def outage(self) -> str:
        """The engine's words if it has not answered for a while, else empty."""
        if self._failing_since_s is None:
            return ""
        is_long = asyncio.get_running_loop().time() - self._failing_since_s >= OUTAGE_AFTER_S
        return self._failure if is_long else ""

    # Looking

    async def run(self) -> None:
        """Look until cancelled."""
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._list_always(), name="engine-listing")
            parts.create_task(self._hear_hints(), name="engine-hints")
            parts.create_task(self._follow_hints(), name="engine-looks")

    async def _list_always(self) -> None:
        while True:
            self._list_now.clear()
            try:
                await self.list()
            except EngineError as error:
                log.warning("engine.not_listed", error=str(error))
                await asyncio.sleep(LIST_AGAIN_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LIST_EVERY_S):
                    await self._list_now.wait()

    async def list(self) -> None:
        """List everything. Raises EngineError."""
        self._looks += 1
        look = self._looks
        async with self.call(LIST_TIMEOUT_S):
            containers = await self._runtime.list_containers()
        shown = {container.id for container in containers}
        for container in containers:
            self._put(container, look)
        for container_id, seen in list(self._seen.items()):
            if container_id not in shown and seen.look < look:
                self.note_removed(container_id)
        if not self.is_known.is_set():
            self.is_known.set()
            self._changed("")

    async def _hear_hints(self) -> None:
        while True:
            try:
                async for pod_uid in self._runtime.hints():
                    self._hinted[pod_uid] = self._looks
                    self._has_hints.set()
            except EngineError as error:
                log.warning("engine_hints.lost", error=str(error))
            await asyncio.sleep(HINTS_RETRY_S)
            self._list_now.set()

    async def _follow_hints(self) -> None:
        while True:
            await self._has_hints.wait()
            await asyncio.sleep(HINT_GATHER_S)
            self._has_hints.clear()
            hinted, self._hinted = self._hinted, {}
            stale = [
                one for uid in hinted for one in self._newest(uid) if self._seen[one].look <= hinted[uid]
            ]
            try:
                # "" is the subscription itself. Of a pod without containers the runner is making the first
                # or has removed the last: it notes what it does.
                if "" in hinted or len(stale) > INSPECT_MAX:
                    await self.list()
                else:
                    async with asyncio.TaskGroup() as looks:
                        for container_id in stale:
                            looks.create_task(self._look_quietly(container_id))
            except EngineError as error:
                log.warning("engine.not_listed", error=str(error))

    def _newest(self, pod_uid: str) -> Collection[str]:
        """Ids of the last attempts of the pod's containers."""
        return {each.labels.get(LABEL_CONTAINER, ""): each.id for each in self.of(pod_uid)}.values()

    async def _look_quietly(self, container_id: str) -> None:
        try:
            await self.look(container_id)
        except EngineError as error:
            # One stuck container says nothing about the others; the listing will show it.
            log.warning("container.not_inspected", container=container_id[:12], error=str(error))

    def _put(self, container: Container, look: int) -> None:
        seen = self._seen.get(container.id)
        if seen is not None and seen.look > look:
            return
        self._seen[container.id] = _Seen(container, look)
        if seen is None or seen.container != container:
            self._changed(container.labels.get(LABEL_POD, ""))
