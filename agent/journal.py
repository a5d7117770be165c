"""What the agent must still know after a restart, in one small file.

Assignments and the epoch they came from, what it remembers of each pod, which image a revision
was resolved to. Written whole beside the old one, synced and renamed over it, so that a crash
leaves one or the other. A file that cannot be read is set aside: the engine's labels say what
runs, and the leader says the rest; an agent must never fail to start because of it.

Docker is the truth for what runs, so a write that is lost costs little: attempts and restarts
are read from the containers' labels again. The epoch alone must be on disk before it is obeyed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import structlog
from google.protobuf import json_format

from agent.fence import Fence
from agent.pod_memory import PodMemory
from agent.pod_spec import UNNAMED
from agent.runtime.port import EngineInfo
from bayplan.identity.credentials import write_private
from bayplan.v1 import agent_link_pb2 as pb

log = structlog.get_logger(__name__)

FORMAT = 1
FILE_NAME = "journal.json"
# A burst of fifty starts becomes a few writes instead of hundreds.
SAVE_EVERY_S = 0.5


@dataclass(slots=True, kw_only=True)
class Facts:
    """The journal's content."""

    cluster: str = ""  # That the node belongs to.
    label_cluster: str = ""  # That its containers are labelled with; never changes.
    fence: Fence = field(default_factory=Fence)
    boot_id: str = ""
    managers: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()  # Nodes that the leader told of.
    default_registry: str = ""
    engine: EngineInfo | None = None  # As it was last seen: capacity must be known while it is down.
    assignments: dict[str, pb.Assignment] = field(default_factory=dict)
    memories: dict[str, PodMemory] = field(default_factory=dict)
    # "<workload uid>/<revision>/<image>" → (what to run, digest).
    images: dict[str, tuple[str, str]] = field(default_factory=dict)


class Journal:
    """`facts` are changed in place; `touch` has them saved soon, `save` waits until they are."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._touched = asyncio.Event()
        self._writing = asyncio.Lock()
        self.facts = Facts()

    def load(self) -> None:
        """Read it. A damaged one is set aside as `journal.json.damaged`."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            text = self._path.read_text()
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            self._set_aside(error)
            return
        try:
            self.facts = _from_document(json.loads(text))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the agent starts
            self._set_aside(error)

    def touch(self) -> None:
        """Save soon."""
        self._touched.set()

    async def save(self) -> None:
        """Save now. Raises OSError."""
        async with self._writing:
            self._touched.clear()
            text = json.dumps(_to_document(self.facts), separators=(",", ":"))
            await asyncio.to_thread(write_private, self._path, text.encode())

    async def run(self) -> None:
        """Save what was touched, until cancelled; a last time then."""
        try:
            while True:
                await self._touched.wait()
                await self._save_or_warn()
                await asyncio.sleep(SAVE_EVERY_S)
        finally:
            if self._touched.is_set():
                with contextlib.suppress(OSError):
                    write_private(
                        self._path, json.dumps(_to_document(self.facts), separators=(",", ":")).encode()
                    )

    async def _save_or_warn(self) -> None:
        try:
            await self.save()
        except OSError as error:
            # A full disk must not end the agent; what runs goes on, and the engine's labels tell most of it.
            log.warning("journal.not_saved", path=str(self._path), error=str(error))
            self._touched.set()

    def _set_aside(self, error: Exception) -> None:
        aside = self._path.with_suffix(".json.damaged")
        log.warning("journal.set_aside", path=str(self._path), to=str(aside), error=str(error))
        with contextlib.suppress(OSError):
            self._path.replace(aside)


def forget_pods(facts: Facts, uids: Iterable[str]) -> None:
    """Drop pods, and the images of revisions that no pod of this node has any more."""
    for uid in uids:
        facts.assignments.pop(uid, None)
        facts.memories.pop(uid, None)
    kept = {f"{each.workload_uid}/{each.revision}/" for each in facts.assignments.values()}
    facts.images = {
        key: image for key, image in facts.images.items() if any(key.startswith(prefix) for prefix in kept)
    }


def _to_document(facts: Facts) -> dict[str, Any]:
    templates: dict[str, str] = {}
    assignments = []
    for assignment in facts.assignments.values():
        # Pods of one revision share a template of some KiB: written once.
        key = f"{assignment.workload_uid}/{assignment.revision}"
        templates[key] = assignment.template_json
        slim = pb.Assignment()
        slim.CopyFrom(assignment)
        slim.template_json = ""
        assignments.append(json_format.MessageToDict(slim, preserving_proto_field_name=True))
    return {
        "format": FORMAT,
        "cluster": facts.cluster,
        "label_cluster": facts.label_cluster,
        "epoch": {
            "store": facts.fence.store,
            "revision": facts.fence.revision,
            "commit_sequence": facts.fence.commit_sequence,
        },
        "boot_id": facts.boot_id,
        "managers": list(facts.managers),
        "peers": list(facts.peers),
        "default_registry": facts.default_registry,
        "engine": asdict(facts.engine) if facts.engine else None,
        "templates": templates,
        "assignments": assignments,
        "memories": {uid: memory.to_document() for uid, memory in facts.memories.items()},
        "images": {key: list(image) for key, image in facts.images.items()},
    }


def _from_document(document: dict[str, Any]) -> Facts:
    if document["format"] != FORMAT:
        raise ValueError(f"format {document['format']!r} is not {FORMAT}")
    assignments = {}
    for slim in document["assignments"]:
        assignment = json_format.ParseDict(slim, pb.Assignment(), ignore_unknown_fields=True)
        key = f"{assignment.workload_uid}/{assignment.revision}"
        assignment.template_json = document["templates"].get(key, "")
        assignments[assignment.uid] = assignment
    return Facts(
        cluster=document["cluster"],
        label_cluster=document["label_cluster"],
        fence=Fence(**document["epoch"]),
        boot_id=document["boot_id"],
        managers=tuple(document["managers"]),
        peers=tuple(document.get("peers", ())),  # Written since; a journal without them is whole too.
        default_registry=document["default_registry"],
        engine=EngineInfo(**document["engine"]) if document["engine"] else None,
        assignments=assignments,
        memories={
            uid: PodMemory.from_document(each, only_container=_only_container(assignments.get(uid)))
            for uid, each in document["memories"].items()
        },
        images={key: (image[0], image[1]) for key, image in document["images"].items()},
    )


def _only_container(assignment: pb.Assignment | None) -> str:
    """The name of a pod's first container: agents that only knew of one did not write which."""
    if assignment is None or not assignment.template_json:
        return UNNAMED
    return json.loads(assignment.template_json)["spec"]["containers"][0].get("name") or UNNAMED
