"""What users want of a node: cordon, drain, labels, taints, and "this host is dead"."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_args

from bayplan.model.names import is_name
from bayplan.model.nodes import NodeIntent, Taint, TaintEffect
from bayplan.v1 import control_pb2 as api
from manager.control_api.documents import NotFoundError
from manager.errors import RefusedError
from manager.store import keys, records
from manager.store.port import Store
from manager.store.swap import retried, swap

# Kubernetes' syntax of label keys and values.
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


async def edit_node(store: Store, request: api.UpdateNodeRequest) -> tuple[bool, int]:
    """Change the intent; returns (changed, version).

    Raises NotFoundError for a node that never joined, RefusedError for bad labels or taints.
    """
    _check(request)
    if not is_name(request.name):
        raise NotFoundError(f"node {request.name[:80]!r} does not exist")
    key = keys.node_intent(request.name)

    async def attempt() -> tuple[bool, int] | None:
        registered = await store.get(keys.node(request.name))
        if registered is None:
            raise NotFoundError(f"node {request.name} does not exist")
        facts = records.decode_node(registered.value)
        found = await store.get(key)
        version = found.mod_revision if found is not None else 0
        before = records.decode_node_intent(found.value) if found is not None else NodeIntent()
        after = _edited(before, request, facts.boot_id)
        if after == before:
            return False, version
        written = await swap(store, key, records.encode_node_intent(after), version=version)
        return None if written is None else (True, written)

    return await retried(f"node {request.name}", attempt)


def _edited(intent: NodeIntent, request: api.UpdateNodeRequest, boot_id: str) -> NodeIntent:
    if request.HasField("unschedulable"):
        intent = replace(intent, unschedulable=request.unschedulable)
        if not request.unschedulable:
            intent = replace(intent, drain=False)
    if request.HasField("drain"):
        intent = replace(intent, drain=request.drain, unschedulable=request.drain or intent.unschedulable)
    labels = {**intent.labels, **dict(request.set_labels)}
    for key in request.remove_labels:
        labels.pop(key, None)
    removed = {(taint.key, taint.effect) for taint in request.remove_taints}
    taints = {
        (taint.key, taint.effect): taint
        for taint in intent.taints
        if (taint.key, taint.effect) not in removed and (taint.key, "") not in removed
    }
    for taint in request.set_taints:
        effect = _effect(taint.effect)
        taints[taint.key, effect] = Taint(key=taint.key, value=taint.value, effect=effect)
    return replace(
        intent,
        labels=labels,
        taints=tuple(sorted(taints.values())),
        lost_boot_id=boot_id if request.lost else intent.lost_boot_id,
    )


def _effect(text: str) -> TaintEffect:
    for effect in get_args(TaintEffect):
        if effect == text:
            found: TaintEffect = effect
            return found
    raise RefusedError(f"{text[:80]!r} is no effect of a taint: NoSchedule, PreferNoSchedule or NoExecute")


def _check(request: api.UpdateNodeRequest) -> None:
    pairs = [*request.set_labels.items(), *((taint.key, taint.value) for taint in request.set_taints)]
    for key, value in pairs:
        if not _KEY.fullmatch(key):
            raise RefusedError(f"{key[:80]!r} is no key of a label or taint")
        if not _VALUE.fullmatch(value):
            raise RefusedError(
                f"{value[:80]!r} is no value of a label or taint (at most 63 of A-Z a-z 0-9 - _ .)"
            )
